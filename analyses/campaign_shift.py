"""How far each task of the campaign lies from its network's pretraining, and what a pass costs.

    python -m analyses.campaign_shift --assets DIR [--out results/evidence] [--network NAME ...]

Nothing is trained and no label is read: 150 training pictures of each task, of the campaign's draw
of seed 0. Writes shift.csv (network, task, layer, what the distance is measured from: the
running moments of BatchNorm, or `REFERENCES`) and operations.csv (of every piece, for one image,
and which place is the paper's). Rows of networks that are not asked for stay.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import aptheory as ap
from analyses.campaign_plan import NEAR, NETWORKS, load_network, load_task
from analyses.layer_cases import paper_layer
from aptheory.training.cost import piece_operations

REFERENCES = {"cifar": "cifar10_jpeg", "imagenet": "caltech100"}
"""Images like the pretraining's: test pictures of CIFAR-10 itself, and photographs of objects."""
IMAGES = 150


def reference_of(network: str, assets: Path) -> Any:
    """The pictures that stand for a network's pretraining; of CIFAR-10 those of its test split."""
    pretraining = "cifar" if NETWORKS[network].weights.startswith("cifar10") else "imagenet"
    return load_task(REFERENCES[pretraining], 0, assets).test


def shifts(net: ap.Network, assets: Path) -> Iterator[pd.DataFrame]:
    """The shift at every place on each of the network's tasks, by both kinds of moments."""
    reference = reference_of(net.name, assets)
    spec = NETWORKS[net.name]
    for name in spec.tasks:
        task = load_task(name, 0, assets)
        for origin, given in (("running moments", None), ("reference", reference)):
            if given is None and spec.kind == "vit":
                continue  # LayerNorm keeps no moments of its pretraining
            table = ap.profile(
                net, task, measures=("moment_shift",), reference=given, limit=IMAGES, batch_size=50
            )
            yield table.assign(kind=spec.kind, near=name in NEAR, origin=origin)


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--network", action="append", choices=[*NETWORKS])
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    torch.set_num_threads(1)
    chosen = asked.network or [*NETWORKS]
    about = ["network", "kind", "task", "near", "origin", "layer", "depth"]
    for name in chosen:
        net = load_network(name, Path(asked.assets))
        operations = piece_operations(net)
        costs = [
            {"network": name, "layer": layer, "forward": forward, "backward": backward}
            | {"papers_place": layer == paper_layer(net)}
            for layer, (forward, backward) in enumerate(
                zip(operations.forward, operations.backward, strict=True)
            )
        ]
        table = pd.concat(shifts(net, Path(asked.assets)))[[*about, "value", "low", "high"]]
        table = table.rename(columns={"value": "shift"}).round(5)
        put_in_place(asked.out / "shift.csv", table)
        put_in_place(asked.out / "operations.csv", pd.DataFrame(costs))
        print(f"{name}: {len(table)} rows", flush=True)


def put_in_place(path: Path, rows: pd.DataFrame) -> None:
    """Write a network's rows in the place of those that a table holds of it, the others as they
    stand."""
    if path.is_file():
        known = pd.read_csv(path)
        rows = pd.concat([known[~known["network"].isin(rows["network"])], rows])
    rows.to_csv(path, index=False)


if __name__ == "__main__":
    main()

"""How much of a trained prompt is a shift of the next norm, layer by layer?

    python -m analyses.norm_and_prompt [--network NAME ...] [--task NAME ...] [--places 4]
        [--assets DIR] [--out results/norm_and_prompt]

Trains, at a few places of each network on each task, prompts and norms at the same rates, and takes
the prompts apart (`aptheory.compare_norm`): tables table.csv, parts.csv and backwards.csv in OUT, a
pair at a time; a pair that stands there is passed over. Packaged networks and tasks by default;
with --assets the campaign's too, by the campaign's names. One seed; a user asks the same of his own
network with `aptheory compare-norm NETWORK --task T`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import aptheory as ap
from analyses.campaign_plan import NETWORKS, load_network, load_task

TABLES = ("table", "parts", "backwards")
RECIPE = ap.Recipe(epochs=20, batch_size=64)
RATES = (1e-2, 3e-2)


def places_of(net: ap.Network, count: int) -> list[int]:
    """The image, and so many places more, evenly between it and the last map."""
    last = len(net.layers) - 2
    return sorted({*np.linspace(0, last, count).round().astype(int).tolist()})


def opened(name: str, task: str, assets: Path | None) -> tuple[ap.Network, ap.Task]:
    """A packaged network and task, or the campaign's."""
    net = load_network(name, assets) if assets and name in NETWORKS else ap.load(name)
    if assets and any((assets / f"{task}.{end}").is_file() for end in ("npz", "zip")):
        return net, load_task(task, 0, assets)
    whole = ap.task(task)
    return net, whole.subset(train=200, val=100, test=min(400, len(whole.test)), seed=0)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append")
    parser.add_argument("--task", action="append")
    parser.add_argument("--places", type=int, default=4)
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/norm_and_prompt"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    done: set[tuple[Any, Any]] = set()
    if (asked.out / "parts.csv").is_file():
        parts = pd.read_csv(asked.out / "parts.csv")
        done = set(zip(parts["network"], parts["task"], strict=True))
    assets = Path(asked.assets) if asked.assets else None
    for name in asked.network or ("aptheory_resnet_mini", "aptheory_vit_mini"):
        for task in asked.task or ("digits", "objects"):
            if (name, task) in done:
                continue
            net, images = opened(name, task, assets)
            layers = places_of(net, asked.places)
            found = ap.compare_norm(net, images, layers=layers, recipe=RECIPE, lrs=RATES)
            for table in TABLES:
                rows = getattr(found, table)
                rows.insert(0, "network", name)
                rows.insert(1, "task", task)
                path = asked.out / f"{table}.csv"
                header = not path.is_file()
                rows.round(6).to_csv(path, mode="a", header=header, index=False)
            print(found, flush=True)


if __name__ == "__main__":
    main()

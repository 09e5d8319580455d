"""Do deep CNN layers look like the middle layers of a ViT? (claim 14)

    python -m analyses.cka_between [--out runs/cka_between] [--assets DIR]

Unbiased minibatch CKA between every layer of a CNN and every layer of a ViT on the same images,
for the embedded pair and, where they are at hand, for real pretrained pairs.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from aptheory.exploration import write_table
from aptheory.metrics import CKA
from aptheory.studies.sources import load_network, load_task
from aptheory.tasks import loader

PAIRS: list[tuple[Any, Any, Any]] = [
    (
        {"name": "aptheory_resnet_mini"},
        {"name": "aptheory_vit_mini"},
        {"name": task, "train": 384, "val": 8, "test": 8},
    )
    for task in ("digits", "textures", "objects")
]


def real_pairs(assets: Path) -> list[tuple[Any, Any, Any]]:
    """MobileNetV2-0.35 and ResNet-56 against ViT-Tiny on real images."""
    from analyses.real_weights import studies

    known = studies(assets)
    vit = known["vit-gtsrb32"].networks[0]
    mobile = known["mobilenet-gtsrb32"].networks[0]
    resnet = known["resnet56-gtsrb32"].networks[0]
    some = {"train": 256, "val": 50, "test": 50}
    signs = dict(known["vit-gtsrb32"].tasks[0]) | some | {"train": 258, "val": 43, "test": 43}
    textures = dict(known["vit-dtd10"].tasks[0]) | some
    return [(mobile, vit, signs), (mobile, vit, textures), (resnet, vit, signs)]


@torch.no_grad()
def between(first: Any, second: Any, task_spec: Any, *, batch_size: int = 64) -> pd.DataFrame:
    """CKA of every layer of one network with every layer of another, a tidy row a pair."""
    a, b, task = load_network(first), load_network(second), load_task(task_spec)
    estimate = CKA(len(a.layers) + len(b.layers))
    for (x, _), (y, _) in zip(
        loader(task.train, a, batch_size), loader(task.train, b, batch_size), strict=True
    ):
        for net, images in ((a, x), (b, y)):
            for layer, z in net.walk(images, stops=net.layers):
                estimate.add(layer.pooled(z, "all"))
        estimate.end_batch()
    values = estimate.compute().value
    rows = [
        (a.name, task.name, i, "cka", b.name, j, float(values[i, len(a.layers) + j]))
        for i in range(len(a.layers))
        for j in range(len(b.layers))
    ]
    columns = ["network", "task", "layer", "measure", "other_network", "other_layer", "value"]
    return pd.DataFrame(rows, columns=columns)


def main(out: Path = Path("runs/cka_between"), *, assets: Path | None = None) -> pd.DataFrame:
    """All pairs into one table."""
    pairs = PAIRS + (real_pairs(assets) if assets else [])
    table = pd.concat([between(*pair) for pair in pairs], ignore_index=True)
    write_table(table, out / "cka.csv")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/cka_between"))
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    chosen = parser.parse_args()
    print(main(chosen.out, assets=chosen.assets))

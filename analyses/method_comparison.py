"""AP beside the other ways to adapt a frozen network, under equal budgets. (claims 9, 10, 23)

    python -m analyses.method_comparison [--assets DIR] [--out runs/methods] [--full]

Every method that fits trains on both embedded networks with the same epochs, the same search over
learning rates (chosen on validation data for each run by itself) and the same seeds; the prompt
that is read earlier, the probe of the best layer, that of all layers, and VQT on the ViT are among
them. With --assets also on the real ResNet-56 (traffic signs) and ViT-Tiny (textures), on small
seeded subsets. Writes accuracy.csv and comparison.csv: mean and interval, paired difference from
AP, parameters, rank; in OUT for the embedded networks and in OUT/NAME for a real one.
"""

import argparse
from pathlib import Path

import pandas as pd

from analyses.real_weights import resnet56, vit_tiny
from aptheory.exploration import write_table
from aptheory.findings.compare import compare
from aptheory.studies.study import Study
from aptheory.studies.sweep import sweep

READINGS = ("ap", "ap:read=best", "layer_probe:layer=all")
"""The published prompt, the one that is read where the layer probes read best, and the probe of all
layers side by side; the probe of the best layer is among the controls."""
METHODS = (
    *READINGS,
    "norm_tuning",
    "bitfit",
    "partial",
    "full",
    "vpt",
    "vqt",
    "vapt",
    "gate_vpt",
    "e2vpt",
    "lora",
    "adapter",
    "ssf",
)


def study(*, full: bool = False) -> Study:
    """The study behind the table."""
    sizes = (
        {"train": 400, "val": 200, "test": 1000}
        if full
        else {"train": 120, "val": 100, "test": 300}
    )
    names = ("digits", "objects", "counting", "textures", "cells", "orientation")
    return Study(
        name="methods",
        networks=["aptheory_vit_mini", "aptheory_resnet_mini"],
        tasks=[{"name": name, **sizes} for name in (names if full else names[:3])],
        methods=METHODS,
        layers=[0.0, 0.25, 0.5, 0.75, 1.0],
        recipes=[{"base": "quick", "name": "quick", "epochs": 30 if full else 6}],
        seeds=range(5 if full else 3),
        search={"lr": (1e-2, 1e-3)},
    )


def real_studies(assets: Path) -> dict[str, Study]:
    """The methods that fit a real network, on what the hours of two cores allow."""
    common = {
        "layers": [0.0, 0.33, 0.66, 1.0],
        "seeds": range(3),
        "search": {"lr": (1e-2, 1e-3)},
    }
    recipe = {"base": "quick", "name": "quick", "precision": "bfloat16"}
    signs = {"name": f"npz:{assets / 'gtsrb32.npz'}", "train": 215, "val": 129, "test": 430}
    textures = {"name": f"folder:{assets / 'dtd10.zip'}", "train": 80, "val": 50, "test": 150}
    return {
        "resnet56-gtsrb32": Study(
            name="methods-resnet56-gtsrb32",
            networks=[resnet56(assets)],
            tasks=[signs],
            methods=(*READINGS, "norm_tuning", "bitfit", "partial", "lora", "ssf"),
            recipes=[recipe | {"epochs": 6}],
            **common,
        ),
        "vit-dtd10": Study(
            name="methods-vit-dtd10",
            networks=[vit_tiny(assets)],
            tasks=[textures],
            methods=(*READINGS, "norm_tuning", "bitfit", "vpt", "vqt", "vapt", "lora", "ssf"),
            recipes=[recipe | {"epochs": 4}],
            **common,
        ),
    }


def main(
    out: Path = Path("runs/methods"),
    *,
    full: bool = False,
    assets: Path | None = None,
    only: str | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Run or continue the studies; returns their comparisons, one below the other."""
    studies = {".": study(full=full)} | (real_studies(assets) if assets else {})
    tables = []
    for name, one in studies.items():
        if only not in (None, name):
            continue
        sweep(one, out / name, workers=workers)
        table = compare(out / name)
        write_table(table, out / name / "comparison.csv")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--assets", type=Path, help="folder of real weights and images")
    parser.add_argument("--only", help='one study: ".", the embedded networks, or a real one')
    parser.add_argument("--workers", type=int)
    print(main(**vars(parser.parse_args())).to_string(index=False))

"""AP beside the other ways to adapt a frozen network, under equal budgets. (claims 9, 10, 23)

    python -m analyses.method_comparison [--out runs/methods] [--full]

Every method that fits trains on both embedded networks with the same epochs, the same search over
learning rates (chosen on validation data for each run by itself) and the same seeds. Writes
accuracy.csv and comparison.csv: mean and interval, paired difference from AP, parameters, rank.
"""

import argparse
from pathlib import Path

import pandas as pd

from aptheory.comparison import compare
from aptheory.explore import write_table
from aptheory.study import Study
from aptheory.sweep import sweep

METHODS = (
    "ap",
    "norm_tuning",
    "bitfit",
    "partial",
    "full",
    "vpt",
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
        else {"train": 100, "val": 100, "test": 300}
    )
    names = ("digits", "textures", "objects", "cells", "counting", "orientation")
    return Study(
        name="methods",
        networks=["aptheory_vit_mini", "aptheory_resnet_mini"],
        tasks=[{"name": name, **sizes} for name in (names if full else ("objects",))],
        methods=METHODS,
        layers=[0.0, 0.25, 0.5, 0.75, 1.0],
        recipes=[{"base": "quick", "name": "quick", "epochs": 30 if full else 6}],
        seeds=range(5 if full else 3),
        search={"lr": (1e-2, 1e-3)},
    )


def main(
    out: Path = Path("runs/methods"), *, full: bool = False, workers: int | None = None
) -> pd.DataFrame:
    """Run or continue the study; returns the comparison."""
    sweep(study(full=full), out, workers=workers)
    table = compare(out)
    write_table(table, out / "comparison.csv")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int)
    chosen = parser.parse_args()
    print(main(chosen.out, full=chosen.full, workers=chosen.workers).to_string(index=False))

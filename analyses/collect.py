"""Copy the tables of finished runs into results/, in a short form that can be committed.

    python -m analyses.collect [--runs runs] [--to results]

Only what the claims and figures read is kept: no settings, no timings, five digits.
"""

import argparse
from pathlib import Path

import pandas as pd

TABLES = {
    "equivalence/equivalence.csv": "equivalence.csv",
    "layer_preference/accuracy.csv": None,
    "layer_preference/profile.csv": None,
    "layer_preference/relation.csv": None,
    "layer_preference/across.csv": None,
    "layer_choice/summary.csv": None,
    "layer_choice/regret.csv": None,
    "layer_choice/searches.csv": None,
    "predicted_curves/predicted_curves.csv": None,
    "methods/accuracy.csv": None,
    "methods/comparison.csv": None,
    "cka_between/cka.csv": None,
    "prompt_views/views.csv": None,
    "cost/steps.csv": None,
    "cost/steps_full.csv": None,
    "cost/layer_sweep.csv": None,
    "cost/layer_sweep_large.csv": None,
    "cost/growth.csv": None,
    "cost/parameters.csv": None,
}
DROPPED = ("module", "features", "split", "images", "settings", "recipe", "group")
KEPT_MEASURES = ("val_accuracy", "test_accuracy")


def slim(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns and measures that nothing reads."""
    table = table.drop(columns=[name for name in DROPPED if name in table])
    if {"seed", "method", "measure"} <= set(table):
        table = table[table["measure"].isin(KEPT_MEASURES)]
    return table.dropna(axis=1, how="all")


def collect(runs: Path, to: Path) -> list[Path]:
    """Copy every table that is there; returns what was written."""
    found = {runs / source: to / (target or source) for source, target in TABLES.items()}
    patterns = [
        f"{study}/*/{table}.csv"
        for study in ("layer_preference", "real")
        for table in ("accuracy", "profile", "relation")
    ]
    patterns += ["methods/*/accuracy.csv", "methods/*/comparison.csv", "theory/*/*.csv"]
    for pattern in patterns:
        found |= {path: to / path.relative_to(runs) for path in sorted(runs.glob(pattern))}
    written = []
    for source, target in found.items():
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            slim(pd.read_csv(source)).to_csv(target, index=False, float_format="%.5g")
            written.append(target)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--to", type=Path, default=Path("results"))
    chosen = parser.parse_args()
    for path in collect(chosen.runs, chosen.to):
        print(path)

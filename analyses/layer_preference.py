"""Where does a prompt work best, on every embedded network and task, and do the metrics explain it?

    python -m analyses.layer_preference [--out runs/layer_preference] [--full]

Every embedded network, the pretrained ones and the same architectures with random weights (an
explanation that also explains an untrained network explains nothing), on every embedded task; AP
at every layer with all its controls, three seeds (five with --full). Writes accuracy.csv,
profile.csv, relation.csv, across.csv and the page.
"""

import argparse
from pathlib import Path

import pandas as pd

from aptheory.explore import explore, write_table
from aptheory.relate import across
from aptheory.study import Study

NETWORKS = ("aptheory_vit_mini", "aptheory_resnet_mini")
TASKS = (
    "digits",
    "textures",
    "objects",
    "cells",
    "counting",
    "position",
    "orientation",
    "distance",
)
RANDOM = [{"name": name, "weights": "random", "label": f"{name} (random)"} for name in NETWORKS]


def study(*, full: bool = False) -> Study:
    """The study behind the table."""
    sizes = (
        {"train": 400, "val": 200, "test": 1000}
        if full
        else {"train": 300, "val": 150, "test": 500}
    )
    return Study(
        name="layer_preference",
        networks=[*NETWORKS, *RANDOM] if full else [*NETWORKS, RANDOM[0], RANDOM[1]],
        tasks=[{"name": name, **sizes} for name in TASKS],
        methods=["ap"],
        layers="all",
        recipes=[{"base": "quick", "name": "quick", "epochs": 30 if full else 12}],
        seeds=range(5 if full else 3),
    )


def main(out: Path = Path("runs/layer_preference"), *, full: bool = False) -> pd.DataFrame:
    """Run or continue the study; returns the relation summarised over networks and tasks."""
    explore(study(full=full), out, images=300)
    relation = pd.read_csv(out / "relation.csv")
    pretrained = relation[~relation["network"].str.contains("random")]
    untrained = relation[relation["network"].str.contains("random")]
    summary = pd.concat(
        [
            across(pretrained).assign(weights="pretrained"),
            across(untrained).assign(weights="random"),
        ]
    )
    write_table(summary, out / "across.csv")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/layer_preference"))
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    print(main(chosen.out, full=chosen.full).to_string(index=False))

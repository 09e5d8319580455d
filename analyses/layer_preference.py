"""Where does a prompt work best on the embedded networks and tasks, and do the metrics explain it?

    python -m analyses.layer_preference [--out runs/layer_preference] [--full] [--workers N]

Three sweeps of AP with all its controls, three seeds: the two embedded networks at every layer
("pretrained", in OUT itself); the same architectures with random weights ("random": an explanation
that also explains an untrained network explains nothing); and two more networks of other depth and
kind at some layers ("more"). With --full all eight tasks, every layer, more images, epochs and
seeds. Each folder gets accuracy.csv, profile.csv, relation.csv and the page; across.csv sums up.
"""

import argparse
from pathlib import Path

import pandas as pd

from aptheory.exploration import explore, write_table
from aptheory.findings.relate import across
from aptheory.studies.study import Study

NETWORKS = ("aptheory_vit_mini", "aptheory_resnet_mini")
MORE = ("aptheory_vit_gap_mini", "aptheory_resnet_deep_mini")
RANDOM = tuple(
    {"name": name, "weights": "random", "label": f"{name} (random)"} for name in NETWORKS
)
GROUPS: dict[str, tuple] = {"pretrained": NETWORKS, "random": RANDOM, "more": MORE}
SHORT = {
    "pretrained": ("digits", "objects", "textures", "cells", "counting", "orientation"),
    "random": ("objects", "counting"),
    "more": ("digits", "objects", "counting", "orientation"),
}
FULL = (*SHORT["pretrained"], "position", "distance")
SOME_LAYERS = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0]


def study(group: str = "pretrained", *, full: bool = False) -> Study:
    """The sweep of one group of networks."""
    short = {"train": 200, "val": 100, "test": 400}
    sizes = {"train": 400, "val": 200, "test": 1000} if full else short
    return Study(
        name=f"layer_preference_{group}",
        networks=GROUPS[group],
        tasks=[{"name": name, **sizes} for name in (FULL if full else SHORT[group])],
        methods=["ap"],
        layers="all" if full or group == "pretrained" else SOME_LAYERS,
        recipes=[{"base": "quick", "name": "quick", "epochs": 30 if full else 8}],
        seeds=range(5 if full else 3),
    )


def folder(group: str, out: Path) -> Path:
    """Where a group's tables go: OUT itself, or OUT/GROUP."""
    return out if group == "pretrained" else out / group


def main(
    out: Path = Path("runs/layer_preference"), *, full: bool = False, workers: int | None = None
) -> pd.DataFrame:
    """Run or continue the sweeps; returns the relation summarised over networks and tasks."""
    summaries = []
    for group in GROUPS:
        into = folder(group, out)
        explore(study(group, full=full), into, images=300, workers=workers)
        relation = pd.read_csv(into / "relation.csv")
        summaries.append(across(relation).assign(sweep=group))
    summary = pd.concat(summaries)
    write_table(summary, out / "across.csv")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/layer_preference"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int)
    chosen = parser.parse_args()
    print(main(chosen.out, full=chosen.full, workers=chosen.workers).to_string(index=False))

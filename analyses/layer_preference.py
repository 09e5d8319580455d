"""Where does a prompt work best on the embedded networks and tasks, and do the metrics explain it?

    python -m analyses.layer_preference [--out runs/layer_preference] [--full] [--workers N]

Both embedded networks, and the same architectures with random weights (an explanation that also
explains an untrained network explains nothing), on embedded tasks; AP at every layer with all its
controls, three seeds. With --full all eight tasks, more images, epochs and seeds. Writes
accuracy.csv, profile.csv, relation.csv, across.csv and the page.
"""

import argparse
from pathlib import Path

import pandas as pd

from aptheory.explore import explore, write_table
from aptheory.relate import across
from aptheory.study import Study

NETWORKS = ("aptheory_vit_mini", "aptheory_resnet_mini")
SHORT = ("digits", "objects", "textures", "cells", "counting", "orientation")
FULL = (*SHORT, "position", "distance")


def study(*, random: bool = False, full: bool = False) -> Study:
    """The sweep of the pretrained networks, or of the same with random weights."""
    short = {"train": 200, "val": 100, "test": 400}
    sizes = {"train": 400, "val": 200, "test": 1000} if full else short
    untrained = [
        {"name": name, "weights": "random", "label": f"{name} (random)"} for name in NETWORKS
    ]
    tasks = FULL if full else ("objects", "counting") if random else SHORT
    return Study(
        name="layer_preference",
        networks=untrained if random else NETWORKS,
        tasks=[{"name": name, **sizes} for name in tasks],
        methods=["ap"],
        layers=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0] if random and not full else "all",
        recipes=[{"base": "quick", "name": "quick", "epochs": 30 if full else 8}],
        seeds=range(5 if full else 3),
    )


def main(
    out: Path = Path("runs/layer_preference"), *, full: bool = False, workers: int | None = None
) -> pd.DataFrame:
    """Run or continue both sweeps; returns the relation summarised over networks and tasks."""
    summaries = []
    for random, folder in ((False, out), (True, out / "random")):
        explore(study(random=random, full=full), folder, images=300, workers=workers)
        relation = pd.read_csv(folder / "relation.csv")
        summaries.append(across(relation).assign(weights="random" if random else "pretrained"))
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

"""Do prompts gain more where there are more training pictures and pixels than the campaign gives?

    python -m analyses.more_pictures --assets DIR [--out results/evidence] [--precision bfloat16]

The campaign trains on 400 pictures, ViT-Tiny at 96 pixels. Two rough trials before it (one run a
place, one rate, another optimiser and head) had 1,500 pictures for ResNet-56 and 645 of 224 pixels
for ViT-Tiny, both on traffic signs, and their best prompts gained 7.8 and 18.5 points on the linear
probe. Here prompt and probe are trained as in the campaign on as much as the trials had, at places
where those gained most, each at two rates, the better by validation pictures. A row a run goes to
OUT/more_pictures.csv; it goes on where it stopped. Exploratory: one seed, one task.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import aptheory as ap
from analyses.campaign_plan import NETWORKS, RECIPE, TRAIN, load_network, load_task
from analyses.norm_and_prompt import append
from analyses.results import Results
from aptheory.training.convergence import accuracy_flat

TASK = "gtsrb32"
RATES = (3e-2, 1e-2)


@dataclass(frozen=True)
class Setting:
    """A network with its images' side, its training pictures, epochs and prompted places."""

    network: str
    side: int
    train: int
    epochs: int
    places: tuple[int, ...]

    @property
    def known(self) -> dict[str, str | int]:
        """What names it in the table."""
        return {"network": self.network, "side": self.side, "train": self.train}


SETTINGS = (
    Setting("resnet56", NETWORKS["resnet56"].side, TRAIN, 30, (10, 19)),
    Setting("resnet56", NETWORKS["resnet56"].side, 1500, 20, (10, 19)),
    Setting("vit_tiny", NETWORKS["vit_tiny"].side, TRAIN, 30, (1, 7)),
    Setting("vit_tiny", NETWORKS["vit_tiny"].side, 645, 15, (1, 7)),
    Setting("vit_tiny", 224, 645, 15, (1, 7)),
)


def methods(setting: Setting) -> list[ap.Method]:
    """The probe, and a prompt at each place."""
    return [ap.LinearProbe(), *(ap.ActivationPrompt(layer=place) for place in setting.places)]


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What the better rate of each prompt gains over the probe, in points, a row a setting and
    place."""
    keys = ["network", "side", "train"]
    best = table.loc[table.groupby([*keys, "method", "layer"])["val_accuracy"].idxmax()]
    probe = best[best["method"] == "linear_probe"].set_index(keys)["test_accuracy"]
    prompts = best[best["method"] == "ap"].copy()
    prompts["probe"] = prompts.set_index(keys).index.map(probe)
    prompts["gain"] = 100 * (prompts["test_accuracy"] - prompts["probe"])
    return prompts[[*keys, "epochs", "layer", "lr", "accuracy_flat", "probe", "test_accuracy",
                    "gain"]].reset_index(drop=True)  # fmt: skip


def section(results: Results) -> str:
    """What the page says of it, or nothing where the table is missing."""
    if not results.has("evidence/more_pictures"):
        return ""
    table = gains(results.table("evidence/more_pictures"))
    lines = [
        f"| {row.network} | {row.side} | {row.train} | {row.epochs} | {row.layer} | "
        f"{100 * row.probe:.1f} % | {100 * row.test_accuracy:.1f} % | {row.gain:+.1f} | "
        f"{'yes' if row.accuracy_flat else 'no'} |"
        for row in table.itertuples()
    ]
    return "\n".join(
        [
            "## More pictures, more pixels",
            "",
            "Two rough trials before the campaign, on the same traffic signs, had 1,500 training "
            "pictures for ResNet-56 and 645 of 224 pixels for ViT-Tiny; one run a place, one rate, "
            "another optimiser and head. Their best prompts gained 7.8 and 18.5 points on the "
            "linear probe. Prompt and probe as the campaign trains them, on as many pictures and "
            "pixels, the better of two rates by validation pictures; one seed, 1,000 test "
            "pictures, one run a row (a gain of three points is within their noise). Exploratory. "
            "Made by `python -m analyses.more_pictures --assets DIR`.",
            "",
            "| network | pixels | pictures | epochs | prompt at | probe | prompt | gain | "
            "validation accuracy flat |",
            "|---|---|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def main() -> None:
    """Train what is missing, and print the gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    assets, path = Path(asked.assets), asked.out / "more_pictures.csv"
    keys = ["network", "side", "train", "method", "layer"]
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=keys)
    finished = set(done[keys].itertuples(index=False, name=None))
    for setting in SETTINGS:
        net = load_network(setting.network, assets, side=setting.side)
        task = load_task(TASK, 0, assets, train=setting.train)
        recipe = replace(RECIPE, epochs=setting.epochs, precision=asked.precision)
        for method in methods(setting):
            layer = getattr(method, "layer", len(net.layers) - 1)
            about = {**setting.known, "method": method.name, "layer": layer}
            if tuple(about.values()) in finished:
                continue
            runs = [ap.Run(seed=0, lr=rate) for rate in RATES]
            rows = [
                about
                | {"epochs": setting.epochs, "lr": rate, "precision": asked.precision}
                | {
                    "val_accuracy": outcome.val_accuracy,
                    "test_accuracy": outcome.test_accuracy,
                    "accuracy_flat": accuracy_flat(outcome.curve, len(task.val)),
                }
                for rate, outcome in zip(
                    RATES, ap.fit_many(method, net, task, runs=runs, recipe=recipe), strict=True
                )
            ]
            append(rows, path)
            print(
                *about.values(), [round(100 * row["test_accuracy"], 1) for row in rows], flush=True
            )
    print(gains(pd.read_csv(path)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()

"""Do prompts gain more where there are more training pictures and pixels than the campaign gives?

    python -m analyses.more_pictures --assets DIR [--out results/evidence] [--precision bfloat16]
        [--network NAME ...] [--task NAME ...]

The campaign trains on 400 pictures, ViT-Tiny at 96 pixels. Two rough trials before it (one run a
place, one rate, another optimiser and head) had 1,500 pictures for ResNet-56 and 645 of 224 pixels
for ViT-Tiny, both on traffic signs, and their best prompts gained 7.8 and 18.5 points on the linear
probe. Here prompts and probes are trained as in the campaign: the four networks of CIFAR-10 on 400
pictures for as many steps as the campaign and for as many as the larger set takes, and on up to
1,500 pictures, prompted a third and two thirds down; ViT-Tiny as in its trial. Each has two rates;
rate and place are chosen by validation pictures. A row a run goes to OUT/more_pictures.csv; it goes
on where it stopped. Exploratory: one seed.
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd

import aptheory as ap
from analyses.campaign_plan import NEAR, RECIPE, TRAIN, load_network, load_task
from analyses.norm_and_prompt import append
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean
from aptheory.training.convergence import accuracy_flat

RATES = (3e-2, 1e-2)
TASKS = {"gtsrb32": 1500, "fer7": 1120, "cifar10_jpeg": 1500}
"""Tasks with more training pictures than the campaign takes, and how many of them."""
STEPS = 480
"""About as many optimiser steps as the larger set takes, and the smaller one for comparison."""
THIRDS = {"resnet32": (6, 11), "resnet56": (10, 19), "cifar_vit128": (2, 4),
          "cifar_vit_postnorm": (3, 5)}  # fmt: skip
"""The places a third and two thirds down of the networks of CIFAR-10."""


@dataclass(frozen=True)
class Setting:
    """A network and task with the images' side, training pictures, epochs and prompted places."""

    network: str
    task: str
    side: int
    train: int
    epochs: int
    places: tuple[int, ...]


def epochs_of(pictures: int) -> int:
    """Epochs of `STEPS` optimiser steps."""
    return round(STEPS / math.ceil(pictures / RECIPE.batch_size))


SETTINGS = (
    *(
        Setting(network, task, 32, pictures, epochs, places)
        for task, many in TASKS.items()
        for network, places in THIRDS.items()
        for pictures, epochs in (
            (TRAIN, RECIPE.epochs),
            (TRAIN, epochs_of(TRAIN)),
            (many, epochs_of(many)),
        )
    ),
    *(
        Setting("vit_tiny", "gtsrb32", side, pictures, epochs, (1, 7))
        for side, pictures, epochs in ((96, TRAIN, 30), (96, 645, 15), (224, 645, 15))
    ),
)
SETTING = ["network", "task", "side", "train", "epochs"]
PROBES = ("linear_probe", "all_layers_probe")


def methods(setting: Setting) -> dict[tuple[str, int], ap.Method]:
    """The two probes, and a prompt at each place, by the name and place that the table has."""
    prompts = {("ap", place): ap.ActivationPrompt(layer=place) for place in setting.places}
    return {
        ("linear_probe", -1): ap.LinearProbe(),
        ("all_layers_probe", -1): ap.LayerProbe(layer="all"),
        **prompts,
    }


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What the prompt that validation pictures chose, of all places and rates, has more than each
    probe, in points; a row a setting."""
    table = table.reset_index(drop=True)
    best = table.loc[table.groupby([*SETTING, "method"], sort=False)["val_accuracy"].idxmax()]
    found = best[best["method"] == "ap"].set_index(SETTING)
    found = found[["layer", "lr", "accuracy_flat", "test_accuracy"]]
    for name in PROBES:
        of_probe = best[best["method"] == name].set_index(SETTING)["test_accuracy"]
        found[name] = of_probe
        found[f"over_{name}"] = 100 * (found["test_accuracy"] - of_probe)
    return found.reset_index().sort_values(SETTING, ignore_index=True)


def growth(found: pd.DataFrame) -> pd.DataFrame:
    """How much more the prompt has over each probe with many pictures than with the campaign's,
    for the campaign's epochs and for equal steps: a row a task, mean of the networks of CIFAR-10,
    in points."""
    of_cifar = found[found["network"].isin(list(THIRDS))].set_index("network")
    rows = []
    for task, steps, name in product(TASKS, (False, True), PROBES):
        of_task = of_cifar[of_cifar["task"] == task]
        epochs = epochs_of(TRAIN) if steps else RECIPE.epochs
        few = of_task[(of_task["train"] == TRAIN) & (of_task["epochs"] == epochs)]
        many = of_task[of_task["train"] > TRAIN]
        more = (many[f"over_{name}"] - few[f"over_{name}"]).dropna()
        if len(more):
            mean = clustered_mean(more, more.index)
            rows.append(
                {"task": task, "near": task in NEAR, "equal_steps": steps, "probe": name}
                | {"more": mean.value, "low": mean.low, "high": mean.high, "networks": mean.n}
            )
    return pd.DataFrame(rows)


def section(results: Results) -> str:
    """What the page says of it, or nothing where the table is missing."""
    if not results.has("evidence/more_pictures"):
        return ""
    found = gains(results.table("evidence/more_pictures"))
    lines = [
        f"| {row.network} | {row.task} | {row.side} | {row.train:,} | {row.epochs} | {row.layer} | "
        f"{100 * row.linear_probe:.1f} % | {100 * row.all_layers_probe:.1f} % | "
        f"{100 * row.test_accuracy:.1f} % | {row.over_linear_probe:+.1f} | "
        f"{row.over_all_layers_probe:+.1f} | {'yes' if row.accuracy_flat else 'no'} |"
        for row in found.dropna().itertuples()
    ]
    edge = int((found["lr"] == max(RATES)).sum())
    over = growth(found)
    words = {"linear_probe": "the linear probe", "all_layers_probe": "the probe of all layers"}
    said = [
        f"- {task} ({'near' if near else 'far'}), {TRAIN} pictures for "
        f"{'as many steps' if steps else f'{RECIPE.epochs} epochs'}: "
        + "; ".join(
            f"over {words[row.probe]} {row.more:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
            for row in rows.itertuples()
        )
        for (task, near, steps), rows in over.groupby(["task", "near", "equal_steps"], sort=False)
    ]
    return "\n".join(
        [
            "## More pictures, more pixels",
            "",
            "The campaign trains on 400 pictures. Two rough trials before it, on traffic signs "
            "(gtsrb32), had 1,500 for ResNet-56 and 645 of 224 pixels for ViT-Tiny; one run a "
            "place, one rate, another optimiser and head. Their best prompts gained 7.8 and 18.5 "
            "points on the linear probe. Here prompts and probes are trained as in the campaign on "
            "more pictures: two places a network, two rates, chosen by validation pictures; one "
            "seed, up to 1,000 test pictures. So a prompt is the best of four runs and a probe of "
            f"two; in {edge} of {len(found)} settings the prompt took the higher rate, beyond "
            "which nothing was tried, and below the lower one nothing for the probes. The larger "
            "set takes more steps; so the smaller one is trained as many, too. Exploratory. Made "
            "by `python -m analyses.more_pictures --assets DIR`.",
            "",
            "| network | task | pixels | pictures | epochs | prompt at | linear probe | all layers "
            "| prompt | over the first | over the second | validation accuracy flat |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *lines,
            "",
            f"What the prompt has more over each with many pictures than with {TRAIN}, in points, "
            f"mean of {int(over['networks'].min())} networks of CIFAR-10:",
            "",
            *said,
        ]
    )


def main() -> None:
    """Train what is missing, and print the gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--network", action="append", choices=(*THIRDS, "vit_tiny"))
    parser.add_argument("--task", action="append", choices=TASKS)
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    assets, path = Path(asked.assets), asked.out / "more_pictures.csv"
    keys = [*SETTING, "method", "layer"]
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=keys)
    finished = set(done[keys].itertuples(index=False, name=None))
    for setting in SETTINGS:
        unwanted = asked.network and setting.network not in asked.network
        if unwanted or (asked.task and setting.task not in asked.task):
            continue
        net = load_network(setting.network, assets, side=setting.side)
        task = load_task(setting.task, 0, assets, train=setting.train)
        recipe = replace(RECIPE, epochs=setting.epochs, precision=asked.precision)
        for (name, layer), method in methods(setting).items():
            of = (*(getattr(setting, key) for key in SETTING), name, layer)
            if of in finished:
                continue
            runs = [ap.Run(seed=0, lr=rate) for rate in RATES]
            outcomes = ap.fit_many(method, net, task, runs=runs, recipe=recipe)
            rows = [
                dict(zip(keys, of, strict=True))
                | {"lr": rate, "precision": asked.precision}
                | {
                    "val_accuracy": outcome.val_accuracy,
                    "test_accuracy": outcome.test_accuracy,
                    "accuracy_flat": accuracy_flat(outcome.curve, len(task.val)),
                }
                for rate, outcome in zip(RATES, outcomes, strict=True)
            ]
            append(rows, path)
            print(*of, [round(100 * row["test_accuracy"], 1) for row in rows], flush=True)
    print(gains(pd.read_csv(path)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()

"""Train the campaign's chosen runs again and keep how their validation accuracy went.

    python -m analyses.campaign_ends --assets DIR [--out results/evidence] [--seconds 3000]

The journal says of each run whether its validation *loss* was flat at the end. Most were not, since
heads grow overconfident; what their accuracy did was not kept. This trains anew, on the same
pictures, seed and rate, the four runs of each pair that the tables choose (linear probe, best layer
probe, prompt read at the end, prompt read early), the cheapest networks first, and appends a row a
run to OUT/ends.csv: both marks of `aptheory.training.convergence` and the curve. It goes on where
it stopped. Decided after the campaign's runs were seen: exploratory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import aptheory as ap
from analyses.campaign_plan import RECIPE, load_network, load_task
from analyses.campaign_tables import best_rates, chosen, read_journal
from aptheory.training.convergence import accuracy_flat, flat

CHEAPEST_FIRST = (
    *("cifar_vit128", "cifar_vit_postnorm", "resnet32", "mobilenetv2_035", "vit_tiny"),
    *("resnet56", "efficientnet_lite0", "vit_small"),
)


def chosen_runs(sweeps: pd.DataFrame) -> dict[str, pd.Series]:
    """The four runs of one network and task that the tables are about, by what they are called."""
    runs = best_rates(sweeps)
    last = int(runs["places"].iloc[0]) - 1
    prompts = runs[runs["method"] == "ap"]
    probe = chosen(runs[runs["method"] == "layer_probe"])
    return {
        "linear_probe": chosen(runs[runs["method"] == "linear_probe"]),
        "layer_probe": probe,
        "ap_end": chosen(prompts[prompts["read"] == last]),
        "ap_read_early": chosen(prompts[prompts["read"] == probe["read"]]),
    }


def method_of(run: pd.Series) -> ap.Method:
    """What was trained in a run of the journal."""
    if run["method"] == "linear_probe":
        return ap.LinearProbe()
    if run["method"] == "layer_probe":
        return ap.LayerProbe(layer=int(run["layer"]))
    read = None if run["read"] == run["places"] - 1 else int(run["read"])
    return ap.ActivationPrompt(layer=int(run["layer"]), read=read)


def trained_again(net: ap.Network, task: ap.Task, sweeps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The chosen runs of a pair with their curves, seed 0, in float32."""
    for name, run in chosen_runs(sweeps).items():
        seeds = [ap.Run(seed=0, lr=float(run["lr"]))]
        outcome = ap.fit_many(method_of(run), net, task, runs=seeds, recipe=RECIPE)[0]
        measured = [entry for entry in outcome.curve if "val_accuracy" in entry]
        yield {
            "network": net.name,
            "task": task.name,
            "run": name,
            "layer": run["layer"],
            "read": run["read"],
            "lr": run["lr"],
            "loss_flat": flat(outcome.curve),
            "accuracy_flat": accuracy_flat(outcome.curve, len(task.val)),
            "pictures": len(task.val),
            "journal_loss_flat": run["converged"],
            "journal_test_accuracy": run["test_accuracy"],
            "test_accuracy": round(outcome.test_accuracy, 6),
            "val_accuracy": json.dumps([round(entry["val_accuracy"], 4) for entry in measured]),
            "val_loss": json.dumps([round(entry["val_loss"], 4) for entry in measured]),
        }


def main() -> None:
    """Train what is missing until the time is spent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    path, end = asked.out / "ends.csv", time.monotonic() + asked.seconds
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["network", "task"])
    finished = set(zip(done["network"], done["task"], strict=True))
    journal = read_journal(asked.out)
    sweeps = journal[(journal["question"] == "sweep") & (journal["seed"] == 0)]
    for name in CHEAPEST_FIRST:
        net = load_network(name, Path(asked.assets))
        for task, runs in sweeps[sweeps["network"] == name].groupby("task"):
            if (name, task) in finished:
                continue
            if time.monotonic() > end:
                return
            rows = list(trained_again(net, load_task(str(task), 0, Path(asked.assets)), runs))
            header = not path.is_file()
            pd.DataFrame(rows).to_csv(path, mode="a", header=header, index=False)
            print(f"{name}, {task}: {[row['accuracy_flat'] for row in rows]}", flush=True)


if __name__ == "__main__":
    main()

"""One prompt with heads at several places, or a prompt for each of them: is it as good?

    python -m analyses.several_readings [--network NAME ...] [--task NAME ...] [--out FOLDER]

At a prompted place of each network on each task, trains a prompt for each of a few reading places
apart, and one prompt for all of them together (`aptheory.training.readings`); three seeds, one
recipe. Writes runs.csv, a row a run: network, task, layer, read, seed, way, val_accuracy, val_loss,
test_accuracy, seconds (processor time, of all readings together shared out); a pair that stands
there is passed over. Prints, over pairs of network and task, how far "together" lies from "apart"
in test accuracy: of all cells, and of the cell that each way chooses by validation loss.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

import aptheory as ap
from aptheory.choosing.cells import cells
from aptheory.findings.statistics import mean_over
from aptheory.training.fit import kept_for
from aptheory.training.readings import fit_readings

RECIPE = ap.Recipe(epochs=12)
LAYERS = (0.3,)
READS = (0.5, 0.7, 0.85, 1.0)
SEEDS = (0, 1, 2)


def pair(name: str, task_name: str) -> pd.DataFrame:
    """Both ways on one network and task."""
    net, whole = ap.load(name), ap.task(task_name)
    task = whole.subset(train=200, val=100, test=min(400, len(whole.test)), seed=0)
    runs = [ap.Run(seed=seed) for seed in SEEDS]
    kept = kept_for(net, task, RECIPE)
    # Probes of every place first, so that no way pays for where the heads start.
    probes = [cell.method(net) for cell in cells(net, list(READS)) if cell.is_probe]
    ap.fit_many(probes, net, task, runs=runs[:1] * len(probes), recipe=RECIPE, kept=kept)
    chosen = [cell for cell in cells(net, list(LAYERS), list(READS)) if not cell.is_probe]
    rows = []
    for layer in sorted({cell.layer for cell in chosen}):
        reads = [cell.read for cell in chosen if cell.layer == layer]
        kept.advance(layer)
        kept.batch("train", torch.arange(1))  # kept before either way is timed
        start = time.process_time()
        apart = ap.fit_many(
            [ap.ActivationPrompt(layer=layer, read=read) for read in reads for _ in runs],
            net, task, runs=runs * len(reads), recipe=RECIPE, kept=kept,
        )  # fmt: skip
        middle = time.process_time()
        together = fit_readings(
            ap.ActivationPrompt(layer=layer), net, task,
            reads=reads, runs=runs, recipe=RECIPE, kept=kept,
        )  # fmt: skip
        end = time.process_time()
        seconds = {"apart": middle - start, "together": end - middle}
        for way, outcomes in (("apart", apart), ("together", together)):
            rows += [
                {
                    "network": name,
                    "task": task_name,
                    "layer": layer,
                    "read": outcome.method["read"],
                    "seed": outcome.seed,
                    "way": way,
                    "val_accuracy": outcome.val_accuracy,
                    "val_loss": outcome.val_loss,
                    "test_accuracy": outcome.test_accuracy,
                    "seconds": seconds[way] / len(outcomes),
                }
                for outcome in outcomes
            ]
    return pd.DataFrame(rows)


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """Together minus apart, a row a network and task: points of test accuracy, share of seconds.

    ``cells``: the mean over all cells. ``chosen``: of the cell with the least validation loss, mean
    over seeds, that each way finds among its own; ``chosen_at_layer``: the same, a layer at a time,
    the mean over the layers.
    """
    rows = []
    for (network, task), mine in runs.groupby(["network", "task"]):
        by_cell = mine.groupby(["way", "layer", "read"])[
            ["val_loss", "test_accuracy", "seconds"]
        ].mean()
        apart, together = by_cell.loc["apart"], by_cell.loc["together"]
        best = {
            way: table.groupby("layer").apply(
                lambda at: at.loc[at["val_loss"].idxmin(), "test_accuracy"]
            )
            for way, table in (("apart", apart), ("together", together))
        }
        whole = [t.loc[t["val_loss"].idxmin(), "test_accuracy"] for t in (apart, together)]
        rows.append(
            {
                "network": network,
                "task": task,
                "cells": 100 * (together["test_accuracy"] - apart["test_accuracy"]).mean(),
                "chosen_at_layer": 100 * (best["together"] - best["apart"]).mean(),
                "chosen": 100 * (whole[1] - whole[0]),
                "rank": together["val_loss"].corr(apart["val_loss"], method="spearman"),
                "seconds": together["seconds"].sum() / apart["seconds"].sum(),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Measure what is missing, and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append")
    parser.add_argument("--task", action="append")
    parser.add_argument("--out", type=Path, default=Path("results/several_readings"))
    asked = parser.parse_args()
    path = asked.out / "runs.csv"
    asked.out.mkdir(parents=True, exist_ok=True)
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["network", "task"])
    present = set(zip(done["network"], done["task"], strict=True))
    for name in asked.network or ("aptheory_vit_mini", "aptheory_resnet_mini"):
        for task in asked.task or ("digits", "objects"):
            if (name, task) in present:
                continue
            rows = pair(name, task).round(6)
            rows.to_csv(path, mode="a", header=not path.is_file(), index=False)
            print(name, task, flush=True)
    table = differences(pd.read_csv(path))
    print(table.round(2).to_string(index=False))
    for column in ("cells", "chosen_at_layer", "chosen", "rank", "seconds"):
        print(f"{column}: {mean_over(table[column].to_numpy()):.2f}")


if __name__ == "__main__":
    main()

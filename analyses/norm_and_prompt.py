"""How much of the campaign's prompts is a shift of the next norm, place by place?

    python -m analyses.norm_and_prompt --assets DIR [--out results/evidence] [--seconds 3000]
        [--network NAME ...] [--task NAME ...]

For every pair of the question `norm`, the cheapest networks first: the full and the channel prompt
at the place that validation pictures chose and at two more are trained again, at the rates that the
journal chose, on the same pictures and seed, and taken apart at the next norm
(`aptheory.findings.prompt_parts`); gamma and beta there are read backwards, as a prompt at the next
place. A row a prompt goes to OUT/parts.csv, a row a place to OUT/backwards.csv; it goes on where it
stopped. `python -m analyses.campaign_tables` judges them. A user asks the same of his own network
with `aptheory compare-norm NETWORK --task T`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import aptheory as ap
from analyses.campaign_ends import CHEAPEST_FIRST
from analyses.campaign_plan import RECIPE, load_network, load_task
from analyses.campaign_tables import best_rates, chosen, read_journal
from aptheory.findings.prompt_parts import read_as_prompt, take_apart
from aptheory.training.convergence import accuracy_flat

BESIDE = (0.3, 0.7)
"""Depths of the two places beside the chosen one: the nearest that the journal holds."""


def places_of(prompts: pd.DataFrame) -> tuple[int, list[int]]:
    """The place that validation pictures choose, and it with its neighbours at `BESIDE`."""
    place = int(chosen(prompts)["layer"])
    known = prompts["layer"].to_numpy(dtype=int)
    last = int(prompts["places"].iloc[0]) - 1
    beside = {int(known[np.abs(known / last - depth).argmin()]) for depth in BESIDE}
    return place, sorted({place, *beside})


def trained(
    method: ap.Method, net: ap.Network, task: ap.Task, rate: float
) -> tuple[ap.Outcome, dict[str, Any]]:
    """A run of seed 0 in float32, and what it came to."""
    runs = [ap.Run(seed=0, lr=rate)]
    outcome = ap.fit_many(method, net, task, runs=runs, recipe=RECIPE, keep_models=True)[0]
    return outcome, {
        "lr": rate,
        "accuracy_flat": accuracy_flat(outcome.curve, len(task.val)),
        "val_accuracy": outcome.val_accuracy,
        "test_accuracy": outcome.test_accuracy,
    }


def taken_apart(net: ap.Network, task: ap.Task, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A row a prompt of one network and task."""
    place, places = places_of(runs[runs["method"] == "ap"])
    for layer in places:
        there = runs[(runs["layer"] == layer) & (runs["place"].isna())].set_index("method")
        for method, shape in (("ap", "full"), ("ap_channel", "channel")):
            prompt = ap.ActivationPrompt(layer=layer, shape=shape)
            outcome, came_to = trained(prompt, net, task, float(there.loc[method, "lr"]))
            assert outcome.adapted is not None
            yield {
                "network": net.name,
                "task": task.name,
                "layer": layer,
                "depth": layer / (len(net.layers) - 1),
                "shape": shape,
                "chosen": layer == place,
                "journal_test_accuracy": there.loc[method, "test_accuracy"],
                **came_to,
                **take_apart(outcome.adapted, task),
            }


def read_backwards(net: ap.Network, task: ap.Task, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A row a place: gamma and beta there, read as a prompt at the next place."""
    norms = runs[runs["method"] == "gamma_beta"].set_index("place")
    place, places = places_of(runs[runs["method"] == "ap"])
    # The piece with a norm, at the place or behind it; two places may share one.
    starts = {int(norms.loc[layer, "layer"]): layer for layer in places if layer in norms.index}
    for start, layer in starts.items():
        method = ap.NormTuning(layer=start)
        outcome, came_to = trained(method, net, task, float(norms.loc[layer, "lr"]))
        assert outcome.adapted is not None
        full, channel = read_as_prompt(outcome.adapted, task, start)
        yield {
            "network": net.name,
            "task": task.name,
            "layer": start,
            "depth": start / (len(net.layers) - 1),
            "chosen": layer == place,
            **came_to,
            "full": full,
            "channel": channel,
        }


def append(rows: list[dict[str, Any]], path: Path) -> None:
    """Add rows to a table, with a header where it is new."""
    pd.DataFrame(rows).round(6).to_csv(path, mode="a", header=not path.is_file(), index=False)


def main() -> None:
    """Measure what is missing until the time is spent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("APTHEORY_ASSETS"))
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--network", action="append", choices=CHEAPEST_FIRST)
    parser.add_argument("--task", action="append")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    assets, end = Path(asked.assets), time.monotonic() + asked.seconds
    path = asked.out / "parts.csv"
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["network", "task"])
    finished = set(zip(done["network"], done["task"], strict=True))
    journal = read_journal(asked.out)
    norms = journal[(journal["question"] == "norm") & (journal["seed"] == 0)]
    for name in asked.network or CHEAPEST_FIRST:
        for task, runs in norms[norms["network"] == name].groupby("task"):
            if (name, task) in finished or (asked.task and task not in asked.task):
                continue
            if time.monotonic() > end:
                return
            net, images = load_network(name, assets), load_task(str(task), 0, assets)
            best = best_rates(runs)
            parts = list(taken_apart(net, images, best))
            append(list(read_backwards(net, images, best)), asked.out / "backwards.csv")
            append(parts, path)
            told = [f"{row['layer']} {row['shape']}: {row['more']:+.1f}" for row in parts]
            print(f"{name}, {task}: {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()

"""How much of the campaign's prompts is a shift of the next norm, place by place?

    python -m analyses.norm_and_prompt --assets DIR [--out results/evidence] [--seconds 3000]
        [--network NAME ...] [--task NAME ...] [--chosen | --every] [--sweeps]

For every pair of the question `norm`: the full and the channel prompt at the place that validation
pictures chose, and then at two more (with --every at every place), are trained again, at the rates
that the journal chose, on the same pictures and seed, and taken apart at the next norm
(`aptheory.findings.prompt_parts`); gamma and beta there are read backwards, as a prompt at the next
place. With --sweeps the pairs that only the question `sweep` has come after them, with what it
trained: the full prompt at its chosen place. A row a prompt goes to OUT/parts.csv, a row a place to
OUT/backwards.csv; it goes on where it stopped. `python -m analyses.campaign_parts` judges them. A
user asks the same of his own network with `aptheory compare-norm NETWORK --task T`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import aptheory as ap
from analyses.campaign_ends import CHEAPEST_FIRST
from analyses.campaign_plan import RECIPE, load_network, load_task
from analyses.campaign_tables import best_rates, chosen, read_journal
from aptheory.findings.prompt_parts import next_norm, read_as_prompt, take_apart
from aptheory.training.convergence import accuracy_flat

BESIDE = (0.3, 0.7)
"""Depths of the two places beside the chosen one: the nearest that the journal holds."""


def places_of(prompts: pd.DataFrame, *, every: bool = False) -> tuple[int, list[int]]:
    """The place that validation pictures choose, and it with its neighbours at `BESIDE`, or with
    ``every`` all that were trained."""
    place = int(chosen(prompts)["layer"])
    known = prompts["layer"].to_numpy(dtype=int)
    if every:
        return place, sorted(set(known.tolist()))
    last = int(prompts["places"].iloc[0]) - 1
    beside = {int(known[np.abs(known / last - depth).argmin()]) for depth in BESIDE}
    return place, sorted({place, *beside})


def units(
    runs: pd.DataFrame, networks: Sequence[str], *, every: bool = False
) -> Iterator[tuple[str, str, int, bool]]:
    """(network, task, place, whether it is the chosen one): the chosen places of all pairs first,
    the cheapest networks first."""
    found = []
    for (name, task), pair in runs.groupby(["network", "task"]):
        if name in networks:
            place, places = places_of(pair[pair["method"] == "ap"], every=every)
            if "gamma_beta" not in set(pair["method"]):  # a sweep knows the full prompt alone
                places = [place]
            found += [(str(name), str(task), layer, layer == place) for layer in places]
    yield from sorted(found, key=lambda unit: (not unit[3], CHEAPEST_FIRST.index(unit[0])))


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


def taken_apart(
    net: ap.Network, task: ap.Task, runs: pd.DataFrame, layer: int
) -> Iterator[dict[str, Any]]:
    """The full and the channel prompt at a place, a row each."""
    there = runs[(runs["layer"] == layer) & (runs["place"].isna())].set_index("method")
    for method, shape in (("ap", "full"), ("ap_channel", "channel")):
        if method not in there.index:
            continue
        prompt = ap.ActivationPrompt(layer=layer, shape=shape)
        outcome, came_to = trained(prompt, net, task, float(there.loc[method, "lr"]))
        assert outcome.adapted is not None
        yield {
            "shape": shape,
            "journal_test_accuracy": there.loc[method, "test_accuracy"],
            **came_to,
            **take_apart(outcome.adapted, task),
        }


def read_backwards(
    net: ap.Network, task: ap.Task, runs: pd.DataFrame, layer: int
) -> Iterator[dict[str, Any]]:
    """Gamma and beta at a place, or at the first with a norm behind it, read as a prompt."""
    norms = runs[(runs["method"] == "gamma_beta") & (runs["place"] == layer)]
    for norm in norms.to_dict("records"):
        start = int(norm["layer"])
        outcome, came_to = trained(ap.NormTuning(layer=start), net, task, float(norm["lr"]))
        assert outcome.adapted is not None
        full, channel = read_as_prompt(outcome.adapted, task, start)
        yield {"norm_at": start, **came_to, "full": full, "channel": channel}


def has_norm_behind(net: ap.Network, place: int) -> bool:
    """Whether a prompt at a place can be taken apart at the next norm."""
    try:
        next_norm(net, place)
    except ap.InputError:
        return False
    return True


def of_sweeps(journal: pd.DataFrame, besides: pd.DataFrame, assets: Path) -> pd.DataFrame:
    """The prompts read at the end of the pairs of `sweep` that are not among ``besides``, at each
    place that a norm follows."""
    prompts = journal[(journal["question"] == "sweep") & (journal["method"] == "ap")]
    prompts = prompts[prompts["read"] == prompts["places"] - 1]
    able = set()
    for name, of_network in prompts.groupby("network"):
        net = load_network(str(name), assets)
        places = of_network["layer"].astype(int).unique()
        able |= {(name, place) for place in places if has_norm_behind(net, place)}
    at = prompts[["network", "layer"]].itertuples(index=False, name=None)
    prompts = prompts[[pair in able for pair in at]]
    known = set(besides[["network", "task"]].itertuples(index=False, name=None))
    pairs = prompts[["network", "task"]].itertuples(index=False, name=None)
    return prompts[[pair not in known for pair in pairs]]


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
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--chosen", action="store_true", help="at the chosen places alone")
    which.add_argument("--every", action="store_true", help="at every place that was trained")
    parser.add_argument("--sweeps", action="store_true", help="also the pairs of the sweep alone")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    if asked.assets is None:
        parser.error("name the folder of weights and images with --assets or APTHEORY_ASSETS")
    assets, end = Path(asked.assets), time.monotonic() + asked.seconds
    path = asked.out / "parts.csv"
    keys = ["network", "task", "layer"]
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=keys)
    finished = set(done[keys].itertuples(index=False, name=None))
    journal = read_journal(asked.out)
    journal = journal[journal["seed"] == 0]
    trained_there = journal[journal["question"] == "norm"]
    if asked.sweeps:
        trained_there = pd.concat([trained_there, of_sweeps(journal, trained_there, assets)])
    runs = best_rates(trained_there)
    for name, task, layer, is_chosen in units(
        runs, asked.network or CHEAPEST_FIRST, every=asked.every
    ):
        unwanted = (asked.task and task not in asked.task) or (asked.chosen and not is_chosen)
        if unwanted or (name, task, layer) in finished:
            continue
        if time.monotonic() > end:
            return
        net, images = load_network(name, assets), load_task(task, 0, assets)
        pair = runs[(runs["network"] == name) & (runs["task"] == task)]
        depth = layer / (len(net.layers) - 1)
        about = dict(zip(keys, (name, task, layer), strict=True))
        about |= {"depth": depth, "chosen": is_chosen}
        parts = [about | row for row in taken_apart(net, images, pair, layer)]
        backwards = [about | row for row in read_backwards(net, images, pair, layer)]
        if backwards:
            append(backwards, asked.out / "backwards.csv")
        append(parts, path)
        told = "; ".join(f"{row['shape']} {row['more']:+.1f}" for row in parts)
        print(f"{name}, {task}, place {layer}: {told}", flush=True)


if __name__ == "__main__":
    main()

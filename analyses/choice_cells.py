"""The same question for the place that is read, and for both places at once.

Reading: the probe of every place of the 40 pairs, four rates. Both: the 13 maps of the campaign,
every place × every later reading place, four rates, one draw; the diagonal is the probe. To count a
cell's neighbours with it was tried after the maps were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analyses.campaign_plan import RECIPE
from analyses.campaign_tables import best_rates
from analyses.choice_curves import SEEDS, Curve, over_draws, right
from analyses.choice_ways import PULLS, Free, Way, by_prior, trials, untrained
from aptheory.choosing.cells import Cell, operations, with_neighbours
from aptheory.choosing.trials import Prices
from aptheory.training.cost import Operations

RATES = (0, 1, 2, 3)


def reading_curves(curves: list[Curve], journal: pd.DataFrame) -> list[Curve]:
    """Probes of all places in place of prompts; what is pulled is pulled to the end."""
    sweeps = journal[(journal["question"] == "sweep") & (journal["method"] == "layer_probe")]
    found = []
    for curve in curves:
        pair = (sweeps["network"] == curve.network) & (sweeps["task"] == curve.task)
        runs = sweeps[pair & (sweeps["seed"] == curve.draw)].sort_values("layer")
        best = best_rates(runs).sort_values("layer")
        correct = right(best)
        tables = {
            measure: runs.pivot_table(index="layer", columns="lr", values=measure).to_numpy(float)
            for measure in ("val_accuracy", "val_loss")
        }
        found.append(
            replace(
                curve,
                layers=best["layer"].to_numpy(),
                validation=100 * tables["val_accuracy"][..., None],
                loss=tables["val_loss"][..., None],
                test=100 * correct.mean(1),
                correct=correct,
                prices=np.ones(len(best)),
                centre=1.0,
                probe=float("nan"),
            )
        )
    return over_draws(found)


def reading_ways() -> list[Way]:
    """What may choose the place to read: all probes cost one pass, so cost tells them not apart."""
    every = (Free(RATES),)
    pulled = tuple(Free(RATES, pull) for pull in PULLS)
    return [
        Way("the middle", untrained(lambda c: -np.abs(c.depth - 0.5))),
        Way("the end (linear probe)", untrained(lambda c: c.depth)),
        Way("a random place", untrained(lambda c: np.zeros(len(c.layers)))),
        Way("mean curve of its kind", by_prior),
        Way("probes by accuracy", trials, every),
        Way("probes by the loss", partial(trials, measure="loss"), every),
        Way("probes by accuracy, mean over rates", partial(trials, over_rates="mean"), every),
        Way("probes by accuracy, pulled to the end", trials, pulled),
    ]


@dataclass(frozen=True)
class Map:
    """One map: a `Curve` whose places are cells, and the two places of each cell."""

    curve: Curve
    layer: np.ndarray
    read: np.ndarray

    @property
    def probe(self) -> np.ndarray:
        return np.asarray(self.layer == self.read)


def maps(journal: pd.DataFrame, pieces: pd.DataFrame) -> Iterator[Map]:
    """Every map of the campaign, with the operations of a run of each cell."""
    runs = journal[journal["question"] == "map"]
    for (network, task), cells in runs.groupby(["network", "task"]):
        last = int(cells["places"].iloc[0]) - 1
        own = pieces[pieces["network"] == network].sort_values("layer")
        prices = Prices(Operations(tuple(own["forward"]), tuple(own["backward"])), 400, 200)
        # A prompt at the place that is read moves the features alone: the probe stands there.
        kept = cells[(cells["method"] == "layer_probe") | (cells["layer"] < cells["read"])]
        best = best_rates(kept).sort_values(["layer", "read"])
        index = ["layer", "read"]
        tables = {
            measure: kept.pivot_table(index=index, columns="lr", values=measure).to_numpy(float)
            for measure in ("val_accuracy", "val_loss")
        }
        correct = right(best)
        layer, read = best["layer"].to_numpy(), best["read"].to_numpy()
        cost = [
            operations(prices, [(Cell(l, k), RECIPE.epochs)], walks=[], stops=[RECIPE.epochs])
            for l, k in zip(layer, read, strict=True)
        ]
        curve = Curve(
            network=str(network),
            task=str(task),
            kind=str(cells["kind"].iloc[0]),
            last=last,
            layers=np.arange(len(best)),
            rates=tuple(sorted(kept["lr"].unique())),
            validation=100 * tables["val_accuracy"][..., None],
            loss=tables["val_loss"][..., None],
            test=100 * correct.mean(1),
            correct=correct,
            prices=np.array(cost),
        )
        yield Map(curve, layer, read)


def both_places(one: Map) -> Iterator[tuple[str, np.ndarray, float]]:
    """(way, preference over cells, cost) of every way to choose both places of one map."""
    curve, layer, read, probe = one.curve, one.layer, one.read, one.probe
    seen = curve.validation[..., 0] - 1e-6 * curve.loss[..., 0]
    top = len(curve.rates) - 1  # the largest rate, which a sweep's first run does best with
    whole = curve.prices.sum() * len(curve.rates) * SEEDS

    def among(mask: np.ndarray, value: np.ndarray) -> np.ndarray:
        return np.where(mask, value, -np.inf)

    def steadied(value: np.ndarray) -> np.ndarray:
        each = [Cell(int(l), int(k)) for l, k in zip(layer, read, strict=True)]
        meaned = with_neighbours(dict(zip(each, value, strict=True)))
        return np.array([meaned[cell] for cell in each])

    middle = -np.abs(layer / curve.last - 0.5)
    yield "linear probe", among(probe & (read == curve.last), middle), 0.0
    yield "the middle, read at the end", among(~probe & (read == curve.last), middle), 0.0
    best_probe = among(probe, seen.max(1))
    reading = int(read[int(best_probe.argmax())])
    yield "best probe, no prompt", best_probe, 0.0
    before = ~probe & (read == reading)
    if not before.any():  # the image reads best: only the probe is left
        before = probe & (read == reading)
    halfway = -np.abs(layer - reading / 2)
    yield "read at the best probe, prompt halfway before it", among(before, halfway), 0.0
    trial = float(curve.prices[before].sum())
    yield "read there, prompts by one rate", among(before, seen[:, top]), trial / whole
    pulled = seen[:, top] - 4.0 * np.abs(2 * layer / max(reading, 1) - 1)
    yield "read there, prompts by one rate, pulled", among(before, pulled), trial / whole
    rival = among(before | (probe & (read == reading)), np.where(probe, seen.max(1), pulled))
    yield "the same, or the probe", rival, trial / whole
    every = float(curve.prices.sum()) / whole
    yield "every cell, one rate", seen[:, top], every
    yield "every cell, one rate, with its neighbours", steadied(seen[:, top]), every
    yield "every cell, every rate", seen.max(1), every * len(curve.rates)
    yield (
        "every cell, every rate, with its neighbours",
        steadied(seen.max(1)),
        every * len(curve.rates),
    )


def judged_maps(found: list[Map], row: Callable[..., dict[str, Any]]) -> pd.DataFrame:
    """A row a map and way."""
    return pd.DataFrame(
        row(way, one.curve, preference, cost)
        for one in found
        for way, preference, cost in both_places(one)
    )

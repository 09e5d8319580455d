"""Accuracy over layers, with every run that a way of choosing may look at: from stored tables.

Two sources. The campaign's journal: 40 pairs of 8 real networks and 8 tasks, 8 to 10 places, four
rates, about 210 optimiser steps, two draws of the training and validation pictures of most pairs.
Each draw is a curve: what is chosen on its validation pictures is worth the mean over draws, which
is nearer the truth than one draw's test accuracy. The older sweeps: 25 pairs, three seeds, one
rate, 24 to 84 steps. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from analyses.campaign_plan import RECIPE
from analyses.campaign_tables import best_rates, chosen, read_journal
from analyses.evidence import is_vit
from analyses.results import Results
from aptheory.choosing.trials import Prices
from aptheory.training.cost import Operations
from aptheory.training.outcome import unpacked

SEEDS = 3
"""Of the careful full sweep that every cost is a share of: every place, every rate, three seeds."""
SPLITS = 20
SCORES = ("shift", "survival", "probe")
"""How far the activations lie from the pretraining's, what survives of a single patch, and the
validation accuracy of the place's own probe."""


@dataclass(frozen=True)
class Curve:
    """One network on one task: what was validated, and what each place is worth on test pictures.

    ``layers`` are the places that may be chosen (the network's last place, where a prompt is a
    probe, is a control). ``validation`` and ``loss`` have an entry a run: place, rate, seed;
    accuracies in points. ``test`` is the place's test accuracy in points at the rate that
    validation chooses, over seeds or draws. ``correct`` says of each test picture in which share of
    the draws that run got it right. ``draw``: which of a pair's draws was validated.
    ``papers_place``: the input of a CNN's last stage, a ViT's third block, where it is known.
    ``centre``: the depth that choices are pulled to. ``probe``: test accuracy of the best layer's
    probe, in points. ``prices`` is the cost of a run at each place, in any unit. ``scores``: what
    is known of each place before a prompt is trained, by `SCORES`, where it was measured.
    """

    network: str
    task: str
    kind: str
    last: int
    layers: Int[np.ndarray, " places"]
    rates: tuple[float, ...]
    validation: Float[np.ndarray, "places rates seeds"]
    loss: Float[np.ndarray, "places rates seeds"]
    test: Float[np.ndarray, " places"]
    prices: Float[np.ndarray, " places"]
    papers_place: int | None = None
    correct: Float[np.ndarray, "places pictures"] | None = None
    by_seed: Float[np.ndarray, "places seeds"] | None = None
    centre: float = 0.5
    probe: float = float("nan")
    scores: Float[np.ndarray, "places scores"] | None = None
    draw: int = 0

    @cached_property
    def depth(self) -> Float[np.ndarray, " places"]:
        """0 at the image, 1 at the classifier's input."""
        return self.layers / self.last

    @cached_property
    def off_centre(self) -> Float[np.ndarray, " places"]:
        """2 · |depth − centre|: of the middle, 0 there and 1 at both ends."""
        return 2 * np.abs(self.depth - self.centre)

    def cost(self, bought: Bool[np.ndarray, "places rates seeds"]) -> float:
        """Share of a careful full sweep."""
        whole = self.prices.sum() * len(self.rates) * SEEDS
        return float((bought.sum((1, 2)) * self.prices).sum() / whole)

    def regret(self, preference: Float[np.ndarray, " places"]) -> float:
        """Points lost at the preferred place against the one with the best test accuracy; the
        mean of those that tie. The best is itself lucky, so this is rather too large."""
        return float(self.test.max() - self.test[_best(preference)].mean())

    def probe_is_better(self, preference: Float[np.ndarray, " places"]) -> float:
        """1 where the best layer's probe beats the prompt at the preferred place, 0 where not; a
        half for a tie, nan where the probe is not known."""
        prompt = self.test[_best(preference)].mean()
        return (
            float("nan") if np.isnan(self.probe) else float((np.sign(self.probe - prompt) + 1) / 2)
        )

    def fresh_regret(self, preference: Float[np.ndarray, " places"]) -> float:
        """The same against the place that is best on other pictures (or seeds), judged on the rest.

        Test pictures are halved `SPLITS` times, and each half names the best for the other. That
        best is no better known than half the test pictures tell, so this is rather too small.
        """
        chosen = _best(preference)
        gaps = [rest[_best(seen)].mean() - rest[chosen].mean() for seen, rest in self._halves]
        return float(np.mean(gaps))

    @cached_property
    def luck(self) -> float:
        """What `regret` charges a perfect choice: were the measured accuracies the truth, the gap
        between the best of accuracies measured on as many fresh pictures and the truly best."""
        if self.correct is None:
            return float("nan")
        generator, count = np.random.default_rng(0), self.correct.shape[1]
        # How often each picture is drawn, a column a sample: (pictures, samples).
        often = generator.multinomial(count, np.full(count, 1 / count), size=200).T
        drawn = 100 / count * (self.correct.astype(np.float32) @ often.astype(np.float32))
        return float((drawn.max(0) - drawn[_best(self.test)].mean(0)).mean())

    @cached_property
    def _halves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(accuracies that choose, accuracies that judge), in points."""
        if self.by_seed is not None:
            seeds = range(self.by_seed.shape[1])
            return [(np.delete(self.by_seed, s, axis=1).mean(1), self.by_seed[:, s]) for s in seeds]
        assert self.correct is not None
        generator, found = np.random.default_rng(0), []
        for _ in range(SPLITS):
            order = generator.permutation(self.correct.shape[1])
            halves = np.array_split(order, 2)
            one, other = (100 * self.correct[:, half].mean(1) for half in halves)
            found += [(one, other), (other, one)]
        return found


def _best(preference: np.ndarray) -> np.ndarray:
    """The places of the highest preference, as a mask: several where they tie."""
    return np.asarray(preference >= preference.max() - 1e-9)


def unlike(curve: Curve, curves: Sequence[Curve]) -> list[Curve]:
    """Those that share neither network nor task with one."""
    return [c for c in curves if c.network != curve.network and c.task != curve.task]


def of_campaign(
    journal: pd.DataFrame, operations: pd.DataFrame, measured: Sequence[pd.DataFrame] = ()
) -> list[Curve]:
    """The campaign's sweeps, prompts that are read at the end.

    measured : tables of `SCORES` by network, task and layer.
    """
    sweeps = journal[journal["question"] == "sweep"]
    found = []
    for (network, task, draw), runs in sweeps.groupby(["network", "task", "seed"]):
        last = int(runs["places"].iloc[0]) - 1
        prompts = runs[(runs["method"] == "ap") & (runs["layer"] < last) & (runs["read"] == last)]
        best = best_rates(prompts).sort_values("layer")
        layers, rates = best["layer"].to_numpy(), sorted(prompts["lr"].unique())

        def by_run(measure: str, prompts: pd.DataFrame = prompts) -> np.ndarray:
            table = prompts.pivot_table(index="layer", columns="lr", values=measure)
            return table.to_numpy(float)[..., None]

        correct = right(best)
        probes = best_rates(runs[runs["method"] == "layer_probe"])
        pieces = operations[operations["network"] == network].sort_values("layer")
        found.append(
            Curve(
                network=str(network),
                task=str(task),
                kind=str(runs["kind"].iloc[0]),
                last=last,
                layers=layers,
                rates=tuple(rates),
                validation=100 * by_run("val_accuracy"),
                loss=by_run("val_loss"),
                test=100 * correct.mean(1),
                correct=correct,
                prices=_prices(pieces, layers),
                probe=100 * float(chosen(probes)["test_accuracy"]),
                papers_place=int(pieces.loc[pieces["papers_place"], "layer"].iloc[0]),
                scores=_scores(best, measured, probes),
                draw=int(draw),
            )
        )
    return over_draws(found)


def with_other_draws(curves: Sequence[Curve]) -> list[Curve]:
    """The first draw's curve of each pair that has two, the validation of both as two seeds."""
    found = []
    for first in (one for one in curves if one.draw == 0):
        pair = (first.network, first.task, 1)
        for second in (one for one in curves if (one.network, one.task, one.draw) == pair):
            validation, loss = (
                np.concatenate([getattr(one, name) for one in (first, second)], axis=2)
                for name in ("validation", "loss")
            )
            found.append(replace(first, validation=validation, loss=loss))
    return found


def right(best: pd.DataFrame) -> Float[np.ndarray, "places pictures"]:
    """1 where the run of a place got a test picture right, 0 where not."""
    return np.stack([unpacked(text) for text in best["correct"]]).astype(float)


def over_draws(curves: Sequence[Curve]) -> list[Curve]:
    """Each draw's curve with what its places and its best probe are worth on the mean of all draws
    of the pair (the test pictures are the same)."""
    means = []
    for one in curves:
        pair = [c for c in curves if (c.network, c.task) == (one.network, one.task)]
        correct = np.mean([c.correct for c in pair if c.correct is not None], axis=0)
        probe = float(np.mean([c.probe for c in pair]))
        means.append(replace(one, test=100 * correct.mean(1), correct=correct, probe=probe))
    return means


def _scores(
    prompts: pd.DataFrame, measured: Sequence[pd.DataFrame], probes: pd.DataFrame
) -> Float[np.ndarray, "places scores"] | None:
    """`SCORES` at the prompts' places; None where a table is missing or lacks one of them."""
    keys = ["network", "task", "layer"]
    probe = probes[[*keys, "val_accuracy"]].rename(columns={"val_accuracy": "probe"})
    places = prompts[keys]
    for table in (*measured, probe):
        places = places.merge(table, on=keys, how="left")
    if not set(SCORES) <= set(places):
        return None
    scores = places[[*SCORES]].to_numpy(float)
    return None if np.isnan(scores).any() else scores


def _prices(pieces: pd.DataFrame, layers: np.ndarray, val: int = 200) -> np.ndarray:
    """Operations of one run at each place from kept activations, all epochs and validations."""
    counted = Operations(tuple(pieces["forward"]), tuple(pieces["backward"]))
    prices = Prices(counted, train=400, val=val)
    checks = RECIPE.epochs / RECIPE.validate_every
    return np.array(
        [RECIPE.epochs * prices.epoch(l) + checks * val * prices.after(l)[0] for l in layers]
    )


def of_older_sweeps(results: Results) -> list[Curve]:
    """The sweeps before the campaign; a run counts the same at every place."""
    table = results.gathered("accuracy")
    found = []
    for (network, task), rows in table[table["method"] == "ap"].groupby(["network", "task"]):
        last = int(rows["layer"].max())
        rows = rows[rows["layer"] < last]

        def by_seed(measure: str, rows: pd.DataFrame = rows) -> np.ndarray:
            some = rows[rows["measure"] == measure]
            table = some.pivot_table(index="layer", columns="seed", values="value").dropna(axis=0)
            return 100 * table.to_numpy(float)

        tests, validation = by_seed("test_accuracy"), by_seed("val_accuracy")
        layers = np.sort(rows["layer"].unique())
        if len(layers) < 4 or len(tests) != len(layers):
            continue
        found.append(
            Curve(
                network=str(network),
                task=str(task),
                kind="vit" if is_vit(str(network)) else "cnn",
                last=last,
                layers=layers,
                rates=(float("nan"),),
                validation=validation[:, None],
                loss=np.zeros_like(validation)[:, None],
                test=tests.mean(1),
                by_seed=tests,
                prices=np.ones(len(layers)),
            )
        )
    return found


def read_curves(results: Path) -> tuple[list[Curve], list[Curve]]:
    """(of the campaign, of the older sweeps) from a folder of result tables.

    Raises:
        NotMeasured: a table is missing.
    """
    tables = Results(results)
    journal, operations = read_journal(results / "evidence"), tables.table("evidence/operations")
    measured = []
    if tables.has("evidence/shift") and tables.has("evidence/survival"):
        shift = tables.table("evidence/shift").query("origin == 'reference'")
        for name, table in (("shift", shift), ("survival", tables.table("evidence/survival"))):
            measured.append(table[["network", "task", "layer", name]])
    return of_campaign(journal, operations, measured), of_older_sweeps(tables)

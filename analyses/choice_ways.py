"""The ways to choose a layer that are judged: what each one buys, and what it prefers then.

A way trains prompts at some places and rates (or at none) and prefers the place whose validation
says most, perhaps less λ · |2 · depth − 1| (a pull to the middle) plus a share of a prior: the
curve that other pairs make one expect, as the mean of those of its kind or from scores of its
places. What is free in a way (the rate, λ, the share) and the prior are learnt on other networks
*and* tasks than those that it is judged on (`learnt`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from analyses.choice_curves import Curve, unlike
from analyses.choice_scores import expected

PULLS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""λ, in points of accuracy from the middle to either end."""
SHARES = (0.5, 1.0, 2.0)
NATS = 1e-6
"""Weight of the loss beside accuracies in points: it decides where they tie."""


class Free(NamedTuple):
    """What a way learns elsewhere: rates (their numbers), the pull λ, the prior's share."""

    rates: tuple[int, ...] = ()
    pull: float = 0.0
    share: float = 0.0


Judged = tuple[np.ndarray, np.ndarray]
"""(preference at each place, runs bought)."""


Prior = Callable[[Curve, Sequence[Curve]], np.ndarray]
"""What is expected of a curve's places, from curves of other networks and tasks."""


def mean_curve(depth: np.ndarray, others: Sequence[Curve]) -> np.ndarray:
    """Mean over other networks' curves, each in points less its own mean, at these depths."""
    if not others:
        return np.zeros(len(depth))
    curves = [np.interp(depth, one.depth, one.test - one.test.mean()) for one in others]
    return np.asarray(np.mean(curves, axis=0))


def mean_of_kind(curve: Curve, others: Sequence[Curve]) -> np.ndarray:
    """The mean curve of the others that are CNNs, or ViTs, like this one."""
    return mean_curve(curve.depth, [one for one in others if one.kind == curve.kind])


@dataclass(frozen=True)
class Way:
    """``judge`` gives preference and bought runs from a curve, what is free, and the prior."""

    name: str
    judge: Callable[[Curve, Free, np.ndarray], Judged]
    grid: tuple[Free, ...] = (Free(),)
    prior: Prior = mean_of_kind

    @property
    def uses_prior(self) -> bool:
        return any(free.share for free in self.grid)


def spread(curve: Curve, count: int | None) -> np.ndarray:
    """Numbers of ``count`` places nearest to the depths 1/(count + 1), 2/(count + 1), …; or all."""
    if count is None:
        return np.arange(len(curve.layers))
    depths = np.arange(1, count + 1) / (count + 1)
    return np.unique([int(np.abs(curve.depth - depth).argmin()) for depth in depths])


def untrained(
    wanted: Callable[[Curve], np.ndarray],
) -> Callable[[Curve, Free, np.ndarray], Judged]:
    """A preference that follows from the places alone: nothing is bought."""

    def judge(curve: Curve, free: Free, prior: np.ndarray) -> Judged:
        return wanted(curve), np.zeros(curve.validation.shape, dtype=bool)

    return judge


def papers_place(curve: Curve) -> np.ndarray:
    """The place nearest to the paper's, the deeper of two."""
    assert curve.papers_place is not None
    return np.asarray(curve.depth / 2 - np.abs(curve.layers - curve.papers_place))


def by_prior(curve: Curve, free: Free, prior: np.ndarray) -> Judged:
    return prior, np.zeros(curve.validation.shape, dtype=bool)


def trials(
    curve: Curve,
    free: Free,
    prior: np.ndarray,
    *,
    places: int | None = None,
    seeds: int = 1,
    measure: str = "accuracy",
    over_rates: str = "best",
    neighbours: bool = False,
) -> Judged:
    """Prompts at some places and rates, each trained to the end; each perhaps judged by the mean
    of it and of those next to it that were tried."""
    tried = spread(curve, places)
    rates = list(free.rates)
    bought = np.zeros(curve.validation.shape, dtype=bool)
    bought[np.ix_(tried, rates, range(seeds))] = True
    seen = _measured(curve, measure)[:, rates, :seeds].mean(2)
    value = seen.max(1) if over_rates == "best" else seen.mean(1)
    if neighbours:
        value[tried] = [value[tried][max(0, i - 1) : i + 2].mean() for i in range(len(tried))]
    return _among(curve, tried, value, free, prior), bought


def race(curve: Curve, free: Free, prior: np.ndarray) -> Judged:
    """One rate everywhere; the best third of the places gets all the others."""
    first = free.rates[0]
    seen = _measured(curve, "accuracy")[..., 0]
    everywhere = np.arange(len(curve.layers))
    start = _among(curve, everywhere, seen[:, first], free, prior)
    best = np.argsort(-start, kind="stable")[: -(-len(start) // 3)]
    bought = np.zeros(curve.validation.shape, dtype=bool)
    bought[:, first, 0] = bought[best, :, 0] = True
    return _among(curve, best, seen.max(1), free, prior), bought


def _measured(curve: Curve, measure: str) -> np.ndarray:
    """Validation of every run, better being more: accuracy in points with ties by the loss."""
    if measure == "loss":
        return -curve.loss
    return np.asarray(curve.validation - NATS * curve.loss)


def _among(
    curve: Curve, tried: np.ndarray, value: np.ndarray, free: Free, prior: np.ndarray
) -> np.ndarray:
    preference = np.full(len(curve.layers), -np.inf)
    pulled = value - free.pull * curve.off_centre + free.share * prior
    preference[tried] = pulled[tried]
    return preference


def learnt(way: Way, curves: Sequence[Curve]) -> list[tuple[Free, Judged]]:
    """For each curve what is free, as it does best on pairs of other networks and tasks, and the
    judgement of the curve by it.

    The prior that a pair sees knows neither its own network and task nor those judged on.
    """
    found = []
    lost: dict[tuple[int, int], list[float]] = {}
    for number, curve in enumerate(curves):
        others = unlike(curve, curves)
        free = way.grid[0]
        if len(way.grid) > 1:
            for one in others:
                key = (number if way.uses_prior else -1, id(one))
                if key not in lost:
                    prior = way.prior(one, unlike(one, others)) if way.uses_prior else np.zeros(1)
                    lost[key] = [one.regret(way.judge(one, each, prior)[0]) for each in way.grid]
            mine = [lost[number if way.uses_prior else -1, id(one)] for one in others]
            free = way.grid[int(np.argmin(np.round(np.mean(mine, axis=0), 9)))]
        found.append((free, way.judge(curve, free, way.prior(curve, others))))
    return found


def ways(rates: int, seeds: int, *, known_place: bool = True, scored: bool = False) -> list[Way]:
    """All of them, for curves with so many rates and seeds, a place of the paper's or none, and
    with scores or without."""
    each = [(rate,) for rate in range(rates)]
    every = (tuple(range(rates)),)

    def grid(
        rates: Sequence[tuple[int, ...]],
        pulls: Sequence[float] = (0.0,),
        shares: Sequence[float] = (0.0,),
    ) -> tuple[Free, ...]:
        return tuple(Free(*free) for free in itertools.product(rates, pulls, shares))

    found = [
        Way("the middle", untrained(lambda c: -c.off_centre)),
        Way("the image (VP)", untrained(lambda c: -c.depth)),
        Way("the last place", untrained(lambda c: c.depth)),
        Way("a random place", untrained(lambda c: np.zeros(len(c.layers)))),
        Way("mean curve of its kind", by_prior),
    ]
    if known_place:
        found.append(Way("the paper's place", untrained(papers_place)))
    priors = {"its places' scores": expected(False), "scores × shift": expected(True)}
    if scored:
        found += [Way(f"by {name}", by_prior, prior=prior) for name, prior in priors.items()]
    one = "one rate" if rates > 1 else "one seed"
    for count in (2, 3, 4, 5):
        some = partial(trials, places=count)
        found += [
            Way(f"{count} places, {one}", some, grid(each)),
            Way(f"{count} places, {one}, pulled to the middle", some, grid(each, PULLS)),
        ]
        if scored:
            name, prior = f"{count} places, {one}, and scores × shift", priors["scores × shift"]
            found.append(Way(name, some, grid(each, shares=SHARES), prior))
    if rates > 1:
        by_loss = partial(trials, measure="loss")
        steadied = partial(trials, neighbours=True)
        found += [
            Way("all places, one rate", trials, grid(each)),
            Way("all places, one rate, with their neighbours", steadied, grid(each)),
            Way("all places, one rate, by the loss", by_loss, grid(each)),
            Way("all places, one rate, pulled to the middle", trials, grid(each, PULLS)),
            Way("race over rates", race, grid(each)),
            Way("race over rates, pulled to the middle", race, grid(each, PULLS)),
        ]
    whole = "all places and rates" if rates > 1 else "all places"
    for count in sorted({1, seeds}):
        name = whole + (f", {count} seed{'s' if count > 1 else ''}")
        every_run = partial(trials, seeds=count)
        found += [
            Way(name, every_run, grid(every)),
            Way(f"{name}, pulled to the middle", every_run, grid(every, PULLS)),
            Way(f"{name}, pulled, and its kind's curve", every_run, grid(every, PULLS, SHARES)),
        ]
        if rates > 1:
            averaged = partial(trials, seeds=count, over_rates="mean")
            by_loss = partial(trials, seeds=count, measure="loss")
            found += [
                Way(f"{name}, by the loss", by_loss, grid(every)),
                Way(f"{name}, mean over rates", averaged, grid(every)),
                Way(f"{name}, mean over rates, pulled", averaged, grid(every, PULLS)),
            ]
    return found

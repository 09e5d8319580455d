"""Trials of layers within a budget: what they cost, what a budget buys, and the buying.

The unit is the operation count of the frozen network (`aptheory.training.cost`), the same for a
sweep and for everything that replaces one, so that a share of a sweep is a share of its arithmetic.
From kept activations an image costs F_after(l) forward and as much again backward at layer l, an
epoch; what goes on top (walking there, validating) is counted too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from aptheory.errors import InputError
from aptheory.methods import ActivationPrompt
from aptheory.networks.network import Network
from aptheory.tasks import Task
from aptheory.training.cost import Operations
from aptheory.training.fit import fit_many
from aptheory.training.halving import Halving, halving, rungs, seeds_at
from aptheory.training.judging import Score
from aptheory.training.recipe import Recipe, Run

FACTOR = 3


def share_text(share: float) -> str:
    """A share in percent, with two digits where it is small: "100 %", "33 %", "8.3 %", "0.08 %"."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


@dataclass(frozen=True)
class Prices:
    """Operations of trials on one network and task: ``train`` and ``val`` are numbers of images."""

    operations: Operations
    train: int
    val: int

    @cached_property
    def forward(self) -> float:
        """Of one image through the whole network."""
        return float(sum(self.operations.forward))

    def after(self, layer: int, read: int | None = None) -> tuple[float, float]:
        """Of one image from a layer on, or to ``read`` only: forward, and back to the layer."""
        ops = self.operations
        return float(sum(ops.forward[layer:read])), float(sum(ops.backward[layer:read]))

    def epoch(self, layer: int, read: int | None = None) -> float:
        """One epoch of one run at a layer, perhaps read at ``read``, from kept activations."""
        return self.train * sum(self.after(layer, read))

    def sweep(self, layers: Sequence[int], *, epochs: int, seeds: int) -> float:
        """A full sweep: every layer and seed to the end, each validated once.

        Its controls and its test images are left out, so shares of it are rather too large.
        """
        runs = sum(epochs * self.epoch(l) + self.val * self.after(l)[0] for l in layers)
        return seeds * runs + (2 * self.train + self.val) * self.forward

    def search(self, layers: Sequence[int], *, epochs: int, seeds: int = 1) -> float:
        """Successive halving over these layers, at worst: the dearest always go on."""
        dearest = sorted(layers, key=self.epoch, reverse=True)
        total = self.train * self.forward  # the clean features that standardise the head
        alive, before, running = len(dearest), 0, 0
        for stop in rungs(epochs, len(dearest), factor=FACTOR, least=1):
            total += (self.train + self.val) * self.forward  # the walk through the places
            started = seeds_at(stop, epochs, seeds)
            evaluations = 2 if stop == epochs else 1  # at the end on the test images' stand-in too
            for layer in dearest[:alive]:
                total += (started * stop - running * before) * self.epoch(layer)
                total += started * evaluations * self.val * self.after(layer)[0]
            alive, before, running = max(1, math.ceil(alive / FACTOR)), stop, started
        return total


@dataclass(frozen=True)
class Plan:
    """What a budget buys: trials of ``layers``, those that last trained ``epochs`` long.

    ``lrs`` are the learning rates of each trial, None being the recipe's. No layers: the budget
    buys no choice between two.
    """

    layers: tuple[int, ...] = ()
    epochs: int = 0
    seeds: int = 0
    operations: float = 0.0
    lrs: tuple[float | None, ...] = (None,)


def plan(
    prices: Prices,
    order: Sequence[int],
    *,
    budget: float,
    epochs: int,
    seeds: int = 3,
    enough: int = 4,
) -> Plan:
    """The first layers of ``order`` that a budget (in operations) buys trials of.

    The full ``epochs`` if that buys ``enough`` layers; else a third of them, a ninth, and so on
    down to one epoch; there as many layers as can be had, if two at least. What is left when all
    layers are bought at full length goes to more seeds, up to ``seeds``.
    """
    length, order = epochs, tuple(order)
    while True:
        for count in range(len(order), 1, -1):
            price = prices.search(order[:count], epochs=length)
            if price <= budget and (count >= min(enough, len(order)) or length == 1):
                found = Plan(order[:count], length, 1, price)
                if count < len(order) or length < epochs:
                    return found
                for more in range(2, seeds + 1):
                    price = prices.search(order, epochs=epochs, seeds=more)
                    if price <= budget:
                        found = Plan(order, epochs, more, price)
                return found
        if length == 1:
            return Plan()
        length = max(1, length // FACTOR)


def spread_out(layers: Sequence[int]) -> tuple[int, ...]:
    """Layers in an order whose every beginning is spread over the depth: middle, ends, quarters.

    For a search that knows nothing yet.
    """
    left, order = sorted(layers), []
    if left:
        order.append(left.pop(len(left) // 2))
    while left:
        # The one farthest from all that were taken; the deeper of two that are equally far.
        far = max(left, key=lambda one: (min(abs(one - taken) for taken in order), one))
        left.remove(far)
        order.append(far)
    return tuple(order)


def spread_inside(layers: Sequence[int], count: int) -> tuple[int, ...]:
    """The ``count`` layers nearest to the shares 1/(count + 1), 2/(count + 1), … of the way from
    the first to the last: neither end is among few of them, where prompts seldom work best.

    >>> spread_inside(range(13), 2)
    (4, 8)
    """
    ordered = sorted(layers)
    if count >= len(ordered):
        return tuple(ordered)
    first, last = ordered[0], ordered[-1]
    left, found = list(ordered), []
    for share in range(1, count + 1):
        wanted = first + (last - first) * share / (count + 1)
        nearest = min(left, key=lambda layer: (abs(layer - wanted), layer))
        left.remove(nearest)
        found.append(nearest)
    return tuple(sorted(found))


def full_trials(
    prices: Prices,
    layers: Sequence[int],
    *,
    budget: float,
    epochs: int,
    lr: float | None = None,
    lrs: Sequence[float] = (),
    most: int = 5,
) -> Plan:
    """Runs of the full length that a budget (in operations) buys, one seed each.

    Every layer at all of ``lrs``, if that can be had; else as many layers, spread inside, as can
    be had at the one rate ``lr``, ``most`` at most; no layers where the budget does not buy two.
    More layers at one rate were no better than five (``analyses/layer_front.py``): the more there
    are to choose from, the more the luck of a validation decides.
    """
    if lrs:
        price = prices.sweep(layers, epochs=epochs, seeds=len(lrs))
        if price <= budget:
            return Plan(tuple(layers), epochs, 1, price, tuple(lrs))
    for count in range(min(most, len(layers)), 1, -1):
        some = spread_inside(layers, count)
        price = prices.sweep(some, epochs=epochs, seeds=1)
        if price <= budget:
            return Plan(some, epochs, 1, price, (lr,))
    return Plan()


def run_trials(
    net: Network, task: Task, bought: Plan, *, recipe: Recipe | None = None, seed: int = 0
) -> dict[int, Score]:
    """Layer -> validation of a prompt that was trained there to the end, at its best rate.

    Test images are not even read: the validation images stand in their place. A run that came to
    no usable model is left out.

    Raises:
        InputError: a plan without layers, or no run that came to a usable model.
    """
    if not bought.layers:
        raise InputError("this plan holds no trial: give a larger budget.")
    scores: dict[int, Score] = {}
    for layer in sorted(bought.layers):
        outcomes = fit_many(
            ActivationPrompt(layer=layer),
            net,
            replace(task, test=task.val),
            runs=[Run(seed=seed, lr=lr) for lr in bought.lrs],
            recipe=(recipe or Recipe()).but(epochs=bought.epochs),
        )
        usable = [outcome.score for outcome in outcomes if not outcome.failed]
        if usable:
            scores[layer] = min(usable, key=lambda score: score.cost("accuracy"))
    if not scores:
        raise InputError("no trial came to a usable model; try a smaller learning rate.")
    return scores


def pulled(scores: Mapping[int, Score], layers: int, pull: float) -> dict[int, float]:
    """Layer -> validation accuracy in points less ``pull`` · |2 · depth − 1|, ties by the loss.

    A few hundred validation images tell layers apart by some points only, and the ends of a
    network are rarely best: where many runs compete, what is lost by luck is more than what the
    pull costs.
    """
    last = max(1, layers - 1)
    return {
        layer: 100 * score.accuracy - 1e-6 * score.loss - pull * abs(2 * layer / last - 1)
        for layer, score in scores.items()
    }


def search(
    net: Network, task: Task, bought: Plan, *, recipe: Recipe | None = None, seed: int = 0
) -> Halving:
    """Carry a plan out: prompts at its layers, judged on validation images alone.

    The schedule is the recipe's, shrunk to the plan's epochs. Test images are not even read: the
    validation images stand in their place. ``best`` of what comes back is the survivor with the
    highest mean validation accuracy, ties by the loss.

    Raises:
        InputError: a plan without layers.
    """
    if not bought.layers:
        raise InputError("this plan holds no trial: give a larger budget")
    recipe = recipe or Recipe()
    short = recipe.but(
        epochs=bought.epochs,
        warmup_epochs=min(recipe.warmup_epochs, bought.epochs // 3),
        patience=None,
        validate_every=0,
    )
    methods = [ActivationPrompt(layer=layer) for layer in sorted(bought.layers)]
    runs = [Run(seed=seed + k) for k in range(bought.seeds)]
    blind = replace(task, test=task.val)
    return halving(methods, net, blind, runs=runs, recipe=short, factor=FACTOR, least=1)

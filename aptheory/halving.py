"""Successive halving: many layers, learning rates and seeds, most of them for a few epochs only.

Every configuration trains for a few epochs; the best third by validation goes on, from where it
stands, to three times as many; and so on to the recipe's full length. A configuration is a method
(with its layer), a learning rate and a weight decay; its seeds are trained side by side, judged by
their mean and kept or dropped together. Test data are read for the last survivors only.

Jamieson & Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016 (the rule); the schedule stays that of the full length, so that a survivor is, to
rounding, the run that it would have been in a full sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from aptheory.errors import InputError
from aptheory.kept import Kept
from aptheory.recipe import Recipe, Run
from aptheory.stack import Outcome, Stack
from aptheory.training import first_layer, kept_for, stack_size

if TYPE_CHECKING:
    from aptheory.methods.base import Method
    from aptheory.network import Network
    from aptheory.tasks.base import Task


@dataclass
class Halving:
    """What a search found.

    ``table``: one row a configuration and rung: configuration, method, first_layer, lr,
    weight_decay, rung, epochs, val_accuracy, val_loss (means over seeds), goes_on. ``outcomes``:
    the survivors' runs, trained to the end. ``best``: the method and the rates of the survivor
    with the best mean validation accuracy. ``epochs``: epochs trained in all, a run each, and
    ``full_epochs`` those of the full sweep.
    """

    table: pd.DataFrame
    outcomes: list[Outcome]
    best: tuple[Method, Run]
    epochs: int
    full_epochs: int


def rungs(epochs: int, configurations: int, *, factor: int = 3, least: int = 2) -> list[int]:
    """Epochs at which configurations are dropped, the full length last.

    ``rungs(20, 30)`` = [2, 7, 20]: 30 configurations to epoch 2, 10 to 7, 4 to 20.
    """
    if factor < 2 or least < 1:
        raise InputError(f"factor must be >= 2 and least >= 1; got {factor} and {least}.")
    steps = 0
    while epochs / factor ** (steps + 1) >= least and configurations > factor ** (steps + 1):
        steps += 1
    if configurations > 1 and steps == 0 and epochs > least:
        steps = 1
    found = [max(least, round(epochs / factor**step)) for step in range(steps, 0, -1)]
    return [*(e for e in dict.fromkeys(found) if e < epochs), epochs]


def halving(
    methods: Sequence[Method],
    net: Network,
    task: Task,
    *,
    runs: Sequence[Run],
    recipe: Recipe | None = None,
    factor: int = 3,
    least: int = 2,
    judge: str = "accuracy",
    kept: Kept | None = None,
    log: Callable[[str], None] | None = None,
) -> Halving:
    """Search over ``methods`` (one a layer, say) times ``runs``; see the module's account.

    ``judge`` is what is compared on validation data: "accuracy" (ties by the loss) or "loss".
    The kept activations are walked through the layers once a rung.
    """
    if judge not in ("accuracy", "loss"):
        raise InputError(f"judge must be accuracy or loss; got {judge!r}.")
    if not methods or not runs:
        raise InputError("halving needs at least one method and one run.")
    recipe = recipe or Recipe()
    members = _members(methods, runs)
    stops = rungs(recipe.epochs, len(members), factor=factor, least=least)
    own = kept is None
    kept = kept or kept_for(net, task, recipe, log=log)
    order = sorted(range(len(methods)), key=lambda m: first_layer(methods[m], net))
    stacks: dict[int, list[tuple[list[int], Stack]]] = {}
    rows: list[dict[str, Any]] = []
    alive = list(range(len(members)))
    trained = 0
    for rung, stop in enumerate(stops):
        last = rung == len(stops) - 1
        scores: dict[tuple[int, int], tuple[float, float]] = {}
        for m in order:
            if not any(members[c][0] == m for c in alive):
                continue
            if m not in stacks:
                stacks[m] = _start(m, methods[m], members, net, task, runs, recipe, kept, log)
            kept.advance(first_layer(methods[m], net))
            for numbers, stack in stacks[m]:
                before = stack.loop.epoch
                trained += len(stack.going) * (stop - before)
                stack.train_to(stop)
                for number, score in stack.validate().items():
                    scores[m, numbers[number]] = score
                if last:
                    stack.finish()
        ranked = sorted(alive, key=lambda c: _key(members[c], scores, judge))
        going = ranked if last else ranked[: max(1, math.ceil(len(alive) / factor))]
        for c in alive:
            rows.append(_row(c, members[c], methods, runs, recipe, rung, stop, scores, c in going))
        alive = going
        for m, parts in stacks.items():
            wanted = {r for c in alive if members[c][0] == m for r in members[c][1]}
            for numbers, stack in parts:
                if not last:
                    stack.keep([k for k, number in enumerate(numbers) if number in wanted])
    if own:
        kept.close()
    outcomes = []
    for c in alive:
        m, numbers = members[c]
        for at, stack in stacks[m]:
            outcomes += [stack.done[k] for k, number in enumerate(at) if number in numbers]
    m, numbers = members[alive[0]]
    full = len(methods) * len(runs) * recipe.epochs
    return Halving(pd.DataFrame(rows), outcomes, (methods[m], runs[numbers[0]]), trained, full)


def _members(methods: Sequence[Method], runs: Sequence[Run]) -> list[tuple[int, list[int]]]:
    """(method, the runs that differ in nothing but their seed) of every configuration."""
    settings: dict[tuple[Any, Any], list[int]] = {}
    for number, run in enumerate(runs):
        settings.setdefault((run.lr, run.weight_decay), []).append(number)
    return [(m, numbers) for m in range(len(methods)) for numbers in settings.values()]


def _start(
    m: int,
    method: Method,
    members: Sequence[tuple[int, list[int]]],
    net: Network,
    task: Task,
    runs: Sequence[Run],
    recipe: Recipe,
    kept: Kept,
    log: Callable[[str], None] | None,
) -> list[tuple[list[int], Stack]]:
    """The stacks of one method, each with the numbers of its runs."""
    numbers = [number for c in members if c[0] == m for number in c[1]]
    place = first_layer(method, net)
    kept.advance(place)
    size = stack_size(method, net, recipe, len(numbers), place)
    found = []
    for i in range(0, len(numbers), size):
        part = numbers[i : i + size]
        adapted = method.attach(
            net, classes=len(task.classes), runs=len(part), seed=[runs[k].seed for k in part]
        ).to(kept.device)
        found.append((part, Stack(adapted, [runs[k] for k in part], kept, recipe, log=log)))
    return found


def _means(
    member: tuple[int, list[int]], scores: dict[tuple[int, int], tuple[float, float]]
) -> tuple[float, float]:
    """Mean validation accuracy and loss over seeds; a seed that failed makes the worst of both."""
    each = [scores.get((member[0], number), (-math.inf, math.inf)) for number in member[1]]
    return sum(a for a, _ in each) / len(each), sum(b for _, b in each) / len(each)


def _key(
    member: tuple[int, list[int]],
    scores: dict[tuple[int, int], tuple[float, float]],
    judge: str,
) -> tuple[float, float]:
    accuracy, loss = _means(member, scores)
    loss = math.inf if math.isnan(loss) else loss
    return (-accuracy, loss) if judge == "accuracy" else (loss, -accuracy)


def _row(
    configuration: int,
    member: tuple[int, list[int]],
    methods: Sequence[Method],
    runs: Sequence[Run],
    recipe: Recipe,
    rung: int,
    epochs: int,
    scores: dict[tuple[int, int], tuple[float, float]],
    goes_on: bool,
) -> dict[str, Any]:
    method, run = methods[member[0]], runs[member[1][0]]
    accuracy, loss = _means(member, scores)
    return {
        "configuration": configuration,
        **method.settings(),
        "lr": recipe.lr if run.lr is None else run.lr,
        "weight_decay": recipe.weight_decay if run.weight_decay is None else run.weight_decay,
        "rung": rung,
        "epochs": epochs,
        "val_accuracy": accuracy,
        "val_loss": loss,
        "goes_on": goes_on,
    }

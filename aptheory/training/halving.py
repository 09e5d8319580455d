"""Successive halving: many layers, learning rates and seeds, most of them for a few epochs only.

Every configuration trains for a few epochs; the best third by validation goes on, from where it
stands, to three times as many; and so on to the recipe's full length. A configuration is a method
(with its layer), a learning rate and a weight decay. Its seeds are judged by their mean, and are
spent as its epochs are: a third of the epochs is trained with a third of the seeds, and the others
join when it has come that far. Test data are read for the last survivors only.

Jamieson & Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016 (the rule); the schedule stays that of the full length, so that a survivor is, to
rounding, the run that it would have been in a full sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from aptheory.errors import InputError
from aptheory.training.fit import first_layer, kept_for, stack_size
from aptheory.training.judging import JUDGES, WORST, Score
from aptheory.training.kept import Kept
from aptheory.training.outcome import Outcome
from aptheory.training.recipe import Recipe, Run
from aptheory.training.stack import Stack

if TYPE_CHECKING:
    from aptheory.methods.base import Method
    from aptheory.networks.network import Network
    from aptheory.tasks.base import Task


@dataclass(eq=False)
class Halving:
    """What a search found.

    ``table``: one row a configuration and rung: configuration, method, first_layer, lr,
    weight_decay, rung, epochs, seeds (started by then), val_accuracy, val_loss (means over them),
    goes_on. ``outcomes``: the survivors' runs, trained to the end. ``best``: the method and the
    rates of the survivor with the best mean validation accuracy. ``epochs``: epochs trained in
    all, a run each, and ``full_epochs`` those of the full sweep. ``dropped``: the other runs that
    were started, without accuracies; the last entry of a curve has its validation.
    """

    table: pd.DataFrame
    outcomes: list[Outcome]
    best: tuple[Method, Run]
    epochs: int
    full_epochs: int
    dropped: list[Outcome]


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
    stops = [max(least, round(epochs / factor**step)) for step in range(steps, 0, -1)]
    return [*(e for e in dict.fromkeys(stops) if e < epochs), epochs]


def seeds_at(epoch: int, epochs: int, seeds: int) -> int:
    """How many of a configuration's seeds have started when it stands at ``epoch``.

    The same share as of its epochs, rounded up: 1, 1 and 2 of two seeds at epochs 1, 3 and 9 of 9.
    """
    return math.ceil(seeds * epoch / epochs)


@dataclass(eq=False)
class Configuration:
    """A method with its place, a learning rate and a weight decay, and how well it stands.

    ``runs`` are the numbers of its seeds among the method's, in the order in which they start.
    """

    number: int
    trials: _Trials
    runs: tuple[int, ...]
    score: Score = WORST

    def started(self, epoch: int) -> tuple[int, ...]:
        """The runs that have started when it stands at ``epoch``."""
        return self.runs[: seeds_at(epoch, self.trials.recipe.epochs, len(self.runs))]

    def judge_by(self, reached: Mapping[int, Score], epoch: int) -> None:
        """Take the mean over the seeds that have started; one that failed makes it the worst."""
        self.score = _mean([reached.get(number, WORST) for number in self.started(epoch)])

    def row(self, rung: int, epoch: int, *, goes_on: bool) -> dict[str, Any]:
        """Where it stood at a rung, as a row of `Halving.table`."""
        recipe, run = self.trials.recipe, self.first_run
        return {
            "configuration": self.number,
            **self.trials.method.settings(),
            "lr": recipe.lr if run.lr is None else run.lr,
            "weight_decay": recipe.weight_decay if run.weight_decay is None else run.weight_decay,
            "rung": rung,
            "epochs": epoch,
            "seeds": len(self.started(epoch)),
            "val_accuracy": self.score.accuracy,
            "val_loss": self.score.loss,
            "goes_on": goes_on,
        }

    @property
    def first_run(self) -> Run:
        return self.trials.runs[self.runs[0]]


def halving(
    methods: Sequence[Method],
    net: Network,
    task: Task,
    *,
    runs: Sequence[Run],
    recipe: Recipe | None = None,
    factor: int = 3,
    least: int = 2,
    judge: str | None = None,
    kept: Kept | None = None,
    log: Callable[[str], None] | None = None,
) -> Halving:
    """Search over ``methods`` (one a layer, say) times ``runs``; see the module's account.

    ``judge`` is what is compared on validation data: "accuracy" (ties by the loss) or "loss"; by
    default the recipe's. The kept activations are walked through the layers once a rung.
    """
    if judge not in (None, *JUDGES):
        raise InputError(f"judge must be accuracy or loss; got {judge!r}.")
    if not methods or not runs:
        raise InputError("halving needs at least one method and one run.")
    recipe = recipe or Recipe()
    judge = judge or recipe.judge
    ready = kept or kept_for(net, task, recipe, log=log)
    trials = [_Trials(method, runs, net, task, recipe, ready, log) for method in methods]
    pairs = [(each, group) for each in trials for group in _equal_but_for_seed(runs)]
    alive = [Configuration(number, *pair) for number, pair in enumerate(pairs)]
    stops = rungs(recipe.epochs, len(alive), factor=factor, least=least)
    rows: list[dict[str, Any]] = []
    for rung, stop in enumerate(stops):
        last = stop == stops[-1]
        _train(alive, stop, last=last)
        ranked = sorted(alive, key=lambda each: each.score.cost(judge))
        survivors = ranked if last else ranked[: max(1, math.ceil(len(alive) / factor))]
        rows += [each.row(rung, stop, goes_on=each in survivors) for each in alive]
        alive = survivors
        if not last:
            for each in trials:
                each.keep(
                    {number for known in alive if known.trials is each for number in known.runs}
                )
    if kept is None:
        ready.close()
    ended = [(each.trials, number) for each in alive for number in each.runs]
    dropped = [
        (each, number) for each in trials for number in each.started if (each, number) not in ended
    ]
    return Halving(
        pd.DataFrame(rows),
        [each.outcome(number) for each, number in ended],
        (alive[0].trials.method, alive[0].first_run),
        sum(each.epochs for each in trials),
        len(methods) * len(runs) * recipe.epochs,
        [each.outcome(number) for each, number in dropped],
    )


def _train(alive: Sequence[Configuration], stop: int, *, last: bool) -> None:
    """Bring every configuration to epoch ``stop`` and judge it, in the order of the places."""
    by_trials: dict[_Trials, list[Configuration]] = {}
    for each in sorted(alive, key=lambda known: (known.trials.place, known.number)):
        by_trials.setdefault(each.trials, []).append(each)
    for trials, mine in by_trials.items():
        wanted = [number for each in mine for number in each.started(stop)]
        reached = trials.train(wanted, stop, last=last)
        for each in mine:
            each.judge_by(reached, stop)


class _Trials:
    """The runs of one method, started when they are first wanted; known by their number."""

    def __init__(
        self,
        method: Method,
        runs: Sequence[Run],
        net: Network,
        task: Task,
        recipe: Recipe,
        kept: Kept,
        log: Callable[[str], None] | None,
    ) -> None:
        self.method, self.place, self.runs = method, first_layer(method, net), runs
        self.net, self.task, self.recipe, self.kept, self.log = net, task, recipe, kept, log
        self.stacks: list[tuple[list[int], Stack]] = []
        self.epochs = 0

    def train(self, wanted: Sequence[int], stop: int, *, last: bool) -> dict[int, Score]:
        """Bring these runs to epoch ``stop``; number -> validation accuracy and loss there."""
        self.kept.advance(self.place)
        present = {number for numbers, _ in self.stacks for number in numbers}
        self._start([number for number in wanted if number not in present])
        scores: dict[int, Score] = {}
        for numbers, stack in self.stacks:
            self.epochs += len(stack.going) * (stop - stack.loop.epoch)
            stack.train_to(stop)
            if last:
                stack.finish()
            else:
                scores |= {numbers[k]: score for k, score in stack.validate().items()}
            for k, outcome in stack.done.items():  # finished now, or stopped early
                if not outcome.failed:
                    scores[numbers[k]] = outcome.score
        return scores

    def _start(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        size = stack_size(self.method, self.net, self.recipe, len(numbers), self.place)
        for i in range(0, len(numbers), size):
            part = list(numbers[i : i + size])
            runs = [self.runs[k] for k in part]
            adapted = self.method.attach(
                self.net,
                classes=len(self.task.classes),
                runs=len(part),
                seed=[run.seed for run in runs],
            ).to(self.kept.device)
            self.stacks.append((part, Stack(adapted, runs, self.kept, self.recipe, log=self.log)))

    @property
    def started(self) -> list[int]:
        """Numbers of the runs that were ever wanted, in order."""
        return sorted(number for numbers, _ in self.stacks for number in numbers)

    def keep(self, wanted: set[int]) -> None:
        """Only these runs go on."""
        for numbers, stack in self.stacks:
            stack.keep([k for k, number in enumerate(numbers) if number in wanted])

    def outcome(self, number: int) -> Outcome:
        for numbers, stack in self.stacks:
            if number in numbers:
                return stack.done[numbers.index(number)]
        raise KeyError(number)


def _equal_but_for_seed(runs: Sequence[Run]) -> list[tuple[int, ...]]:
    """Numbers of the runs that differ in nothing but their seed, a group a setting."""
    groups: dict[tuple[Any, Any], list[int]] = {}
    for number, run in enumerate(runs):
        groups.setdefault((run.lr, run.weight_decay), []).append(number)
    return [tuple(numbers) for numbers in groups.values()]


def _mean(scores: Sequence[Score]) -> Score:
    """Over seeds; a seed that failed makes the worst of both."""
    return Score(*(sum(values) / len(values) for values in zip(*scores, strict=True)))

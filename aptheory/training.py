"""Fit a method on a task, from the activations that enter the first trained place.

    adapted = ActivationPrompt(layer=5).attach(net, classes=len(task.classes))
    outcome = fit(adapted, task, recipe=Recipe(epochs=30), seed=0)

`fit_many` is the general form: K runs that differ in seed, learning rate and weight decay train
together. Nothing here knows a method by name: a method says what it trains and where the network
first feels it, and the rest follows.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aptheory.errors import InputError
from aptheory.kept import Kept
from aptheory.loop import Loop, Progress
from aptheory.memory import peak_memory, reset_peak
from aptheory.recipe import Recipe, Run, grid

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted, Method
    from aptheory.network import Network
    from aptheory.tasks.base import Task

__all__ = ["Kept", "Outcome", "Recipe", "Run", "fit", "fit_many", "grid", "kept_for"]

_log = logging.getLogger("aptheory")


@dataclass
class Outcome:
    """What came of one run.

    Accuracies are fractions in [0, 1]: test and validation of the last epoch's model, or of the
    best validated one under early stopping; training accuracy is the running one of that epoch.
    They are nan where ``stopped_reason`` says that the loss was not finite. ``epochs`` is how many
    were trained, ``seconds`` the wall time of its stack divided by the runs in it (the run's
    share), ``peak_memory`` bytes (allocated on a GPU; resident, the whole process, on a CPU).
    ``curve`` has one entry an epoch. ``kept`` says where the activations were kept.
    """

    network: str
    task: str
    method: dict[str, Any]
    recipe: dict[str, Any]
    seed: int
    lr: float
    weight_decay: float
    first_layer: int
    parameters: int
    parameters_without_head: int
    train_accuracy: float = math.nan
    val_accuracy: float = math.nan
    test_accuracy: float = math.nan
    val_loss: float = math.nan
    test_loss: float = math.nan
    epochs: int = 0
    stopped_reason: str | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    predictions: np.ndarray | None = None
    adapted: Adapted | None = field(default=None, repr=False)

    @property
    def failed(self) -> bool:
        """Whether the run ended without a usable model."""
        return math.isnan(self.val_accuracy)

    def record(self) -> dict[str, Any]:
        """Plain values for a file: everything but the predictions and the model."""
        values = {**self.__dict__, "predictions": None, "adapted": None}
        del values["predictions"], values["adapted"]
        return copy.deepcopy(values)


def fit(
    adapted: Adapted,
    task: Task,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    lr: float | None = None,
    weight_decay: float | None = None,
    kept: Kept | None = None,
    fresh: bool = True,
    predictions: bool = False,
    log: Callable[[str], None] | None = None,
) -> Outcome:
    """Train ``adapted`` (runs == 1) in place and say how well it does.

    ``seed`` decides the start of what is learned and the order of the images. ``fresh=False``
    goes on from where ``adapted`` stands, its head's standardisation included. ``kept`` are
    activations to start from (moved to the method's place); by default they are made.

    Raises InputError for a stack of several runs or classes that are not the task's.
    """
    recipe = recipe or Recipe()
    if adapted.runs != 1:
        raise InputError(f"fit trains one run, but {adapted.runs} are attached: use fit_many.")
    if adapted.classes != len(task.classes):
        raise InputError(
            f"The head has {adapted.classes} classes, but task {task.name!r} has "
            f"{len(task.classes)}; attach the method with classes={len(task.classes)}."
        )
    if fresh:
        adapted.reset([seed])
    net = adapted._source[0]
    kept = _ready(kept, net, task, recipe, adapted.first_layer, stacks=1, log=log)
    run = Run(seed=seed, lr=lr, weight_decay=weight_decay)
    trainer = _Trainer(adapted, [run], kept, recipe, predictions=predictions, fresh=fresh, log=log)
    outcome = trainer.outcomes()[0]
    adapted.eval()
    return outcome


def fit_many(
    methods: Method | Sequence[Method],
    net: Network,
    task: Task,
    *,
    runs: Sequence[Run],
    recipe: Recipe | None = None,
    kept: Kept | None = None,
    predictions: bool = False,
    keep_models: bool = False,
    log: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Train one method for every run, as many at once as pays; outcomes in the order of ``runs``.

    ``methods`` is one method, or one for each run. Runs of an equal method train as a stack
    through the shared frozen rest (`Recipe.together` forces how many); a method that cannot be
    stacked trains run by run. ``kept`` is moved forward to each method's first place, methods
    being taken in the order of their places. ``keep_models=True`` leaves each trained `Adapted`
    in its outcome.
    """
    recipe = recipe or Recipe()
    each = list(methods) if isinstance(methods, Sequence) else [methods] * len(runs)
    if len(each) != len(runs):
        raise InputError(f"There are {len(each)} methods for {len(runs)} runs; give one a run.")
    found: list[Outcome | None] = [None] * len(runs)
    groups = sorted(_groups(each), key=lambda g: first_layer(g[0], net))
    for method, members in groups:
        place = first_layer(method, net)
        size = stack_size(method, net, recipe, len(members), place)
        stacks = [members[i : i + size] for i in range(0, len(members), size)]
        ready = _ready(kept, net, task, recipe, place, stacks=len(stacks), log=log)
        for stack in stacks:
            adapted = method.attach(
                net,
                classes=len(task.classes),
                runs=len(stack),
                seed=[runs[i].seed for i in stack],
            ).to(ready.device)
            trainer = _Trainer(
                adapted,
                [runs[i] for i in stack],
                ready,
                recipe,
                predictions=predictions,
                keep_models=keep_models,
                log=log,
            )
            for i, outcome in zip(stack, trainer.outcomes(), strict=True):
                found[i] = outcome
        if ready is not kept:
            ready.close()
    return [outcome for outcome in found if outcome is not None]


def _groups(each: Sequence[Method]) -> list[tuple[Method, list[int]]]:
    groups: list[tuple[Method, list[int]]] = []
    for i, method in enumerate(each):
        for known, members in groups:
            if known == method and type(known) is type(method):
                members.append(i)
                break
        else:
            groups.append((method, [i]))
    return groups


def first_layer(method: Method, net: Network) -> int:
    """The first place that feels ``method`` in ``net``."""
    return method.attach(net, classes=2).first_layer


def stack_size(method: Method, net: Network, recipe: Recipe, runs: int, place: int) -> int:
    """How many of ``runs`` train as one batch: the recipe's wish, or what pays on this device.

    Stacking pays while one run leaves the device idle. On a CPU that is where small tensors and
    Python's own time dominate, so the largest activation of the stack is held near what the
    caches take; a GPU is filled further. It depends on shapes alone, never on a measurement, so
    that the same study gives the same bits.
    """
    if not method.stackable:
        return 1
    if recipe.together is not None:
        return min(runs, recipe.together)
    device = next(iter(net.parameters())).device
    largest = max(math.prod(layer.shape) for layer in net.layers[place:])
    room = (2**27 if device.type == "cuda" else 2**18) / (largest * recipe.batch_size)
    return max(1, min(runs, int(room)))


def kept_for(net: Network, task: Task, recipe: Recipe, *, layer: int = 0, **options: Any) -> Kept:
    """Kept activations as a recipe asks for them; ``options`` go to `Kept`."""
    values: dict[str, Any] = {
        "keep": recipe.keep,
        "keep_dtype": recipe.keep_dtype,
        "precision": recipe.precision,
        "augment": recipe.augment,
        "views": recipe.views,
        "channels_last": use_channels_last(net, recipe),
    }
    return Kept.start(net, task, layer=layer, **{**values, **options})


def use_channels_last(net: Network, recipe: Recipe) -> bool:
    """Whether maps travel channels last: as the recipe says, else wherever the network has maps."""
    if recipe.channels_last is not None:
        return recipe.channels_last
    return any(layer.layout == "map" for layer in net.layers[1:])


def _ready(
    kept: Kept | None,
    net: Network,
    task: Task,
    recipe: Recipe,
    place: int,
    *,
    stacks: int,
    log: Callable[[str], None] | None,
) -> Kept:
    """The caller's kept activations moved to ``place``, or new ones."""
    if kept is None:
        validations = (recipe.epochs // recipe.validate_every) if recipe.validate_every else 1
        if recipe.patience is not None:
            validations = max(validations, recipe.epochs)
        passes = {
            "train": float(stacks * recipe.epochs),
            "val": float(stacks * validations),
            "test": float(stacks),
        }
        return kept_for(net, task, recipe, layer=place, passes=passes, log=log)
    if kept.net is not net or kept.task is not task:
        raise InputError(
            f"The kept activations are of {kept.net.name} on {kept.task.name}; "
            f"they cannot serve {net.name} on {task.name}."
        )
    wanted = (recipe.augment, recipe.views, recipe.precision)
    if wanted != (kept.augment, kept.views, kept.precision):
        raise InputError(
            f"The kept activations were made with augmentation, views and precision "
            f"{kept.augment}, {kept.views}, {kept.precision}; the recipe asks for "
            f"{', '.join(map(str, wanted))}. Make them with kept_for(net, task, recipe)."
        )
    return kept.advance(place)


class _Trainer:
    """Runs a `Loop` to its end and turns each of its runs into an outcome."""

    def __init__(
        self,
        adapted: Adapted,
        runs: Sequence[Run],
        kept: Kept,
        recipe: Recipe,
        *,
        predictions: bool = False,
        keep_models: bool = False,
        fresh: bool = True,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.start = time.perf_counter()
        reset_peak(kept.device)
        self.recipe, self.predictions, self.keep_models = recipe, predictions, keep_models
        self.whole = adapted
        with _own_randomness(runs[0].seed):
            self.loop = Loop(adapted, runs, kept, recipe, fresh=fresh, log=log)
        self.done: dict[int, Outcome] = {}
        self.log = log or _log.info

    def outcomes(self) -> list[Outcome]:
        """Train to the end; one outcome a run, in order."""
        loop, recipe = self.loop, self.recipe
        count = len(loop.progress)
        with _own_randomness(loop.progress[0].run.seed):
            while loop.epoch < recipe.epochs and loop.progress:
                loop.train_epoch()
                self._stop_non_finite()
                if loop.progress and self._validation_is_due():
                    loop.validate()
                    self._stop_stale()
            if loop.progress:
                self._finish(range(len(loop.progress)), loop)
        seconds = time.perf_counter() - self.start
        peak = peak_memory(loop.device)
        for outcome in self.done.values():
            outcome.seconds, outcome.peak_memory = seconds / count, peak
        return [self.done[k] for k in range(count)]

    def _validation_is_due(self) -> bool:
        every = self.recipe.validate_every or (1 if self.recipe.patience is not None else 0)
        return bool(every) and (
            self.loop.epoch % every == 0 or self.loop.epoch == self.recipe.epochs
        )

    def _stop_non_finite(self) -> None:
        stopped = [k for k, p in enumerate(self.loop.progress) if p.stopped is not None]
        for k in stopped:
            progress = self.loop.progress[k]
            self.log(f"run {progress.number} (seed {progress.run.seed}) stops: {progress.stopped}")
            self.done[progress.number] = self._outcome(progress, self.loop)
        self._go_on_without(stopped)

    def _stop_stale(self) -> None:
        patience = self.recipe.patience
        if patience is None or self.loop.epoch == self.recipe.epochs:
            return
        stale = [k for k, p in enumerate(self.loop.progress) if p.stale >= patience]
        if len(stale) == len(self.loop.progress):
            self._finish(stale, self.loop)
            self.loop.progress = []
            return
        for k in stale:
            alone = copy.copy(self.loop)
            alone.narrow([k])
            self._finish([0], alone)
        self._go_on_without(stale)

    def _go_on_without(self, stopped: Sequence[int]) -> None:
        going = [k for k in range(len(self.loop.progress)) if k not in set(stopped)]
        if stopped and going:
            self.loop.narrow(going)
        elif stopped:
            self.loop.progress = []

    def _finish(self, members: Sequence[int] | range, loop: Loop) -> None:
        """Evaluate all runs of ``loop``, each in its best state where one is remembered."""
        for k in members:
            state = loop.progress[k].best_state
            if state is not None:
                loop.restore(k, state)
        evaluated = {split: loop.evaluate(split) for split in ("val", "test")}
        for k in members:
            progress = loop.progress[k]
            outcome = self._outcome(progress, loop)
            if not all(bool(p.isfinite().all()) for _, p in loop.adapted.run_parameters(k)):
                outcome.stopped_reason = (
                    f"a trained tensor was not finite after epoch {loop.epoch} "
                    f"(learning rate {outcome.lr:g})"
                )
                self.done[progress.number] = outcome
                continue
            for split, (loss, predicted) in evaluated.items():
                labels = loop.kept.labels(split)
                right = float((predicted[k] == labels).double().mean())
                setattr(outcome, f"{split}_accuracy", right)
                setattr(outcome, f"{split}_loss", float(loss[k]))
            if progress.curve:
                at = (progress.best_epoch or len(progress.curve)) - 1
                outcome.train_accuracy = progress.curve[at]["train_accuracy"]
                progress.curve[at] |= {
                    "val_loss": outcome.val_loss,
                    "val_accuracy": outcome.val_accuracy,
                }
            if self.recipe.patience is not None and loop.epoch < self.recipe.epochs:
                outcome.stopped_reason = (
                    f"validation was not better for {self.recipe.patience} validations after "
                    f"epoch {progress.best_epoch}"
                )
            if self.predictions:
                outcome.predictions = evaluated["test"][1][k].cpu().numpy()
            if self.keep_models:
                outcome.adapted = loop.adapted.select(k).eval()
            self.done[progress.number] = outcome

    def _outcome(self, progress: Progress, loop: Loop) -> Outcome:
        adapted, recipe, run = loop.adapted, self.recipe, progress.run
        return Outcome(
            network=loop.kept.net.name,
            task=loop.kept.task.name,
            method=adapted.method.settings(),
            recipe=recipe.settings(),
            seed=run.seed,
            lr=recipe.lr if run.lr is None else run.lr,
            weight_decay=recipe.weight_decay if run.weight_decay is None else run.weight_decay,
            first_layer=adapted.first_layer,
            parameters=adapted.count(),
            parameters_without_head=adapted.count(head=False),
            epochs=loop.epoch,
            stopped_reason=progress.stopped,
            curve=progress.curve,
            kept=loop.kept.describe(),
            notes=list(loop.notes),
        )


class _own_randomness:
    """Torch's global generators set from a seed, and put back afterwards."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._before: tuple[Tensor, Any] | None = None

    def __enter__(self) -> None:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._before = (torch.get_rng_state(), devices)
        torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        assert self._before is not None
        torch.set_rng_state(self._before[0])
        if self._before[1]:
            torch.cuda.set_rng_state_all(self._before[1])

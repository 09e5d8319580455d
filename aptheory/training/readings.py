"""One prompt, several readings: heads at several places, trained beside each other on one pass.

    outcomes = fit_readings(ActivationPrompt(layer=2), net, task, reads=(6, 8, 10), runs=[Run(0)])
    best = min(outcomes, key=lambda outcome: outcome.score.cost("accuracy"))

Each head has its own loss; what they share follows the sum of these. A pass to the last place
serves them all, so that R readings cost little more than the longest of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted
from aptheory.methods.per_run import PerRun
from aptheory.networks.fast_path import fast_path_off
from aptheory.tasks.catalogue import task as open_task
from aptheory.training.drawing import parts_of
from aptheory.training.fit import kept_for
from aptheory.training.head_start import start_head
from aptheory.training.kept import Kept
from aptheory.training.outcome import Outcome
from aptheory.training.recipe import Recipe, Run
from aptheory.training.stack import Stack

if TYPE_CHECKING:
    from aptheory.methods.base import Method
    from aptheory.networks.network import Network, Places
    from aptheory.tasks.base import Task

_log = logging.getLogger("aptheory")


class Readings(nn.Module):
    """What one method learns, once, with a head at each of several places.

    To a `Loop` it is a stack of runs, a reading each, that see the same images in the same order;
    each of them is an `Adapted` of its own, whose parts before the head are the same modules.
    """

    def __init__(
        self, method: Method, net: Network, reads: Sequence[int], *, classes: int, seed: int
    ) -> None:
        super().__init__()
        # Attached once to the places together: what reads one place alone is refused there.
        replace(method, read=tuple(reads)).attach(net, classes=1)
        self.source, self.classes = net, classes
        self.alone = nn.ModuleList(
            replace(method, read=read).attach(net, classes=classes, seed=seed) for read in reads
        )
        self.readings: tuple[Adapted, ...] = tuple(self.alone)  # type: ignore[arg-type]
        self.whole = max(self.readings, key=lambda one: one.exit)
        learned = dict(self.whole.run_parameters(0))
        for one in self.readings:
            tie(one, {name: p for name, p in learned.items() if not name.startswith("head.")})
        self.method, self.net, self.edits = self.whole.method, self.whole.net, self.whole.edits
        self.first_layer, self.like = self.whole.first_layer, self.whole.like

    @property
    def runs(self) -> int:
        return len(self.readings)

    @property
    def seeds(self) -> list[int]:
        return [one.seeds[0] for one in self.readings]

    @property
    def reads(self) -> list[int]:
        return [one.exit for one in self.readings]

    @property
    def places(self) -> list[int]:
        return self.whole.places

    def edits_at(self, place: int) -> nn.ModuleList:
        """The modules applied to the activation that enters ``place``."""
        return self.whole.edits_at(place)

    def unit_of(self, name: str) -> float:
        """What the learning rate of a parameter from `run_parameters` is measured in."""
        return self.whole.unit_of(name)

    def run_parameters(self, run: int) -> list[tuple[str, nn.Parameter]]:
        """What a reading trains: its head, and what all of them share."""
        return self.readings[run].run_parameters(0)

    def count(self, *, head: bool = True) -> int:
        """Parameters that the last reading learns."""
        return self.whole.count(head=head)

    def features(self, z: Tensor) -> Float[Tensor, "samples width"]:
        """What the heads read, side by side, of the first of several equal parts of ``z``."""
        return torch.cat([features for _, features in self._read(z)], 1)

    def rest(self, z: Tensor) -> Float[Tensor, "samples classes"]:
        """Logits (R*B, classes), reading after reading, of R equal parts of ``z``, (R*B, ...)."""
        return torch.cat([one.head(features) for one, features in self._read(z)])

    def _read(self, z: Tensor) -> list[tuple[Adapted, Tensor]]:
        z = z[: len(z) // self.runs]
        stops, net, start = sorted({*self.places, *self.reads}), self.net, self.first_layer
        with fast_path_off() if self.whole.has_fast_path else nullcontext():
            walk = net.walk(z, start=start, stops=stops, edit=self.whole.edited)
            entering = {layer.index: (layer, x) for layer, x in walk if layer.index in self.reads}
        return [(one, one.reading.pooled(*entering[one.exit])) for one in self.readings]

    def select(self, run: int) -> Adapted:
        """A reading as it would be alone, with a copy of what is shared."""
        return self.readings[run].select(0)

    @torch.no_grad()
    def take(self, runs: Sequence[int]) -> Readings:
        """These readings alone, with copies of what they learned."""
        reads = [self.reads[run] for run in runs]
        taken = Readings(
            self.method, self.source, reads, classes=self.classes, seed=self.seeds[0]
        ).to(self.like.device)
        for ours, run in zip(taken.readings, runs, strict=True):
            for name, tensor in ours.state().items():
                tensor.copy_(self.readings[run].state()[name])
        return taken.train(self.training)

    def train(self, mode: bool = True) -> Readings:
        super().train(mode)
        for one in self.readings:
            one.train(mode)
        return self


def tie(adapted: Adapted, learned: Mapping[str, nn.Parameter]) -> None:
    """Let ``adapted``, of one run, learn these very parameters, by name; others stay its own."""
    for name, _ in adapted.run_parameters(0):
        if name not in learned:
            continue
        owner, _, last = name.rpartition(".")
        found = dict(adapted.named_modules()).get(name)
        if isinstance(found, PerRun):
            found.values[0] = learned[name]
        else:
            setattr(adapted.get_submodule(owner), last, learned[name])


def fit_readings(
    method: Method,
    net: Network,
    task: Task,
    *,
    reads: Places,
    runs: Sequence[Run],
    recipe: Recipe | None = None,
    kept: Kept | None = None,
    keep_models: bool = False,
    log: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Train ``method`` once a run, read at each of ``reads``; an outcome a run and reading.

    The outcomes are those of the first run in the order of the places, then of the second. Each
    says its reading in its ``method``, and its model, with ``keep_models``, is an `Adapted` like
    any other. The seconds of a run are shared out evenly. Whether an outcome is as good as that of
    a run alone is measured by `analyses.several_readings`.

    Raises:
        InputError: a method that trains nothing but a head, or batch statistics, or that reads one
            place only; a recipe with ``patience``, since one reading's best epoch is not another's.
    """
    recipe, task = recipe or Recipe(), open_task(task)
    places = [layer.index for layer in net.places(reads)]
    if recipe.patience is not None:
        raise InputError(
            "several readings of one prompt end together, and a recipe with patience ends each "
            "at its own best epoch: give patience=None, or train them apart."
        )
    if method.batchnorm == "trained":
        raise InputError(
            f"{method.name} trains the network's batch statistics, which one reading cannot share "
            "with another: train them apart."
        )
    outcomes = []
    for run in runs:
        shared = Readings(method, net, places, classes=len(task.classes), seed=run.seed)
        if all(name.startswith("head.") for name, _ in shared.run_parameters(0)):
            raise InputError(
                f"{method.name} trains nothing but its head, so that readings have nothing to "
                "share: give a LayerProbe for each place."
            )
        shared.to(net.device)
        ready = kept or kept_for(net, task, recipe, log=log)
        ready.advance(shared.first_layer)
        (own,) = parts_of(task, [run], recipe)
        for one in shared.readings:
            start_head(one, ready, recipe, [own["train"]])
        together: Any = shared  # in the place of a stack of runs
        stack = Stack(
            together,
            [run] * len(places),
            ready,
            recipe,
            keep_models=keep_models,
            fresh=False,
            log=log,
        )
        for one, outcome in zip(shared.readings, stack.outcomes(), strict=True):
            outcome.method = one.method.settings()
            outcome.parameters = one.count()
            outcomes.append(outcome)
        if ready is not kept:
            ready.close()
    return outcomes

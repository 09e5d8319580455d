"""What a batch will cost, before it runs: operations counted, and their pace measured once.

From the operations of one image (see `aptheory.training.cost`), with n images a split, E epochs,
K runs:

    K · E · n_train · (one training step from the kept activations)
    + (n_train + n_val + n_test) · (forward to the place)       once
    + K · (n_val + n_test) · (forward from the place)           after training

and where only the head learns, its features once instead of the training steps.

Seconds are that divided by the pace of one forward pass here and now, on one thread, plus the time
that a step takes whatever the network. The numbers order the work and fill the dry run; they
decide no result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from aptheory.training.cost import Operations, piece_operations, predict

if TYPE_CHECKING:
    from aptheory.methods import Adapted, Method
    from aptheory.networks.network import Network
    from aptheory.tasks import Task
    from aptheory.training.recipe import Recipe

_IMAGES = 16
_STEP_SECONDS = 2e-3
"""Of one step of one run, whatever the network: the optimiser and Python."""


@dataclass(frozen=True)
class Extent:
    """What a plan must know of a method on a network: where it starts, what it trains.

    ``acts_at`` is the first place that feels it, ``place`` that or where its head first reads, if
    that is earlier, ``exit`` where its head reads last, ``parameters`` those without the head,
    ``step`` the operations of a training step of one image from ``place`` on.
    """

    acts_at: int
    place: int
    exit: int
    parameters: int
    step: float


class Predictor:
    """Counts and times one network once, then predicts any number of batches on it."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self._extents: dict[tuple[type, Method, int], Extent] = {}

    def extent(self, method: Method, classes: int, attach: Callable[[Method], Adapted]) -> Extent:
        """The extent of a method, attached once whatever is asked of it.

        Raises:
            InputError: it does not fit the network.
        """
        key = (type(method), method, classes)
        if key not in self._extents:
            adapted = attach(method)
            parameters = adapted.count(head=False)
            step = predict(adapted, self.operations).step_from_kept if parameters else 0.0
            self._extents[key] = Extent(
                adapted.acts_at, adapted.first_layer, adapted.exit, parameters, step
            )
        return self._extents[key]

    @cached_property
    def operations(self) -> Operations:
        return piece_operations(self.net)

    @cached_property
    @torch.no_grad()
    def pace(self) -> float:
        """Operations a second of the network's forward pass, one thread."""
        threads = torch.get_num_threads()
        device = self.net.device
        images = torch.zeros(_IMAGES, *self.net.input_shape, device=device)
        torch.set_num_threads(1)
        try:
            self.net.run(images[:1])
            start = time.perf_counter()
            self.net.run(images)
            seconds = time.perf_counter() - start
        finally:
            torch.set_num_threads(threads)
        return max(1.0, sum(self.operations.forward) * _IMAGES / seconds)

    def of(
        self,
        extent: Extent,
        task: Task,
        recipe: Recipe,
        *,
        runs: int,
        candidates: int,
        protocol: str = "standard",
    ) -> tuple[float, float]:
        """(seconds, operations) of ``runs`` runs with all their candidates."""
        train, val, test = len(task.train), len(task.val), len(task.test)
        trained = float(runs * candidates * train)
        if protocol == "vtab":
            trained = candidates * train + runs * (train + val)
        forward = self.operations.forward
        before = sum(forward[: extent.place])
        after = sum(forward[extent.place : extent.exit])
        total = (train + val + test) * before + runs * candidates * (val + test) * after
        if extent.parameters:
            total += recipe.epochs * trained * extent.step
        else:  # only the head learns: its features are computed once
            total += trained * after
        steps = recipe.epochs * trained / recipe.batch_size
        return total / self.pace + steps * _STEP_SECONDS, total

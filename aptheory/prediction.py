"""How long a batch will take, before it runs: a small measurement and some arithmetic.

One image's forward pass through each piece of the network is timed once, here and now, on one
thread. Training K runs for E epochs on n images from place l on takes about

    K · E · n · (forward + backward after l)  +  n · (forward before l, once, kept)
    + K · (n_val + n_test) · forward after l

with the backward pass as dear as the forward one (activations only) or twice as dear when the
network's own weights learn. It orders the work and fills the dry run; it decides no result.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from aptheory.network import Network
    from aptheory.plan import Batch
    from aptheory.study import Study
    from aptheory.tasks import Task

_IMAGES = 4
_OVERHEAD_SECONDS = 2e-3
"""Of one step of one run, whatever the network: the optimiser and Python."""


class Prediction:
    """Seconds an image through each piece of one network, measured when first asked for."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self._after: list[float] | None = None

    def after(self, place: int) -> float:
        """Seconds of one image's forward pass from ``place`` to the logits."""
        if self._after is None:
            self._after = self._measure()
        return self._after[place]

    @torch.no_grad()
    def _measure(self) -> list[float]:
        last = len(self.net.layers) - 1
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        pieces = []
        try:
            parameter = next(iter(self.net.parameters()), None)
            device = torch.device("cpu") if parameter is None else parameter.device
            z = torch.zeros(_IMAGES, *self.net.input_shape, device=device)
            self.net.run(z)
            for place in range(last):
                start = time.perf_counter()
                z = self.net.run(z, start=place, stop=place + 1)
                pieces.append((time.perf_counter() - start) / _IMAGES)
        finally:
            torch.set_num_threads(threads)
        return [sum(pieces[place:]) for place in range(last + 1)]

    def of(self, batch: Batch, task: Task, study: Study) -> Batch:
        """The same batch with its predicted seconds."""
        recipe = batch.recipe
        train, val, test = len(task.train), len(task.val), len(task.test)
        candidates = 1
        for values in study.search.values():
            candidates *= len(values)
        runs = len(batch.seeds)
        method = batch.identities[0]["method"]["method"]
        stop = batch.place if method == "layer_probe" else None
        forward = 0.0 if stop is not None else self.after(batch.place)
        backward = {"full": 2.0, "partial": 2.0, "random_perturbation": 0.0}.get(method, 1.0)
        if study.protocol == "vtab":
            trained = candidates * train + runs * (train + val)
        else:
            trained = runs * candidates * train
        steps = trained / recipe["batch_size"]
        seconds = recipe["epochs"] * (trained * forward * (1 + backward))
        seconds += recipe["epochs"] * steps * _OVERHEAD_SECONDS
        seconds += (train + val + test) * (self.after(0) - self.after(batch.place))
        seconds += runs * candidates * (train + val + test) * forward
        return replace(batch, seconds=seconds)

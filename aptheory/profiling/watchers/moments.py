"""The shift of a task from the pretraining: by BatchNorm's running moments, or by a reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.networks.hooks import of_this_thread
from aptheory.networks.network import Layer, Network
from aptheory.profiling.watchers.base import Row, Settings, Sight, Watcher

Moments = tuple[Tensor, Tensor]


def norms_with_moments(net: Network, places: Iterable[Layer]) -> dict[int, list[_BatchNorm]]:
    """Place -> the BatchNorms with running moments that run between it and the next."""
    found: dict[int, list[_BatchNorm]] = {}
    for place in places:
        stop = place.index + 1 if place.index + 1 < len(net.layers) else None
        names = net.modules_between(place.index, stop)
        modules = [net.module.get_submodule(name) for name in names]
        norms = [m for m in modules if isinstance(m, _BatchNorm) and m.running_var is not None]
        if norms:
            found[place.index] = norms
    return found


def reference_moments(
    net: Network, batches: Iterable[tuple[Tensor, Any]], places: tuple[Layer, ...]
) -> dict[int, Moments]:
    """Place -> mean and variance of each channel of what enters it, over images of a reference."""
    seen = {place.index: metrics.ChannelMoments(groups=1) for place in places}
    with torch.inference_mode():
        for x, _ in batches:
            for place, z in net.walk(x, stops=places):
                seen[place.index].update(place.positions(z))
    return {index: moments.reference() for index, moments in seen.items()}


class ShiftWatcher(Watcher):
    """Moments of what enters each place, or of what enters the BatchNorms behind it.

    With a reference, a place's own channels are compared; without one, the inputs of all
    BatchNorms of the piece that follows, each with its running moments.
    """

    measures = ("moment_shift",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.reference = settings.reference
        self.norms: dict[int, list[_BatchNorm]] = {}
        if self.reference is None:
            self.norms = norms_with_moments(settings.net, settings.layers)
            if not self.norms:
                raise InputError(
                    f"moment_shift: {settings.net.name} has no BatchNorm in front of these layers, "
                    "whose running moments would say what the pretraining's activations were; give "
                    "a task of images like the pretraining's as reference."
                )
            self.stop = max(self.norms) + 1
        self.places = {place.index: metrics.ChannelMoments() for place in settings.layers}
        self.inputs = {
            norm: metrics.ChannelMoments() for norms in self.norms.values() for norm in norms
        }

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """The context within which the norms' inputs are seen."""
        see = of_this_thread(self._see_norm)
        hooks = [norm.register_forward_pre_hook(see) for norm in self.inputs]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _see_norm(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(2) if inputs[0].ndim > 2 else inputs[0][..., None]
        self.inputs[norm].update(x.transpose(1, 2))  # type: ignore[index]  # a norm with this hook

    def see(self, sight: Sight) -> None:
        if self.reference is not None:
            self.places[sight.layer.index].update(sight.layer.positions(sight.z))

    def rows(self) -> Iterator[Row]:
        for place in self.settings.layers:
            if self.reference is None and place.index not in self.norms:
                continue  # the classifier's input, for one, has no norm behind it
            found = self.defined(place, self._shift, place.index)
            if found is not None:
                yield self.row(place, "moment_shift", found)

    def _shift(self, place: int, *, level: float) -> metrics.Estimate:
        if self.reference is not None:
            return metrics.shift_from(self.places[place], *self.reference[place], level=level)
        norms: Sequence[Any] = self.norms[place]  # none whose moments are None
        return metrics.shift_from(
            metrics.side_by_side([self.inputs[norm] for norm in norms]),
            torch.cat([norm.running_mean for norm in norms]).double(),
            torch.cat([norm.running_var + norm.eps for norm in norms]).double(),
            level=level,
        )

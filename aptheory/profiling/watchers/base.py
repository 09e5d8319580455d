"""What watches a network while its images pass: one watcher a family of measures.

A watcher is shown each layer's activation in turn, one layer's batch at a time, and keeps only the
sums that its accumulators need. It writes the rows of the table at the end.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.networks.network import Layer, Network

Row = dict[str, Any]


class UndefinedWarning(UserWarning):
    """A measure does not exist at a layer (constant features, say), and its row is absent."""


@dataclass
class Sight:
    """One layer's batch, as the watchers see it; what several of them need is made once."""

    layer: Layer
    z: Tensor
    labels: Tensor | None
    _pooled: dict[str, Tensor] = field(default_factory=dict)

    def pooled(self, how: str) -> Tensor:
        """(images, width): "mean" over positions, "class" token, or "all" positions in a row."""
        if how not in self._pooled:
            self._pooled[how] = self.layer.pooled(self.z, how)
        return self._pooled[how]

    def everything(self) -> Tensor:
        """All positions, (images, ...), in whatever order costs no copy: for Gram matrices."""
        return self.layer.positions(self.z) if self.layer.layout == "tokens" else self.z

    def maps(self) -> Tensor:
        """The spatial positions as (images, channels, height, width)."""
        if self.layer.layout == "map":
            return self.z
        assert self.layer.grid is not None
        return self.layer.positions(self.z).transpose(1, 2).unflatten(2, self.layer.grid)

    def need_labels(self, measures: tuple[str, ...]) -> Tensor:
        """The labels, or an InputError that says what asked for them."""
        if self.labels is None:
            raise InputError(
                f"{', '.join(measures)} need labels: give a task, a split, or batches of (images, "
                "labels)."
            )
        return self.labels


@dataclass
class Settings:
    """What the watchers of one profile share."""

    net: Network
    layers: tuple[Layer, ...]
    measures: tuple[str, ...]
    pooled: str
    cka_pooled: str
    level: float
    intervals: bool
    prefix_mass: Any = "exclude"
    gradient_images: int = 32
    seed: int = 0
    reference: dict[int, tuple[Tensor, Tensor]] | None = None
    """Place -> mean and variance of its channels on images like the pretraining's."""


class Watcher:
    """Base: ``measures`` names what a subclass can compute."""

    measures: ClassVar[tuple[str, ...]] = ()
    stop: int = 0
    """The place to which a batch must be run for this watcher, past the last chosen one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.wanted = tuple(name for name in settings.measures if name in self.known())

    @classmethod
    def known(cls) -> tuple[str, ...]:
        """Names of what can be computed."""
        return cls.measures

    def see_images(self, x: Tensor) -> None:
        """Take a batch's normalised images, before it is walked through the network."""

    def observing(self) -> AbstractContextManager[object]:
        """What is open while a batch is walked, and closed while anyone else runs the network."""
        return nullcontext()

    def see(self, sight: Sight) -> None:
        """Take what is needed of one layer's batch."""

    def end_batch(self) -> None:
        """All layers of the batch have been seen."""

    def rows(self) -> Iterator[Row]:
        """The rows of the table, without the columns that every row shares."""
        raise AssertionError("a watcher has rows")

    def row(
        self,
        layer: Layer,
        measure: str,
        estimate: metrics.Estimate,
        index: tuple[int, ...] = (),
        **more: Any,
    ) -> Row:
        """One row, from the element ``index`` of an estimate."""
        return {
            "layer": layer.index,
            "measure": measure,
            "value": float(estimate.value[index]),
            "low": float(estimate.low[index]),
            "high": float(estimate.high[index]),
            "images": estimate.images,
            **more,
        }

    def defined(self, layer: Layer, make: Callable[..., Any], *args: Any) -> Any:
        """``make(*args, level=...)``, or None with a warning where it is undefined."""
        try:
            return make(*args, level=self.settings.level)
        except InputError as error:
            warn_undefined(f"Layer {layer.index} ({layer.name}): {error}")
            return None


def pixels_of(net: Network, grid: tuple[int, int]) -> tuple[float, float]:
    """(height, width) in pixels from one position of a grid to the next.

    Where patches do not divide the image the grid does not span it: 250 pixels in patches of 16
    are 15 patches and ten pixels that no patch sees, or 16 with padding. The step is a multiple by
    a power of two of the first convolution's stride; where none gives this grid, the image's size
    over the grid's.
    """
    convolutions = (m for m in net.module.modules() if isinstance(m, torch.nn.Conv2d))
    strides = next((conv.stride for conv in convolutions), (1, 1))
    height, width = net.input_shape[1:]
    return _step(height, grid[0], strides[0]), _step(width, grid[1], strides[1])


def _step(size: int, count: int, stride: int) -> float:
    steps = [stride * 2**power for power in range(12)]
    fitting = [step for step in steps if count in (size // step, -(-size // step))]
    return min(fitting, key=lambda step: abs(step - size / count)) if fitting else size / count


def warn_undefined(message: str) -> None:
    """Say that a row is left out, and why."""
    warnings.warn(message, UndefinedWarning, stacklevel=3)

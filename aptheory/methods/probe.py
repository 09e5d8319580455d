"""Linear probes: only a linear classifier learns, on the network's own features or a layer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.registry import register
from aptheory.networks.reading import Reading, check_share

if TYPE_CHECKING:
    from aptheory.networks.network import Network


@register
@dataclass(frozen=True)
class LinearProbe(Method):
    """A linear classifier on the frozen network's final features: the floor of every comparison."""

    name: ClassVar[str] = "linear_probe"
    label: ClassVar[str] = "linear probe"
    role: ClassVar[str] = "probe"

    def first_layer(self, net: Network) -> int:
        return self.reading(net).first

    def install(self, adapted: Adapted) -> int:
        return adapted.reading.first

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        """Nothing but the classifier differs."""


@register
@dataclass(frozen=True)
class LayerProbe(Method):
    """A linear classifier on the activation entering ``layer``; later layers are never run.

    It is the case of every method with ``read=layer`` in which nothing but the head learns: what a
    layer already knows, against which a prompt at that layer, or read there, must be measured.

    Args:
        layer: the place, or several, or "all": their features side by side, the strongest probe.
        pooling: "mean" over spatial positions (prefix tokens excluded), "class" (the first
            prefix token; the mean where there is none), "both", or "all" (every position and
            channel).
        select: the share of all features that the head keeps, those that a linear regression
            with a group lasso over the classes gives the largest weights (Head2Toe, Evci et al.,
            ICML 2022, arXiv 2201.03529); None keeps them all.
    """

    layer: int | float | str | tuple[int | float | str, ...] = -2
    select: float | None = None
    name: ClassVar[str] = "layer_probe"
    label: ClassVar[str] = "probe of this layer"
    short: ClassVar[str] = "layer probe"
    role: ClassVar[str] = "probe"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read is not None:
            raise InputError(
                f"layer_probe reads at its layer: give layer={self.read!r} instead of read."
            )
        check_share(self.select)

    @classmethod
    def default(cls, net: Network) -> LayerProbe:
        return cls(layer=net.block_layers[len(net.block_layers) // 2])

    def settings(self) -> dict[str, Any]:
        settings = {**super().settings(), "pooling": self.pooling}
        if self.select is None:
            del settings["select"]
        return settings

    def reading(self, net: Network) -> Reading:
        return Reading.of(net, self.layer, pooling=self.pooling, select=self.select)

    def first_layer(self, net: Network) -> int:
        return self.reading(net).first

    def install(self, adapted: Adapted) -> int:
        return adapted.reading.first

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        """Nothing but the classifier differs."""

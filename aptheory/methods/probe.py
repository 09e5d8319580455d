"""Linear probes: only a linear classifier learns, on the network's own features or a layer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method

if TYPE_CHECKING:
    from aptheory.networks.network import Network

POOLINGS = ("mean", "class", "all")


@dataclass(frozen=True)
class LinearProbe(Method):
    """A linear classifier on the frozen network's final features: the floor of every comparison."""

    name: ClassVar[str] = "linear_probe"

    def install(self, adapted: Adapted) -> int:
        return adapted.exit

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        """Nothing but the classifier differs."""


@dataclass(frozen=True)
class LayerProbe(Method):
    """A linear classifier on the activation entering ``layer``; later layers are never run.

    It tells what a layer already knows, against which a prompt at that layer must be measured.

    Args:
        layer: place index (negative counts from the end) or place name.
        pooling: "mean" over spatial positions (prefix tokens excluded), "class" (the first
            prefix token; the mean where there is none) or "all" (every position and channel).
    """

    layer: int | str = -2
    pooling: str = "mean"
    name: ClassVar[str] = "layer_probe"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")

    @classmethod
    def default(cls, net: Network) -> LayerProbe:
        return cls(layer=net.block_layers[len(net.block_layers) // 2])

    def install(self, adapted: Adapted) -> int:
        layer = adapted.net.place(self.layer)
        adapted.exit = layer.index
        adapted.pool = None if layer.layout == "vector" else self.pooling
        return layer.index

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        if adapted.exit != len(adapted.net.layers) - 1:
            raise InputError(
                f"layer_probe at place {adapted.exit} cannot be folded: the network's own "
                "classifier reads its last features, not this layer's"
            )

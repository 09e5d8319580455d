"""Where a head reads: one place or several, and how an activation becomes one vector an image.

The published prompting methods read at the end of the network. Reading what enters an earlier place
k needs a pooling, and nothing behind k ever runs. Several places are read side by side, as in
Head2Toe (Evci et al., ICML 2022, arXiv 2201.03529).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.networks.layer import POOLINGS, Layer
from aptheory.networks.network import Network, Places


def check_pooling(pooling: str) -> None:
    """Raises InputError where ``pooling`` is none."""
    if pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}.")


def check_share(select: float | None) -> None:
    """InputError where ``select`` is no share of a head's features."""
    if select is not None and not 0 < select <= 1:
        raise InputError(
            f"select is the share of features that the head keeps, above 0 and up to 1; got "
            f"{select!r}."
        )


@dataclass(frozen=True)
class Reading:
    """The places that a head reads, in order, and the pooling of each that is not a vector.

    ``select`` is the share of the features that the head keeps; None keeps them all.
    """

    layers: tuple[Layer, ...]
    pooling: str = "mean"
    select: float | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    @classmethod
    def of(
        cls,
        net: Network,
        places: Places | None = None,
        *,
        pooling: str = "mean",
        select: float | None = None,
    ) -> Reading:
        """At ``places`` of a network, or at its end, the classifier's input."""
        return cls(net.layers[-1:] if places is None else net.places(places), pooling, select)

    @property
    def first(self) -> int:
        return self.layers[0].index

    @property
    def last(self) -> int:
        """Nothing behind this place runs."""
        return self.layers[-1].index

    def pooled(self, layer: Layer, z: Tensor) -> Float[Tensor, "batch width"]:
        """The vector of each image at one place; a 1x1 classifier's (D, 1, 1) is one already.

        Positions are averaged in float32 at least.
        """
        if layer.layout == "vector":
            return z.flatten(1)
        return layer.pooled(z.float() if z.element_size() < 4 else z, self.pooling)

    def features(
        self,
        net: Network,
        z: Tensor,
        *,
        start: int = 0,
        edits: tuple[int, ...] = (),
        edit: Callable[[Layer, Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch width"]:
        """What the head reads, from what enters ``start``; ``edit`` acts at ``edits``."""
        wanted = {layer.index for layer in self.layers}
        parts = [
            self.pooled(layer, x)
            for layer, x in net.walk(z, start=start, stops=sorted({*edits, *wanted}), edit=edit)
            if layer.index in wanted
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

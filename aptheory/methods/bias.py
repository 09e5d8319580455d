"""BitFit: learn every bias of the network, its normalisation layers' included, and a head.

Ben Zaken et al., "BitFit", ACL 2022, arXiv 2106.10199. A convolutional network with BatchNorm has
no other biases than beta, so there BitFit is the shift half of NORM-TUNE.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.folding import copy_own_weights
from aptheory.methods.own_weights import give_own, owners
from aptheory.methods.registry import register
from aptheory.methods.spans import parameters_at

if TYPE_CHECKING:
    from aptheory.networks.network import Network


@register
@dataclass(frozen=True)
class BitFit(Method):
    """Learn all bias vectors, starting from the pretrained ones.

    Args:
        layer: what part of the network learns, a place or several (see `methods.spans`); None is
            all of it.
    """

    layer: int | float | str | tuple[int | float | str, ...] | None = field(
        default=None, kw_only=True
    )
    name: ClassVar[str] = "bitfit"
    label: ClassVar[str] = "bias tuning"
    short: ClassVar[str] = "BitFit"

    @classmethod
    def default(cls, net: Network) -> BitFit:
        cls().biases(net)
        return cls()

    def biases(self, net: Network) -> dict[str, tuple[str, ...]]:
        """Module name -> the bias parameters in it that learn, for all that runs before the head.

        A bias is a parameter called "bias" or "..._bias" (the query and value biases of some
        attention modules); tables of position biases are not.
        """
        found = owners(
            net,
            [
                name
                for name in parameters_at(net, self.layer)
                if name.split(".")[-1] == "bias" or name.endswith("_bias")
            ],
        )
        if not found:
            part = "it" if self.layer is None else f"its layer {self.layer!r}"
            raise InputError(f"bitfit makes no sense on {net.name}: {part} has no biases.")
        return found

    def install(self, adapted: Adapted) -> int:
        return give_own(adapted, self.biases(adapted.original))

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        copy_own_weights(adapted, module)

"""NORM-TUNE: learn the affine gamma, beta of the normalisation layers and a head.

The running statistics of BatchNorm stay frozen: the network normalises as it did, only the
affine map after it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.own_weights import OwnWeights, owners

if TYPE_CHECKING:
    from aptheory.network import Network

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "batch": (_BatchNorm,),
    "layer": (nn.LayerNorm,),
    "group": (nn.GroupNorm,),
}
KINDS["any"] = KINDS["batch"] + KINDS["layer"] + KINDS["group"]


@dataclass(frozen=True)
class NormTuning(Method):
    """Learn scale (gamma) and shift (beta) of every normalisation layer.

    Args:
        scale, shift: which half learns; at least one.
        kind: "batch", "layer", "group" normalisation, or "any" that the network has.
    """

    scale: bool = True
    shift: bool = True
    kind: str = "any"
    name: ClassVar[str] = "norm_tuning"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not (self.scale or self.shift):
            raise InputError(
                "norm_tuning needs scale=True, shift=True or both, else nothing learns"
            )

    @classmethod
    def default(cls, net: Network) -> NormTuning:
        method = cls()
        method.layers(net)
        return method

    def layers(self, net: Network) -> dict[str, tuple[str, ...]]:
        """Module name -> its parameters that learn, for each layer that runs before the head.

        A layer without the parameter asked for gives what it has.
        """
        wanted = [n for n, on in (("weight", self.scale), ("bias", self.shift)) if on]
        norms = dict(net.module.named_modules())
        found = owners(
            net,
            [
                parameter
                for parameter in net.parameters_between(0, len(net.layers) - 1)
                if isinstance(norms[parameter.rpartition(".")[0]], KINDS[self.kind])
                and parameter.rpartition(".")[2] in wanted
            ],
        )
        if not found:
            kind = "normalisation" if self.kind == "any" else f"{self.kind} normalisation"
            raise InputError(
                f"{self.name} makes no sense on {net.name}: it has no {kind} layer with "
                f"{' or '.join(wanted)}; choose another kind or another method"
            )
        return found

    def install(self, adapted: Adapted) -> int:
        layers = self.layers(adapted.source)
        for name, parameters in layers.items():
            inner = adapted.net.module.get_submodule(name)
            adapted.replace(name, OwnWeights(adapted, inner, parameters))
        return min(adapted.source.layer_of(name) for name in layers)

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        from aptheory.methods.folding import copy_own_weights

        copy_own_weights(adapted, module)

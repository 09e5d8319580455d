"""NORM-TUNE: learn the affine gamma, beta of the normalisation layers and a head.

RMS normalisation has a gamma alone. The running statistics of BatchNorm stay frozen: the network
normalises as it did, only the affine map after it changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.folding import copy_own_weights
from aptheory.methods.own_weights import give_own, owners
from aptheory.methods.registry import register
from aptheory.methods.spans import nearest, parameters_at

if TYPE_CHECKING:
    from aptheory.networks.network import Network

KINDS: dict[str, type[nn.Module]] = {
    "batch": _BatchNorm,
    "layer": nn.LayerNorm,
    "group": nn.GroupNorm,
    "instance": _InstanceNorm,
}
# Norms that networks bring of their own, as ConvNeXt's LayerNorm of maps.
OWN = re.compile(r"(batch|layer|group|instance)_?norm(act)?([123]d)?(fp32)?$", re.IGNORECASE)
HALVES = {
    **dict.fromkeys(("weight", "gamma", "scale", "g"), "scale"),
    **dict.fromkeys(("bias", "beta", "shift", "b"), "shift"),
}
# Known by name, because networks bring their own: torch's came late, and timm's eight are no
# subclasses of it. SimpleNorm is timm's division by the standard deviation.
RMS = re.compile(r"(rms|simple)_?norm(act)?(2d)?(fp32)?$", re.IGNORECASE)


def kind_of(module: nn.Module) -> str | None:
    """Which normalisation it is, a kind of `KINDS` or "rms"; None for other modules.

    A network's own class of such a name is none here: what it computes is not known.
    """
    for kind, known in KINDS.items():
        if isinstance(module, known):
            return kind
    return "rms" if any(RMS.search(c.__name__) for c in type(module).__mro__) else None


@register
@dataclass(frozen=True)
class NormTuning(Method):
    """Learn scale (gamma) and shift (beta) of every normalisation layer.

    Args:
        scale, shift: which half learns; at least one.
        kind: "batch", "layer", "group", "instance" or "rms" normalisation, or "any" that the
            network has.
        layer: what part of the network learns, a place or several (see `methods.spans`); None is
            all of it.
    """

    scale: bool = True
    shift: bool = True
    kind: str = "any"
    layer: int | float | str | tuple[int | float | str, ...] | None = field(
        default=None, kw_only=True
    )
    name: ClassVar[str] = "norm_tuning"
    label: ClassVar[str] = "normalisation tuning"
    short: ClassVar[str] = "norm tuning"

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = (*KINDS, "rms", "any")
        if self.kind not in kinds:
            raise InputError(f"kind must be one of {', '.join(kinds)}, got {self.kind!r}")
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
        wanted = [half for half in ("scale", "shift") if getattr(self, half)]
        halves = {p: self._half(net, p) for p in parameters_at(net, self.layer)}
        found = owners(net, [parameter for parameter, half in halves.items() if half in wanted])
        if not found:
            kind = "normalisation" if self.kind == "any" else f"{self.kind} normalisation"
            missing = " or ".join(wanted)
            reason = f"it has no {kind} layer with {missing}; choose another kind or"
            for other in filter(None, halves.values()):
                reason = f"its {kind} layers have a {other} and no {missing}; set {other}=True or"
            if self.layer is not None:
                elsewhere = replace(self, layer=None).layers(net)  # refused where there is none
                near = nearest(net, self.layer, list(elsewhere))
                reason = f"no {kind} layer runs at layer {self.layer!r}{near}; choose another or"
            raise InputError(f"{self.name} makes no sense on {net.name}: {reason} another method")
        return found

    def _half(self, net: Network, parameter: str) -> str | None:
        """Whether it is the "scale" or the "shift" of a norm of this kind; None where neither."""
        module, _, name = parameter.rpartition(".")
        norm = net.module.get_submodule(module)
        named = OWN.search(type(norm).__name__)
        kind = kind_of(norm) or (named and named[1].lower())
        if kind is None or self.kind not in (kind, "any"):
            return None
        # There is no common name for the scale of a network's own RMSNorm.
        return HALVES.get(name, "scale" if kind == "rms" else None)

    def install(self, adapted: Adapted) -> int:
        return give_own(adapted, self.layers(adapted.original))

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        copy_own_weights(adapted, module)

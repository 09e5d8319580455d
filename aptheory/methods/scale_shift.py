"""SSF: scale and shift the features after the operations of a frozen network.

y becomes gamma * y + beta, one number a channel, after every linear layer, convolution and
normalisation that has a bias. Each such pair can be merged into the operation before it,
W' = gamma W and b' = gamma b + beta, so nothing is left to pay at inference.

Lian et al., "Scaling & Shifting Your Features", NeurIPS 2022, arXiv 2210.08823; gamma starts at
N(1, 0.02^2) and beta at N(0, 0.02^2) as there. Operations without a bias are left out (they have
no place for the merged shift; in a convolutional network the BatchNorm behind them has one).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.normalization import KINDS
from aptheory.methods.own_weights import affine
from aptheory.methods.per_run import normal
from aptheory.methods.registry import register
from aptheory.methods.samples import sample_axes
from aptheory.methods.spans import parameters_at

if TYPE_CHECKING:
    from aptheory.networks.network import Network

OPERATIONS = (nn.Linear, nn.Conv2d, *KINDS.values())


class ScaleShift(nn.Module):
    """A frozen affine operation followed by the runs' own scale and shift of its channels."""

    def __init__(self, adapted: Adapted, inner: Any, std: float) -> None:
        super().__init__()
        self.inner, self.runs = inner, adapted.runs
        channels = inner.bias.shape
        self.scale = adapted.per_run(channels, normal(std, mean=1.0))
        self.shift = adapted.per_run(channels, normal(std))
        # timm's norms may hold an activation, which comes after the scale and shift.
        self.direct = all(isinstance(part, nn.Identity) for part in inner.children())

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self.inner
        scale, shift = self.scale(), self.shift()
        if self.direct:
            out = inner(x)
            channels_first = isinstance(inner, nn.Conv2d) or out.shape[-1] != scale.shape[-1]
            if isinstance(
                inner, tuple(KINDS[k] for k in ("batch", "group", "instance"))
            ) or hasattr(inner, "nchw"):
                channels_first = True
            return affine(out, scale, shift, self.runs, axis=1 if channels_first else -1)
        batch = x.shape[0] // self.runs
        parts = []
        for run in range(self.runs):
            merged = _merged(inner, scale[run], shift[run])
            parts.append(functional_call(inner, merged, x[run * batch : (run + 1) * batch]))
        return torch.cat(parts)


def _merged(inner: Any, scale: Tensor, shift: Tensor) -> dict[str, Tensor]:
    """Weight and bias of the one operation that does both."""
    weight = inner.weight * scale.reshape(-1, *[1] * (inner.weight.dim() - 1))
    return {"weight": weight, "bias": inner.bias * scale + shift}


@register
@dataclass(frozen=True)
class SSF(Method):
    """Scale and shift after every operation that has a bias.

    Args:
        std: standard deviation of their start, around 1 and 0.
        layer: what part of the network learns, a place or several (see `methods.spans`); None is
            all of it.
    """

    std: float = 0.02
    layer: int | float | str | tuple[int | float | str, ...] | None = field(
        default=None, kw_only=True
    )
    name: ClassVar[str] = "ssf"
    label: ClassVar[str] = "scale and shift"
    short: ClassVar[str] = "SSF"

    @classmethod
    def default(cls, net: Network) -> SSF:
        cls().modules(net)
        return cls()

    def modules(self, net: Network) -> list[str]:
        """The operations that get a scale and shift: all with weight and bias before the head."""
        used = set(parameters_at(net, self.layer))
        found = [
            name
            for name, module in net.module.named_modules()
            if isinstance(module, OPERATIONS)
            and name in sample_axes(net)
            and f"{name}.weight" in used
            and f"{name}.bias" in used
        ]
        if not found:
            part = "it" if self.layer is None else f"its layer {self.layer!r}"
            raise InputError(
                f"ssf makes no sense on {net.name}: no operation of {part} has a bias."
            )
        return found

    def install(self, adapted: Adapted) -> int:
        names = self.modules(adapted.original)
        for name in names:
            inner = adapted.net.module.get_submodule(name)
            adapted.replace(name, ScaleShift(adapted, inner, self.std))
        return min(adapted.original.layer_of(name) for name in names)

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        with torch.no_grad():
            for name, wrapper in adapted.net.module.named_modules():
                if isinstance(wrapper, ScaleShift):
                    target: Any = module.get_submodule(name)
                    scale, shift = wrapper.scale.values[0], wrapper.shift.values[0]
                    for key, value in _merged(target, scale, shift).items():
                        target.get_parameter(key).copy_(value)

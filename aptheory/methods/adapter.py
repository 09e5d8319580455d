"""AdaptFormer: a bottleneck beside the frozen MLP of every transformer block.

mlp(u) becomes mlp(u) + s * (ReLU(u D + b1) U + b2), with u the block's own normalised tokens, D of
width x bottleneck and U of bottleneck x width; U and both biases start at zero, so the adapted
network starts as the frozen one.

Chen et al., "AdaptFormer", NeurIPS 2022, arXiv 2205.13535 (bottleneck 64, s = 0.1). D starts
uniform in +-1/sqrt(width). In networks with LayerScale the branch stands before it, with the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.per_run import by_run, merged, uniform
from aptheory.methods.registry import register
from aptheory.methods.spans import modules_at

if TYPE_CHECKING:
    from aptheory.networks.network import Network


class Entered(nn.Module):
    """The first map of an MLP, which remembers what entered until the last map has been run."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._seen: Tensor | None = None

    def forward(self, u: Tensor) -> Tensor:
        self._seen = u
        return self.inner(u)

    def take(self) -> Tensor:
        seen, self._seen = self._seen, None
        assert seen is not None
        return seen


class ParallelAdapter(nn.Module):
    """The frozen MLP and, beside it, the runs' own bottleneck."""

    def __init__(
        self, adapted: Adapted, inner: nn.Module, width: int, bottleneck: int, scale: float
    ) -> None:
        super().__init__()
        self.inner, self.runs, self.scale = inner, adapted.runs, scale
        self.down = adapted.per_run((width, bottleneck), uniform(1 / sqrt(width)))
        self.down_bias = adapted.per_run((bottleneck,))
        self.up = adapted.per_run((bottleneck, width))
        self.up_bias = adapted.per_run((width,))
        self.entered: Entered | None = None

    def forward(self, u: Float[Tensor, "samples ... width"], *rest: Any, **named: Any) -> Tensor:
        outside = u if self.entered is None else self.entered.take()
        flat = by_run(outside, self.runs).flatten(1, -2)  # runs, rows, width
        hidden = torch.relu(torch.baddbmm(self.down_bias().unsqueeze(1), flat, self.down()))
        beside = torch.baddbmm(self.up_bias().unsqueeze(1), hidden, self.up())
        return self.inner(u, *rest, **named) + self.scale * merged(
            beside.view(self.runs, -1, *outside.shape[1:])
        )


def _returns(maps: list[nn.Linear]) -> bool:
    """Whether linear maps are two, and the second leads back to the width of the first."""
    return len(maps) == 2 and maps[0].in_features == maps[1].out_features


@register
@dataclass(frozen=True)
class Adapter(Method):
    """AdaptFormer-style parallel adapters.

    Args:
        bottleneck: width of the adapter.
        scale: the factor s.
        layer: what part of the network learns, a place or several (see `methods.spans`); None is
            all of it.
    """

    bottleneck: int = 64
    scale: float = 0.1
    layer: int | float | str | tuple[int | float | str, ...] | None = field(
        default=None, kw_only=True
    )
    name: ClassVar[str] = "adapter"
    label: ClassVar[str] = "adapter"
    size: ClassVar[str | None] = "bottleneck"

    @classmethod
    def default(cls, net: Network) -> Adapter:
        """Bottleneck 64, or a quarter of the width in a network narrower than 256."""
        width = min(cls().modules(net).values())
        return cls(bottleneck=min(64, max(1, width // 4)))

    def modules(self, net: Network) -> dict[str, int]:
        """Name -> width of every block's MLP that maps the last axis to itself."""
        found = {}
        for name in modules_at(net, self.layer):
            module: Any = net.module.get_submodule(name)
            maps = [part for part in module.modules() if isinstance(part, nn.Linear)]
            if name.endswith(".mlp") and _returns(maps):
                found[name] = maps[0].in_features
            elif isinstance(module, nn.TransformerEncoderLayer):
                found[f"{name}.linear2"] = module.linear1.in_features
        if not found:
            part = "this network" if self.layer is None else f"its layer {self.layer!r}"
            raise InputError(
                f"adapter makes no sense on {net.name}: it stands beside the MLP of a transformer "
                f"block, and {part} has none."
            )
        return found

    def install(self, adapted: Adapted) -> int:
        modules = self.modules(adapted.net)
        for name, width in modules.items():
            inner = adapted.net.module.get_submodule(name)
            beside = ParallelAdapter(adapted, inner, width, self.bottleneck, self.scale)
            if name.endswith(".linear2"):  # nn.TransformerEncoderLayer's MLP has no module
                first = name.removesuffix("2") + "1"
                beside.entered = Entered(adapted.net.module.get_submodule(first))
                adapted.replace(first, beside.entered)
            adapted.replace(name, beside)
        return min(adapted.original.layer_of(name) for name in modules)

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        raise InputError(
            "adapter cannot be folded: it is not linear, and the MLP beside it has another "
            "activation function"
        )

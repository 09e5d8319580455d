"""GateVPT: shallow prompts that each block may change only as far as a learned gate lets it.

Block i turns the prompts P_{i-1} into P'_i; with gate g_i = sigmoid(gamma_i) the next block gets

    P_i = g_i P'_i + (1 - g_i) P_{i-1},

so a block that the task need not steer passes the prompts on. Adaptive attention shaping: each
block's attention has a learned temperature tau_i, softmax(q k^T / (tau_i sqrt(d))).

Yoo et al., "Improving Visual Prompt Tuning for Self-supervised Vision Transformers", ICML 2023,
arXiv 2306.05067. Implemented from the definitions; what we chose because we do not know it:
gamma_i = 0 and tau_i = 1 at the start, tau_i = exp of the learned number (so it stays positive),
one temperature a block (not a head), acting on all queries. The last block has no gate, because
nothing reads its prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted
from aptheory.methods.per_run import by_run, merged, normal
from aptheory.methods.prompt_tokens import VPT, token_blocks
from aptheory.methods.registry import register

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network


class GatedBlock(nn.Module):
    """A frozen block whose change of the prompt rows is scaled by the gate."""

    def __init__(
        self, adapted: Adapted, block: nn.Module, layer: Layer, tokens: int, start: float
    ) -> None:
        super().__init__()
        self.block, self.runs = block, adapted.runs
        self.first, self.last = layer.prefix, layer.prefix + tokens
        self.logit = adapted.per_run((1,), normal(0.0, mean=start))

    def forward(self, z: Float[Tensor, "samples tokens width"], *rest: Any, **named: Any) -> Tensor:
        out = self.block(z, *rest, **named)
        before = by_run(z[:, self.first : self.last], self.runs)
        after = by_run(out[:, self.first : self.last], self.runs)
        gate = torch.sigmoid(self.logit())[:, :, None, None]
        mixed = merged(before + gate * (after - before))
        return torch.cat([out[:, : self.first], mixed, out[:, self.last :]], dim=1)


class Temperature(nn.Module):
    """Divide the queries by tau, after the attention's own query norm."""

    def __init__(self, adapted: Adapted, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.runs = inner, adapted.runs
        self.log_tau = adapted.per_run((1,))

    def forward(self, q: Float[Tensor, "samples heads tokens width"]) -> Tensor:
        scaled = (
            by_run(self.inner(q), self.runs) * torch.exp(-self.log_tau())[:, :, None, None, None]
        )
        return merged(scaled)


def block_names(net: Network, blocks: list[Layer], method: str) -> list[str]:
    """Module names of the transformer blocks; InputError where a place holds several."""
    names = []
    for layer in blocks:
        inside = net.modules_between(layer.index, layer.index + 1)
        found = [name for name in inside if hasattr(net.module.get_submodule(name), "attn")]
        if len(found) != 1:
            raise InputError(
                f"{method} needs one block with one attention at each place, and place "
                f"{layer.index} of {net.name} has {len(found)}; load it with "
                "granularity='block' or blocks="
            )
        names.append(found[0])
    return names


@register
@dataclass(frozen=True)
class GateVPT(VPT):
    """Shallow prompts with a learned gate and attention temperature a block.

    Args:
        tokens: number of prompts.
        start: gamma at the start; 0 is a gate half open, large values are plain shallow VPT.
        temperature: learn the attention temperatures too.
    """

    deep: bool = False
    start: float = 0.0
    temperature: bool = True
    name: ClassVar[str] = "gate_vpt"
    label: ClassVar[str] = "gated visual prompt tokens"
    short: ClassVar[str] = "gated VPT"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deep:
            raise InputError(
                "gate_vpt has shallow prompts, which its gates pass on: leave deep=False"
            )

    def modules(self, net: Network) -> list[str]:
        """The blocks that it wraps, checked."""
        names = block_names(net, token_blocks(net, self.name), self.name)
        for name in names:
            attention = net.module.get_submodule(name).attn
            if self.temperature and not hasattr(attention, "q_norm"):
                raise InputError(
                    f"gate_vpt cannot scale the queries of {name}.attn of {net.name}: that "
                    "attention has no place after them; use temperature=False"
                )
        return names

    def install(self, adapted: Adapted) -> int:
        net = adapted.net
        blocks = token_blocks(net, self.name)
        names = self.modules(net)
        first = super().install(adapted)
        for layer, name in zip(blocks, names, strict=True):
            block: Any = net.module.get_submodule(name)
            if self.temperature:
                block.attn.q_norm = Temperature(adapted, block.attn.q_norm)
            if layer is not blocks[-1]:
                gated = GatedBlock(adapted, block, layer, self.tokens, self.start)
                adapted.replace(name, gated)
        return first

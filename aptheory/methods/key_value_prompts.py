"""E2VPT: prompts among the tokens of every block, and among the keys and values of its attention.

Beside VPT-deep's prompts, block i learns m rows P_K and P_V that are joined to the keys and values
(not the queries, so the sequence keeps its length):

    softmax(Q [K ; P_K]^T / sqrt(d)) [V ; P_V].

Then the prompt tokens are pruned: each token, and each of s segments of a token's width, has an
importance |dL/d rho| for a mask rho = 1 on it; the least important are removed, and what is left
is trained again from its initial values ("rewinding").

Han et al., "E^2VPT: An Effective and Efficient Approach for Visual Prompt Tuning", ICCV 2023,
arXiv 2307.13770. Implemented from the definitions; what we chose because we do not know it: P_K
and P_V are separate, enter after the projections (and the key norm), start uniform within VPT's
bound; importance is the mean over batches of |dL/d rho|, tokens are pruned before segments, both
over all blocks together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from aptheory.errors import InputError
from aptheory.methods.attention_steps import attended, projected
from aptheory.methods.base import Adapted
from aptheory.methods.gated_prompts import block_names
from aptheory.methods.per_run import normal, uniform
from aptheory.methods.prompt_tokens import (
    VPT,
    PromptTokens,
    let_prompts_pass,
    prompt_bound,
    token_blocks,
)
from aptheory.methods.registry import register

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network


class KeyValueAttention(nn.Module):
    """timm's Attention with m more keys and values, the runs' own."""

    def __init__(self, adapted: Adapted, inner: Any, extra: int, bound: float) -> None:
        super().__init__()
        self.inner, self.runs = inner, adapted.runs
        shape = (inner.num_heads, extra, inner.head_dim)
        self.keys = adapted.per_run(shape, uniform(bound))
        self.values = adapted.per_run(shape, uniform(bound))

    def forward(self, x: Float[Tensor, "samples tokens width"], **named: Any) -> Tensor:
        if any(value is not None and value is not False for value in named.values()):
            raise InputError("e2vpt takes attention without a mask")
        attention: Any = self.inner
        q, k, v = projected(attention, attention.qkv(x))
        batch = len(x) // self.runs
        k = torch.cat([k, self.keys().repeat_interleave(batch, dim=0).to(k.dtype)], dim=2)
        v = torch.cat([v, self.values().repeat_interleave(batch, dim=0).to(v.dtype)], dim=2)
        return attended(attention, x, q, k, v)


class MaskedPromptTokens(PromptTokens):
    """Prompt tokens of which some, or some segments of some, are pruned away."""

    def __init__(
        self, adapted: Adapted, layer: Layer, tokens: int, bound: float, segments: int, **how: Any
    ) -> None:
        super().__init__(adapted, layer, tokens, bound, **how)
        if layer.channels % segments:
            raise InputError(
                f"a width of {layer.channels} does not divide into {segments} segments"
            )
        self.segments = segments
        ones = normal(0.0, mean=1.0)
        self.token_mask = adapted.per_run((tokens, 1), ones, learns=False)
        self.segment_mask = adapted.per_run((tokens, segments), ones, learns=False)

    def prompts(self, batch: int) -> Float[Tensor, "samples tokens width"]:
        prompt = self.prompt()
        mask = self.token_mask() * self.segment_mask()  # runs, tokens, segments
        prompt = prompt * mask.repeat_interleave(prompt.shape[-1] // self.segments, dim=-1)
        return self.dropout(prompt.repeat_interleave(batch // prompt.shape[0], dim=0))

    def pruned(self) -> int:
        """Parameters of run 0 that no longer count."""
        mask = self.token_mask.values[0] * self.segment_mask.values[0]
        return int((mask == 0).sum()) * (self.prompt.shape[-1] // self.segments)


@register
@dataclass(frozen=True)
class E2VPT(VPT):
    """Prompt tokens at every block, key-value prompts in every attention; see ``prune``.

    Args:
        tokens: prompts a block.
        extra: key-value prompts m an attention.
        segments: parts of a token that can be pruned separately.
    """

    extra: int = 5
    segments: int = 8
    name: ClassVar[str] = "e2vpt"
    label: ClassVar[str] = "prompt tokens and key-value prompts"
    short: ClassVar[str] = "E²VPT"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extra < 1 or self.segments < 1:
            raise InputError(
                f"extra and segments must be at least 1, got {self.extra} and {self.segments}"
            )
        if not self.deep:
            raise InputError("e2vpt has prompts at every block: leave deep=True")

    def modules(self, net: Network) -> list[str]:
        """The attention modules that it wraps, checked."""
        from timm.layers import Attention

        names = block_names(net, token_blocks(net, self.name), self.name)
        for name in names:
            if type(net.module.get_submodule(name).attn) is not Attention:
                raise InputError(
                    f"e2vpt cannot add keys and values to {name}.attn of {net.name}: it is "
                    f"{type(net.module.get_submodule(name).attn).__name__}, not timm's Attention"
                )
        return names

    def install(self, adapted: Adapted) -> int:
        net = adapted.net
        blocks = token_blocks(net, self.name)
        names = self.modules(net)
        let_prompts_pass(adapted, blocks, self.tokens, self.name)
        for layer, name in zip(blocks, names, strict=True):
            bound = prompt_bound(net, layer)
            prompts = MaskedPromptTokens(
                adapted,
                layer,
                self.tokens,
                bound,
                self.segments,
                replace=layer is not blocks[0],
                dropout=0.1 if self.dropout is None else self.dropout,
            )
            adapted.edit(layer.index, prompts)
            block: Any = net.module.get_submodule(name)
            block.attn = KeyValueAttention(adapted, block.attn, self.extra, bound)
        return blocks[0].index


def prune(
    adapted: Adapted,
    batches: Iterable[tuple[Float[Tensor, "batch 3 height width"], Int[Tensor, " batch"]]],
    *,
    keep_tokens: float,
    keep_segments: float = 1.0,
) -> Adapted:
    """Prune a trained E2VPT (one run) and rewind it: call ``fit`` on it again afterwards.

    ``batches`` are training images and labels; ``keep_tokens`` and ``keep_segments`` the fractions
    that stay. The masks are kept; prompts and head go back to their initial values. Returns
    ``adapted``, changed. ``adapted.count()`` leaves out what was pruned.
    """
    parts = [m for m in adapted.modules() if isinstance(m, MaskedPromptTokens)]
    if not parts or adapted.runs != 1:
        raise InputError("prune takes one run of e2vpt: select it with select(k)")
    if not (0 < keep_tokens <= 1 and 0 < keep_segments <= 1):
        raise InputError(
            f"keep_tokens and keep_segments are fractions in (0, 1], got {keep_tokens} and "
            f"{keep_segments}"
        )
    examples = [(x, y) for x, y in batches]
    if not examples:
        raise InputError("prune needs at least one batch of training images to judge the prompts")
    tokens = [part.token_mask.values[0] for part in parts]
    segments = [part.segment_mask.values[0] for part in parts]
    for masks, fraction in ((tokens, keep_tokens), (segments, keep_segments)):
        importance = _importance(adapted, masks, examples)
        _mask_least(masks, importance, fraction)
    kept = [mask.detach().clone() for mask in tokens + segments]
    adapted.reset(adapted.seeds)
    with torch.no_grad():
        for mask, value in zip(tokens + segments, kept, strict=True):
            mask.copy_(value)
    return adapted


def _importance(
    adapted: Adapted, masks: list[nn.Parameter], examples: list[tuple[Tensor, Tensor]]
) -> Float[Tensor, " entries"]:
    was_training = adapted.training
    adapted.eval()
    total = torch.zeros(sum(mask.numel() for mask in masks), dtype=torch.float64)
    for mask in masks:
        mask.requires_grad_(True)
    for x, y in examples:
        loss = F.cross_entropy(adapted(x), y)
        gradients = torch.autograd.grad(loss, masks)
        total += torch.cat([g.flatten() for g in gradients]).abs().double().cpu()
    for mask in masks:
        mask.requires_grad_(False)
    adapted.train(was_training)
    return total


@torch.no_grad()
def _mask_least(masks: list[nn.Parameter], importance: Tensor, fraction: float) -> None:
    """Zero the least important entries, all masks together; what is already zero stays so."""
    drop = round((1 - fraction) * importance.numel())
    lowest = importance.argsort(stable=True)[:drop]
    flat = torch.cat([mask.flatten() for mask in masks])
    flat[lowest.to(flat.device)] = 0
    for mask, part in zip(masks, flat.split([mask.numel() for mask in masks]), strict=True):
        mask.copy_(part.view_as(mask))

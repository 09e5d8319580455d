"""timm's Attention in two steps, for methods that put something between them."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def projected(
    attention: Any, qkv: Float[Tensor, "samples tokens threefold"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (samples, heads, tokens, head) each, of what its ``qkv`` gave.

    The norms of queries and keys are applied.
    """
    by_head = qkv.unflatten(2, (3, attention.num_heads, attention.head_dim))
    q, k, v = by_head.permute(2, 0, 3, 1, 4)
    return attention.q_norm(q), attention.k_norm(k), v


def attended(
    attention: Any,
    x: Float[Tensor, "samples tokens width"],
    q: Float[Tensor, "samples heads tokens head"],
    k: Float[Tensor, "samples heads keys head"],
    v: Float[Tensor, "samples heads keys head"],
) -> Float[Tensor, "samples tokens width"]:
    """What it gives for the tokens ``x``, whose queries are ``q``."""
    out = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    out = attention.norm(out.transpose(1, 2).flatten(2))
    if getattr(attention, "gate", None) is not None:
        out = out * attention.gate(x).sigmoid()
    return attention.proj_drop(attention.proj(out))

"""An attention layer with prompts, read as a mixture of experts.

Head m, query row i of an attention layer on tokens x_1 … x_N and prompts p_1 … p_q [paper, VAPT]:

    h_i = Σ_j g_ij f_j,   g_i = softmax(s_i),   s_ij = (W_Q x_i + b_Q)·(W_K x_j + b_K) / √d_v

* a token's expert  f_j = W_V x_j + b_V is linear in the input;
* a VPT prompt's expert f = W_V p + b_V is *constant*, and its score is affine in the query alone:
  s_i = a·x_i + b with a = W_Qᵀ(W_K p + b_K)/√d_v;
* a VAPT prompt P_j(X) makes both depend on the whole input.

`attention_as_experts` computes the layer by these formulas, prompt scores by their closed form, so
that its agreement with the layer itself (1e-6 in float64) checks the reading and not a copy of the
layer's code. The formula has no query or key norms and no gated output: a layer that has them is
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.errors import InputError


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Weights of one multi-head attention layer, split into heads.

    query, key, value : (heads, head_width, width). Biases: (heads, head_width).
    projection : (width_out, heads · head_width), with its bias (width_out,).
    """

    query: Float[Tensor, "heads head_width width"]
    key: Float[Tensor, "heads head_width width"]
    value: Float[Tensor, "heads head_width width"]
    query_bias: Float[Tensor, "heads head_width"]
    key_bias: Float[Tensor, "heads head_width"]
    value_bias: Float[Tensor, "heads head_width"]
    projection: Float[Tensor, "width_out joined"]
    projection_bias: Float[Tensor, " width_out"]

    @classmethod
    def from_timm(cls, attention: nn.Module) -> AttentionWeights:
        """Weights of a timm ``Attention`` (fused ``qkv`` and ``proj``).

        Raises InputError for a layer whose output is not this mixture: norms on queries and keys
        or on the heads' output, or a gate.
        """
        qkv, proj = getattr(attention, "qkv", None), getattr(attention, "proj", None)
        heads = getattr(attention, "num_heads", None)
        if not isinstance(qkv, nn.Linear) or not isinstance(proj, nn.Linear) or heads is None:
            raise InputError(
                f"expected a timm Attention with qkv and proj, got {type(attention).__name__}"
            )
        for name in ("q_norm", "k_norm", "norm"):
            if not isinstance(getattr(attention, name, nn.Identity()), nn.Identity):
                raise InputError(f"a layer with {name} is no plain mixture of linear experts")
        if getattr(attention, "gate", None) is not None:
            raise InputError("a layer with a gated output is no plain mixture of linear experts")
        width = qkv.in_features
        weight = qkv.weight.detach().reshape(3, heads, -1, width)
        bias = weight.new_zeros(weight.shape[:3])
        if qkv.bias is not None:
            bias = qkv.bias.detach().reshape(weight.shape[:3])
        offset = proj.weight.new_zeros(proj.out_features)
        if proj.bias is not None:
            offset = proj.bias.detach()
        query, key, value = weight.unbind(0)
        return cls(query, key, value, bias[0], bias[1], bias[2], proj.weight.detach(), offset)


@dataclass(frozen=True, eq=False)
class ExpertView:
    """A layer's output, taken apart. Experts: first the tokens, then the prompts.

    experts : f_j for each head. scores : s_ij before the softmax. gates : g_ij.
    """

    experts: Float[Tensor, "batch heads experts head_width"]
    scores: Float[Tensor, "batch heads tokens experts"]
    gates: Float[Tensor, "batch heads tokens experts"]
    weights: AttentionWeights

    def output(self) -> Float[Tensor, "batch tokens width_out"]:
        """Σ_j g_ij f_j, heads joined and projected: the layer's output at the token rows."""
        mixed = self.gates @ self.experts
        joined = mixed.transpose(1, 2).flatten(2)
        return joined @ self.weights.projection.T + self.weights.projection_bias

    def prompt_share(self) -> Float[Tensor, "batch heads tokens"]:
        """Part of each query's gate that falls on the prompts' experts."""
        return self.gates[..., self.scores.shape[2] :].sum(-1)


def attention_as_experts(
    weights: AttentionWeights,
    tokens: Float[Tensor, "batch tokens width"],
    prompts: Float[Tensor, "prompt_batch prompts width"] | None = None,
) -> ExpertView:
    """Rewrite a layer on `tokens` with `prompts` as experts and gates.

    tokens : what enters the layer (after its norm), without the prompts.
    prompts : what the prompts are at the same point: (1, q, width) for constants (VPT), or one set
        a sample (VAPT, or VPT after earlier blocks). Where prompts stand in the sequence does not
        matter to the mixture.
    """
    keys = torch.einsum("hdw,bnw->bhnd", weights.key, tokens) + weights.key_bias[:, None]
    experts = torch.einsum("hdw,bnw->bhnd", weights.value, tokens) + weights.value_bias[:, None]
    queries = torch.einsum("hdw,bnw->bhnd", weights.query, tokens) + weights.query_bias[:, None]
    scale = weights.query.shape[1] ** -0.5
    scores = scale * queries @ keys.transpose(-1, -2)
    if prompts is not None:
        if prompts.ndim != 3 or prompts.shape[0] not in (1, len(tokens)):
            raise InputError(
                f"prompts must be (1 or {len(tokens)}, count, width), got {tuple(prompts.shape)}"
            )
        slope, offset = affine_scores(weights, prompts)
        added = torch.einsum("bhqw,bnw->bhnq", slope, tokens) + offset[:, :, None]
        constant = torch.einsum("hdw,bqw->bhqd", weights.value, prompts)
        constant = (constant + weights.value_bias[:, None]).expand(len(tokens), -1, -1, -1)
        scores = torch.cat([scores, added], -1)
        experts = torch.cat([experts, constant], 2)
    return ExpertView(experts, scores, torch.softmax(scores, -1), weights)


def affine_scores(
    weights: AttentionWeights, prompts: Float[Tensor, "batch prompts width"]
) -> tuple[Float[Tensor, "batch heads prompts width"], Float[Tensor, "batch heads prompts"]]:
    """Slope a and offset b of each prompt's score as a function of the query: s = a·x + b."""
    keys = torch.einsum("hdw,bqw->bhqd", weights.key, prompts) + weights.key_bias[:, None]
    keys = keys * weights.query.shape[1] ** -0.5
    slope = torch.einsum("hdw,bhqd->bhqw", weights.query, keys)
    return slope, torch.einsum("hd,bhqd->bhq", weights.query_bias, keys)


def adaptive_prompts(
    image_tokens: Float[Tensor, "batch width rows columns"],
    kernel: Float[Tensor, "k k"],
    token_weights: Float[Tensor, "prompts places"],
    down: Float[Tensor, "rank width"],
    up: Float[Tensor, "width rank"],
    *,
    activation: Callable[[Tensor], Tensor] = torch.relu,
    residual: bool = False,
) -> Float[Tensor, "batch prompts width"]:
    """VAPT's prompts P_j(X) = up σ(down Σ_k α_jk (kernel ∗ X)_k) [paper].

    One kernel for all channels, no padding: places = (rows − k + 1)·(columns − k + 1).
    residual : add Σ_k α_jk (kernel ∗ X)_k itself, as the release does [code].
    """
    width = image_tokens.shape[1]
    mixed = torch.nn.functional.conv2d(
        image_tokens, kernel.expand(width, 1, -1, -1), groups=width
    ).flatten(2)
    if token_weights.shape[1] != mixed.shape[2]:
        raise InputError(
            f"token_weights expects {token_weights.shape[1]} places, the map has {mixed.shape[2]}"
        )
    pooled = torch.einsum("bwp,jp->bjw", mixed, token_weights)
    learned = activation(pooled @ down.T) @ up.T
    return pooled + learned if residual else learned

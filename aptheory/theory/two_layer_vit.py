"""The frozen two-layer, single-head attention network of the theory, with a prompt in it.

Model. Tokens z⁰ = pattern + noise on a ring of P places. Layer l = 1, 2:

    zˡ = σ( Σ_m A^l_nm (z^{l-1}_m + δˡ_m) ),   f = mean over n of aᵀ z²_n,

with A^l the attention, limited to places at ring distance ≤ ``ranges[l-1]`` (so the range is a
continuous dial for each layer: `nearness`), σ either the identity or a ReLU, and a head `a` that
also listens to the patterns without meaning (`patterns.head_weights`). Everything is frozen but δ,
which enters at one place: layer 1, layer 2, or the input, before a frozen linear embedding.

Three attentions, because "hard attention" can be read in more than one way:

* ``attention="hard"``: a token attends evenly to the tokens of its own kind within the range, and
  the prompt does not move the attention. What can remove a pattern is the ReLU: a prompt of −1
  along it makes its unit silent. [rebuilt]
* ``attention="even"``: a token attends evenly to every place within the range, whatever it holds
  (attention by position). The prompt does not move it. [derived]
* ``attention="softmax"``: A = softmax(β (z_n + δ_n)ᵀ(z_m + δ_m)) within the range, so the prompt
  also *steers* the attention towards the patterns that it is aligned with; β → ∞ is hard. [rebuilt]

Layer 1 global, layer 2 local is the theorem's assumption [recalled]; ``TwoLayerViT.flipped`` puts
the globality into layer 2 [derived].

What follows at once [derived]: rows of A sum to one, so where the prompt does not move the
attention a prompt that all tokens share moves every place alike: the range acts on noise only. And
with "hard" attention, while no unit is silent, f is linear in a token-wise δ with coefficients that
do not depend on the range either (a place's δ reaches exactly the tokens of its kind). Globality
can act in three ways only: units that fall silent, places mixed regardless of kind ("even": a wide
layer averages the tokens' prompts into one), and prompts that steer ("softmax").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.theory.patterns import PATTERNS, Patterns, Samples, head_weights

Place = Literal["input", "layer 1", "layer 2"]
PLACES: tuple[Place, ...] = ("input", "layer 1", "layer 2")


def ring_distance(
    tokens: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "tokens tokens"]:
    """Distance between two places of a ring, in places: min(|n − m|, P − |n − m|)."""
    place = torch.arange(tokens, device=device)
    apart = (place[:, None] - place).abs()
    return torch.minimum(apart, tokens - apart).float()


def nearness(distance: Tensor, reach: float) -> Tensor:
    """Weight, from 0 to 1, with which a place at that distance counts: min(1, max(0, r + 1 − d)).

    At a whole range r it is 1 up to the distance r and 0 beyond; in between the next place fades
    in, so that every range, 2.8 as well as 3, is a network of its own.
    """
    return (reach + 1 - distance).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class TwoLayerViT:
    """A frozen network (see the module).

    head : weights of the four patterns in the logit.
    ranges : largest distance at which layer 1 and layer 2 attend, whole or not (`nearness`).
    attention : "hard", "even" or "softmax" (see the module).
    sharpness : β of the softmax.
    activation : "relu" after each layer, "linear" for none.
    embedding : condition number of the input embedding; 1 makes "input" the same as "layer 1".
    """

    head: Float[Tensor, " patterns"]
    tokens: int
    ranges: tuple[float, float]
    attention: Literal["hard", "even", "softmax"] = "softmax"
    sharpness: float = 4.0
    activation: Literal["relu", "linear"] = "linear"
    embedding: float = 4.0
    places: tuple[str, ...] = field(default=PLACES, init=False)

    def __post_init__(self) -> None:
        if len(self.ranges) != 2 or min(self.ranges) < 0:
            raise InputError(f"ranges are two distances, zero or more, got {self.ranges}")
        if self.attention not in ("hard", "even", "softmax"):
            raise InputError(
                f"attention must be 'hard', 'even' or 'softmax', got {self.attention!r}"
            )
        if self.activation not in ("relu", "linear"):
            raise InputError(f"activation must be 'relu' or 'linear', got {self.activation!r}")

    @classmethod
    def for_data(cls, data: Patterns, *, local: int = 2, **settings: Any) -> TwoLayerViT:
        """The theorem's network: layer 1 attends everywhere, layer 2 within `local`."""
        settings.setdefault("ranges", (data.tokens // 2, local))
        return cls(head=head_weights(data), tokens=data.tokens, **settings)

    @property
    def flipped(self) -> TwoLayerViT:
        """The same network with the two ranges exchanged."""
        return replace(self, ranges=(self.ranges[1], self.ranges[0]))

    def to(self, device: torch.device | str) -> TwoLayerViT:
        """The same network with its head on a device."""
        return replace(self, head=self.head.to(device))

    def prompt_shape(self, place: str, shape: Literal["token", "shared"]) -> tuple[int, int]:
        """Shape of the prompt of one run: one vector a token, or one for all."""
        if place not in PLACES:
            raise InputError(f"place must be one of {PLACES}, got {place!r}")
        return (self.tokens if shape == "token" else 1, PATTERNS)

    def logits(
        self, samples: Samples, *, place: str | None = None, prompt: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Logits with `prompt`, (runs, 1, tokens or 1, 4), added at `place`."""
        kinds = torch.nn.functional.one_hot(samples.kinds.long(), PATTERNS).to(samples.noise)
        state = kinds + samples.noise
        for layer, name in enumerate(("layer 1", "layer 2")):
            if prompt is not None and place == name:
                state = state + prompt
            elif prompt is not None and place == "input" and layer == 0:
                state = state + prompt @ self._embedding().T.to(prompt)
            state = self._attend(state, kinds, self.ranges[layer])
            if self.activation == "relu":
                state = torch.relu(state)
        return state.mean(-2) @ self.head

    def attention_distance(self, samples: Samples) -> tuple[float, float]:
        """Mean attention distance of each layer without a prompt, in places.

        The distance from query to key weighted by the attention, averaged over queries and
        samples, as Raghu et al. (2021) define it.
        """
        kinds = torch.nn.functional.one_hot(samples.kinds.long(), PATTERNS).to(samples.noise)
        state, apart, means = kinds + samples.noise, ring_distance(self.tokens).to(kinds), []
        for layer in range(2):
            weights = self._weights(state, kinds, self.ranges[layer])
            means.append(float((weights * apart).sum(-1).mean()))
            state = weights @ state
            if self.activation == "relu":
                state = torch.relu(state)
        return means[0], means[1]

    def _embedding(self) -> Float[Tensor, "patterns patterns"]:
        """Frozen input embedding: singular values from 1 down to 1 / condition, mixed directions.

        Which embedding the theory assumes is unknown [?]; a fixed rotation makes no pattern
        special. Tokens are given after the embedding, so that it changes the prompt's path alone.
        """
        hadamard = torch.tensor(
            [[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
        ).div_(2)
        scales = torch.logspace(0, -1, PATTERNS, base=self.embedding)
        return hadamard * scales

    def _weights(self, state: Tensor, kinds: Tensor, reach: float) -> Float[Tensor, "*b t t"]:
        near = _near(self.tokens, reach, state.device)
        if self.attention == "hard":
            same = (kinds @ kinds.transpose(-1, -2)) * near
            return same / same.sum(-1, keepdim=True)
        if self.attention == "even":
            return near / near.sum(-1, keepdim=True)
        scores = self.sharpness * (state @ state.transpose(-1, -2))
        return torch.softmax(scores + near.log(), -1)

    def _attend(self, state: Tensor, kinds: Tensor, reach: float) -> Tensor:
        """Attention times values, by the cheapest of three equal routes."""
        if self.attention == "hard" and reach == 0:
            return state
        if self.attention == "hard" and reach >= self.tokens // 2:
            counts = kinds.sum(-2).clamp_min(1)[..., None]
            means = (kinds.transpose(-1, -2) @ state) / counts
            return kinds @ means
        width = math.ceil(reach)
        if self.attention == "softmax" and 2 * width + 1 < self.tokens // 2:
            keys = windows(state, width)
            scores = self.sharpness * (state[..., None] * keys).sum(-2)  # (..., tokens, offsets)
            offset = torch.arange(-width, width + 1, device=state.device)
            weights = torch.softmax(scores + nearness(offset.abs(), reach).log(), -1)
            return (weights[..., None, :] * keys).sum(-1)
        return self._weights(state, kinds, reach) @ state


@lru_cache(maxsize=64)
def _near(tokens: int, reach: float, device: torch.device) -> Float[Tensor, "tokens tokens"]:
    return nearness(ring_distance(tokens, device), reach)


def windows(
    state: Float[Tensor, "*batch tokens channels"], reach: int
) -> Float[Tensor, "*batch tokens channels offsets"]:
    """What stands within `reach` of each place of a ring, from −reach to +reach."""
    around = [state[..., state.shape[-2] - reach :, :], state, state[..., :reach, :]]
    return torch.cat(around, -2).unfold(-2, 2 * reach + 1, 1)

"""A two-layer convolutional counterpart, for which neither paper has a theory.

Model [derived, ours]: channels are the four patterns; positions form a ring of P places.

    z¹ = pool_s( ReLU( k₁ ∗ (z⁰ + δ¹) ) ),   z² = ReLU( k₂ ∗ (z¹ + δ²) ),   f = mean of aᵀ z²

with positive frozen kernels k₁, k₂ of widths ``kernels`` (each channel by itself, summing to one),
average pooling of stride s after layer 1, and the same head as the attention network, so patterns
without meaning disturb the logit until a prompt silences them. The prompt is a full map, P × 4 at
layer 1 and P/s × 4 at layer 2.

The receptive field grows with depth: an output of layer 2 covers about s · w₂ + w₁ places. The
measure of globality is the same as for attention: the mean distance, in places of the input, that
a layer's own aggregation bridges, i.e. (mean |offset| of its kernel) × (stride so far). For equal
kernels it is larger in the deeper layer, the opposite of the theory's ViT. If globality explains
the preference, the deep prompt should win here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.theory.patterns import PATTERNS, Patterns, Samples, head_weights
from aptheory.theory.two_layer_vit import windows

CNN_PLACES: tuple[str, ...] = ("layer 1", "layer 2")


@dataclass(frozen=True, eq=False)
class TwoLayerCNN:
    """A frozen network (see the module). `kernels` are odd widths; `stride` divides `tokens`."""

    head: Float[Tensor, " patterns"]
    tokens: int
    kernels: tuple[int, int] = (3, 3)
    stride: int = 2
    seed: int = 0
    places: tuple[str, ...] = field(default=CNN_PLACES, init=False)

    def __post_init__(self) -> None:
        if any(w < 1 or w % 2 == 0 for w in self.kernels):
            raise InputError(f"kernel widths must be odd and positive, got {self.kernels}")
        if self.stride < 1 or self.tokens % self.stride:
            raise InputError(f"stride {self.stride} must divide the number of places {self.tokens}")
        if self.kernels[0] > self.tokens or self.kernels[1] > self.tokens // self.stride:
            raise InputError(f"kernels {self.kernels} are wider than the maps that they run over")

    @classmethod
    def for_data(cls, data: Patterns, **settings: Any) -> TwoLayerCNN:
        """A network with the head that fits `data`."""
        return cls(head=head_weights(data), tokens=data.tokens, **settings)

    def to(self, device: torch.device | str) -> TwoLayerCNN:
        """The same network with its head on a device."""
        return replace(self, head=self.head.to(device))

    def prompt_shape(self, place: str, shape: Literal["token", "shared"]) -> tuple[int, int]:
        """Shape of the prompt of one run at `place`."""
        if place not in CNN_PLACES:
            raise InputError(f"place must be one of {CNN_PLACES}, got {place!r}")
        positions = self.tokens if place == "layer 1" else self.tokens // self.stride
        return (positions if shape == "token" else 1, PATTERNS)

    def kernel(self, layer: int) -> Float[Tensor, " width"]:
        """Frozen kernel of a layer: a positive random draw that sums to one."""
        return _kernel(self.kernels[layer], self.seed * 2 + layer, self.head.device)

    def globality(self) -> tuple[float, float]:
        """Mean distance bridged by each layer's aggregation, in places of the input."""
        means = []
        for layer, stride in enumerate((1, self.stride)):
            reach = self.kernels[layer] // 2
            offsets = torch.arange(-reach, reach + 1, device=self.head.device).abs().float()
            means.append(float((self.kernel(layer) * offsets).sum()) * stride)
        return means[0], means[1]

    def logits(
        self, samples: Samples, *, place: str | None = None, prompt: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Logits with `prompt`, (runs, 1, positions or 1, 4), added to the map entering `place`."""
        state = samples.values
        for layer, name in enumerate(CNN_PLACES):
            if prompt is not None and place == name:
                state = state + prompt
            mixed = windows(state, self.kernels[layer] // 2) @ self.kernel(layer)
            state = torch.relu(mixed)
            if layer == 0 and self.stride > 1:
                shape = (*state.shape[:-2], -1, self.stride, PATTERNS)
                state = state.reshape(shape).mean(-2)
        return state.mean(-2) @ self.head


@lru_cache(maxsize=64)
def _kernel(width: int, seed: int, device: torch.device) -> Float[Tensor, " width"]:
    weights = 0.5 + torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return (weights / weights.sum()).to(device)

"""VAPT: prompt tokens that a small network computes from the image's own tokens, block by block.

With X the image tokens of a block's input, seen as a height x width map of width d:

1. X_conv = F * X: one K x K kernel F for all channels, no padding, H'W' positions.
2. G_j = sum_k alpha_{j,k} x_k^conv: one token-wise projector a prompt j and block.
3. P_j(X) = g(G_j), g(u) = W2 sigma(W1 u): one feature projector for all blocks and prompts.

Le et al., "Revisit Visual Prompt Tuning: The Expressiveness of Prompt Experts", ICLR 2026,
arXiv 2501.18936. ``variant="paper"`` is the formula above at every block, with sigma = ReLU and
alpha uniform in +-1/sqrt(H'W') (the formula names neither). ``variant="release"`` is what the
authors' release computes: a static VPT prompt at block 0; at the others a learned LayerNorm
(eps 1e-5) before step 1, dropout 0.1 of channels after it, a scalar bias a prompt and alpha = 0
at the start in step 2, and in step 3 g(u) = u + W2 dropout(ReLU(W1 u)). Every adaptive prompt is
then zero at the start. W1, W2 start uniform in +-1/sqrt(fan in), torch's way; ours to choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.per_run import RunDropout, by_run, merged, normal, uniform
from aptheory.methods.prompt_tokens import (
    PromptTokens,
    let_prompts_pass,
    place_prompts,
    prompt_bound,
    token_blocks,
)
from aptheory.methods.registry import register

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network


class FeatureProjector(nn.Module):
    """g, shared by all blocks and prompts: W2 ReLU(W1 u), with u itself added in the release."""

    def __init__(self, adapted: Adapted, width: int, hidden: int, *, release: bool) -> None:
        super().__init__()
        self.residual = release
        self.down = adapted.per_run((width, hidden), uniform(1 / sqrt(width)))
        self.up = adapted.per_run((hidden, width), uniform(1 / sqrt(hidden)))
        self.dropout = RunDropout(adapted.runs, 0.1 if release else 0.0)
        self.runs = adapted.runs

    def forward(self, u: Float[Tensor, "samples tokens width"]) -> Tensor:
        hidden = torch.relu(by_run(u, self.runs) @ self.down().unsqueeze(1))
        hidden = by_run(self.dropout(merged(hidden)), self.runs)
        out = merged(hidden @ self.up().unsqueeze(1))
        return u + out if self.residual else out


class AdaptivePrompts(nn.Module):
    """The prompts of one block, computed from the tokens that enter it."""

    def __init__(
        self,
        adapted: Adapted,
        layer: Layer,
        tokens: int,
        kernel: int,
        projector: FeatureProjector,
        *,
        release: bool,
        replace: bool,
    ) -> None:
        super().__init__()
        if layer.grid is None:
            raise InputError(
                f"the grid of the positions at {layer.name} is not known: load the network with "
                "prefix= or layout=."
            )
        self.grid, self.prefix, self.suffix = layer.grid, layer.prefix, layer.suffix
        self.tokens, self.runs, self.release, self.replace = tokens, adapted.runs, release, replace
        small = [n - kernel + 1 for n in self.grid]
        if min(small) < 1:
            raise InputError(
                f"a {kernel}x{kernel} kernel does not fit the {self.grid[0]}x{self.grid[1]} map of "
                f"{layer.name}: choose a smaller kernel"
            )
        self.kernel = adapted.per_run((kernel, kernel), normal(1.0))
        start = None if release else uniform(1 / sqrt(small[0] * small[1]))
        self.mix = adapted.per_run((tokens, *small), start)
        if release:
            self.bias = adapted.per_run((tokens, 1))
            self.gain = adapted.per_run((layer.channels,), normal(0.0, mean=1.0))
            self.shift = adapted.per_run((layer.channels,))
            self.dropout = RunDropout(adapted.runs, 0.1, whole_channels=True)
        # In a tuple: the projector belongs to all blocks and is registered once, by the first.
        self._projector = (projector,)

    def weights(self) -> Float[Tensor, "runs tokens positions"]:
        """Steps 1 and 2 in one: both are linear over positions, so alpha * F acts on X itself."""
        mix = self.mix().transpose(0, 1)  # tokens, runs, small height, small width
        full = F.conv_transpose2d(mix, self.kernel().unsqueeze(1), groups=self.runs)
        return full.flatten(2).transpose(0, 1)

    def forward(self, z: Float[Tensor, "samples before width"]) -> Tensor:
        patches = z[:, self.prefix + (self.tokens if self.replace else 0) :]
        patches = patches[:, : patches.shape[1] - self.suffix]
        x = by_run(patches, self.runs)
        if self.release:
            x = F.layer_norm(x, x.shape[-1:], eps=1e-5)
            x = x * self.gain()[:, None, None] + self.shift()[:, None, None]
        mixed = merged(self.weights().unsqueeze(1) @ x)
        if self.release:
            # A dropped channel is dropped before and after mixing positions alike.
            mixed = self.dropout(mixed)
            mixed = merged(by_run(mixed, self.runs) + self.bias().unsqueeze(1))
        prompts = self._projector[0](mixed)
        return place_prompts(z, prompts, self.prefix, replace=self.replace)


@register
@dataclass(frozen=True)
class VAPT(Method):
    """Visual adaptive prompt tuning.

    Args:
        tokens: prompts a block.
        hidden: width r of the feature projector.
        kernel: side K of the convolution's kernel.
        variant: "release" (what the authors' code computes) or "paper" (the printed formula).
    """

    tokens: int = 10
    hidden: int = 8
    kernel: int = 2
    variant: str = "release"
    name: ClassVar[str] = "vapt"
    label: ClassVar[str] = "adaptive visual prompts"
    short: ClassVar[str] = "VAPT"
    size: ClassVar[str | None] = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("release", "paper"):
            raise InputError(f"variant must be 'release' or 'paper', got {self.variant!r}")
        if min(self.hidden, self.kernel) < 1:
            raise InputError(
                f"hidden and kernel must be at least 1, got {self.hidden} and {self.kernel}."
            )

    @classmethod
    def default(cls, net: Network) -> VAPT:
        """Ten prompts, once it is known that the blocks take more tokens than their own."""
        cls().attach(net, classes=1)
        return cls()

    def install(self, adapted: Adapted) -> int:
        net = adapted.net
        blocks = token_blocks(net, self.name)
        let_prompts_pass(adapted, blocks, self.tokens, self.name)
        release = self.variant == "release"
        adaptive = blocks
        if release:
            first = blocks[0]
            bound = prompt_bound(net, first)
            static = PromptTokens(adapted, first, self.tokens, bound, replace=False, dropout=0.1)
            adapted.edit(first.index, static)
            adaptive = blocks[1:]
        projector = FeatureProjector(adapted, blocks[0].channels, self.hidden, release=release)
        adapted.add_module("feature_projector", projector)
        for layer in adaptive:
            prompts = AdaptivePrompts(
                adapted,
                layer,
                self.tokens,
                self.kernel,
                projector,
                release=release,
                replace=layer is not blocks[0],
            )
            adapted.edit(layer.index, prompts)
        return blocks[0].index

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        raise InputError(
            "vapt cannot be folded: its prompts are tokens computed from each image, and no weight "
            "of the network adds a token"
        )

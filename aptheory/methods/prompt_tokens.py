"""VPT: learned tokens put among a vision transformer's own, at the first block or at every block.

The sequence becomes [prefix ; prompts ; patches]; prompts get no position embedding. Shallow
prompts enter before the first block and travel through all of them; deep ones are replaced by new
ones before each block. They leave before the final norm, so any pooling reads its own tokens.

Jia et al., "Visual Prompt Tuning", ECCV 2022, arXiv 2203.12119.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.arguments import Share
from aptheory.errors import InputError, reason_of
from aptheory.methods.base import Adapted, Method
from aptheory.methods.per_run import PerRun, RunDropout, uniform
from aptheory.methods.registry import register
from aptheory.methods.spans import blocks_before

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network


def token_blocks(net: Network, method: str, *, each: bool = True) -> list[Layer]:
    """The places entering a block of a network whose blocks all keep one token sequence.

    Raises InputError for a network without such blocks, because extra tokens have no place in it,
    and, with ``each``, where several blocks lie between two places.
    """
    blocks = [net.layers[index] for index in blocks_before(net, method)]
    if {layer.layout for layer in blocks} != {"tokens"}:
        raise InputError(
            f"{method} makes no sense on {net.name}: it adds tokens to a sequence, and the blocks "
            f"of this network pass {blocks[0].layout} activations; choose a vision transformer"
        )
    if len({layer.shape for layer in blocks}) != 1:
        raise InputError(
            f"{method} cannot be used on {net.name}: its token sequence changes from block to "
            "block, so prompts cannot travel with it"
        )
    after = net.layers[net.block_layers[-1] + 1]
    if after.layout != "tokens" or after.shape != blocks[0].shape:
        raise InputError(
            f"{method} cannot be used on {net.name}: there is no place after the last block at "
            "which the prompts could leave"
        )
    if each:
        for layer in blocks:
            inside = net.modules_between(layer.index, layer.index + 1)
            attentive = [n for n in inside if hasattr(net.module.get_submodule(n), "attn")]
            if len(attentive) > 1:
                raise InputError(
                    f"{method} acts on every block, and {len(attentive)} lie behind place "
                    f"{layer.index} of {net.name}: load it with granularity='block' or blocks="
                )
    return blocks


def patch_size(net: Network, layer: Layer) -> tuple[int, int]:
    """Pixels of the image that one position of this place stands for, (height, width)."""
    if layer.grid is None:
        raise InputError(
            f"the grid of the positions at {layer.name} of {net.name} is not known: load it with "
            "prefix= or layout=."
        )
    return net.input_shape[1] // layer.grid[0], net.input_shape[2] // layer.grid[1]


def prompt_bound(net: Network, layer: Layer) -> float:
    """VPT's initialisation bound sqrt(6 / (channels * ph * pw + width)); 0.0625 for ViT-B/16."""
    height, width = patch_size(net, layer)
    return sqrt(6 / (net.input_shape[0] * height * width + layer.channels))


class PromptTokens(nn.Module):
    """Put run k's prompts into the sequences of run k, after the prefix tokens.

    ``replace``: the sequence already holds as many prompts from the block before; they give way.
    """

    def __init__(
        self,
        adapted: Adapted,
        layer: Layer,
        tokens: int,
        bound: float,
        *,
        replace: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.prefix, self.tokens, self.replace = layer.prefix, tokens, replace
        self.prompt: PerRun = adapted.per_run((tokens, layer.channels), uniform(bound))
        self.dropout = RunDropout(adapted.runs, dropout)

    def prompts(self, batch: int) -> Float[Tensor, "samples tokens width"]:
        prompt = self.prompt()  # runs, tokens, width
        return self.dropout(prompt.repeat_interleave(batch // prompt.shape[0], dim=0))

    def forward(self, z: Float[Tensor, "samples before width"]) -> Tensor:
        return place_prompts(z, self.prompts(z.shape[0]), self.prefix, replace=self.replace)


def place_prompts(
    z: Float[Tensor, "samples before width"],
    prompts: Float[Tensor, "samples tokens width"],
    prefix: int,
    *,
    replace: bool,
) -> Float[Tensor, "samples after width"]:
    """[prefix ; prompts ; patches], in place of earlier prompts or in addition."""
    rest = prefix + (prompts.shape[1] if replace else 0)
    return torch.cat([z[:, :prefix], prompts.to(z.dtype), z[:, rest:]], dim=1)


class RemoveTokens(nn.Module):
    """Take the prompts out of the sequence again."""

    def __init__(self, prefix: int, tokens: int) -> None:
        super().__init__()
        self.prefix, self.tokens = prefix, tokens

    def forward(self, z: Float[Tensor, "samples before width"]) -> Tensor:
        return torch.cat([z[:, : self.prefix], z[:, self.prefix + self.tokens :]], dim=1)


def let_prompts_pass(adapted: Adapted, blocks: list[Layer], tokens: int, method: str) -> None:
    """Make room for the prompts between the first block and the end, and check that they fit.

    Rotary embeddings leave a network's prefix tokens alone: the prompts count among these.
    """
    net = adapted.net
    if len(adapted.reading.layers) > 1:
        raise InputError(
            f"{method} adds tokens that travel along, so its head reads one place: give read one."
        )
    after = blocks[-1].index + 1
    adapted.edit(after, RemoveTokens(blocks[0].prefix, tokens))
    for name in net.modules_between(blocks[0].index, after):
        part: Any = net.module.get_submodule(name)
        if isinstance(getattr(part, "num_prefix_tokens", None), int):
            part.num_prefix_tokens += tokens
    count, width = blocks[0].shape
    longer = torch.zeros(1, count + tokens, width).to(adapted.like)
    try:
        with torch.no_grad():
            for layer in blocks:
                passed = net.run(longer, start=layer.index, stop=layer.index + 1)
                if passed.shape != longer.shape:
                    raise ValueError(f"what leaves {layer.name} is {tuple(passed.shape[1:])}")
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(
            f"{method} cannot be used on {net.name}: its blocks take {count} tokens and no more "
            f"({reason_of(error)})"
        ) from None


@register
@dataclass(frozen=True)
class VPT(Method):
    """Visual prompt tuning: ``tokens`` learned tokens and a head.

    Args:
        tokens: prompts a block (the paper searches 1, 5, 10, 50, 100, 200).
        deep: new prompts at every block, else at the first alone.
        dropout: on the prompts while training; None is the authors' 0.1 deep and 0 shallow.

    Raises:
        InputError: a dropout of 1, with which training never sees a prompt.
    """

    tokens: int = 10
    deep: bool = True
    dropout: Share | None = None
    name: ClassVar[str] = "vpt"
    label: ClassVar[str] = "visual prompt tokens"
    short: ClassVar[str] = "VPT"
    size: ClassVar[str | None] = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dropout == 1:
            raise InputError("dropout must be below 1, or training never sees a prompt")

    @classmethod
    def default(cls, net: Network) -> VPT:
        """Ten prompts, once it is known that the blocks take more tokens than their own."""
        cls().attach(net, classes=1)
        return cls()

    def install(self, adapted: Adapted) -> int:
        net = adapted.net
        blocks = token_blocks(net, self.name, each=self.deep)
        let_prompts_pass(adapted, blocks, self.tokens, self.name)
        dropout = (0.1 if self.deep else 0.0) if self.dropout is None else self.dropout
        for layer in blocks if self.deep else blocks[:1]:
            prompts = PromptTokens(
                adapted,
                layer,
                self.tokens,
                prompt_bound(net, layer),
                replace=layer is not blocks[0],
                dropout=dropout,
            )
            adapted.edit(layer.index, prompts)
        return blocks[0].index

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        raise InputError(
            f"{self.name} cannot be folded: its prompts are tokens that every query attends to, "
            "and no weight of the network adds a token"
        )

"""Activation prompt: one learned tensor, the same for every input, added between two layers.

z -> z + delta at the activation entering place l. At place 0, the image, it is visual prompting;
at the last place, the classifier's input, it shifts the head's bias: the linear probe. The
backbone, its normalisation parameters and statistics included, is frozen.

Zhang et al., "Visual Prompting Reimagined: The Power of the Activation Prompts", AISTATS 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from aptheory.arguments import Amount
from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.folding import fold_prompts
from aptheory.methods.per_run import by_run, direction, merged, normal
from aptheory.methods.registry import register

if TYPE_CHECKING:
    from aptheory.networks.network import Layer, Network

SHAPES = ("full", "channel", "token")


class Perturbation(nn.Module):
    """Adds delta of run k to the samples of run k.

    shape "full": one number an entry of the activation. "channel": one a channel, the same at
    every position and token. "token": one a position or token, the same in every channel.
    With ``rank=r`` the full delta, seen as positions x channels, is a product of an (n, r) and
    an (r, channels) matrix; prefix tokens count as positions.
    """

    def __init__(
        self,
        adapted: Adapted,
        layer: Layer,
        *,
        shape: str = "full",
        rank: int | None = None,
        std: float = 0.0,
        learns: bool = True,
    ) -> None:
        super().__init__()
        self.runs = adapted.runs
        self.layer_shape = tuple(layer.shape)
        self.channel_axis = 0 if layer.layout in ("map", "vector") else len(layer.shape) - 1
        self.rank = rank
        if rank is None:
            self.delta_shape = self._broadcast_shape(shape)
            self.delta = adapted.per_run(self.delta_shape, normal(std), learns=learns)
        else:
            channels = self.layer_shape[self.channel_axis]
            positions = prod(self.layer_shape) // channels
            # One factor random and one zero: delta starts at zero, its gradient does not.
            self.left = adapted.per_run((positions, rank), normal(rank**-0.5))
            self.right = adapted.per_run((rank, channels), normal(std))

    def _broadcast_shape(self, shape: str) -> tuple[int, ...]:
        if shape == "full":
            return self.layer_shape
        kept = [axis == self.channel_axis for axis in range(len(self.layer_shape))]
        if shape == "token":
            kept = [not keep for keep in kept]
        return tuple(n if keep else 1 for n, keep in zip(self.layer_shape, kept, strict=True))

    def set_unit(self, unit: float) -> None:
        """Measure the learning rate of delta in ``unit``, the activation's own scale."""
        (self.delta if self.rank is None else self.right).unit = unit

    def value(self) -> Float[Tensor, "runs ..."]:
        """delta of each run, of the activation's shape or broadcasting to it."""
        if self.rank is None:
            return self.delta()
        product = torch.bmm(self.left(), self.right())  # runs, positions, channels
        if self.channel_axis == 0:
            product = product.transpose(1, 2)
        return product.reshape(self.runs, *self.layer_shape)

    def forward(self, z: Float[Tensor, "samples ..."]) -> Float[Tensor, "samples ..."]:
        return merged(by_run(z, self.runs) + self.value().unsqueeze(1))


@register
@dataclass(frozen=True)
class ActivationPrompt(Method):
    """z + delta at the activation entering ``layer``, and a linear head.

    Args:
        layer: place index (negative counts from the end), place name, or several of them.
        shape: "full", "channel" (shared by all positions) or "token" (shared by all channels).
        rank: a low-rank full map instead: positions x rank times rank x channels.
        std: standard deviation of delta's normal start; 0 starts as the frozen network. The
            paper's initialisation is not known to us.
    """

    layer: int | float | str | tuple[int | float | str, ...] = -2
    shape: str = "full"
    rank: int | None = None
    std: float = 0.0
    name: ClassVar[str] = "ap"
    label: ClassVar[str] = "activation prompt"
    short: ClassVar[str] = "AP"
    role: ClassVar[str] = "prompt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in SHAPES:
            raise InputError(f"shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")
        if self.rank is not None and (self.rank < 1 or self.shape != "full"):
            raise InputError(
                f"rank must be at least 1 and goes with shape='full', got rank={self.rank}, "
                f"shape={self.shape!r}"
            )

    @classmethod
    def default(cls, net: Network) -> ActivationPrompt:
        """The middle of the blocks."""
        return cls(layer=net.block_layers[len(net.block_layers) // 2])

    def places(self, net: Network) -> list[Layer]:
        """The places of this network at which it acts, in order."""
        given = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        layers = net.places(given)
        if len(layers) != len(given):
            raise InputError(f"layer must name one or several different places, got {self.layer}")
        return list(layers)

    def install(self, adapted: Adapted) -> int:
        places = self.places(adapted.source)
        for layer in places:
            prompt = Perturbation(adapted, layer, shape=self.shape, rank=self.rank, std=self.std)
            adapted.edit(layer.index, prompt)
        return places[0].index

    def first_layer(self, net: Network) -> int:
        return min(self.places(net)[0].index, self.reading(net).first)

    def control(self, adapted: Adapted) -> RandomPerturbation | None:
        """A random perturbation at the same place of the norm that the prompt came to."""
        if isinstance(self.layer, tuple):
            return None
        norm = prompt_norm(adapted)
        return RandomPerturbation(layer=self.layer, norm=norm, read=self.read, pooling=self.pooling)

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        fold_prompts(adapted, module)


def prompt_norm(adapted: Adapted) -> float:
    """L2 norm of all that a trained activation prompt adds to one sample (float64).

    A prompt that is shared by positions or channels counts as often as it is added.
    """
    square = 0.0
    for place, edits in adapted.edits.items():
        shape = adapted.net.layers[int(place)].shape
        for edit in edits.children():
            delta = edit.value()[0]  # type: ignore[operator]  # torch: a child may be any module
            square += float(delta.detach().double().expand(shape).pow(2).sum())
    return sqrt(square)


class FramePrompt(nn.Module):
    """A prompt on the image alone: everywhere, or on a frame of ``frame`` pixels at its border.

    With ``shrink`` the image is first resized into the opening of the frame and the border is
    filled with zeros, which in normalised pixels is the mean colour.
    """

    border: Tensor

    def __init__(
        self, adapted: Adapted, layer: Layer, frame: int, shrink: bool, std: float
    ) -> None:
        super().__init__()
        self.runs, self.frame, self.shrink = adapted.runs, frame, shrink
        channels, height, width = layer.shape
        self.layer_shape = tuple(layer.shape)
        border = torch.ones(height, width, dtype=torch.bool)
        border[frame : height - frame, frame : width - frame] = False
        positions = border.flatten().nonzero().squeeze(1).to(adapted.like.device)
        self.register_buffer("border", positions, persistent=False)
        self.delta = adapted.per_run((channels, self.border.numel()), normal(std))

    def set_unit(self, unit: float) -> None:
        """Measure the learning rate of the prompt in ``unit``, the image's own scale."""
        self.delta.unit = unit

    def value(self) -> Float[Tensor, "runs channels height width"]:
        """delta of each run as an image, zero inside the frame."""
        channels, height, width = self.layer_shape
        learned = self.delta()
        flat = learned.new_zeros(self.runs, channels, height * width)
        return flat.index_copy(2, self.border, learned).unflatten(2, (height, width))

    def forward(self, x: Float[Tensor, "samples channels height width"]) -> Tensor:
        if self.shrink:
            opening = [n - 2 * self.frame for n in x.shape[-2:]]
            small = interpolate(x, size=opening, mode="bilinear", antialias=True)
            x = pad(small, [self.frame] * 4)
        return merged(by_run(x, self.runs) + self.value().unsqueeze(1))


@register
@dataclass(frozen=True)
class VisualPrompt(Method):
    """Visual prompting: the activation prompt at place 0, the normalised image.

    Args:
        frame: None prompts every pixel; p prompts a frame of p pixels (Bahng et al. 2022: 30).
        shrink: resize the image into the frame's opening first (as ILM-VP, Chen et al. 2023).
        std: standard deviation of the prompt's normal start (Bahng et al.: 1), in units of the
            normalised pixels.
    """

    frame: int | None = None
    shrink: bool = False
    std: float = 0.0
    name: ClassVar[str] = "vp"
    label: ClassVar[str] = "visual prompt"
    short: ClassVar[str] = "VP"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shrink and self.frame is None:
            raise InputError("shrink=True needs a frame: give its width in pixels, frame=...")

    def first_layer(self, net: Network) -> int:
        return 0

    def install(self, adapted: Adapted) -> int:
        image = adapted.net.layers[0]
        if self.frame is None:
            adapted.edit(0, Perturbation(adapted, image, std=self.std))
            return 0
        if not 0 < 2 * self.frame < min(image.shape[1:]):
            raise InputError(
                f"a frame of {self.frame} pixels leaves no image of {image.shape[1]}x"
                f"{image.shape[2]}: choose a frame below {min(image.shape[1:]) // 2}"
            )
        adapted.edit(0, FramePrompt(adapted, image, self.frame, self.shrink, self.std))
        return 0

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        if self.shrink:
            raise InputError("vp cannot be folded: the image is resized, which no weight expresses")
        fold_prompts(adapted, module)


class FixedPerturbation(Perturbation):
    """A random direction of a given L2 norm, drawn from each run's seed, that never learns."""

    def __init__(self, adapted: Adapted, layer: Layer, norm: float) -> None:
        super().__init__(adapted, layer, learns=False)
        self.delta = adapted.per_run(self.delta_shape, direction(norm), learns=False)


@register
@dataclass(frozen=True)
class RandomPerturbation(Method):
    """The control of an activation prompt: a fixed random delta of L2 norm ``norm``; a head learns.

    ``norm`` is that of the whole tensor (all entries of one sample's activation), so it can be
    set to the norm that a trained prompt reached at the same place.
    """

    layer: int | float | str = -2
    norm: Amount = 1.0
    name: ClassVar[str] = "random_perturbation"
    label: ClassVar[str] = "random perturbation, same norm"
    short: ClassVar[str] = "random"
    role: ClassVar[str] = "control"

    @classmethod
    def default(cls, net: Network) -> RandomPerturbation:
        return cls(layer=net.block_layers[len(net.block_layers) // 2])

    def first_layer(self, net: Network) -> int:
        return min(net.place(self.layer).index, self.reading(net).first)

    def install(self, adapted: Adapted) -> int:
        layer = adapted.source.place(self.layer)
        adapted.edit(layer.index, FixedPerturbation(adapted, layer, self.norm))
        return layer.index

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        fold_prompts(adapted, module)

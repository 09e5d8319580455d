"""From a picture of any size to a network's image: one value that says how, one way to do it.

timm's evaluation transform in its own words: the picture is scaled to 1 / ``crop`` of the image's
side and the centre is cut out of it. torchvision's and Hugging Face's are cases of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Real, UInt8
from torch import Tensor

from aptheory.arguments import LARGEST_SIDE, fits, is_number
from aptheory.checked import shown
from aptheory.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

RESIZES = ("center", "squash", "border")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

LARGEST_SCALE = 1e4
"""Of means and deviations of pixels from 0 to 1; beyond it float32 overflows in a network."""

Sides = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How a picture becomes the image of one network.

    Attributes:
        size: (height, width) of the image in pixels.
        mean, std: of each channel, for pixels from 0 to 1.
        crop: side of the image over side of the scaled picture; 1.0 cuts no border off.
        resize: "center" keeps the aspect ratio and cuts off what juts out of the centre;
            "border" keeps it and fills up with the mean colour; "squash" does not keep it.
        interpolation: Pillow's filter, antialiased where it shrinks (all but "nearest").
        source: where the values are from, in words.
        chosen: the names of those that were given by hand: a task with a protocol of its own
            yields to them.

    Raises:
        InputError: a value that is none of these.
    """

    size: Sides
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    resize: str = "squash"
    interpolation: str = "bilinear"
    source: str = field(default="", compare=False)
    chosen: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        whole = all(is_number(side, whole=True) for side in self.size)
        if len(self.size) != 2 or not (whole and all(0 < n <= LARGEST_SIDE for n in self.size)):
            raise InputError(
                f"size is {shown(self.size)}; expected (height, width) from 1 to {LARGEST_SIDE}."
            )
        for name, known in (("resize", RESIZES), ("interpolation", INTERPOLATIONS)):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
        number = isinstance(self.crop, int | float) and not isinstance(self.crop, bool)
        if not (number and 0.1 <= self.crop <= 10):
            raise InputError(
                f"crop is {self.crop!r}; expected the image's side over the scaled picture's, "
                "such as 0.875 or 1.0."
            )

    def __str__(self) -> str:
        """What happens to a picture before it is normalised, in words."""
        if self.resize == "squash":
            words = "resized without keeping the aspect ratio"
        else:
            side = "shorter" if self.resize == "center" else "longer"
            words = f"{side} side resized, aspect ratio kept"
        words += f", {self.interpolation}"
        words += "" if self.interpolation == "nearest" else ", antialiased"
        if self.resize == "border":
            words += ", filled up with the mean colour"
        if self.crop != 1:
            words += f", scaled to 1/{self.crop:g} of the side"
        return words + ("" if self.plain else ", centre crop")

    def note(self) -> str:
        """All of it in a sentence, and where it is from."""
        mean, std = (", ".join(f"{n:.4g}" for n in values) for values in (self.mean, self.std))
        sides = " x ".join(map(str, self.size))
        source = f" ({self.source})" if self.source else ""
        return f"images: {sides}, {self}; mean {mean}; std {std}{source}."

    @property
    def plain(self) -> bool:
        """Whether this is what a split does when it is asked for a size alone."""
        return (self.resize, self.crop, self.interpolation) == ("squash", 1.0, "bilinear")

    @property
    def settings(self) -> dict[str, float | str]:
        """What decides the pixels beside the size and the normalisation."""
        return {"resize": self.resize, "crop": self.crop, "interpolation": self.interpolation}

    def same_pixels(self, other: Transform) -> bool:
        """Whether both make the same bytes of a picture."""
        same = (self.size, self.settings) == (other.size, other.settings)
        return same and (self.resize != "border" or self.fill == other.fill)

    def squashed(self) -> Transform:
        """The whole picture, bilinear, aspect ratio not kept, but for what was given by hand."""
        plain: dict[str, Any] = {"resize": "squash", "crop": 1.0, "interpolation": "bilinear"}
        return replace(self, **{k: v for k, v in plain.items() if k not in self.chosen})

    def scaled(self, picture: Sides) -> Sides:
        """(height, width) to which a picture of that size is scaled before the crop."""
        target = (math.floor(self.size[0] / self.crop), math.floor(self.size[1] / self.crop))
        if self.resize == "squash":
            return target
        if self.resize == "center" and target[0] == target[1]:
            short, side = min(picture), target[0]  # torchvision's Resize, which timm takes here
            height, width = (int(side * n / short) if n != short else side for n in picture)
            return height, width
        ratios = [n / side for n, side in zip(picture, target, strict=True)]
        ratio = min(ratios) if self.resize == "center" else max(ratios)
        return max(1, round(picture[0] / ratio)), max(1, round(picture[1] / ratio))

    def box(self, scaled: Sides) -> tuple[int, int]:
        """(top, left) of the image in the scaled picture; negative where it is filled up."""
        top, left = (
            round((n - side) / 2) if n >= side else -((side - n) // 2)
            for n, side in zip(scaled, self.size, strict=True)
        )
        return top, left

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour outside the picture, from 0 to 255."""
        return tuple(round(255 * m) if self.resize == "border" else 0 for m in self.mean)


def check_scaling(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse means and deviations that would leave no image a network could look at.

    Raises:
        InputError: one beyond `LARGEST_SCALE`, or a deviation below its inverse.
    """
    if not all(abs(n) <= LARGEST_SCALE for n in mean):
        raise InputError(
            f"mean is {list(mean)}; expected numbers from -{LARGEST_SCALE:g} to "
            f"{LARGEST_SCALE:g}, for pixels from 0 to 1."
        )
    if not all(1 / LARGEST_SCALE <= n <= LARGEST_SCALE for n in std):
        raise InputError(
            f"std is {list(std)}; expected numbers from {1 / LARGEST_SCALE:g} to "
            f"{LARGEST_SCALE:g}, for pixels from 0 to 1."
        )


SQUASHED = str(Transform(size=(1, 1), mean=(), std=()))
"""The words of a split that is asked for a size alone."""


Size = Sides | Transform
"""What a split is asked for: (height, width) alone, or the whole transform."""


def as_transform(size: Size) -> Transform:
    """``size`` itself, or the plain transform to that size.

    Raises:
        InputError: it is neither a transform nor (height, width) in pixels.
    """
    if isinstance(size, Transform):
        return size
    sides: Any = tuple(size) if fits(size, Sequence[Any]) else (size,)
    return Transform(size=sides, mean=(), std=())  # which holds them to what a size is


def height_and_width(size: Size) -> Sides:
    return as_transform(size).size


def fit_picture(picture: Image.Image, size: Size) -> Image.Image:
    """A Pillow picture, RGB, made an image."""
    from PIL import Image

    to = as_transform(size)
    scaled = to.scaled((picture.height, picture.width))
    if scaled != (picture.height, picture.width):
        how = Image.Resampling[to.interpolation.upper()]
        picture = picture.resize((scaled[1], scaled[0]), how)
    if scaled == to.size:
        return picture
    top, left = to.box(scaled)
    if min(top, left) < 0 or top + to.size[0] > scaled[0] or left + to.size[1] > scaled[1]:
        canvas = Image.new("RGB", (to.size[1], to.size[0]), to.fill or 0)
        canvas.paste(picture, (-left, -top))
        return canvas
    return picture.crop((left, top, left + to.size[1], top + to.size[0]))


def fit_pixels(
    images: Real[Tensor, "n channels height width"], size: Size
) -> Real[Tensor, "n channels new_height new_width"]:
    """A batch of decoded pictures of one size made images; the same tensor if nothing is to do."""
    to = as_transform(size)
    picture = (images.shape[-2], images.shape[-1])
    scaled = to.scaled(picture)
    if scaled != picture and to.interpolation != "bilinear":
        return _one_by_one(images, to)  # torch has few filters, and clips bicubic's overshoot twice
    if scaled != picture:
        images = torch.nn.functional.interpolate(
            images, size=scaled, mode="bilinear", antialias=True
        )
    if scaled == to.size:
        return images
    top, left = to.box(scaled)
    height, width = to.size
    canvas = images.new_zeros((*images.shape[:2], height, width))
    if any(to.fill):
        same = len(to.fill) == images.shape[1]  # else the pictures' channels are yet to be turned
        fill = to.fill if same else [round(sum(to.fill) / len(to.fill))]
        canvas += torch.tensor(fill, dtype=images.dtype).view(-1, 1, 1)
    inside = images[:, :, max(top, 0) : top + height, max(left, 0) : left + width]
    down, right = max(-top, 0), max(-left, 0)
    canvas[:, :, down : down + inside.shape[2], right : right + inside.shape[3]] = inside
    return canvas


def _one_by_one(
    images: UInt8[Tensor, "n channels height width"], to: Transform
) -> UInt8[Tensor, "n channels new_height new_width"]:
    import numpy as np
    from PIL import Image

    if images.shape[1] != 3:  # each channel by itself, as grey
        planes = images.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)
        return _one_by_one(planes, to)[:, 0].unflatten(0, images.shape[:2])
    made = images.new_empty((len(images), 3, *to.size))
    for row, image in enumerate(images):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        made[row] = torch.from_numpy(np.array(fit_picture(picture, to))).permute(2, 0, 1)
    return made

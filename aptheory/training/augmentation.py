"""Random flips and crops of uint8 images, drawn from a generator: the same seed, the same pixels.

What is drawn is three whole numbers an image, so that a view can be made again at any time
without being stored.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

HOW = ("none", "flip", "crop", "crop_flip")


def draw(
    how: str, count: int, size: tuple[int, int], generator: torch.Generator
) -> Int64[Tensor, "count 3"]:
    """(down, right, flip) for each of ``count`` images of (height, width) pixels.

    "flip": left to right with probability 1/2. "crop": moved by up to an eighth of the side.
    "crop_flip": both. "none": all zero. ``generator`` lives on the CPU.
    """
    drawn = torch.zeros(count, 3, dtype=torch.int64)
    if "crop" in how:
        for axis, side in enumerate(size):
            most = side // 8
            drawn[:, axis] = torch.randint(-most, most + 1, (count,), generator=generator)
    if "flip" in how:
        drawn[:, 2] = torch.randint(0, 2, (count,), generator=generator)
    return drawn


def apply(
    images: UInt8[Tensor, "batch channels height width"], drawn: Int64[Tensor, "batch 3"]
) -> UInt8[Tensor, "batch channels height width"]:
    """The images moved and flipped as drawn; the border is reflected, not repeated."""
    batch, _, height, width = images.shape
    drawn = drawn.to(images.device)
    rows = torch.arange(height, device=images.device) + drawn[:, :1]
    columns = torch.arange(width, device=images.device) + drawn[:, 1:2]
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    columns = torch.where(drawn[:, 2:] > 0, columns.flip(1), columns)
    images = images.gather(2, rows.view(batch, 1, height, 1).expand_as(images))
    return images.gather(3, columns.view(batch, 1, 1, width).expand_as(images))


def _reflect(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)

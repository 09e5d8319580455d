"""Batches of a split's images for one network: at its size, normalised, on its device."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aptheory.arguments import Whole, checked_arguments
from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.preprocessing import Size, height_and_width
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.pictures import with_channels
from aptheory.tasks.resizing import view
from aptheory.tasks.split import Indices, Split, as_indices, is_random
from aptheory.tasks.views import ArraySplit


@checked_arguments
def loader(
    split: Split,
    net: Any,
    batch_size: int,
    indices: Indices | None = None,
    *,
    ahead: Whole = 2,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ``(x, y)`` for one network, in the order of ``indices`` (all, when ``None``).

    ``x`` is (batch, channels, height, width), at the network's input size (`view` says how) and
    normalised by its own mean and standard deviation, on its device; ``y`` is int64 (batch,). The
    next ``ahead`` batches are decoded in a thread while one is used (0: none are). Raises
    `InputError` for a network whose channels the pictures cannot be brought to, or a batch size
    below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}; expected 1 or more.")
    if not hasattr(net, "input_shape"):
        raise InputError(f"{shown(net)} is no network; expected one of aptheory.load.")
    count = len(split)
    order = np.arange(count) if indices is None else as_indices(indices, count)
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return _batches(split, net, parts, view(split, net), ahead)


def _batches(
    split: Split, net: Any, parts: list[np.ndarray], size: Size, ahead: int
) -> Iterator[tuple[Tensor, Tensor]]:
    parameter = next(iter(net.parameters()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    # Pixels that are in memory at the right size cost nothing: a thread would only be overhead.
    ready = isinstance(split, ArraySplit) and split.pixels.shape[1:3] == height_and_width(size)
    # What is drawn anew comes from the process's own generators: a thread would disturb them.
    ready = ready or is_random(split)
    for part, images in ahead_of(
        lambda part: split.images(part, size), parts, ahead=0 if ready else ahead
    ):
        y = torch.from_numpy(split.labels[part])
        images = with_channels(images, net.input_shape[0], f"network {net.name!r}")
        yield net.normalize(images.to(device, non_blocking=True)), y.to(device)

"""Where the rows of a split lie: images as bytes, or activations in memory or on disk."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from aptheory.preprocessing import Size, height_and_width
from aptheory.tasks.split import is_random
from aptheory.training.augmentation import apply, draw

if TYPE_CHECKING:
    from aptheory.tasks.split import Split

_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.float32}


class Images:
    """The images of one split as bytes: place 0. Of V views, row v * n + i is view v of image i."""

    layer = 0
    kind = "images"

    def __init__(self, split: Split, view: Size, augment: str, views: int, seed: int):
        self.split, self.view, self.augment, self.views = split, view, augment, views
        self.size = height_and_width(view)
        self.rows = len(split) * max(1, views)
        self.cached: Tensor | None = None
        generator = torch.Generator().manual_seed(seed)
        self.drawn = draw(augment, self.rows, self.size, generator) if views else None

    def cache(self, limit: float) -> None:
        """Decode and resize every image once, if the bytes fit into ``limit``."""
        pixels = getattr(self.split, "pixels", None)
        ready = pixels is not None and tuple(pixels.shape[1:3]) == self.size
        if is_random(self.split):
            return
        if self.cached is None and not ready and len(self.split) * 3 * math.prod(self.size) < limit:
            parts = torch.arange(len(self.split)).split(256)
            self.cached = torch.cat([self.split.images(p.numpy(), self.view) for p in parts])

    def get(
        self, rows: Int64[Tensor, " batch"], generators: Sequence[torch.Generator] = ()
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images of ``rows``, augmented afresh by ``generators``, one for each equal part."""
        index = rows % len(self.split)
        images = self._read(index, generators) if self.cached is None else self.cached[index]
        if self.drawn is not None:
            return apply(images, self.drawn[rows])
        if generators and self.augment != "none":
            each = len(rows) // len(generators)
            drawn = [draw(self.augment, each, self.size, g) for g in generators]
            return apply(images, torch.cat(drawn))
        return images

    def _read(
        self, index: Int64[Tensor, " batch"], generators: Sequence[torch.Generator]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images of the split itself; what it draws anew, each generator draws of its part."""
        split: Any = self.split
        clean = getattr(split, "clean", None)
        if clean is None:
            return split.images(index.numpy(), self.view)
        if not generators:
            return clean.images(index.numpy(), self.view)
        parts = index.split(len(index) // len(generators))
        return torch.cat(
            [
                split.images(part.numpy(), self.view, generator=each)
                for part, each in zip(parts, generators, strict=True)
            ]
        )


class Activations:
    """The activations entering ``layer``, one row an image, in memory or memory-mapped.

    Maps are laid out channels last, which convolutions prefer, when ``last`` is set.
    """

    def __init__(self, layer: int, data: Any, dtype: torch.dtype, *, last: bool) -> None:
        self.layer, self.data, self.dtype, self.last = layer, data, dtype, last

    @property
    def kind(self) -> str:
        return "disk" if isinstance(self.data, np.memmap) else "memory"

    @classmethod
    def empty(
        cls,
        layer: int,
        rows: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        *,
        last: bool,
        device: torch.device | None = None,
        disk: str | Path | None = None,
    ) -> Activations:
        """Room for so many rows: on a device, or in a file in the folder ``disk``.

        The file has no name, so nothing is left of it when the process ends, however it ends.

        Raises:
            OSError: the disk has no room for it.
        """
        size = (rows, *shape[1:], shape[0]) if last else (rows, *shape)
        data: Any
        if disk is None:
            data = torch.empty(size, dtype=dtype, device=device)
        else:
            kind = np.dtype({torch.float32: np.float32}.get(dtype, np.int16))
            with tempfile.TemporaryFile(dir=disk) as file:
                if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process
                    os.posix_fallocate(file.fileno(), 0, max(1, math.prod(size) * kind.itemsize))
                data = np.memmap(file, dtype=kind, mode="w+", shape=size)
        return cls(layer, data, dtype, last=last)

    def put(self, rows: slice, z: Tensor) -> None:
        z = z.detach().to(self.dtype)
        if self.last:
            z = z.permute(0, 2, 3, 1)
        if self.kind == "memory":
            self.data[rows] = z
        else:
            self.data[rows] = z.cpu().contiguous().view(_BITS[self.dtype]).numpy()

    def get(self, rows: Int64[Tensor, " batch"]) -> Float[Tensor, "batch ..."]:
        if self.kind == "memory":
            z = self.data[rows.to(self.data.device)]
        else:
            z = torch.from_numpy(np.asarray(self.data[rows.numpy()])).view(self.dtype)
        z = z.float()
        return z.permute(0, 3, 1, 2) if self.last else z

    def drop(self) -> None:
        self.data = None

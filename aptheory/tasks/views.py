"""Splits of arrays, and of other splits: some of their images, several joined, cropped, resized."""

import hashlib
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.arguments import checked_arguments
from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.preprocessing import Size, Transform, fit_pixels, height_and_width
from aptheory.tasks.classes import as_column
from aptheory.tasks.pictures import Scale
from aptheory.tasks.resizing import checked_resize, resize_of
from aptheory.tasks.split import Indices, Split, Steady, as_indices, digest_of, is_random


class ArraySplit(Steady):
    """Images that are already decoded: ``pixels`` uint8 (n, height, width, channels), and
    ``labels`` (n,): whole numbers, or strings, which the task numbers by its classes.

    ``pixels`` may be a memory-mapped array. ``scale`` is what made bytes of values of more than 8
    bits, where they had more.
    """

    @checked_arguments
    def __init__(self, pixels: np.ndarray, labels: Any, *, scale: Scale | None = None) -> None:
        if pixels.ndim != 4 or not all(pixels.shape[1:]) or pixels.dtype != np.uint8:
            raise InputError(
                f"images have shape {pixels.shape} and type {pixels.dtype}; expected uint8 of "
                "shape (images, height, width, channels); Task.from_arrays takes others."
            )
        self.pixels = pixels
        self.labels = as_column(labels, "labels")
        if len(pixels) != len(self.labels):
            raise InputError(
                f"{len(pixels)} images but {len(self.labels)} labels; expected as many."
            )
        self.scale = scale

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: np.ndarray) -> "ArraySplit":
        """Some of its images, in an array of their own; itself where that is all."""
        if len(rows) == len(self):
            return self
        return ArraySplit(self.pixels[rows], self.labels[rows], scale=self.scale)

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        chosen = np.ascontiguousarray(self.pixels[indices])
        return fit_pixels(torch.from_numpy(chosen).permute(0, 3, 1, 2).contiguous(), size)

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256(f"pixels {self.pixels.shape}".encode())
        for start in range(0, len(self), 1024):  # a memory-mapped array need never be whole
            hasher.update(np.ascontiguousarray(self.pixels[start : start + 1024]).data)
        hasher.update(np.ascontiguousarray(self.labels).astype("<i8").data)
        return hasher.hexdigest()


class Selection(Steady):
    """Some images of another split, in the order of ``indices``."""

    split: Split
    indices: np.ndarray
    labels: np.ndarray

    @checked_arguments
    def __init__(self, split: Split, indices: Indices) -> None:
        chosen = as_indices(indices, len(split))
        if isinstance(split, Selection):  # one step to the pixels, however often it is narrowed
            chosen = split.indices[chosen]
            split = split.split
        self.split = split
        self.indices = chosen
        self.labels = split.labels[chosen]

    @property
    def resize(self) -> str:
        return resize_of(self.split)

    @property
    def random(self) -> bool:
        return is_random(self.split)

    def __len__(self) -> int:
        return len(self.indices)

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        return self.split.images(self.indices[indices], size)

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256(f"selection {digest_of(self.split)}".encode())
        hasher.update(self.indices.astype("<i8").data)
        return hasher.hexdigest()


class Joined(Steady):
    """Several splits one after the other, as the VTAB protocol joins train and validation."""

    def __init__(self, *splits: Split) -> None:
        if not splits or not all(isinstance(split, Split) for split in splits):
            raise InputError(f"{shown(splits)} are joined; expected one split or more.")
        self.splits = splits
        self.labels = np.concatenate([split.labels for split in splits])
        self._starts = np.cumsum([0, *(len(split) for split in splits)])

    @property
    def resize(self) -> str:
        choices = {resize_of(split) for split in self.splits}
        return choices.pop() if len(choices) == 1 else "squash"

    @property
    def random(self) -> bool:
        return any(map(is_random, self.splits))

    def __len__(self) -> int:
        return len(self.labels)

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        out: Tensor | None = None
        for number, split in enumerate(self.splits):
            rows = np.flatnonzero(owner == number)
            if len(rows):
                part = split.images(indices[rows] - self._starts[number], size)
                if out is None:
                    out = part.new_empty((len(indices), *part.shape[1:]))
                out[torch.from_numpy(rows)] = part
        return self.splits[0].images(indices, size) if out is None else out

    @cached_property
    def digest(self) -> str:
        text = " ".join(digest_of(split) for split in self.splits)
        return hashlib.sha256(f"joined {text}".encode()).hexdigest()


class _Whole(Steady):
    """All pictures of another split, ``split``, as they are or changed."""

    split: Split

    @property
    def random(self) -> bool:
        return is_random(self.split)

    def __len__(self) -> int:
        return len(self.split)


class CentreCropped(_Whole):
    """Each image resized to ``enlarge`` times the size asked for, and its centre cut out.

    FGVC's evaluation (resize to 256, centre crop of 224) is ``enlarge = 256 / 224``.
    """

    resize = "squash"

    def __init__(self, split: Split, enlarge: float = 256 / 224) -> None:
        self.split = split
        self.enlarge = enlarge
        self.labels = split.labels

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        height, width = height_and_width(size)
        large = (round(height * self.enlarge), round(width * self.enlarge))
        top, left = (large[0] - height) // 2, (large[1] - width) // 2
        enlarged = replace(size, size=large) if isinstance(size, Transform) else large
        images = self.split.images(indices, enlarged)
        return images[:, :, top : top + height, left : left + width].contiguous()

    @cached_property
    def digest(self) -> str:
        text = f"centre {self.enlarge!r} {digest_of(self.split)}"
        return hashlib.sha256(text.encode()).hexdigest()


class Resized(_Whole):
    """Another split whose pictures are made images as ``resize`` says (see `Task.resized`)."""

    def __init__(self, split: Split, resize: str) -> None:
        self.split: Split = split.split if isinstance(split, Resized | CentreCropped) else split
        self.resize = checked_resize(resize)
        self.labels = split.labels

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        return self.split.images(indices, size)

    @property
    def digest(self) -> str:
        return digest_of(self.split)

"""Decoding once and for all, into a memory-mapped file of bytes."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError
from aptheory.preprocessing import Size, as_transform
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.cache import cache_folder, unfinished_name
from aptheory.tasks.resizing import resize_of
from aptheory.tasks.split import Indices, Split, digest_of, is_random
from aptheory.tasks.views import ArraySplit

BATCH = 64
LIMIT = 50e9
"""Bytes that what is decoded may take together in its folder."""


class Decoded(ArraySplit):
    """A split with its images of one size decoded beforehand; others come from the split
    itself, so that the pictures, and the digest, are the same in every case."""

    def __init__(self, split: Split, pixels: np.ndarray, size: Size) -> None:
        super().__init__(pixels, split.labels)
        self.split = split
        self.decoded = as_transform(size)

    @property
    def resize(self) -> str:
        return resize_of(self.split)

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n channels height width"]:
        if as_transform(size).same_pixels(self.decoded):
            return super().images(indices, self.decoded.size)
        return self.split.images(indices, size)

    @property
    def digest(self) -> str:
        return digest_of(self.split)


def decoded(
    split: Split,
    size: Size,
    *,
    folder: str | Path | None = None,
    limit: float = LIMIT,
    progress: bool = True,
) -> Decoded:
    """The split with every image decoded and resized once, into a memory-mapped uint8 file.

    ``size`` is (height, width), or what `aptheory.tasks.resizing.view` gives for a network. The
    file, (n, height, width, 3), is called after the split's
    digest and the size, and is used again by every later call; it lies in ``folder`` (the cache
    folder's ``decoded`` by default), n * height * width * 3 bytes long. Raises
    `InputError` if the files there would take more than ``limit`` bytes together, if the folder
    cannot be written to or is full, and for an image that cannot be decoded: then nothing is left
    behind.
    """
    place = Path(folder) if folder is not None else cache_folder() / "decoded"
    if is_random(split):
        raise InputError(
            "a split that draws its images anew cannot be decoded once; decode what it draws from."
        )
    to = as_transform(size)
    shape = (len(split), *to.size, 3)  # of most sets; the file says how many channels it has
    how = "" if to.plain else f" {to.settings} {to.fill}"
    identity = hashlib.sha256(f"{digest_of(split)} {shape}{how}".encode()).hexdigest()[:32]
    file = place / f"{identity}.npy"
    if not file.exists():
        channels = split.images([0], (8, 8)).shape[1] if len(split) else 3
        _check_room(file, float(np.prod((*shape[:3], channels), dtype=float)), limit)
        _write(split, size, file, (*shape[:3], channels), progress)
    return Decoded(split, _opened(file, shape), size)


def decoded_task(
    task: Task,
    size: Size,
    *,
    folder: str | Path | None = None,
    limit: float = LIMIT,
    progress: bool = True,
) -> Task:
    """The task with its three splits decoded once (see `decoded`): the same pictures, the
    same digest."""
    how: dict[str, Any] = {"folder": folder, "limit": limit, "progress": progress}
    made: dict[str, Any] = {split: decoded(getattr(task, split), size, **how) for split in SPLITS}
    return replace(task, **made)


def _check_room(file: Path, needed: float, limit: float) -> None:
    there = sum(other.stat().st_size for other in file.parent.glob("*.npy"))
    if there + needed > limit:
        raise InputError(
            f"{file} needs {needed / 1e6:.0f} MB, and {file.parent} holds {there / 1e6:.0f} MB of "
            f"at most {limit / 1e6:.0f} MB (limit=); delete what is there, or leave the pictures "
            "as they are, which decodes them as they are asked for."
        )


def _write(split: Split, size: Size, file: Path, shape: tuple[int, ...], progress: bool) -> None:
    from tqdm import tqdm

    unfinished = unfinished_name(file)
    parts = [range(s, min(s + BATCH, len(split))) for s in range(0, len(split), BATCH)]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Ordinary writes, not a writable map: on a full disk a map kills the process.
        with unfinished.open("wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            made = ahead_of(lambda part: split.images(part, size), parts, ahead=2)
            for _, images in tqdm(
                made, total=len(parts), desc="decoding", disable=not progress, leave=False
            ):
                out.write(images.permute(0, 2, 3, 1).contiguous().numpy().data)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror or error}); it needs "
            f"{np.prod(shape) / 1e6:.0f} MB: free some space or name another folder"
        ) from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


def _opened(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it") from error
    if pixels.shape[:3] != shape[:3] or pixels.dtype != np.uint8:
        raise InputError(f"{file} has shape {pixels.shape}, expected {shape}; delete it")
    return pixels

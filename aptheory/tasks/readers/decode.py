"""Decoding once and for all, into a memory-mapped file of bytes."""

from __future__ import annotations

import hashlib
import io
import math
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from aptheory.arguments import checked_arguments
from aptheory.errors import InputError
from aptheory.preprocessing import Size, as_transform
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.cache import cache_folder
from aptheory.tasks.resizing import resize_of
from aptheory.tasks.split import Split, digest_of, is_random
from aptheory.tasks.views import ArraySplit
from aptheory.writing import NoLocksError, lock, remove_if_possible

BATCH = 64
LIMIT = 50e9
"""Bytes that what is decoded may take together in its folder."""
FORCED_EVERY = 2**28
"""Bytes after which what is decoded is forced to the disk, and outlives a power cut."""


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

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        if as_transform(size).same_pixels(self.decoded):
            return super()._images(indices, self.decoded.size)
        return self.split.images(indices, size)

    @property
    def digest(self) -> str:
        return digest_of(self.split)


@checked_arguments
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
    folder's ``decoded`` by default), n * height * width * 3 bytes long. Decoding that was
    interrupted or killed goes on where it stood. Raises
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


@checked_arguments
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
    others = [other for kind in ("*.npy", "*.part") for other in file.parent.glob(kind)]
    there = sum(other.stat().st_size for other in others if not other.name.startswith(file.stem))
    if there + needed > limit:
        raise InputError(
            f"{file} needs {needed / 1e6:.0f} MB, and {file.parent} holds {there / 1e6:.0f} MB of "
            f"at most {limit / 1e6:.0f} MB (limit=); delete what is there, or leave the pictures "
            "as they are, which decodes them as they are asked for."
        )


def _write(split: Split, size: Size, file: Path, shape: tuple[int, ...], progress: bool) -> None:
    from tqdm import tqdm

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Ordinary writes, not a writable map: on a full disk a map kills the process.
        with _Part(file, shape) as part:
            starts = range(part.whole, len(split), BATCH)
            batches = [range(start, min(start + BATCH, len(split))) for start in starts]
            made = ahead_of(lambda batch: split.images(batch, size), batches, ahead=2)
            with tqdm(
                total=len(split),
                initial=part.whole,
                desc="decoding",
                disable=not progress,
                leave=False,
            ) as bar:
                for batch, images in made:
                    part.write(images.permute(0, 2, 3, 1).contiguous().numpy())
                    bar.update(len(batch))
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror or error}); it needs "
            f"{np.prod(shape) / 1e6:.0f} MB: free some space or name another folder"
        ) from error


class _Part:
    """The unfinished file, IDENTITY.PICTURES.TOKEN.part: so many pictures are whole in it.

    Who writes it holds its lock; what a killed or interrupted writer left is gone on with. A
    fault leaves nothing.
    """

    def __init__(self, file: Path, shape: tuple[int, ...]) -> None:
        self.file = file
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        self._header, self._picture = header.getvalue(), math.prod(shape[1:])
        self.whole = 0
        self.path, self._out = self._left() or self._new()
        self._out.truncate(len(self._header) + self.whole * self._picture)
        self._out.seek(0, os.SEEK_END)
        self._written = self.whole

    def _left(self) -> tuple[Path, BinaryIO] | None:
        """The part that has most of those that nobody writes; the lock is ours from here on."""
        parts = self.file.parent.glob(f"{self.file.stem}.*.part")
        for path in sorted(parts, key=_pictures, reverse=True):
            try:
                out = path.open("r+b")
            except FileNotFoundError:
                continue
            # Its writer may have renamed it between our look and our lock.
            if (
                _locked(out)
                and path.exists()
                and path.stat().st_ino == os.fstat(out.fileno()).st_ino
            ):
                if out.read(len(self._header)) == self._header:
                    self.whole = _pictures(path)
                    return path, out
                path.unlink()
            out.close()
        return None

    def _new(self) -> tuple[Path, BinaryIO]:
        path = self._called(0)
        out = path.open("x+b")
        _locked(out)
        out.write(self._header)
        return path, out

    def _called(self, pictures: int) -> Path:
        return self.file.with_name(f"{self.file.stem}.{pictures}.{uuid.uuid4().hex}.part")

    def write(self, pixels: np.ndarray) -> None:
        """Append pictures; every 256 MB they are forced to the disk and counted in the name."""
        self._out.write(pixels.data)
        self._written += len(pixels)
        if (self._written - self.whole) * self._picture >= FORCED_EVERY:
            self._keep()

    def _keep(self) -> None:
        self._out.flush()
        os.fsync(self._out.fileno())
        self.whole = self._written
        self.path = self.path.rename(self._called(self.whole))

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._out:
            if kind is not None and issubclass(kind, Exception):
                remove_if_possible(self.path)
                return
            try:
                self._keep()
            except OSError:
                remove_if_possible(self.path)
                raise
            if kind is None:
                self.path = self.path.replace(self.file)


def _locked(part: BinaryIO) -> bool:
    try:
        return lock(part)
    except NoLocksError:  # then no part is gone on with
        return False


def _pictures(part: Path) -> int:
    count = part.name.split(".")[1]
    return int(count) if count.isdecimal() else 0


def _opened(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it") from error
    if pixels.shape[:3] != shape[:3] or pixels.dtype != np.uint8:
        raise InputError(f"{file} has shape {pixels.shape}, expected {shape}; delete it")
    return pixels

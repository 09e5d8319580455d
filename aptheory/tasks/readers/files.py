"""Images that lie in files: a folder, a zip or tar shards, decoded when they are asked for."""

import copy
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError, reason_of
from aptheory.preprocessing import Size, fit_picture, height_and_width
from aptheory.tasks import pictures
from aptheory.tasks.cache import remember, remembered
from aptheory.tasks.names import Names
from aptheory.tasks.pictures import Scale
from aptheory.tasks.readers.ranges import SetRange, may_be_deep
from aptheory.tasks.readers.stores import Store
from aptheory.tasks.resizing import checked_resize
from aptheory.tasks.split import Steady
from aptheory.tasks.views import ArraySplit

PEEKED = 16  # pictures whose headers are read when a set is opened
_log = logging.getLogger("aptheory")


def decode_image(
    data: bytes,
    where: str,
    size: Size | None = None,
    *,
    gain: int = 1,
    scale: Callable[[], Scale] | None = None,
) -> np.ndarray:
    """uint8 (height, width, 3) from the bytes of an image file, made ``size`` if given.

    Upright, on white, in 8 bits (see `aptheory.tasks.pictures`; ``scale`` is the range of the
    set); ``gain`` multiplies the pixels first (255 for 0/1 pictures). Raises `InputError` naming
    ``where`` for bytes that are not a whole image.
    """
    try:
        with pictures.opened(data) as opened:
            image = pictures.upright_rgb(opened, data, scale)
            if gain != 1:
                image = image.point([min(value * gain, 255) for value in range(256)] * 3)
            if size is not None:
                image = fit_picture(image, size)
            return np.asarray(image, dtype=np.uint8)
    except Exception as error:  # Pillow raises nearly anything on bytes that are not an image
        if isinstance(error, InputError):
            raise
        reason = reason_of(error)
        if "cannot identify" in reason:
            reason = "not a picture of a format that is read"
        raise InputError(
            f"{where} cannot be decoded ({reason}); replace it or take it out."
        ) from error


class FileSplit(Steady):
    """Images as encoded bytes in a store, one key an image, decoded on demand in ``workers``
    threads (Pillow decodes and resizes outside Python's global lock). Pictures that come in sizes
    of their own are made images as the network's configuration says, unless ``resize`` says
    otherwise."""

    def __init__(
        self,
        store: Store,
        keys: Iterable[str],
        labels: np.ndarray | Sequence[int],
        *,
        workers: int | None = None,
        gain: int = 1,
        scale: Callable[[], Scale] | None = None,
        resize: str = "network",
    ) -> None:
        self.gain = gain
        self.resize = checked_resize(resize)
        self.store = store
        self.keys = Names(keys)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.workers = workers
        self.scale = scale or SetRange(store, [self.keys])
        self._warned = False
        if len(self.keys) != len(self.labels):
            raise InputError(
                f"{store.place}: {len(self.keys)} images but {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, index: int) -> str:
        """The image's name for a message."""
        return f"{self.store.place}: {self.keys[index]}"

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n 3 height width"]:
        out = np.empty((len(indices), *height_and_width(size), 3), dtype=np.uint8)

        def fill(row: int) -> None:
            index = int(indices[row])
            data = self.store.read(self.keys[index])
            out[row] = decode_image(data, self.where(index), size, gain=self.gain, scale=self.scale)
            if not self._warned and out[row].min() == out[row].max():
                self._warned = True
                _log.warning(
                    "%s is of one colour throughout; `aptheory tasks check` counts such pictures",
                    self.where(index),
                )

        workers = min(self.workers or os.cpu_count() or 1, len(indices), 16)
        if workers > 1:
            with ThreadPoolExecutor(workers, thread_name_prefix="aptheory-decode") as pool:
                list(pool.map(fill, range(len(indices))))
        else:
            for row in range(len(indices)):
                fill(row)
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()

    @property
    def notes(self) -> tuple[str, ...]:
        """How the pictures are read, in sentences, as far as a few of them tell (a check reads
        them all)."""
        return reading_notes(self)

    @property
    def deep(self) -> bool:
        """Whether a picture among them has more than 8 bits a value: one was read, or every header
        is, once, of those whose name allows it; what they said is kept in the cache folder."""
        met = isinstance(self.scale, SetRange) and self.scale.known
        if met or any(header.deep for header in _peeked(self)):
            return True
        keys = [key for key in self.keys if may_be_deep(key)]
        try:
            stamp = self.store.stamp(keys)
        except InputError:  # a picture is gone; whoever reads it is told its name
            stamp = ""
        said = remembered("deep", stamp)
        if said not in ("yes", "no"):
            said = "yes" if any(header.deep for header in _headers(self, keys)) else "no"
            remember("deep", stamp, said)
        return said == "yes"

    @cached_property
    def digest(self) -> str:
        """sha256 of the files' bytes and the labels. Kept in the cache folder by the files' names,
        sizes and times, so that a large folder is read once and not at every start."""
        stamp = self._stamp()
        digest = remembered("digests", stamp)
        if digest is None or len(digest) != 64:
            digest = self.content_digest()
            if self._stamp() == stamp:  # nothing was edited meanwhile
                remember("digests", stamp, digest)
        return digest

    def _stamp(self) -> str:
        stamp = self.store.stamp(self.keys)
        labels = hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()
        return f"{self.gain} {labels}\n{stamp}" if stamp else ""

    def content_digest(self) -> str:
        """The digest from the bytes themselves, whatever is remembered."""
        hasher = hashlib.sha256(f"files {self.gain}".encode())
        for key, label in zip(self.keys, self.labels, strict=True):
            data = self.store.read(key)
            hasher.update(hashlib.sha256(data).digest())
            hasher.update(pictures.peculiarity(data, self.scale))
            hasher.update(int(label).to_bytes(8, "little", signed=True))
        return hasher.hexdigest()


def file_splits(
    store: Store,
    keys: Mapping[str, Sequence[str]],
    labels: Mapping[str, np.ndarray],
    *,
    gain: int = 1,
    resize: str = "network",
) -> dict[str, FileSplit]:
    """The splits of one set, which share the range of values that deep pictures have."""
    named = {split: Names(values) for split, values in keys.items()}
    scale = SetRange(store, list(named.values()))
    return {
        split: FileSplit(store, named[split], labels[split], gain=gain, scale=scale, resize=resize)
        for split in keys
    }


def scale_of(split: Any) -> Scale | None:
    """By what the deep pictures of a split, or of the one below it, become bytes; None where none
    of them has more than 8 bits."""
    while not isinstance(split, FileSplit | ArraySplit):
        if hasattr(split, "splits"):
            return next((scale for scale in map(scale_of, split.splits) if scale), None)
        split = getattr(split, "split", None)
        if split is None:
            return None
    if isinstance(split, ArraySplit):
        return split.scale
    return split.scale() if split.deep else None


def with_scale(split: Any, scale: Callable[[], Scale]) -> Any:
    """The same split, whose deep pictures become bytes by what ``scale`` gives, which is asked when
    the first one is read, and not by their own range.

    Raises:
        InputError: they lie in an array, which keeps the bytes alone.
    """
    if not isinstance(split, Steady):  # somebody else's, which gives bytes
        return split
    made: Any = copy.copy(split)
    made.__dict__.pop("digest", None)  # kept of the split as it was
    if isinstance(split, FileSplit):
        made.scale = scale
    elif isinstance(split, ArraySplit):
        if split.scale is not None and split.scale != (wanted := scale()):
            raise InputError(
                f"the pictures lie in an array that was read by its own range, {split.scale.text}, "
                f"and the model learned on {wanted.text}; bring them to uint8 by that range, or "
                "write them as 16-bit files, which are read by it."
            )
    elif hasattr(split, "split"):
        made.split = with_scale(split.split, scale)
    elif hasattr(split, "splits"):
        made.splits = tuple(with_scale(part, scale) for part in split.splits)
    return made


def _peeked(split: FileSplit) -> list[pictures.Header]:
    """The headers of up to `PEEKED` pictures."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(PEEKED, len(split))).astype(int))
    return list(_headers(split, [split.keys[row] for row in rows.tolist()]))


def _headers(split: FileSplit, keys: Iterable[str]) -> Iterator[pictures.Header]:
    for key in keys:
        try:
            yield pictures.read_header(split.store.read(key))
        except Exception:  # a damaged picture; whoever reads it is told its name
            continue


def reading_notes(split: FileSplit) -> tuple[str, ...]:
    """A sentence for each conversion that up to `PEEKED` pictures of the split ask for."""
    headers = _peeked(split)
    notes = []
    if any(header.deep for header in headers):
        notes.append(f"Deep pictures: {split.scale().text}, the range of the whole set.")
    if any(header.transparent for header in headers):
        notes.append("Transparent parts are laid on white.")
    if any(header.orientation != 1 for header in headers):
        notes.append("Pictures are set upright as EXIF states.")
    if any(header.mode in ("1", "L", "LA", "I", "F", "I;16", "I;16B") for header in headers):
        notes.append("Grey is repeated over 3 channels.")
    return tuple(notes)

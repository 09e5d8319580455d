"""Pictures in whatever form they come: files, folders, Pillow's, arrays; decoded one at a time."""

from __future__ import annotations

import io
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aptheory.checked import expanded, spelt
from aptheory.errors import InputError, reason_of
from aptheory.tasks.readers.stores import FolderStore
from aptheory.tasks.readers.suffixes import pictures_among

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger("aptheory")


@dataclass(frozen=True)
class Picture:
    """A picture that has not been read: what to call it, and how to get its encoded bytes."""

    name: str
    read: Callable[[], bytes]


def pictures(source: Any) -> list[Picture]:
    """Every picture in ``source``: a path, a folder (all pictures below it), a Pillow picture, an
    array (height, width), (height, width, 3) or a batch of these, or several of all that.

    Raises:
        InputError: a path that is not there, a folder without pictures, something else.
    """
    return list(_pictures(source, itertools.count()))


def _pictures(source: Any, numbers: Iterator[int]) -> Iterator[Picture]:
    """``numbers`` name what has no name of its own."""
    from PIL.Image import Image

    if isinstance(source, str | Path):
        yield from _files(place_of(source))
    elif isinstance(source, Image):
        yield _pillow(source, getattr(source, "filename", "") or f"picture {next(numbers)}")
    elif isinstance(source, np.ndarray | Tensor):
        yield from _arrays(source, numbers)
    elif hasattr(source, "read"):
        raise InputError("a file that is open is no picture; give its path, or open it by Pillow.")
    elif isinstance(source, Iterable):
        for item in source:
            yield from _pictures(item, numbers)
    else:
        raise InputError(
            f"a picture is of type {type(source).__name__}; expected paths, folders, Pillow "
            "pictures or uint8 arrays."
        )


def place_of(path: str | Path) -> Path:
    """The path of a picture or a folder of them.

    Raises:
        InputError: it is empty, or nothing is there.
    """
    if not str(path):
        raise InputError("the path of a picture is empty; give pictures or folders of pictures.")
    place = expanded(path)
    if not os.path.exists(place):  # nor is what no file can be called
        what = "is a link that leads nowhere" if os.path.islink(place) else "does not exist"
        raise InputError(f"{place} {what}; give pictures or folders of pictures.")
    return place


def _files(path: Path) -> Iterator[Picture]:
    if path.is_dir():
        store = FolderStore(path)
        keys, _ = pictures_among(store, store.once(store.names()))
        if not keys:
            raise InputError(f"{path} holds no picture; expected files such as *.jpg below it.")
        for what, number in store.left_out.items():
            if not what.startswith("hidden"):
                _log.warning("%s: left out %d × %s", path, number, what)
        for key in keys:
            yield Picture(spelt(str(path / key)), partial(store.read, key))
    else:
        yield Picture(spelt(str(path)), partial(FolderStore(path.parent).read, path.name))


def _arrays(array: np.ndarray | Tensor, numbers: Iterator[int]) -> Iterator[Picture]:
    from PIL.Image import fromarray

    given, kind = tuple(array.shape), str(array.dtype)
    order = "channels, height, width" if isinstance(array, Tensor) else "height, width, channels"
    if isinstance(array, Tensor):  # channels first, as torch has them
        if array.is_meta or array.is_quantized or array.layout != torch.strided:
            raise InputError("a tensor holds no plain pixels; give an ordinary one of uint8.")
        array = array.detach().cpu().movedim(-3, -1).numpy() if array.ndim > 2 else array.numpy()
    single = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
    batch = array.ndim == 4 and array.shape[-1] in (1, 3, 4)
    if not array.size:
        raise InputError(f"an array of shape {given} holds no picture; give one or more.")
    if array.dtype != np.uint8 or not (single or batch):
        raise InputError(
            f"an array has shape {given} and type {kind}; expected bytes (uint8, from 0 to 255) of "
            f"shape (height, width), ({order}) or (pictures, {order}), with 1, 3 or 4 channels."
        )
    for pixels in array if batch else array[None]:
        plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
        yield _pillow(fromarray(np.ascontiguousarray(plain)), f"array {next(numbers)}")


def _pillow(picture: Image, name: str) -> Picture:
    """Through a lossless file, so that what decodes files decides what becomes of every picture."""

    def read() -> bytes:
        file = io.BytesIO()
        known = picture.mode in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
        try:
            if picture.mode == "F":  # numbers of any size, which PNG cannot hold
                picture.save(file, "TIFF")
            else:
                plain = picture if known else picture.convert("RGB")
                plain.save(file, "PNG", compress_level=1, exif=picture.getexif())
        except (ValueError, OSError) as error:  # closed, cut off, or without a pixel
            raise InputError(
                f"{name} cannot be read ({reason_of(error)}); give it open and whole."
            ) from error
        return file.getvalue()

    return Picture(name, read)

"""A split of the user's own: what it gives is neither scaled twice nor frozen."""

import logging
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.arguments import checked_arguments
from aptheory.errors import InputError, reason_of
from aptheory.preprocessing import Size, as_transform, fit_pixels
from aptheory.tasks.resizing import resize_of
from aptheory.tasks.split import Indices, Split, Steady, digest_of

PROBED = 16  # images that are read twice
_log = logging.getLogger("aptheory")


class Unlabelled(Steady):
    """Pictures without labels, for what needs none; ``labels`` are all 0."""

    @checked_arguments
    def __init__(self, split: Split) -> None:
        self.split = split
        self.labels = np.zeros(len(split), dtype=np.int64)
        self.resize = resize_of(split)

    def __len__(self) -> int:
        return len(self.labels)

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        return self.split.images(indices, size)


class Own(Steady):
    """A foreign split, made to give bytes of the size asked for.

    Bytes pass as they are. Floats are taken as 0 to 1, or as 0 to 255, by what a few images of the
    whole set hold; where some of those differ it is refused, as is anything else. A split that
    gives another image when it is asked again is ``random``: it is read anew each time, and nothing
    of it is kept.
    """

    def __init__(self, split: Split, labels: np.ndarray, where: str) -> None:
        self.split = split
        self.labels = labels
        self.where = where
        self._warned = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("split", "random", "top", "digest"):
            raise AttributeError(name)
        return getattr(self.split, name)

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        images = self._raw(indices, size)
        if images.dtype != torch.uint8:
            images = self._bytes(images)
        return (
            images
            if as_transform(size).size == tuple(images.shape[2:])
            else fit_pixels(images, size)
        )

    @cached_property
    def random(self) -> bool:
        """Whether one index gives two images: each of a few is read twice."""
        stated = getattr(self.split, "random", None)
        if stated is not None:
            return bool(stated)
        rows = np.unique(np.linspace(0, len(self) - 1, PROBED).astype(np.int64))
        first, second = (self._raw(rows, (32, 32)) for _ in range(2))
        if torch.equal(first, second):
            return False
        _log.warning("%s draws its pictures anew at every look; none of them is kept", self.where)
        return True

    @cached_property
    def top(self) -> float:
        """The greatest value that floats stand for: 1 or 255."""
        rows = np.unique(np.linspace(0, len(self) - 1, PROBED).astype(np.int64))
        images = self._raw(rows, (32, 32))
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 255):
            raise InputError(
                f"{self.where}: images are {images.dtype} from {low:g} to {high:g}; give bytes, or "
                "floats from 0 to 1, not normalised: the network does that."
            )
        top = 1.0 if high <= 1 else 255.0
        if top == 255 and int(_small(images).sum()) > len(images) // 8:
            raise InputError(
                f"{self.where}: some images are floats from 0 to 1 and others from 0 to 255; give "
                "all of them in one range."
            )
        _log.info("%s: floats from 0 to %g are brought to bytes", self.where, top)
        return top

    @property
    def digest(self) -> str:
        if self.random and getattr(self.split, "digest", None) is None:
            raise InputError(
                f"{self.where} draws its pictures anew at every look, so that no run on it could "
                "be told again; give the pictures as they are, and the drawing as augment=."
            )
        return digest_of(self.split)

    def _raw(self, indices: Indices, size: Size) -> Tensor:
        try:
            images: Any = self.split.images(indices, size)
            if not isinstance(images, Tensor):
                images = torch.as_tensor(np.asarray(images))
        except InputError:
            raise
        except Exception as error:  # whatever code of the user's may raise
            raise InputError(
                f"{self.where}: its images cannot be read ({reason_of(error, kind=True)}); "
                "expected an array of (images, channels, height, width)."
            ) from error
        if images.ndim != 4 or len(images) != len(indices):
            raise InputError(
                f"{self.where}: {len(indices)} images were asked for and an array of shape "
                f"{tuple(images.shape)} came; expected (images, channels, height, width)."
            )
        return images

    def _bytes(self, images: Tensor) -> Tensor:
        values = images.to(torch.float32)
        if not bool(((values >= 0) & (values <= self.top)).all()):  # NaN is refused too
            raise InputError(
                f"{self.where}: images hold values outside 0 to {self.top:g} "
                f"({float(values.min()):g} to {float(values.max()):g}); give bytes, or floats "
                "from 0 to 1, not normalised: the network does that."
            )
        if self.top == 255 and not self._warned and bool(_small(values).any()):
            self._warned = True
            _log.warning(
                "%s: images without a value above 1 are read as nearly black, as the others run "
                "from 0 to 255",
                self.where,
            )
        return (values * (255 / self.top)).round().to(torch.uint8)


def _small(images: Tensor) -> Tensor:
    """Which images seem to be floats from 0 to 1."""
    values = images.flatten(1)
    tops = values.amax(1)
    return (tops > 0) & (tops <= 1) & (values % 1 != 0).any(1)

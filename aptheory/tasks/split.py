"""What a split is: labelled images that can be had in any size."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.preprocessing import Size, as_transform

Indices = Sequence[int | np.integer] | np.ndarray


@runtime_checkable
class Split(Protocol):
    """Labelled images that can be had in any size.

    ``labels`` is an int64 array of shape (n,). Our own splits also have ``digest``; it is not
    asked for here because a run-time check of this type would compute it.
    """

    labels: np.ndarray

    def __len__(self) -> int: ...

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n channels height width"]:
        """The images at ``indices``, resized to ``size`` (height, width) without keeping the
        aspect ratio (bilinear, antialiased). Our own splits also take a `Transform` for it; one
        of somebody else's is asked for that only if it has an attribute ``resize`` (see `view`)."""
        ...


def as_indices(indices: Indices, count: int) -> np.ndarray:
    """Numbers of some of ``count`` images as int64; negative ones count from the end.

    Raises:
        InputError: what is no whole number, or no such image.
    """
    beyond = f"indices go beyond the {count} images of the split."
    ends = {*indices[:1], *indices[-1:]} if isinstance(indices, range) else set()
    if not all(-count <= end < count for end in ends):  # before the range is made an array
        raise InputError(beyond)
    try:
        chosen = np.asarray(indices)
    except (TypeError, ValueError, RuntimeError):  # a tensor of another device, ragged lists
        raise InputError(
            f"indices are {shown(indices)}; expected a list of whole numbers."
        ) from None
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise InputError(f"indices are {shown(indices)}; expected a list of whole numbers.")
    chosen = chosen.astype(np.int64)
    if chosen.size and not -count <= chosen.min() <= chosen.max() < count:
        raise InputError(beyond)
    return np.where(chosen < 0, chosen + count, chosen)


class Steady(ABC):
    """What our own splits are: bytes, of the size asked for, and the same at every look.

    A split that is not one is wrapped by its task (see `aptheory.tasks.own`), which looks what it
    gives. ``random`` is true of a split that draws its images anew: nothing keeps them. Each gives
    ``_images`` for places and a size that have been looked at here.
    """

    @property
    def random(self) -> bool:
        return False

    @abstractmethod
    def __len__(self) -> int: ...

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n channels height width"]:
        """The images at ``indices``, made ``size`` (height, width); negative ones count from the
        end.

        Raises:
            InputError: what is no whole number, no such image, no size, or an image that cannot
                be read.
        """
        as_transform(size)
        return self._images(as_indices(indices, len(self)), size)

    @abstractmethod
    def _images(
        self, indices: Int64[np.ndarray, " n"], size: Size
    ) -> UInt8[Tensor, "n channels height width"]: ...


def is_random(split: Split) -> bool:
    """Whether a split draws its images anew at every look, so that they must not be kept."""
    return bool(getattr(split, "random", False))


def digest_of(split: Split) -> str:
    """sha256 of a split's labels and of its pixels or file contents: equal for equal data wherever
    it lies. A split of somebody else's that has no ``digest`` is read whole, at 64×64."""
    digest = getattr(split, "digest", None)
    if digest is not None:
        return str(digest)
    hasher = hashlib.sha256(np.ascontiguousarray(split.labels).astype("<i8").tobytes())
    for start in range(0, len(split), 256):
        batch = split.images(range(start, min(start + 256, len(split))), (64, 64))
        hasher.update(batch.contiguous().numpy().tobytes())
    return hasher.hexdigest()

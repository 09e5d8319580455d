"""A task: what the classes are, and three splits of labelled images.

Everything that reads a disk layout or draws images ends in a `Task`, so that nothing above
this room knows where pictures come from. A split keeps pixels as bytes and hands out uint8 images
of the size that a network asks for; normalisation belongs to the network.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED, Size, Transform, fit_pixels, height_and_width
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.resizing import checked_resize, resize_of, transform_of, view
from aptheory.tasks.splits import balanced_indices

SPLITS = ("train", "val", "test")
Indices = Sequence[int | np.integer] | np.ndarray


@runtime_checkable
class Split(Protocol):
    """Labelled images that can be had in any size.

    ``labels`` is an int64 array of shape (n,). Our own splits also have ``digest``; it is not
    asked for here because a run-time check of this type would compute it.
    """

    labels: np.ndarray

    def __len__(self) -> int: ...

    def images(self, indices: Indices, size: tuple[int, int]) -> UInt8[Tensor, "n 3 height width"]:
        """The images at ``indices``, resized to ``size`` (height, width) without keeping the
        aspect ratio (bilinear, antialiased). Our own splits also take a `Transform` for it; one
        of somebody else's is asked for that only if it has an attribute ``resize`` (see `view`)."""
        ...


def digest_of(split: Split) -> str:
    """sha256 of a split's labels and of its pixels or file contents: equal for equal data wherever
    it lies. A split of somebody else's that has no ``digest`` is read whole, at 64×64."""
    given = getattr(split, "digest", None)
    if given is not None:
        return str(given)
    hasher = hashlib.sha256(np.ascontiguousarray(split.labels).astype("<i8").tobytes())
    for start in range(0, len(split), 256):
        batch = split.images(range(start, min(start + 256, len(split))), (64, 64))
        hasher.update(batch.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def as_labels(labels: Any, classes: int, where: str) -> np.ndarray:
    """``labels`` as int64, or an `InputError` naming ``where`` if one is out of range."""
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{where}: labels have shape {array.shape} and type {array.dtype}; "
            "expected one integer an image"
        )
    array = array.astype(np.int64)
    if len(array) and (array.min() < 0 or array.max() >= classes):
        raise InputError(
            f"{where}: labels run from {array.min()} to {array.max()}, but there are {classes} "
            f"classes; expected 0 to {classes - 1}"
        )
    return array


class ArraySplit:
    """Images that are already decoded: ``pixels`` uint8 (n, height, width, 3), ``labels`` (n,).

    ``pixels`` may be a memory-mapped array.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
            raise InputError(
                f"images have shape {pixels.shape} and type {pixels.dtype}; "
                "expected uint8 of shape (images, height, width, 3)"
            )
        if len(pixels) != len(labels):
            raise InputError(f"{len(pixels)} images but {len(labels)} labels; expected as many")
        self.pixels = pixels
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n 3 height width"]:
        chosen = np.ascontiguousarray(self.pixels[np.asarray(indices, dtype=np.int64)])
        return fit_pixels(torch.from_numpy(chosen).permute(0, 3, 1, 2).contiguous(), size)

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256(f"pixels {self.pixels.shape}".encode())
        for start in range(0, len(self), 1024):  # a memory-mapped array need never be whole
            hasher.update(np.ascontiguousarray(self.pixels[start : start + 1024]).data)
        hasher.update(np.ascontiguousarray(self.labels).astype("<i8").data)
        return hasher.hexdigest()


class Selection:
    """Some images of another split, in the order of ``indices``."""

    split: Split
    indices: np.ndarray
    labels: np.ndarray

    def __init__(self, split: Split, indices: Indices) -> None:
        chosen = np.asarray(indices, dtype=np.int64)
        if isinstance(split, Selection):  # one step to the pixels, however often it is narrowed
            chosen = split.indices[chosen]
            split = split.split
        self.split = split
        self.indices = chosen
        self.labels = split.labels[chosen]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def resize(self) -> str:
        return resize_of(self.split)

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n 3 height width"]:
        return self.split.images(self.indices[np.asarray(indices, dtype=np.int64)], size)

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256(f"selection {digest_of(self.split)}".encode())
        hasher.update(self.indices.astype("<i8").data)
        return hasher.hexdigest()


class Joined:
    """Several splits one after the other, as the VTAB protocol joins train and validation."""

    def __init__(self, *splits: Split) -> None:
        self.splits = splits
        self.labels = np.concatenate([split.labels for split in splits])
        self._starts = np.cumsum([0, *(len(split) for split in splits)])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resize(self) -> str:
        choices = {resize_of(split) for split in self.splits}
        return choices.pop() if len(choices) == 1 else "squash"

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n 3 height width"]:
        wanted = np.asarray(indices, dtype=np.int64)
        out = torch.empty((len(wanted), 3, *height_and_width(size)), dtype=torch.uint8)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        for number, split in enumerate(self.splits):
            rows = np.flatnonzero(owner == number)
            if len(rows):
                out[torch.from_numpy(rows)] = split.images(
                    wanted[rows] - self._starts[number], size
                )
        return out

    @cached_property
    def digest(self) -> str:
        text = " ".join(digest_of(split) for split in self.splits)
        return hashlib.sha256(f"joined {text}".encode()).hexdigest()


class CentreCropped:
    """Each image resized to ``enlarge`` times the size asked for, and its centre cut out.

    FGVC's evaluation (resize to 256, centre crop of 224) is ``enlarge = 256 / 224``.
    """

    resize = "squash"

    def __init__(self, split: Split, enlarge: float = 256 / 224) -> None:
        self.split = split
        self.enlarge = enlarge
        self.labels = split.labels

    def __len__(self) -> int:
        return len(self.split)

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n 3 height width"]:
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


class Resized:
    """Another split whose pictures are made images as ``resize`` says (see `Task.resized`)."""

    def __init__(self, split: Split, resize: str) -> None:
        self.split = split.split if isinstance(split, Resized | CentreCropped) else split
        self.resize = checked_resize(resize)
        self.labels = split.labels

    def __len__(self) -> int:
        return len(self.split)

    def images(self, indices: Indices, size: Size) -> UInt8[Tensor, "n 3 height width"]:
        return self.split.images(indices, size)

    @property
    def digest(self) -> str:
        return digest_of(self.split)


@dataclass(frozen=True)
class Task:
    """An image classification task with three splits.

    ``group`` is "natural", "specialized", "structured", "fine-grained" or "user";
    ``preprocessing`` says in words what happens to an image before the network's normalisation,
    where the splits are asked for a size alone (`preprocessing_for` says it for a network);
    ``provenance`` says where the splits come from, a seeded cut included.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    group: str = "user"
    preprocessing: str = SQUASHED
    provenance: str = ""

    def __post_init__(self) -> None:
        for name in SPLITS:
            split = getattr(self, name)
            if not len(split):
                raise InputError(
                    f"task {self.name!r} has no image in its {name} split; expected at least one"
                )
            as_labels(split.labels, len(self.classes), f"task {self.name!r}, {name} split")

    @cached_property
    def digest(self) -> str:
        """sha256 over the classes, the preprocessing and the data of the three splits. Computed
        when first asked for; the name and the place on disk are not part of it."""
        parts = [*self.classes, self.preprocessing, *(digest_of(getattr(self, n)) for n in SPLITS)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def preprocessing_for(self, net: Any) -> str:
        """What happens to an image on its way to ``net``, before its normalisation, in words."""
        transform = transform_of(self.train, net)
        if transform.plain or SQUASHED in self.preprocessing:
            return self.preprocessing.replace(SQUASHED, str(transform))
        return f"{self.preprocessing}; {transform}"

    def resized(self, resize: str) -> "Task":
        """The same task with its pictures made images in another way than its own.

        ``resize`` is "network" (the network's own evaluation transform: what folders, lists and
        Hugging Face sets do), "squash" (the whole picture, bilinear, aspect ratio not kept: what
        arrays and VTAB do), "center" or "border" (see `aptheory.preprocessing.Transform`). A crop
        that belongs to the task, as FGVC's, gives way. Raises `InputError` for any other.
        """
        cropped = isinstance(self.train, CentreCropped)
        preprocessing = SQUASHED if cropped else self.preprocessing
        splits = {name: Resized(getattr(self, name), resize) for name in SPLITS}
        return replace(self, preprocessing=preprocessing, **splits)

    @property
    def train_and_val(self) -> Split:
        """Training images followed by validation images: what the VTAB protocol trains on after
        the selection."""
        return Joined(self.train, self.val)

    def subset(
        self,
        *,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
        seed: int = 0,
    ) -> "Task":
        """The same task with fewer images: seeded, and as balanced over classes as the data allow.

        ``None`` keeps a split whole, as does a number that is not smaller than the split. With
        one seed the smaller subset lies inside the larger one. Raises `InputError` for a
        number below 1, and for fewer training images than there are classes among them.
        """
        chosen: dict[str, Split] = {}
        for number, (name, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
            split: Split = getattr(self, name)
            if count is None or count >= len(split):
                continue
            present = len(np.unique(split.labels))
            least = present if name == "train" else 1
            if count < least:
                raise InputError(
                    f"task {self.name!r}: {count} {name} images were asked for; "
                    f"expected at least {least}" + (", one a class" if name == "train" else "")
                )
            indices = balanced_indices(split.labels, count, seed=(seed, number))
            chosen[name] = Selection(split, indices)
        if not chosen:
            return self
        sizes = ", ".join(f"{name} {len(split)}" for name, split in chosen.items())
        note = f"class-balanced subset ({sizes}), seed {seed}"
        provenance = f"{self.provenance}; {note}" if self.provenance else note
        changes: dict[str, Any] = {**chosen, "provenance": provenance}
        return replace(self, **changes)


def loader(
    split: Split,
    net: Any,
    batch_size: int,
    indices: Indices | None = None,
    *,
    ahead: int = 2,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ``(x, y)`` for one network, in the order of ``indices`` (all, when ``None``).

    ``x`` is (batch, 3, height, width), at the network's input size (`view` says how) and normalised
    by its own mean and standard deviation, on its device; ``y`` is int64 (batch,). The next
    ``ahead`` batches are decoded in a thread while one is used (0: none are). Raises `InputError`
    for a network that does not take three channels, or a batch size below 1.
    """
    channels = net.input_shape[0]
    if channels != 3:
        raise InputError(
            f"network {net.name!r} takes {channels} channels; tasks give images with 3 channels"
        )
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}; expected 1 or more")
    order = np.arange(len(split)) if indices is None else np.asarray(indices, dtype=np.int64)
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return _batches(split, net, parts, view(split, net), ahead)


def _batches(
    split: Split, net: Any, parts: list[np.ndarray], size: Size, ahead: int
) -> Iterator[tuple[Tensor, Tensor]]:
    parameter = next(iter(net.parameters()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    # Pixels that are in memory at the right size cost nothing: a thread would only be overhead.
    ready = isinstance(split, ArraySplit) and split.pixels.shape[1:3] == height_and_width(size)
    for part, images in ahead_of(
        lambda part: split.images(part, size), parts, ahead=0 if ready else ahead
    ):
        y = torch.from_numpy(split.labels[part])
        yield net.normalize(images.to(device, non_blocking=True)), y.to(device)

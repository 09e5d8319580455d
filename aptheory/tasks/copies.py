"""Pictures that stand in a set more than once: byte for byte, or nearly."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8, UInt64
from torch import Tensor

NEAR = 4  # of 64 bits that two prints of one picture may differ in


def kinds(values: Sequence[Hashable]) -> Int64[np.ndarray, " n"]:
    """A number for each value, equal for equal values."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def same_bytes(store: Any, keys: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """A number for each picture, equal for pictures of equal bytes.

    Where the store can give a glimpse (its size and a few bytes), only pictures of an equal
    glimpse are read.
    """
    names = list(keys)
    numbers = np.arange(len(names))
    if not hasattr(store, "glimpses"):
        return kinds([hashlib.sha256(store.read(name)).digest() for name in names])
    first: dict[Hashable, int] = {}
    alike: dict[int, list[int]] = {}
    for row, glimpse in enumerate(store.glimpses(names)):
        other = first.setdefault(glimpse, row)
        if other != row:
            alike.setdefault(other, [other]).append(row)
    for rows in alike.values():
        contents = kinds([hashlib.sha256(store.read(names[row])).digest() for row in rows])
        for kind in np.unique(contents):
            same = np.array(rows)[contents == kind]
            numbers[same] = same[0]
    return numbers


def same_rows(pixels: np.ndarray) -> Int64[np.ndarray, " n"]:
    """A number for each image of an array, equal for equal images."""
    return kinds([hash_of(image) for image in pixels])


def same_images(split: Any) -> Int64[np.ndarray, " n"]:
    """A number for each image of a split, equal for images that are equal at 64×64 pixels."""
    return kinds(_hashes(split))


def _hashes(split: Any) -> list[Hashable]:
    hashes: list[Hashable] = []
    for start in range(0, len(split), 64):
        images = split.images(range(start, min(start + 64, len(split))), (64, 64)).numpy()
        hashes += [hash_of(image) for image in images]
    return hashes


def hash_of(image: np.ndarray) -> bytes:
    """sha256 of an image's shape and values."""
    hasher = hashlib.sha256(str(image.shape).encode())
    hasher.update(np.ascontiguousarray(image).data)
    return hasher.digest()


def prints(images: UInt8[Tensor, "n channels 8 9"]) -> UInt64[np.ndarray, " n"]:
    """Perceptual hashes of images of 8×9 pixels: for each pixel, is it darker than the next?

    Saving again, a smaller size and a little noise change few of the 64 bits (the difference
    hash); turned and cropped pictures are other pictures.
    """
    grey = images.float().mean(dim=1)
    bits = (grey[:, :, 1:] > grey[:, :, :-1]).flatten(1).numpy()
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def near(
    first: UInt64[np.ndarray, " n"], second: UInt64[np.ndarray, " m"], most: int = NEAR
) -> list[tuple[int, int]]:
    """(i, j) for each i whose print has one in ``second`` at ``most`` bits away, the nearest.

    Flat pictures, whose prints have fewer than 8 bits of one kind, tell nothing and are passed
    over.
    """
    pairs: list[tuple[int, int]] = []
    if not len(second):
        return pairs
    for row, value in enumerate(first):
        if 8 <= int(value).bit_count() <= 56:
            away = np.bitwise_count(second ^ value)
            column = int(away.argmin())
            if away[column] <= most:
                pairs.append((row, column))
    return pairs


def across_splits(splits: Mapping[str, Any]) -> dict[str, int]:
    """How many pictures of each split stand in an earlier one too: {"test in train": 3}.

    Equal at 64×64 pixels; pairs of splits without a copy are left out.
    """
    hashes = {name: _hashes(split) for name, split in splits.items()}
    names, copies = list(hashes), {}
    for place, name in enumerate(names):
        for earlier in names[:place]:
            known = set(hashes[earlier])
            count = sum(value in known for value in hashes[name])
            if count:
                copies[f"{name} in {earlier}"] = count
    return copies

"""Arrays of images to bytes, (n, height, width, channels), by one range for all splits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aptheory.errors import InputError
from aptheory.tasks.pictures import Scale

MOST_CHANNELS = 64
Range = tuple[float, float]


def to_pixels(
    images: Mapping[str, Any], where: str, *, value_range: Range | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...], dict[str, Scale]]:
    """uint8 (n, height, width, channels) of every split, notes of what was done to get there, and
    the scales of the arrays of more than 8 bits.

    Bytes are taken as they are. Floats must lie from 0 to 1, or in ``value_range``; whole numbers
    of more than 8 bits are brought to 8 by the range of the whole set (or ``value_range``). One
    channel is repeated over three. Raises `InputError` naming ``where`` and the array.
    """
    arrays = {name: shaped(values, f"{where}: {name}") for name, values in images.items()}
    kinds = {name: "bytes" if a.dtype == np.uint8 else a.dtype.kind for name, a in arrays.items()}
    of_bytes = [array for name, array in arrays.items() if kinds[name] == "bytes"]
    if of_bytes and max(int(array.max(initial=0)) for array in of_bytes) == 1:  # drawn with 0 and 1
        kinds = {name: "i" if kind == "bytes" else kind for name, kind in kinds.items()}
    notes: list[str] = []
    scales: dict[str, Scale] = {}
    for kind in sorted(set(kinds.values()) - {"bytes"}):
        members = {name: array for name, array in arrays.items() if kinds[name] == kind}
        scaled, note, scale = _to_bytes(members, kind, where, value_range)
        arrays |= scaled
        scales |= {} if scale is None else dict.fromkeys(members, scale)
        notes.append(note)
    if {array.shape[3] for array in arrays.values()} == {1}:
        arrays = {name: np.repeat(array, 3, axis=3) for name, array in arrays.items()}
        notes.append("grey repeated over 3 channels")
    elif len({array.shape[3] for array in arrays.values()}) > 1:
        listed = ", ".join(f"{name} {array.shape[3]}" for name, array in arrays.items())
        raise InputError(f"{where}: the splits have unlike channels ({listed}); expected as many.")
    return arrays, tuple(notes), scales


def shaped(images: Any, where: str) -> np.ndarray:
    """Four axes, the channels last: a tensor's come first, as torch has them.

    Raises:
        InputError: no images, of no plain pixels, or with another number of axes.
    """
    refuse_mask(images, where)
    tensor = hasattr(images, "detach")
    array = _of_tensor(images, where) if tensor else _of_list(images, where)
    if array.ndim == 3:
        array = array[..., None]
    elif tensor and array.ndim == 4:
        if array.shape[1] > 4 and array.shape[1] == array.shape[2] and array.shape[3] in (1, 3, 4):
            raise InputError(
                f"{where} is a tensor of shape {array.shape}; expected (images, channels, height, "
                "width); the channels seem to come last: permute(0, 3, 1, 2)."
            )
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4:
        raise InputError(
            f"{where} has shape {array.shape}; expected (images, height, width, channels)."
        )
    if 0 in array.shape:
        raise InputError(f"{where} is empty (shape {array.shape}); expected at least one image.")
    if array.dtype.kind not in "buif":
        raise InputError(
            f"{where} is {array.dtype}; expected uint8, whole numbers, or floats from 0 to 1."
        )
    first, last = array.shape[1], array.shape[3]
    if first in (1, 3, 4) and last > 4 and (last == array.shape[2] != 1 or last > MOST_CHANNELS):
        raise InputError(
            f"{where} has shape {array.shape}; expected (images, height, width, channels); the "
            "channels seem to come first: transpose to (0, 2, 3, 1)."
        )
    if last > MOST_CHANNELS:
        raise InputError(
            f"{where} has {last} channels; expected (images, height, width, channels) with at most "
            f"{MOST_CHANNELS}."
        )
    return array


def refuse_mask(images: Any, where: str) -> None:
    """Refuse an array of which a part is masked out: pixels have no place for that."""
    if np.ma.is_masked(images):
        raise InputError(f"{where} has a mask; fill what it hides with pixels (.filled).")


def _of_tensor(images: Any, where: str) -> np.ndarray:
    plain = images.layout == torch.strided and not images.is_nested
    if not plain or images.is_meta or images.is_quantized:
        kinds = ("nested", "meta", "quantized")
        kind = next((k for k in kinds if getattr(images, f"is_{k}")), "sparse")
        raise InputError(f"{where} is a {kind} tensor; give a plain one that holds its pixels.")
    if images.is_complex():
        raise InputError(f"{where} holds complex numbers; expected pixels.")
    wide = images.is_floating_point() and images.element_size() < 4  # NumPy knows no bfloat16
    return (images.float() if wide else images).detach().cpu().resolve_neg().numpy()


def _of_list(images: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(images)
    except (ValueError, TypeError, RuntimeError):
        raise InputError(
            f"{where} is no array of images of one size; make them equally large, or give a data "
            "set to Task.from_dataset."
        ) from None


def _to_bytes(
    arrays: Mapping[str, np.ndarray], kind: str, where: str, value_range: Range | None
) -> tuple[dict[str, np.ndarray], str, Scale | None]:
    if kind == "b":
        made = {n: a.astype(np.uint8) * 255 for n, a in arrays.items()}
        return made, "true and false as 255, 0", None
    if kind == "f":
        for name, array in arrays.items():
            finite = np.isfinite(array).all(axis=(1, 2, 3))
            if not finite.all():
                raise InputError(
                    f"{where}: {name} holds NaN or infinity (first in image "
                    f"{int(np.flatnonzero(~finite)[0])}); clean it."
                )
    low = min(float(array.min()) for array in arrays.values())
    high = max(float(array.max()) for array in arrays.values())
    if value_range is not None:
        least, greatest = map(float, value_range)
        if low < least or high > greatest or not greatest > least:
            raise InputError(
                f"{where}: values run from {low:g} to {high:g}, outside the stated range "
                f"{least:g} to {greatest:g}."
            )
        scale = Scale(least, greatest, False)
        return {name: scale(array) for name, array in arrays.items()}, scale.text, scale
    if kind == "f":
        if low < 0 or high > 1:
            raise InputError(
                f"{where}: {', '.join(arrays)} is {next(iter(arrays.values())).dtype} from {low:g} "
                f"to {high:g}; expected uint8, or floats from 0 to 1 (not normalised), or state "
                "value_range=(least, greatest)."
            )
        scaled = {n: np.rint(array * 255).astype(np.uint8) for n, array in arrays.items()}
        return scaled, "floats 0-1 rounded to 8 bits", None
    if low == 0 and high == 1:
        made = {n: (a * 255).astype(np.uint8) for n, a in arrays.items()}
        return made, "0 and 1 as 0 and 255", None
    if low >= 0 and high <= 255:
        return {n: array.astype(np.uint8) for n, array in arrays.items()}, "0 to 255 as bytes", None
    scale = Scale.of(low, high, True)
    return {name: scale(array) for name, array in arrays.items()}, scale.text, scale

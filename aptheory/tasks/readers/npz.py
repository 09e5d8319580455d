"""``npz:FILE``: arrays x_train, y_train, x_test, y_test and, optionally, x_val, y_val, class_names.

Images are uint8 (n, height, width, 3); one grey channel is repeated, floats in [0, 1] are scaled.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import ArraySplit, Task, as_labels
from aptheory.tasks.published_splits import hold_out


def npz_task(
    path: str | Path, *, name: str | None = None, group: str = "user", seed: int = 0
) -> Task:
    """The task in an npz file; a validation split is cut from train by ``seed`` if none is given.

    Nothing is unpickled. Raises `InputError` naming the file and the array for a missing,
    empty, unreadable or mis-shaped array, NaN, labels out of range, or a class that train or test
    lacks.
    """
    path = Path(path)
    arrays = _read(path)
    labels = {split: _integers(arrays, f"y_{split}", path) for split in _present(arrays, path)}
    if "class_names" in arrays:
        classes = tuple(str(value) for value in arrays["class_names"])
    else:
        classes = tuple(
            str(value) for value in range(int(max(y.max() for y in labels.values())) + 1)
        )
    splits: dict[str, ArraySplit] = {}
    notes: set[str] = set()
    for split, given in labels.items():
        y = as_labels(given, len(classes), f"{path}: y_{split}")
        pixels, note = to_pixels(arrays[f"x_{split}"], f"{path}: x_{split}")
        if len(pixels) != len(y):
            raise InputError(
                f"{path}: x_{split} has {len(pixels)} images but y_{split} has {len(y)} labels"
            )
        require_every_class(y, classes, f"{path}: the {split} split")
        notes |= {note} - {""}
        splits[split] = ArraySplit(pixels, y)
    provenance = "splits as given in the npz file"
    if "val" not in splits:
        train = splits["train"]
        kept, held, note = hold_out(
            train.labels, name=name or path.stem, seed=seed, where=f"{path}: y_train"
        )
        splits["train"] = ArraySplit(train.pixels[kept], train.labels[kept])
        splits["val"] = ArraySplit(train.pixels[held], train.labels[held])
        provenance = f"train and test as given in the npz file; {note}"
    return Task(
        name=name or path.stem,
        classes=classes,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        group=group,
        preprocessing="; ".join([*sorted(notes), SQUASHED]),
        provenance=provenance,
    )


def to_pixels(images: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """uint8 (n, height, width, 3), and a note of what was done to get there ("" if nothing)."""
    notes = []
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        hint = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            hint = "; the channels seem to come first: transpose to (0, 2, 3, 1)"
        raise InputError(
            f"{where} has shape {images.shape}; expected (images, height, width, channels) with "
            f"3 channels, or 1{hint}"
        )
    if 0 in images.shape:
        raise InputError(f"{where} is empty (shape {images.shape}); expected at least one image")
    if images.dtype == np.uint8:
        pixels = images
    elif np.issubdtype(images.dtype, np.floating):
        if not np.isfinite(images).all():
            bad = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
            raise InputError(f"{where} holds NaN or infinity (first in image {bad}); clean it")
        if images.min() < 0 or images.max() > 1:
            raise InputError(
                f"{where} is {images.dtype} from {images.min():g} to {images.max():g}; expected "
                "uint8, or floats from 0 to 1 (not normalised)"
            )
        pixels = np.rint(images * 255).astype(np.uint8)
        notes.append("floats 0-1 rounded to 8 bits")
    else:
        raise InputError(f"{where} is {images.dtype}; expected uint8, or floats from 0 to 1")
    if pixels.shape[3] == 1:
        pixels = np.repeat(pixels, 3, axis=3)
        notes.append("grey repeated over 3 channels")
    return pixels, "; ".join(notes)


def require_every_class(labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    """`InputError` naming the classes of which ``where`` has no image."""
    missing = [classes[label] for label in np.setdiff1d(np.arange(len(classes)), labels)]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5]) + (" ..." if missing[5:] else "")
        raise InputError(
            f"{where} has no image of class {shown}; add some, or take the class out of every split"
        )


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; expected an npz with x_train, y_train, x_test, y_test"
        )
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise InputError(f"{path} is a single array; expected an npz of several")
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as npz ({error}); make it again") from error


def _present(arrays: dict[str, np.ndarray], path: Path) -> list[str]:
    names = ["train", *(["val"] if "x_val" in arrays or "y_val" in arrays else []), "test"]
    missing = [
        f"{axis}_{name}" for name in names for axis in "xy" if f"{axis}_{name}" not in arrays
    ]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}; "
            "expected x_train, y_train, x_test, y_test (and x_val, y_val if there is a validation)"
        )
    return names


def _integers(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    y = arrays[key]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not len(y) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"{path}: {key} has shape {y.shape} and type {y.dtype}; expected one integer an image"
        )
    return y

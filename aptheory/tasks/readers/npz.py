"""``npz:FILE``: arrays x_train, y_train, x_test, y_test and, optionally, x_val, y_val, class_names.

Images are (n, height, width, channels), uint8; one grey channel is repeated, floats in [0, 1] and
deeper whole numbers are brought to bytes. x_valid, x_dev and x_eval are read as x_val; x and y
alone are cut into three splits. ``?group=NAME`` never tears apart the pictures of one value in the
array NAME, or in NAME_train where there are splits.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from aptheory.errors import InputError, reason_of
from aptheory.tasks.base import Task
from aptheory.tasks.classes import as_column, shown
from aptheory.tasks.completing import ALIASES
from aptheory.tasks.readers.memory import array_task

EXPECTED = "x_train, y_train, x_test, y_test (and x_val, y_val if there is a validation)"
RATIO = 200  # of an array's bytes to those it takes in the file; images stay far below
LARGE = 1 << 28  # bytes from which on the ratio counts


def npz_task(
    path: str | Path,
    *,
    name: str | None = None,
    group: str = "user",
    seed: int = 0,
    group_array: str | None = None,
) -> Task:
    """The task in an npz file; a validation split is cut from train by ``seed`` if none is given.

    ``group_array`` names the arrays of groups. Nothing is unpickled. Raises `InputError` naming the
    file and the array for a missing, empty, unreadable or mis-shaped array, NaN, labels that are no
    classes, or a class that train or test lacks.
    """
    path = Path(path)
    arrays = _read(path)
    splits = _splits(arrays, path)
    images = {split: arrays[x] for split, (x, _) in splits.items()}
    labels = {split: as_column(arrays[y], f"{path}: {y}") for split, (_, y) in splits.items()}
    for split, (x, y) in splits.items():
        if np.ndim(images[split]) < 1 or len(images[split]) != len(labels[split]):
            raise InputError(
                f"{path}: {x} has {len(np.atleast_1d(images[split]))} images but {y} has "
                f"{len(labels[split])} labels."
            )
    together = None if group_array is None else _groups(arrays, splits, group_array, path)
    used = {name for pair in splits.values() for name in pair} | {"class_names"}
    used |= {f"{group_array}{x[1:]}" for x, _ in splits.values()}
    beside = {f"array {key}": 1 for key in arrays if key not in used}
    return array_task(
        images,
        labels,
        where=str(path),
        name=name or path.stem,
        names=_class_names(arrays, path),
        group=group,
        seed=seed,
        together=together,
        every_class=True,
        source="npz file",
        left_out=beside,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(
            f"{path} is not a file; expected an npz with x_train, y_train, x_test, y_test."
        )
    with path.open("rb") as file:
        begin = file.read(6)
    if not begin.startswith((b"PK", b"\x93NUMPY")):
        raise InputError(f"{path} is no npz file; expected what numpy.savez writes.")
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _check_member(archive, info, path)
    except zipfile.BadZipFile:
        pass  # told below, with what numpy makes of it
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as npz ({error}); make it again.") from error
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise InputError(f"{path} is a single array; expected an npz of several.")
            arrays = {key: stored[key] for key in stored.files}
    except InputError:
        raise
    except Exception as error:  # also zlib's and struct's errors, and MemoryError
        reason = reason_of(error)
        raise InputError(f"{path} cannot be read as npz ({reason}); make it again.") from error
    other = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
    if other:  # members that are no .npy come as bytes
        raise InputError(f"{path} holds {other[0]!r}, which is no array; make it again.")
    return arrays


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an array whose header promises more than there is, before anything is allocated."""
    with archive.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = read[version](member)
        except (ValueError, KeyError):
            return  # numpy says below what is wrong
    promised = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise InputError(
            f"{path}: {info.filename} is an array of Python objects, which are not unpickled; save "
            "it with a type of numbers or texts."
        )
    if promised > info.file_size:
        raise InputError(
            f"{path}: {info.filename} is cut off: its head promises {promised:,} bytes of numbers, "
            f"and {info.file_size:,} are there; make it again."
        )
    if info.file_size > LARGE and info.file_size > RATIO * max(1, info.compress_size):
        raise InputError(
            f"{path}: {info.filename} would take {info.file_size / 1e6:.0f} MB unpacked, more than "
            f"{RATIO} times what it takes in the file, which is the limit above "
            f"{LARGE / 1e6:.0f} MB; save it with numpy.savez, not compressed."
        )


def _splits(arrays: dict[str, Any], path: Path) -> dict[str, tuple[str, str]]:
    """{split: names of its images and labels}."""
    named: dict[str, dict[str, str]] = {}
    for key in arrays:
        axis, _, split = key.lower().partition("_")
        if axis in ("x", "y") and (split == "" or split in ALIASES):
            chosen = ALIASES.get(split, "")
            if axis in named.setdefault(chosen, {}):
                raise InputError(
                    f"{path} holds {named[chosen][axis]} and {key}, which are one split; keep one."
                )
            named[chosen][axis] = key
    wanted = [""] if set(named) == {""} else ["train", *({"val"} & set(named)), "test"]
    if set(named) == {"train", "val"}:
        wanted = ["train", "val"]
    missing = [
        f"{axis}_{split}".rstrip("_")
        for split in wanted
        for axis in "xy"
        if axis not in named.get(split, {})
    ]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}; "
            f"expected {EXPECTED}."
        )
    return {split: (named[split]["x"], named[split]["y"]) for split in wanted}


def _groups(
    arrays: dict[str, np.ndarray], splits: dict[str, tuple[str, str]], name: str, path: Path
) -> dict[str, list[Any]]:
    """{split: the group of each of its images}, from the array that is named as its images are."""
    groups = {}
    for split, (x, _) in splits.items():
        key = f"{name}{x[1:]}"
        if key not in arrays:
            raise InputError(
                f"{path} has no array {key!r} to group by; it has {shown(list(arrays))}."
            )
        values = arrays[key]
        if values.ndim != 1 or len(values) != len(arrays[x]):
            raise InputError(
                f"{path}: {key} has shape {values.shape}; expected one value for each of the "
                f"{len(arrays[x])} images of {x}."
            )
        groups[split] = values.tolist()
    return groups


def _class_names(arrays: dict[str, np.ndarray], path: Path) -> tuple[str, ...] | None:
    if "class_names" not in arrays:
        return None
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise InputError(
            f"{path}: class_names has shape {names.shape} and type {names.dtype}; expected one "
            "text a class."
        )
    if names.dtype.kind == "S":
        return tuple(value.decode("utf-8", "replace") for value in names.tolist())
    return tuple(str(value) for value in names.tolist())

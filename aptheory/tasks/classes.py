"""What a class is: a whole number or a string. One reading of labels, for every reader alike.

Floats, lists, one-hot rows and missing labels are refused with what to do. Ids are mapped over all
splits together, so that a gap between two ids makes no class, and a split that lacks a class does
not shift the labels of another.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aptheory.errors import InputError

_log = logging.getLogger("aptheory")

LARGEST = 10**9  # an id from here on is a hash, a time or a damaged file
LONGEST = 1000
"""Letters of a class's name: tables, pages and terminals show it again and again."""
SHOWN = 5
MISSING = ("", "nan", "<na>")  # as tables write an empty cell

CAST = (
    "a class is a whole number or a string: for regression cut the values into bins first "
    "(np.digitize), and make whole numbers of them with astype(int)"
)
ONE_LABEL = "give one class a picture: for several labels make one task of each column"


def as_column(values: Any, where: str, *, named: bool = False) -> np.ndarray:
    """``values`` as int64 ids or as an object array of strings, one an image.

    ``named`` texts are names whatever they look like, as those of folders are: "1.5" is a class.
    Raises `InputError` naming ``where`` for anything that is no class.
    """
    if getattr(values, "is_nested", False):
        raise InputError(f"{where}: the tensor of labels is nested; give one with a label a row.")
    if np.ma.is_masked(values):
        raise InputError(f"{where}: the labels have a mask; leave the images that it hides out.")
    if getattr(values, "ndim", None) == 0 or not hasattr(values, "__iter__"):
        raise InputError(f"{where}: {str(values)[:80]} is no list of labels, one an image.")
    if hasattr(values, "detach"):  # a tensor
        try:
            values = values.detach().cpu().numpy()
        except (TypeError, NotImplementedError):
            raise InputError(f"{where}: the tensor of labels holds no plain numbers.") from None
    elif hasattr(values, "to_numpy"):  # a column of a table
        values = values.to_numpy()
    array = values if isinstance(values, np.ndarray) else _array(list(values))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{where}: {_several(array)}.")
    if array.dtype == object and set(map(type, array.tolist())) != {str}:
        array = _of_objects(array.tolist(), where)
    if array.dtype.kind == "S":
        array = np.array([value.decode("utf-8", "replace") for value in array.tolist()], object)
    if array.dtype.kind == "b":
        return array.astype(str).astype(object)
    if array.dtype.kind == "f":
        _refuse_floats(array, where)
    if array.dtype.kind in "iu":
        return _ids(array, where)
    if array.dtype.kind in "UO":
        return _texts(array.astype(object), where, named)
    raise InputError(f"{where}: labels are of type {array.dtype}; {CAST}.")


def number_classes(
    columns: Mapping[str, Any],
    where: str,
    *,
    names: Sequence[str] | None = None,
    total: int | None = None,
    by_value: bool = False,
    named: bool = False,
    train_may_lack: bool = False,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels 0, 1, ... of every split, and the names of the classes.

    ``columns`` is {split: labels}. ``names`` are the classes that the data declare, which ids then
    count in, as they do with ``total`` classes; otherwise the classes are the sorted distinct
    labels (``by_value``: texts of digits as numbers; ``named``: see `as_column`). Raises
    `InputError` for what is no class, a single class, and (unless ``train_may_lack``) a class of
    another split that train lacks.
    """
    texts = {
        split: as_column(values, f"{where}, {split}" if split else where, named=named)
        for split, values in columns.items()
    }
    for split, column in texts.items():
        if not len(column):
            raise InputError(f"{where}: {split or 'it'} is empty; expected at least one picture.")
    if any(column.dtype == object for column in texts.values()):
        texts = {
            split: column if column.dtype == object else column.astype(str).astype(object)
            for split, column in texts.items()
        }
        labels, classes = _number_texts(texts, names, where, by_value)
    else:
        labels, classes = _number_ids(texts, names, total, where)
    if len(classes) < 2:
        only = f" ({classes[0]!r})" if classes else ""
        raise InputError(f"{where} holds one class only{only}; expected two or more.")
    if "train" in labels and not train_may_lack:
        for split in sorted(set(labels) - {"train"}):
            require_classes(labels["train"], labels[split], classes, where, split)
    return labels, classes


def require_classes(
    train: np.ndarray, other: np.ndarray, classes: Sequence[str], where: str, split: str
) -> None:
    """`InputError` naming the classes of ``other`` of which train has no image."""
    lacking = np.setdiff1d(other, train)
    if len(lacking):
        raise InputError(
            f"{where}: {split} has images of class {shown([classes[i] for i in lacking])}, of "
            "which train has none; write the classes alike in every split, add training images, "
            "or take them out."
        )


def check_names(names: Sequence[str], where: str) -> None:
    """`InputError` for two classes of one name, and one whose name is a text rather than a name."""
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"{where}: two classes are called {twice[:80]!r}; give each its own name.")
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST:
        raise InputError(
            f"{where}: the name of class {longest[:40]!r}... has {len(longest):,} letters; "
            f"expected at most {LONGEST:,}."
        )


def shown(names: Sequence[object]) -> str:
    """The first few names, quoted, and how many more there are."""
    text = ", ".join(repr(str(name)) for name in names[:SHOWN])
    return text + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def one_spelling(names: Sequence[str]) -> dict[str, str]:
    """Name -> the spelling used for it: names that differ in Unicode's composition alone are one
    class, in its composed form, which is said."""
    spellings: dict[str, set[str]] = {}
    for name in names:
        spellings.setdefault(unicodedata.normalize("NFC", name), set()).add(name)
    for composed, same in spellings.items():
        if len(same) > 1:
            _log.info("class %r is written in %d ways of Unicode: one class", composed, len(same))
    return {
        name: name if len(same) == 1 else composed
        for composed, same in spellings.items()
        for name in same
    }


def _array(values: list[Any]) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # cell by cell: rows of one length would be unpacked
        out[row] = value
    return out


def _several(array: np.ndarray) -> str:
    whole = array.reshape(len(array), -1) if len(array) else array
    if array.ndim == 2 and array.dtype.kind in "iufb" and len(array):
        if ((whole == 0) | (whole == 1)).all() and (whole.sum(axis=1) == 1).all():
            return "labels are one-hot rows; give the class of each instead, rows.argmax(axis=1)"
        return f"labels have shape {array.shape}, several a picture; {ONE_LABEL}"
    if array.ndim == 1 and len(array):  # cells that are containers
        return f"a label is a {type(array[0]).__name__}; expected one class a picture"
    return f"labels have shape {array.shape}; expected one class a picture"


def _of_objects(values: list[Any], where: str) -> np.ndarray:
    plain: list[Any] = []
    kinds: set[type] = set()
    for row, value in enumerate(values):
        if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            value = value.item()
        if isinstance(value, list | tuple | set | dict | np.ndarray) or hasattr(value, "detach"):
            rows = [np.asarray(each) for each in values]
            shapes = {row.shape for row in rows}
            if shapes == {(1,)}:
                return _of_objects([row[0] for row in rows], where)
            if len(shapes) > 1:
                raise InputError(f"{where}: labels are lists of several lengths; {ONE_LABEL}.")
            raise InputError(f"{where}: {_several(np.stack(rows))}.")
        if value is None or value != value or str(value) == "<NA>":  # NaN differs from itself
            raise InputError(
                f"{where}: the label of row {row} is missing; give each picture a class, or take "
                "it out."
            )
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, bool):
            kinds.add(bool)
        elif isinstance(value, int):
            kinds.add(int)
        elif isinstance(value, float):
            kinds.add(float)
        elif isinstance(value, str):
            kinds.add(str)
        else:
            raise InputError(
                f"{where}: the label of row {row} is a {type(value).__name__}; {CAST}."
            )
        plain.append(value)
    if kinds == {int}:
        if max(abs(value) for value in plain) >= LARGEST:
            raise InputError(f"{where}: {_too_large(max(plain, key=abs))}.")
        return np.array(plain, dtype=np.int64)
    if float in kinds:
        return np.array([float(value) for value in plain]) if str not in kinds else _mixed(where)
    return _array([str(value) for value in plain])


def _mixed(where: str) -> np.ndarray:
    raise InputError(f"{where}: labels are floats and texts mixed; {CAST}.")


def _refuse_floats(array: np.ndarray, where: str) -> None:
    missing = np.flatnonzero(np.isnan(array))
    if len(missing):
        raise InputError(
            f"{where}: the label of row {missing[0]} is missing; give each picture a class, or "
            "take it out."
        )
    values = ", ".join(f"{value:g}" for value in array[:3])
    raise InputError(f"{where}: labels are floats ({values} ...); {CAST}.")


def _ids(array: np.ndarray, where: str) -> np.ndarray:
    if len(array) and int(array.max()) >= LARGEST:
        raise InputError(f"{where}: {_too_large(int(array.max()))}.")
    if len(array) and int(array.min()) < 0:
        raise InputError(
            f"{where}: label {int(array.min())} is below 0, which often marks pictures without a "
            "label; take them out, or number the classes from 0."
        )
    return array.astype(np.int64)


def _too_large(value: int) -> str:
    text = str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"
    return f"label {text} is no id of a class; number the classes from 0, or name them"


def _texts(array: np.ndarray, where: str, named: bool) -> np.ndarray:
    distinct = {str(value) for value in array.tolist()}
    empty = set() if named else {value for value in distinct if value.strip().lower() in MISSING}
    if empty:
        row = next(i for i, value in enumerate(array.tolist()) if str(value) in empty)
        raise InputError(
            f"{where}: the label of row {row} is missing; give each picture a class, or take it "
            "out."
        )
    if not named and distinct and all(re.fullmatch(r"-?\d+", text) for text in distinct):
        long = max(distinct, key=len)
        _ids(np.array([int(text) if len(long) < 19 else LARGEST for text in distinct]), where)
    elif not named and distinct and all(map(_is_float, distinct)):
        raise InputError(f"{where}: labels are floats ({', '.join(sorted(distinct)[:3])}); {CAST}.")
    if not named:
        _refuse_joined(distinct, where)
    spelling = one_spelling(sorted(distinct))
    return _array([spelling[str(value)] for value in array.tolist()])


def _refuse_joined(distinct: set[str], where: str) -> None:
    """`InputError` for "a|b" where "a" and "b" are labels too: several labels in one cell."""
    for text in sorted(distinct):
        for mark in "|;,":
            parts = {part.strip() for part in text.split(mark)}
            if len(parts) > 1 and parts <= distinct:
                raise InputError(
                    f"{where}: label {text!r} joins several of the others; give one class a "
                    "picture: for several labels make one task of each."
                )


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python reads over, and no table writes in a number


def _number_texts(
    columns: Mapping[str, np.ndarray],
    names: Sequence[str] | None,
    where: str,
    by_value: bool,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    distinct = {value for column in columns.values() for value in column.tolist()}
    spelling = one_spelling(sorted(distinct))
    present = set(spelling.values())
    _refuse_spaces(present, where)
    if names is not None:
        classes = tuple(str(name) for name in names)
        unknown = sorted(present - set(classes))
        if unknown:
            raise InputError(
                f"{where}: label {shown(unknown)} is none of the classes {shown(classes)}."
            )
    elif by_value and all(map(str.isdecimal, present)):
        classes = tuple(sorted(present, key=lambda text: (int(text), text)))
    else:
        classes = tuple(sorted(present))
    position = {name: number for number, name in enumerate(classes)}
    labels = {
        split: np.array([position[spelling[value]] for value in column.tolist()], dtype=np.int64)
        for split, column in columns.items()
    }
    return labels, classes


def _refuse_spaces(names: set[str], where: str) -> None:
    """`InputError` where two classes differ by the spaces around them alone; case alone is said."""
    called: dict[str, str] = {}
    cases: dict[str, str] = {}
    for name in sorted(names):
        other = called.setdefault(name.strip(), name)
        if other != name:
            raise InputError(
                f"{where}: the classes {other!r} and {name!r} differ by spaces alone; write them "
                "alike."
            )
        other = cases.setdefault(name.casefold(), name)
        if other != name:
            _log.info(
                "%s: %r and %r, which differ by case alone, are two classes", where, other, name
            )


def _number_ids(
    columns: Mapping[str, np.ndarray],
    names: Sequence[str] | None,
    total: int | None,
    where: str,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    if names is not None or total is not None:
        classes = tuple(str(name) for name in (names if names is not None else range(total or 0)))
        if not classes:
            raise InputError(f"{where}: there are no classes; give the name of each.")
        for split, column in columns.items():
            if len(column) and column.max() >= len(classes):
                raise InputError(
                    f"{where}, {split}: labels run from {column.min()} to {column.max()}, but "
                    f"there are {len(classes)} classes; expected 0 to {len(classes) - 1}."
                )
        return dict(columns), classes
    distinct = np.unique(np.concatenate(list(columns.values())))
    labels = {split: np.searchsorted(distinct, column) for split, column in columns.items()}
    return labels, tuple(str(value) for value in distinct)

"""``csv:FILE``: a table of paths and labels, and optionally of splits and groups; also Parquet.

csv:FILE?path=COLUMN&label=COLUMN&split=COLUMN&group=COLUMN&root=FOLDER

Paths are relative to the file's folder. A DataFrame is read alike; its paths are relative to
``root``, or to the working directory, and its pictures may stand in the cells themselves.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aptheory.arguments import Seed
from aptheory.checked import expanded
from aptheory.errors import InputError, reason_of
from aptheory.tasks.base import Task
from aptheory.tasks.classes import as_column, number_classes, shown
from aptheory.tasks.completing import ALIASES, complete
from aptheory.tasks.copies import same_bytes
from aptheory.tasks.readers.files import file_splits
from aptheory.tasks.readers.folder import encodings, file_task, pick
from aptheory.tasks.readers.memory import dataset_task, looks_like_picture
from aptheory.tasks.readers.parquet import read_parquet
from aptheory.tasks.readers.stores import FolderStore, found_spelling
from aptheory.tasks.readers.suffixes import SUFFIXES

LONGEST_LINE = 1 << 20
"""Of the names of columns, in letters."""

COLUMNS = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "image_path"),
        *("image", "img", "picture"),
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target", "y"),
    "split": ("split", "set", "subset", "partition"),
}


def csv_task(
    file: str | Path,
    *,
    path: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    root: str | Path | None = None,
    name: str | None = None,
    seed: Seed = 0,
) -> Task:
    """The task in a CSV (or TSV, or Parquet) file of paths and labels.

    Columns are found by their names where they are not given; a file without a head is read as
    path, label and, in the third column, split. Rows of one ``group`` are never torn apart. Raises
    `InputError` naming the file and the row for a file that is not there, or a label that is
    missing.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file} is not a file; expected a table of paths and labels.")
    table = _read(file)
    folder = file.parent / expanded(root) if root is not None else file.parent
    return frame_task(
        table,
        path=path,
        label=label,
        split=split,
        group=group,
        root=folder,
        name=name or file.stem,
        seed=seed,
        where=str(file),
    )


def frame_task(
    table: pd.DataFrame,
    *,
    path: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    root: str | Path | None = None,
    name: str = "table",
    seed: Seed = 0,
    where: str = "the table",
) -> Task:
    """The task in a table with a row a picture. Options as for `csv_task`; ``root`` is the folder
    that paths are relative to (default: the working directory)."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"{where} is a {type(table).__name__}; expected a DataFrame of pandas with a row a "
            "picture, or for a file csv:FILE as a task."
        )
    if not len(table):
        raise InputError(f"{where} has no rows; expected one a picture.")
    alike = table.columns[table.columns.duplicated()]
    if len(alike):
        raise InputError(f"{where} has several columns called {alike[0]!r}; call each otherwise.")
    path = _column(table, "path", path, where)
    label = _column(table, "label", label, where)
    split = _column(table, "split", split, where, optional=True)
    if group is not None and group not in table:
        raise InputError(f"{where} has no column {group!r}; it has {shown(list(table))}.")
    rows_of, left_out = _splits(table, split, where)
    cell = table[path].iloc[0]
    if isinstance(cell, Mapping) and "bytes" in cell:
        raise InputError(
            f"{where} holds pictures in its cells, as Hugging Face writes them; read it as "
            "hf:FOLDER, the folder that holds it."
        )
    if looks_like_picture(cell):
        return _pictures(table, rows_of, path, label, group, name, seed, left_out)
    folder = Path(root) if root is not None else Path()
    keys, notes = _keys(table[path].tolist(), folder, where)
    rows_of, twice = _without_twins(rows_of, keys, table[label].tolist(), where)
    left_out += twice
    labels, classes = number_classes(
        {key: table[label].iloc[rows].reset_index(drop=True) for key, rows in rows_of.items()},
        where,
    )
    store = FolderStore(folder)
    named = {key: [keys[row] for row in rows.tolist()] for key, rows in rows_of.items()}
    parts = complete(
        labels,
        seed=seed,
        where=where,
        name=name,
        copies=lambda key: same_bytes(store, named[key]),
        groups=lambda key: (
            None if group is None else table[group].iloc[rows_of[key]].astype(str).tolist()
        ),
        classes=classes,
    )
    made = file_splits(
        store,
        {key: pick(named[origin], rows) for key, origin, rows in parts.items()},
        {key: labels[origin][rows] for key, origin, rows in parts.items()},
    )
    task = file_task(
        made,
        name=name,
        classes=classes,
        group="user",
        encoding=encodings(made.values()),
        provenance=f"{path!r} and {label!r} of {where}; {parts.note}",
        left_out=left_out,
    )
    often = Counter(key for keys in named.values() for key in keys)
    shared = sum(number > 1 for number in often.values())
    if shared:
        notes = (*notes, f"{shared} picture(s) stand in more than one split.")
    used = {path, label, split, group}
    unread = [column for column in table if column not in used and str(column).strip()]
    if unread:
        notes = (*notes, f"Columns that are not read: {shown(unread)}.")
    object.__setattr__(task, "notes", (*task.notes, *notes))
    return task


def _read(file: Path) -> pd.DataFrame:
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return read_parquet(file)
        with file.open(encoding="utf-8-sig") as lines:
            first = lines.readline(LONGEST_LINE)
        if len(first) == LONGEST_LINE:
            raise InputError(f"{file} begins with a line of a megabyte, which no table has.")
        if first.lstrip().startswith(("{", "[")):
            raise InputError(f"{file} is JSON, and csv: reads a table; save it as CSV or Parquet.")
        separator = max(",;\t", key=first.count)
        cells = [cell.strip().strip('"') for cell in first.split(separator)]
        headless = any(cell.lower().endswith(SUFFIXES) for cell in cells)
        table = pd.read_csv(
            file,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            header=None if headless else 0,
            skipinitialspace=True,
        )
        if headless:
            place = next(i for i, cell in enumerate(cells) if cell.lower().endswith(SUFFIXES))
            called = ["label", "split", *map(str, range(3, 99))]
            called.insert(min(place, 1), "path")
            table.columns = called[: table.shape[1]]
        elif len(set(filter(None, cells))) < len(list(filter(None, cells))):
            table.columns = cells  # pandas would call the second of two NAME.1
        table.columns = [str(column).strip() for column in table.columns]
        return table
    except ImportError as error:
        raise InputError(
            f"{file} needs pyarrow; pip install 'aptheory[parquet]', or save it as CSV."
        ) from error
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds
        reason = reason_of(error)
        how = " as UTF-8" if isinstance(error, UnicodeError) else ""
        raise InputError(
            f"{file} cannot be read as a table ({reason}); save it again{how}."
        ) from error


def _column(
    table: pd.DataFrame, what: str, column: str | None, where: str, *, optional: bool = False
) -> Any:
    if column is not None:
        if column not in table:
            raise InputError(f"{where} has no column {column!r}; it has {shown(list(table))}.")
        return column
    candidates = [c for name in COLUMNS[what] for c in table if str(c).lower() == name]
    if not candidates and optional:
        return None
    if len(candidates) != 1:
        problem = (
            "several columns that may be the" if candidates else "no column that is plainly the"
        )
        among = shown(candidates or list(table))
        raise InputError(
            f"{where} has {problem} {what} ({among}); name it: csv:FILE?{what}=COLUMN, or "
            f"Task.from_frame(table, {what}=...)."
        )
    return candidates[0]


def _splits(
    table: pd.DataFrame, split: str | None, where: str
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    if split is None:
        return {"": np.arange(len(table))}, Counter()
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(table[split].tolist()):
        called = ALIASES.get(str(value).strip().lower())
        if called is None:
            raise InputError(
                f"{where}: row {row} has {str(value)!r} in column {split!r}; expected train, val "
                "or test."
            )
        rows.setdefault(called, []).append(row)
    return {key: np.array(values, dtype=np.int64) for key, values in rows.items()}, Counter()


def _keys(values: list[Any], folder: Path, where: str) -> tuple[list[str], tuple[str, ...]]:
    """The path of each row, as it is found below ``folder``; and what to say of them."""
    keys, outside = [], 0
    for row, value in enumerate(values):
        if not isinstance(value, str | os.PathLike) or not str(value).strip():
            raise InputError(
                f"{where}: row {row} has no path ({str(value)[:40]!r}); expected a picture's."
            )
        key = os.fspath(value).replace("\\", "/")
        key = os.fspath(value) if os.path.exists(folder / os.fspath(value)) else key
        keys.append(found_spelling(folder, _plain(key), f"{where}: row {row}"))
        outside += os.path.isabs(key) or ".." in key.split("/")
    if outside:
        return keys, (f"{outside} pictures lie outside {folder}, by absolute or '..' paths.",)
    return keys, ()


def _plain(key: str) -> str:
    """A path without the "." and the doubled slashes by which one file has several names."""
    parts = [part for part in key.split("/") if part not in ("", ".")]
    return "/" * key.startswith("/") + "/".join(parts)


def _without_twins(
    rows_of: dict[str, np.ndarray], keys: Sequence[str], labels: Sequence[Any], where: str
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Rows that repeat a path of their split are taken out; a path of two labels is refused."""
    out = Counter[str]()
    label_of: dict[str, Any] = {}
    kept: dict[str, np.ndarray] = {}
    for split, rows in rows_of.items():
        seen: dict[str, int] = {}
        for row in rows.tolist():
            if str(label_of.setdefault(keys[row], labels[row])) != str(labels[row]):
                raise InputError(
                    f"{where}: {keys[row]!r} has two labels, {label_of[keys[row]]!r} and "
                    f"{labels[row]!r}; give each picture one class."
                )
            seen.setdefault(keys[row], row)
        kept[split] = np.array(list(seen.values()), dtype=np.int64)
        if len(seen) < len(rows):
            out["row that repeats a picture"] += len(rows) - len(seen)
    return kept, out


def _pictures(
    table: pd.DataFrame,
    rows_of: dict[str, np.ndarray],
    path: str,
    label: str,
    group: str | None,
    name: str,
    seed: int,
    left_out: Counter[str],
) -> Task:
    """The task of a table whose cells hold the pictures."""
    labels = as_column(table[label], "the table")
    cells = [table[path].tolist(), labels.tolist(), table[group or label].tolist()]
    samples = list(zip(*cells, strict=True))
    data = {key or "all": [samples[row] for row in rows] for key, rows in rows_of.items()}
    return dataset_task(
        data if "" not in rows_of else data["all"],
        name=name,
        image=0,
        label=1,
        seed=seed,
        together=2 if group is not None else None,
    )

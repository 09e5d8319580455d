"""Outcome files as tables: one tidy DataFrame, and its export."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.arguments import holds_labels
from aptheory.checked import json_table, plain_cell, read_text, require_file, safe_cell
from aptheory.errors import InputError, reason_of
from aptheory.studies.files import write_atomically
from aptheory.studies.records import Record
from aptheory.studies.store import Store

if TYPE_CHECKING:
    import pandas as pd

KEYS = (
    *("network", "task", "group", "method", "role", "settings"),
    *("layer", "layer_name", "depth"),
    *("recipe", "seed"),
)
_MOST_COLUMNS = 1000
_LONGEST_HEAD = 2**20
"""Bytes of a table's first line."""
ACCURACIES = ("train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "converged")


def read_plan(folder: str | Path) -> dict[str, Any]:
    """The plan that the last sweep left in a folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = Path(folder) / "plan.json"
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise InputError(f"{folder} is no folder; give the one that a sweep wrote to.")
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no study: there is no plan.json; give the folder that a sweep wrote "
            "to."
        ) from None
    try:
        plan = json_table(text, name=str(path))
    except InputError as error:
        raise InputError(f"{path} cannot be read ({error}); run the sweep again.") from None
    if not _is_plan(plan):
        raise InputError(f"{path} is not a plan; run the sweep again.")
    return plan


def _is_plan(plan: Mapping[str, Any]) -> bool:
    batches = plan.get("batches")
    return (
        isinstance(plan.get("name"), str)
        and isinstance(plan.get("not_applicable"), list)
        and isinstance(plan.get("unused", []), list)
        and isinstance(plan.get("workers", 1), int)
        and isinstance(batches, dict)
        and all(
            isinstance(batch, dict)
            and isinstance(batch.get("runs"), list)
            and len(batch["runs"]) > 0
            and all(isinstance(key, str) for key in batch["runs"])
            and isinstance(batch.get("seconds"), int | float)
            and isinstance(batch.get("labels"), dict)
            and all(isinstance(label, str) for label in batch["labels"].values())
            for batch in batches.values()
        )
    )


def records(folder: str | Path, *, every: bool = False) -> list[tuple[dict[str, Any], Record]]:
    """(what it is, outcome) of the finished runs of the folder's study, sorted by what they are.

    ``every`` also takes runs that the last plan does not have. A file that must not be believed
    is left out, with a warning that names it.
    """
    found, damaged = Store(folder).read_all()
    batches = read_plan(folder)["batches"].values()
    labels = {key: batch["labels"] for batch in batches for key in batch["runs"]}
    done = []
    for record in found:
        if record.status == "done" and (every or record.key in labels):
            try:
                done.append((_about(record, labels.get(record.key)), record))
            except (KeyError, TypeError, AttributeError):
                damaged.append(f"{record.key}.json does not say which run it is")
    for sentence in damaged:
        warnings.warn(f"left out of the table: {sentence}", stacklevel=2)
    return sorted(done, key=lambda item: (*_order(item[0]), item[1].key))


def _about(record: Record, labels: dict[str, str] | None) -> dict[str, Any]:
    """The columns that say what a run is; the folder's plan says what to call it."""
    from aptheory.methods import role_of

    identity = record.identity
    labels = record.outcome.get("labels", {}) if labels is None else labels
    layer = identity["layer"]
    return {
        "network": identity["network"]["name"],
        "task": identity["task"]["name"],
        "group": identity["task"]["group"],
        "method": labels.get("method", identity["method"]["method"]),
        "role": labels.get("role") or role_of(identity["method"]["method"]),
        "settings": labels.get("settings", ""),
        "layer": layer["index"],
        "layer_name": layer["name"],
        "depth": layer["depth"],
        "recipe": labels.get("recipe", ""),
        "seed": identity["seed"],
    }


def _order(about: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(about[key] for key in KEYS)


def table(
    folder: str | Path, *, measures: Sequence[str] = ACCURACIES, every: bool = False
) -> pd.DataFrame:
    """The tidy table of a study: one row a run and measure, sorted.

    Columns: network, task, group, method, role (prompt, control, probe or baseline), settings
    (those that are not the method's usual ones), layer (index of the place), layer_name, depth (0
    the image, 1 the classifier's input), recipe, seed, measure, value. Accuracies are fractions in
    [0, 1], the validation loss is in nats, ``converged`` is 1 or 0 and has no row where a run was
    too short to tell.

    Args:
        folder: a sweep's results folder; it may still be running.
        measures: any number in the outcomes: also ``"parameters"``, ``"prompt_norm"``, ``"lr"``,
            and the costs ``"seconds"`` and ``"peak_memory"`` (bytes), which differ every time.
        every: take outcomes that the folder's last plan does not have, too.
    """
    import pandas as pd

    rows = []
    for about, record in records(folder, every=every):
        values = {**record.made_by, **record.outcome}
        for measure in measures:
            value = values.get(measure)
            if isinstance(value, int | float):
                rows.append({**about, "measure": measure, "value": float(value)})
    return pd.DataFrame(rows, columns=[*KEYS, "measure", "value"])


def check_once(frame: pd.DataFrame, name: str) -> None:
    """Refuse a table in which a run or a value stands twice: it would count as more evidence.

    Raises:
        InputError: two rows of the table called ``name`` differ in their value at most.
    """
    known = [key for key in frame if key not in _MEASURED and holds_labels(frame[key])]
    twice = frame.duplicated(known)
    if bool(twice.any()):
        row = frame[twice].iloc[0]
        told = ", ".join(f"{key} {row[key]}" for key in (*KEYS, "measure") if key in known)
        raise InputError(
            f"{name} holds {int(twice.sum())} rows twice, {told} first; each counts once: take out "
            "the copies, and tell apart what are different runs."
        )


_MEASURED = ("value", "low", "high", "correct")


def with_roles(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of methods with its column ``role``: tables of earlier versions lack it."""
    from aptheory.methods import role_of

    if "role" in frame or "method" not in frame:
        return frame
    frame = frame.copy()
    frame.insert(list(frame).index("method") + 1, "role", frame["method"].map(role_of))
    return frame


def with_pictures(
    frame: pd.DataFrame, known: Sequence[tuple[dict[str, Any], Record]]
) -> pd.DataFrame:
    """A folder's table with a column ``correct``: which test pictures each run knew.

    ``known`` are the folder's `records`. The entries are bool arrays in the rows of the test
    accuracy, and None in all others and where a run's outcome is no longer there.
    """
    import pandas as pd

    from aptheory.training.outcome import unpacked

    keys = ["network", "task", "method", "layer", "recipe", "seed"]
    if not known or not set(keys) <= set(frame):
        return frame
    correct = {
        tuple(about[key] for key in keys): unpacked(record.outcome["correct"])
        for about, record in known
        if isinstance(record.outcome.get("correct"), str)
    }
    of_test = frame["measure"] == "test_accuracy"
    rows = frame[keys].fillna({"recipe": ""}).itertuples(index=False, name=None)
    column = [correct.get(row) if test else None for row, test in zip(rows, of_test, strict=True)]
    return frame.assign(correct=pd.Series(column, index=frame.index, dtype=object))


def runs(folder: str | Path, *, every: bool = False) -> pd.DataFrame:
    """One row a run with every plain value that its outcome holds: for a closer look."""
    import pandas as pd

    rows = []
    for about, record in records(folder, every=every):
        values = {**record.made_by, **record.outcome}
        plain = {k: v for k, v in values.items() if isinstance(v, str | int | float | bool)}
        rows.append({**about, **plain, "run": record.key})
    return pd.DataFrame(rows)


def save_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV or Parquet, by the path's suffix, whole or not at all.

    Raises:
        InputError: another suffix, Parquet without pyarrow, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix == ".csv":
        write_atomically(path, csv_text(frame))
    elif path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise InputError(
                "Parquet needs pyarrow; install it with: pip install 'aptheory[parquet]'"
            ) from None
        write_atomically(path, frame.to_parquet(index=False))
    else:
        raise InputError(f"cannot write a table to {path.name}; expected .csv or .parquet")


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV whose text cells no spreadsheet reads as formulas; `read_csv` undoes it."""
    return _texts(frame, safe_cell).to_csv(index=False, lineterminator="\n")


def read_csv(path: str | Path) -> pd.DataFrame:
    """A table that `csv_text` wrote, with its texts as they were.

    Raises:
        InputError: the file cannot be read as a table.
    """
    import pandas as pd

    require_file(path)
    try:
        _check_head(Path(path))
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError:  # too few layers to relate leave a table without rows
        return pd.DataFrame()
    except (pd.errors.ParserError, ValueError, OverflowError, MemoryError) as error:
        reason = reason_of(error)
        raise InputError(f"{path} is not a readable table ({reason}): write it again.") from error
    return _texts(frame, plain_cell)


def _check_head(path: Path) -> None:
    """Look at the first line alone, before a million columns are made of it.

    Raises:
        ValueError: it is too long, or has too many columns.
    """
    with path.open("rb") as file:
        head = file.readline(_LONGEST_HEAD)
    if len(head) == _LONGEST_HEAD or head.count(b",") >= _MOST_COLUMNS:
        raise ValueError(f"its first line names no columns, or more than {_MOST_COLUMNS}")


def _texts(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """The table with ``change`` made to every text in it."""
    from pandas.api.types import is_object_dtype, is_string_dtype

    frame = frame.copy()
    for column in frame:
        if is_object_dtype(frame[column]) or is_string_dtype(frame[column]):
            frame[column] = frame[column].map(change)
    return frame


def export(folder: str | Path, path: str | Path, **options: Any) -> pd.DataFrame:
    """Write the folder's `table` to a CSV or Parquet file, and return it."""
    frame = table(folder, **options)
    save_table(frame, path)
    return frame

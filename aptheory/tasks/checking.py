"""Is a data set on this machine what it should be? Counts, classes, pictures, checksums."""

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aptheory.arguments import checked_arguments
from aptheory.checked import json_table, json_text, read_text, safe_stem
from aptheory.errors import InputError, shown_plainly
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.cache import cache_folder, data_folder, write_whole
from aptheory.tasks.describing import preparation
from aptheory.tasks.present import locate
from aptheory.tasks.readers.files import FileSplit
from aptheory.tasks.registry import REGISTRY
from aptheory.tasks.split import Split, digest_of
from aptheory.tasks.survey import Survey, survey
from aptheory.tasks.views import CentreCropped, Joined, Resized, Selection

SHOWN = 20  # names in a list


@dataclass(frozen=True, eq=False)
class Checked:
    """What a check found. ``table`` has a row a question (what, expected, found, ok), ``survey``
    what a look at every picture saw."""

    task: Task
    layout: str
    place: str
    table: pd.DataFrame
    digest: str
    digest_file: Path
    survey: Survey

    @property
    def ok(self) -> bool:
        """Whether every row is as expected."""
        return bool(self.table["ok"].all())

    def __str__(self) -> str:
        return "\n".join(_lines(self))


@checked_arguments
def check(source: Any, root: str | Path | None = None, *, progress: bool = True) -> Checked:
    """Verify a registry entry, or any other task name, place or data, and write its digest file.

    Every picture is decoded, every checksum that the layout has is computed (records, zip
    members), the digest is made from the bytes anew and compared with that of the last check. The
    digest file is ``NAME.digest.json`` in the data folder (in the cache folder if that cannot be
    written to). Its digest is the one that runs record as the task's. Raises
    `InputError` for a name that is not known or a data set that is not there.
    """
    from aptheory.tasks.catalogue import task as open_task

    folder = data_folder(root)
    task = open_task(source, root=root)
    name = str(source) if isinstance(source, str | Path) else task.name
    entry = REGISTRY.get(name)
    location = locate(entry, folder) if entry else None
    rows: list[dict[str, Any]] = []

    def note(what: str, expected: object, value: object, ok: bool | None = None) -> None:
        right = expected == value if ok is None else ok
        rows.append({"what": what, "expected": str(expected), "found": str(value), "ok": right})

    if entry:
        for split, count in zip(SPLITS, entry.used, strict=True):
            note(f"{split} images", count, len(getattr(task, split)))
        note("classes", entry.classes, len(task.classes))
    else:
        note("classes", "2 or more", len(task.classes), len(task.classes) > 1)
    for split in SPLITS:
        seen = len(np.unique(getattr(task, split).labels))
        # VTAB's small splits lack classes by design; only the test set must have them all.
        strict = split == "test" or not (entry and entry.suite == "VTAB-1K")
        all_seen = seen == len(task.classes) or not strict
        note(f"{split} classes seen", len(task.classes), seen, all_seen)
    looked = survey(task, progress=progress)
    for split in SPLITS:
        bad = looked.damaged(split)
        note(f"{split} pictures readable", "all", "; ".join(_few(bad)) or "all", not bad)
    broken = damaged_records(task)
    if broken is not None:
        note("record checksums", "all right", broken or "all right", not broken)
    readable = all(row["ok"] for row in rows)
    digest = task.digest if readable else ""
    file = _digest_file(folder, name)
    before = _last(file)
    if digest and before:
        note("digest since the last check", before, digest)
    layout = location.layout if location else ""
    if digest:
        file = _write(file, name, task, digest, layout)
    place = str(location.path) if location else name
    return Checked(task, layout, place, pd.DataFrame(rows), digest, file, looked)


def _few(names: Sequence[str]) -> list[str]:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [*names[:SHOWN], *more]


def _lines(checked: Checked) -> list[str]:
    """The page of a check, for a terminal of 100 columns."""
    task, looked = checked.task, checked.survey
    counts = looked.counts()
    lines = [f"{task.name}: {len(task.classes)} classes, group {task.group}", ""]
    names = [shown_plainly(name) for name in task.classes]
    width = min(40, max(5, *map(len, names)))
    lines.append(f"{'class':<{width}}" + "".join(f"{split:>9}" for split in SPLITS))
    for label, name in enumerate(names):
        numbers = "".join(f"{counts[split][label]:>9}" for split in SPLITS)
        lines.append(f"{name[:width]:<{width}}{numbers}")
    total = "".join(f"{sum(counts[split]):>9}" for split in SPLITS)
    lines += [f"{'all':<{width}}{total}", ""]
    for kind, counter in looked.kinds().items():
        if counter:
            lines.append(f"{kind}: {_counted(counter)}")
    for sentence in filter(None, (task.provenance, *task.notes)):
        lines += textwrap.wrap(sentence, 98, break_long_words=False)
    lines += [f"left out: {number} × {kind}" for kind, number in task.left_out.items()]
    for title, pairs in (
        ("in two splits, byte for byte", looked.copies_across()),
        ("in two splits, nearly the same", looked.near_across()),
    ):
        lines += _listed(title, [f"{a}: {x} = {b}: {y}" for a, x, b, y in pairs])
    inside = [pair for pair in looked.copies() if pair[0] == pair[2]]
    lines += _listed("twice in one split", [f"{a}: {x} = {y}" for a, x, _, y in inside])
    lines += _listed("one picture, two classes", looked.two_labels())
    lines += _listed("of one colour throughout", looked.flat())
    damage = [sentence for split in SPLITS for sentence in looked.damaged(split)]
    lines += _listed("damaged", damage)
    lines.append("")
    for row in checked.table.to_dict("records"):
        if row["ok"]:
            lines.append(f"ok       {row['what']}: {row['found'][:60]}")
        elif not row["what"].endswith("readable"):  # those are listed above by name
            lines.append(f"NOT OK   {row['what']}: {row['found']}, expected {row['expected']}")
        else:
            lines.append(f"NOT OK   {row['what']}: see above")
    if checked.digest:
        lines += [f"digest {checked.digest}", f"in {checked.digest_file}"]
    return lines


def _counted(counter: Counter[str]) -> str:
    shown = [f"{number} × {kind}" for kind, number in counter.most_common(6)]
    more = len(counter) - len(shown)
    return ", ".join(shown) + (f" and {more} more kinds" if more > 0 else "")


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    return [f"{title}: {len(items)}", *(f"  {shown_plainly(item)}" for item in _few(items))]


def file_splits(split: Split) -> list[FileSplit]:
    """The splits that read files, below selections, crops and joins."""
    if isinstance(split, FileSplit):
        return [split]
    if isinstance(split, Selection | CentreCropped | Resized):
        return file_splits(split.split)
    if isinstance(split, Joined):
        return [inner for part in split.splits for inner in file_splits(part)]
    return []


def damaged_records(task: Task) -> str | None:
    """The first TFRecord of a task whose stored checksum does not fit its bytes; "" if all fit,
    None if the task is not read from such records."""
    from aptheory.tasks.readers.records import verify_records
    from aptheory.tasks.readers.tfds import RecordStore

    verified: str | None = None
    for split in SPLITS:
        for files in file_splits(getattr(task, split)):
            store = files.store
            if not isinstance(store, RecordStore):
                continue
            wanted: dict[str, list[int]] = {}
            for key in files.keys:
                shard, _, number = key.rpartition("#")
                wanted.setdefault(shard, []).append(int(number))
            for shard, numbers in wanted.items():
                if ".tfrecord-" not in shard:
                    continue  # array_record verifies its own
                spans = store.spans(shard)
                try:
                    verify_records(store.root / shard, [spans[number] for number in numbers])
                except InputError as error:
                    return str(error)
                verified = ""
    return verified


def _digest_file(folder: Path, name: str) -> Path:
    """A place of the user's is told apart from one of the same name in another folder."""
    scheme, _, path = name.partition(":")
    if os.path.lexists(path):
        return folder / f"{safe_stem(scheme, os.path.realpath(path))}.digest.json"
    return folder / f"{safe_stem(name)}.digest.json"


def _last(file: Path) -> str:
    for place in (file, cache_folder() / "checks" / file.name):
        try:
            return str(json_table(read_text(place), name=str(place))["digest"])
        except (OSError, InputError, KeyError):
            continue
    return ""


def _write(file: Path, name: str, task: Task, digest: str, layout: str) -> Path:
    record = {
        "name": name,
        "digest": digest,
        "splits": {
            split: {"images": len(getattr(task, split)), "digest": digest_of(getattr(task, split))}
            for split in SPLITS
        },
        "classes": len(task.classes),
        "layout": layout,
        "preprocessing": preparation(task),
        "provenance": task.provenance,
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json_text(record, indent=1) + "\n"
    for place in (file, cache_folder() / "checks" / file.name):
        try:
            write_whole(place, text)
        except OSError:
            continue
        return place
    raise InputError(f"neither {file} nor {cache_folder()} can be written to; free one of them.")

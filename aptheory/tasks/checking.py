"""Is a data set on this machine what it should be? Counts, classes, pictures, checksums."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aptheory.errors import InputError
from aptheory.tasks.base import (
    SPLITS,
    CentreCropped,
    Joined,
    Resized,
    Selection,
    Split,
    Task,
    digest_of,
)
from aptheory.tasks.cache import cache_folder, data_folder
from aptheory.tasks.present import locate
from aptheory.tasks.readers.files import FileSplit
from aptheory.tasks.registry import REGISTRY

BATCH = 64
SHOWN = 5  # damaged pictures that are named


@dataclass(frozen=True)
class Checked:
    """What a check found. ``table`` has a row a question: what, expected, found, ok."""

    task: Task
    layout: str
    place: str
    table: pd.DataFrame
    digest: str
    digest_file: Path

    @property
    def ok(self) -> bool:
        """Whether every row is as expected."""
        return bool(self.table["ok"].all())


def check(name: str, root: str | Path | None = None, *, progress: bool = True) -> Checked:
    """Verify a registry entry, or any other task name or URI, and write its digest file.

    Every picture is decoded, every checksum that the layout has is computed (records, zip
    members), the digest is made from the bytes anew and compared with that of the last check. The
    digest file is ``NAME.digest.json`` in the data folder (in the cache folder if that cannot be
    written to). Its digest is the one that runs record as the task's. Raises
    `InputError` for a name that is not known or a data set that is not there.
    """
    from aptheory.tasks.catalogue import task as open_task

    folder = data_folder(root)
    task = open_task(name, root=root)
    entry = REGISTRY.get(name)
    found = locate(entry, folder) if entry else None
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
        labels = getattr(task, split).labels
        seen = len(np.unique(labels))
        # VTAB's small splits lack classes by design; only the test set must have them all.
        strict = split == "test" or not (entry and entry.suite == "VTAB-1K")
        note(
            f"{split} classes seen",
            len(task.classes),
            seen,
            seen == len(task.classes) or not strict,
        )
    for split in SPLITS:
        bad = damaged(getattr(task, split), f"{name} {split}", progress=progress)
        shown = "; ".join(bad[:SHOWN]) + (f"; and {len(bad) - SHOWN} more" if bad[SHOWN:] else "")
        note(f"{split} pictures readable", "all", shown or "all", not bad)
    broken = damaged_records(task)
    if broken is not None:
        note("record checksums", "all right", broken or "all right", not broken)
    readable = all(row["ok"] for row in rows)
    digest = task.digest if readable else ""
    file = _digest_file(folder, name)
    before = _last(file)
    if digest and before:
        note("digest since the last check", before, digest)
    if digest:
        file = _write(file, name, task, digest, found.layout if found else "")
    place = str(found.path) if found else name
    table = pd.DataFrame(rows)
    return Checked(task, found.layout if found else "", place, table, digest, file)


def damaged(split: Split, title: str, *, progress: bool = True) -> list[str]:
    """The message of each picture that cannot be decoded; one pass over the split."""
    from tqdm import tqdm

    bad: list[str] = []
    for start in tqdm(range(0, len(split), BATCH), desc=title, disable=not progress, leave=False):
        batch = range(start, min(start + BATCH, len(split)))
        try:
            split.images(batch, (8, 8))
        except InputError:  # find out which
            bad += [message for index in batch if (message := _message(split, index))]
    return bad


def _message(split: Split, index: int) -> str:
    try:
        split.images([index], (8, 8))
    except InputError as error:
        return str(error)
    return ""


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
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return folder / f"{plain}.digest.json"


def _last(file: Path) -> str:
    for place in (file, cache_folder() / "checks" / file.name):
        try:
            return str(json.loads(place.read_text(encoding="utf-8"))["digest"])
        except (OSError, ValueError, KeyError, TypeError):
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
        "preprocessing": task.preprocessing,
        "provenance": task.provenance,
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, indent=1) + "\n"
    for place in (file, cache_folder() / "checks" / file.name):
        unfinished = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(place)
        except OSError:
            continue
        return place
    raise InputError(f"neither {file} nor {cache_folder()} can be written to; free one of them")

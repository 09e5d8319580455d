"""``vtab:PATH``: one task of the VTAB-1K folder layout, as most PyTorch users have it on disk.

PATH/images/{train,val,test}/*.{jpg,png}
PATH/{train800,val200,train800val200,test}.txt     lines: path label
"""

from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import Task, as_labels
from aptheory.tasks.readers.files import FileSplit, FolderStore
from aptheory.tasks.readers.folder import encodings

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
BOTH = "train800val200.txt"


def vtab_folder_task(
    path: str | Path,
    *,
    name: str | None = None,
    classes: int | None = None,
    group: str = "user",
    seed: int = 0,
) -> Task:
    """The task in a VTAB-1K folder: 800 train, 200 val, the whole test list.

    ``classes`` is their number where it is known; otherwise the largest label plus one. A class
    may lack images in a list, as in VTAB itself. ``seed`` is not used: the lists decide. Raises
    `InputError` naming the list and line for a missing list or file, or a line that is not
    "path label"; and if train800val200.txt is not the union of the two.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected one with {', '.join(LISTS.values())}")
    lists = {split: read_list(path / file) for split, file in LISTS.items()}
    if (path / BOTH).exists():
        union = sorted(lists["train"] + lists["val"])
        if sorted(read_list(path / BOTH)) != union:
            raise InputError(
                f"{path / BOTH} is not the union of train800.txt and val200.txt; fetch them again"
            )
    highest = max(label for entries in lists.values() for _, label in entries)
    total = classes or highest + 1
    store = FolderStore(path)
    made = {}
    for split, entries in lists.items():
        labels = as_labels(np.array([label for _, label in entries]), total, str(path / split))
        made[split] = FileSplit(
            store,
            [_found(path, key, LISTS[split]) for key, _ in entries],
            labels,
            resize="squash",
        )
    named = {split: [("", key) for key in made[split].keys] for split in made}
    return Task(
        name=name or path.name,
        classes=tuple(str(number) for number in range(total)),
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing=f"{encodings(named)} of the VTAB-1K folder layout; {SQUASHED}",
        provenance="VTAB-1K lists train800, val200, test",
    )


def read_list(path: Path) -> list[tuple[str, int]]:
    """``[(image path, label), ...]`` of a list file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdigit():
            raise InputError(f"{path}, line {number}: {line!r} is not 'path label'")
        entries.append((name.strip(), int(label)))
    if not entries:
        raise InputError(f"{path} is empty; expected lines 'path label'")
    return entries


def _found(root: Path, key: str, file: str) -> str:
    """The path as listed, which is relative to the task's folder, or to its images folder."""
    for candidate in (key, f"images/{key}"):
        if (root / candidate).is_file():
            return candidate
    raise InputError(f"{root / file} lists {key}, which is not there; complete the folder")

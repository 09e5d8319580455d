"""``vtab:PATH``: one task of the VTAB-1K folder layout, as most PyTorch users have it on disk.

PATH/images/{train,val,test}/*.{jpg,png}
PATH/{train800,val200,train800val200,test}.txt     lines: path label
"""

from pathlib import Path

import numpy as np

from aptheory.checked import require_file
from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import Task
from aptheory.tasks.classes import number_classes
from aptheory.tasks.readers.files import file_splits
from aptheory.tasks.readers.folder import encodings
from aptheory.tasks.readers.stores import FolderStore, listed_path
from aptheory.tasks.registry import VTAB_NAMES

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
    known = name or path.name
    listed, names = number_classes(
        {split: [label for _, label in entries] for split, entries in lists.items()},
        str(path),
        total=classes,
        # Of the 19 sets, those with many classes have some of which the 800 hold no picture.
        train_may_lack=known in VTAB_NAMES,
    )
    store = FolderStore(path)
    keys = {
        split: [_listed(path, key, LISTS[split]) for key, _ in entries]
        for split, entries in lists.items()
    }
    made = file_splits(store, keys, listed, resize="squash")
    return Task(
        name=name or path.name,
        classes=names,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing=f"{encodings(made.values())} of the VTAB-1K folder layout; {SQUASHED}",
        provenance="VTAB-1K lists train800, val200, test",
        notes=(*made["train"].notes, *_lacking(listed, names)),
    )


def read_list(path: Path) -> list[tuple[str, int]]:
    """``[(image path, label), ...]`` of a list file."""
    require_file(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch it again") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal() or len(label) > 20:
            raise InputError(f"{path}, line {number}: {line!r} is not 'path label'.")
        entries.append((name.strip(), int(label)))
    if not entries:
        raise InputError(f"{path} is empty; expected lines 'path label'")
    return entries


def _listed(root: Path, key: str, file: str) -> str:
    """The path as listed, which is relative to the task's folder, or to its images folder."""
    try:
        return listed_path(root, key, str(root / file))
    except InputError:
        if not (root / "images" / key).is_file():
            raise
    return listed_path(root, key, str(root / file), below="images/")


def _lacking(labels: dict[str, np.ndarray], classes: tuple[str, ...]) -> tuple[str, ...]:
    """A note of the classes of which train has no picture, though the test set has."""
    lacking = np.setdiff1d(labels["test"], labels["train"])
    if not len(lacking):
        return ()
    return (
        f"Train has no picture of {len(lacking)} of the {len(classes)} classes, as in VTAB-1K.",
    )

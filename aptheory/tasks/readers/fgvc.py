"""``fgvc:PATH``: the fine-grained sets' JSON splits, each a dict from image path to class id.

PATH/{train,val,test}.json      val may be absent: then a tenth of train is held out
PATH/[images/]...               the pictures
"""

import contextlib
import json
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np

from aptheory.checked import require_file
from aptheory.errors import InputError
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.classes import LARGEST, number_classes
from aptheory.tasks.copies import kinds, same_bytes
from aptheory.tasks.published_splits import PUBLISHED, checksum, hold_out
from aptheory.tasks.readers.files import file_splits
from aptheory.tasks.readers.stores import FolderStore, listed_path
from aptheory.tasks.splits import keep_together
from aptheory.tasks.views import CentreCropped

PICTURE_FOLDERS = ("", "images", "Images", "jpg")
PREPROCESSING = (
    "resized to 256/224 of the input side without keeping the aspect ratio (bilinear, "
    "antialiased), centre crop; the same for training, whose features are kept"
)


def fgvc_task(
    path: str | Path,
    *,
    name: str | None = None,
    group: str = "fine-grained",
    seed: int = 0,
    together: Callable[[str], Hashable] | None = None,
) -> Task:
    """The task in a folder with FGVC's JSON splits.

    Class ids are sorted and mapped to 0, 1, ... over all splits together, so that a split that
    lacks a class does not shift the labels of another. Without val.json a tenth of train is held
    out: the split that we publish where the name and the count are known, else one drawn by
    ``seed``; ``provenance`` says which. Pictures for whose paths ``together`` gives the same value
    stay on one side of what is drawn. Raises `InputError` naming the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected one with train.json and test.json.")
    name = name or path.name
    files = {split: path / f"{split}.json" for split in SPLITS}
    lists = {split: _read(file) for split, file in files.items() if file.exists()}
    for split in ("train", "test"):
        if split not in lists:
            raise InputError(f"{files[split]} is not there; expected train.json and test.json.")
    folder = path / _picture_folder(path, next(iter(lists["train"])))
    labels, classes = number_classes(
        {split: list(entries.values()) for split, entries in lists.items()},
        str(path),
        by_value=True,
    )
    store = FolderStore(folder)
    keys = {
        split: [listed_path(folder, key, str(files[split])) for key in entries]
        for split, entries in lists.items()
    }
    provenance = "JSON splits as given"
    if "val" in lists and together is not None:
        raise InputError(f"{path} has its three splits, and nothing is cut; leave the group out.")
    if together is not None:
        *cut, how = hold_out(
            labels["train"],
            name="",  # the published split knows no groups
            seed=seed,
            where=str(path),
            share=0.1,
            copies=same_bytes(store, keys["train"]),
            groups=kinds([together(key) for key in keys["train"]]),
            classes=classes,
        )
        rows, provenance = dict(zip(("train", "val"), cut, strict=True)), f"no val.json: {how}"
    elif "val" not in lists:
        rows, provenance = _hold_out(store, keys["train"], name, seed)
    if "val" not in lists:
        train = keys["train"]
        keys |= {split: [train[row] for row in chosen] for split, chosen in rows.items()}
        labels |= {split: labels["train"][chosen] for split, chosen in rows.items()}
    parts = file_splits(store, keys, labels)
    return Task(
        name=name,
        classes=classes,
        train=CentreCropped(parts["train"]),
        val=CentreCropped(parts["val"]),
        test=CentreCropped(parts["test"]),
        group=group,
        preprocessing=PREPROCESSING,
        provenance=provenance,
        notes=parts["train"].notes,
    )


def _read(path: Path) -> dict[str, str]:
    require_file(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); fetch it again.") from error
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path} is not a dict from image path to class id; fetch it again.")
    bad = [key for key, value in entries.items() if type(value) not in (int, str)]
    if bad:
        raise InputError(
            f"{path}: the class of {bad[0]!r} is {entries[bad[0]]!r}; expected a whole number or "
            "a text."
        )
    if any(abs(value) >= LARGEST for value in entries.values() if type(value) is int):
        raise InputError(f"{path} has class ids of {LARGEST} and more; number them from 0.")
    return {key: str(value) for key, value in entries.items()}


def _hold_out(
    store: FolderStore, keys: list[str], name: str, seed: int
) -> tuple[dict[str, np.ndarray], str]:
    """Rows of train and val in the list of train, which keeps the sorted order of its paths."""
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    known = PUBLISHED.get(name)
    if known is not None and known.total == len(keys):
        kept, held = known.indices()
        note = f"no val.json: the published split of {name} (sha256 {known.checksum[:12]})"
    else:
        drawn = np.random.default_rng(seed).permutation(len(keys))[: max(1, len(keys) // 10)]
        held = np.sort(drawn)
        kept = np.setdiff1d(np.arange(len(keys)), held)
        copies = same_bytes(store, [keys[row] for row in order])
        kept, held = keep_together([kept, held], copies)
        note = f"no val.json: a tenth of train held out, seed {seed} (sha256 {checksum(held)[:12]})"
    return {"train": order[kept], "val": order[held]}, note


def _picture_folder(root: Path, key: str) -> str:
    for folder in PICTURE_FOLDERS:
        with contextlib.suppress(InputError):
            listed_path(root / folder, key, "")
            return folder
    raise InputError(
        f"{root / 'train.json'} lists {key}, which is neither in {root} nor in "
        f"{', '.join(PICTURE_FOLDERS[1:])} below it; put the pictures there."
    )

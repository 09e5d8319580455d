"""``fgvc:PATH``: the fine-grained sets' JSON splits, each a dict from image path to class id.

PATH/{train,val,test}.json      val may be absent: then a tenth of train is held out
PATH/[images/]...               the pictures
"""

import json
from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.base import SPLITS, CentreCropped, Task
from aptheory.tasks.published_splits import PUBLISHED
from aptheory.tasks.readers.files import FileSplit, FolderStore

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
) -> Task:
    """The task in a folder with FGVC's JSON splits.

    Class ids are sorted and mapped to 0, 1, ... over all splits together, so that a split that
    lacks a class does not shift the labels of another. Without val.json a tenth of train is held
    out: the split that we publish where the name and the count are known, else one drawn by
    ``seed``; ``provenance`` says which. Raises `InputError` naming the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected one with train.json and test.json")
    name = name or path.name
    given = {split: path / f"{split}.json" for split in SPLITS}
    splits = {split: _read(file) for split, file in given.items() if file.exists()}
    for split in ("train", "test"):
        if split not in splits:
            raise InputError(f"{given[split]} is not there; expected train.json and test.json")
    provenance = "JSON splits as given"
    if "val" not in splits:
        splits, provenance = _hold_out(splits, name, seed)
    classes = _in_order({label for entries in splits.values() for label in entries.values()})
    number = {label: position for position, label in enumerate(classes)}
    folder = _picture_folder(path, next(iter(splits["train"])))
    store = FolderStore(path / folder)
    made = {
        split: CentreCropped(
            FileSplit(store, list(entries), [number[label] for label in entries.values()])
        )
        for split, entries in splits.items()
    }
    return Task(
        name=name,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing=PREPROCESSING,
        provenance=provenance,
    )


def _read(path: Path) -> dict[str, str]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path} is not a dict from image path to class id; fetch it again")
    bad = [key for key, value in entries.items() if not isinstance(value, int | str)]
    if bad:
        raise InputError(f"{path}: the class of {bad[0]!r} is neither a number nor a text")
    return {key: str(value) for key, value in entries.items()}


def _in_order(ids: set[str]) -> tuple[str, ...]:
    """Numbers by value, anything else as text."""
    if all(value.lstrip("-").isdigit() for value in ids):
        return tuple(sorted(ids, key=int))
    return tuple(sorted(ids))


def _hold_out(
    splits: dict[str, dict[str, str]], name: str, seed: int
) -> tuple[dict[str, dict[str, str]], str]:
    train = splits["train"]
    keys = sorted(train)
    known = PUBLISHED.get(name)
    if known is not None and known.total == len(keys):
        kept, held = known.indices()
        note = f"no val.json: the published split of {name} (sha256 {known.checksum[:12]})"
    else:
        held = np.sort(
            np.random.default_rng(seed).permutation(len(keys))[: max(1, len(keys) // 10)]
        )
        kept = np.setdiff1d(np.arange(len(keys)), held)
        note = f"no val.json: a tenth of train held out, seed {seed}"
    chosen = {
        "train": {keys[position]: train[keys[position]] for position in kept},
        "val": {keys[position]: train[keys[position]] for position in held},
        "test": splits["test"],
    }
    return chosen, note


def _picture_folder(root: Path, key: str) -> str:
    for folder in PICTURE_FOLDERS:
        if (root / folder / key).is_file():
            return folder
    raise InputError(
        f"{root / 'train.json'} lists {key}, which is neither in {root} nor in "
        f"{', '.join(PICTURE_FOLDERS[1:])} below it; put the pictures there"
    )

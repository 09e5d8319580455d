"""``folder:PATH``: one folder a split, one folder a class; or a zip of the same.

PATH/{train,val,test}/CLASS/*.jpg     val may be absent: then it is cut from train
PATH/CLASS/*.jpg                      then all three are cut, 60 / 20 / 20
"""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import Task
from aptheory.tasks.classes import number_classes, shown
from aptheory.tasks.completing import ALIASES, complete
from aptheory.tasks.copies import same_bytes
from aptheory.tasks.readers.files import FileSplit, file_splits
from aptheory.tasks.readers.stores import FolderStore, ZipStore
from aptheory.tasks.readers.suffixes import pictures_among, suffix_of

LAYOUT = "PATH/SPLIT/CLASS/*.jpg with SPLIT train, val, test, or PATH/CLASS/*.jpg"
BESIDE = ("mask", "masks", "depth", "seg", "segmentation", "trimap", "gt")  # NAME_mask.png
PICTURES = {"image", "images", "img", "imgs", "jpegimages", "pictures", "photos"}
MASKS = {*BESIDE, "depths", "segmentations", "trimaps", "annotation", "annotations", "labels"}
TAILS = tuple(f"{mark}{word}" for mark in "_-." for word in BESIDE)
_log = logging.getLogger("aptheory")


@dataclass
class Layout:
    """What lies where: {split: its keys} and {split: their classes}, and what was left out;
    ``deeper`` counts the pictures of the folders inside class folders, which are of that class."""

    keys: dict[str, list[str]]
    classes: dict[str, list[str]]
    left_out: Counter[str]
    deeper: Counter[str]

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence about the folders inside class folders, where there are any."""
        if not self.deeper:
            return ()
        return (
            f"{self.deeper.total()} pictures lie in folders inside a class folder "
            f"({shown(sorted(self.deeper))}) and are taken for that class.",
        )


def folder_task(
    path: str | Path,
    *,
    name: str | None = None,
    group: str = "user",
    seed: int = 0,
    together: Callable[[str], Hashable] | None = None,
) -> Task:
    """The task in a folder or zip of images. Classes are the sorted folder names.

    What is not given as a split is cut by ``seed``, each class in the same proportion, and the
    task's ``provenance`` says so; copies of one picture stay on one side, and so do pictures for
    whose paths ``together`` gives the same value. ``left_out`` counts what is not read. Raises
    `InputError` naming the place if it is not there, holds no image, or a class has no image in
    a split. A corrupt image is named when it is read.
    """
    path = Path(path)
    store = open_store(path)
    layout = find_layout(store)
    labels, classes = number_classes(layout.classes, str(path), named=True)
    for split, values in labels.items():
        require_every_class(values, classes, f"{path}: the {split} split" if split else str(path))
    parts = complete(
        labels,
        seed=seed,
        where=str(path),
        name=name or path.stem,
        word="folder",
        expected=LAYOUT,
        copies=lambda split: same_bytes(store, layout.keys[split]),
        groups=lambda split: [together(key) for key in layout.keys[split]] if together else None,
        classes=classes,
    )
    keys = {split: pick(layout.keys[source], rows) for split, source, rows in parts.items()}
    made = file_splits(
        store, keys, {split: labels[source][rows] for split, source, rows in parts.items()}
    )
    return file_task(
        made,
        name=name or path.stem,
        classes=classes,
        group=group,
        encoding=encodings(made.values()),
        provenance=parts.note,
        notes=layout.notes,
        left_out=layout.left_out,
    )


def file_task(
    made: dict[str, FileSplit],
    *,
    name: str,
    classes: tuple[str, ...],
    group: str,
    encoding: str,
    provenance: str,
    notes: tuple[str, ...] = (),
    left_out: Counter[str] | None = None,
) -> Task:
    """A task of picture files, which says how they are read and what was left out."""
    return Task(
        name=name,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing=f"{encoding}; {SQUASHED}",
        provenance=provenance,
        notes=(*notes, *made["train"].notes),
        left_out=dict(sorted((left_out or Counter()).items())),
    )


def pick(values: Sequence[str], rows: np.ndarray) -> list[str]:
    """The values at ``rows``."""
    return [values[row] for row in rows.tolist()]


def open_store(path: Path) -> FolderStore | ZipStore:
    """The folder or zip file at ``path``."""
    if path.is_dir():
        return FolderStore(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return ZipStore(path)
    if path.exists():
        raise InputError(f"{path} is neither a folder nor a zip file; expected {LAYOUT}.")
    raise InputError(f"{path} does not exist; expected {LAYOUT}.")


def find_layout(store: FolderStore | ZipStore) -> Layout:
    """Splits and classes by folder; the one split is "" where the top folders are classes."""
    keys, other = pictures_among(store, store.names())
    if not keys:
        other += store.left_out
        seen = ", ".join(f"{number} × {kind}" for kind, number in sorted(other.items()))
        raise InputError(
            f"{store.place} holds no image{f' ({seen})' if seen else ''}; expected {LAYOUT}."
        )
    folders = {_folder(key) for key in keys}  # few: what they mean is decided once
    parts = {folder: folder.split("/")[:-1] for folder in folders}
    skip = _wrapping(list(parts.values()))
    parts = {folder: names[skip:] for folder, names in parts.items()}
    depth = int(_has_splits(list(parts.values())))
    _refuse_unclear(list(parts.values()), depth, store.place)
    places = {folder: _place(names, depth) for folder, names in parts.items()}
    _refuse_twice(parts, places, store.place)
    for folder, place in places.items():
        if place is None:
            key = next(key for key in keys if _folder(key) == folder)
            raise InputError(f"{store.place}: {key} lies in no class folder; expected {LAYOUT}.")
        if place[1] is None:
            number = sum(_folder(key) == folder for key in keys)
            other[f"picture in folder {place[0]!r} beside the splits"] += number
    classes = {folder: place for folder, place in places.items() if place and place[1] is not None}
    keys = [key for key in keys if _folder(key) in classes]
    keys, masks = _without_masks(keys)
    keys = store.once(keys)
    other += masks + store.left_out
    _refuse_masks({str(label) for _, label in classes.values()}, store.place)
    for name in _empty_classes(store, {_folder(key) for key in keys}, skip, depth):
        other[f"class folder {name!r} without a picture that is read"] += 1
        _log.warning("%s: class folder %r holds no picture that is read", store.place, name)
    layout = Layout(defaultdict(list), defaultdict(list), other, Counter())
    for key in keys:
        split, label = classes[_folder(key)]
        inside = parts[_folder(key)][depth:]
        if len(inside) > 1:
            layout.deeper["/".join(inside)] += 1
        layout.keys[split].append(key)
        layout.classes[split].append(str(label))
    return layout


def _folder(key: str) -> str:
    return key[: key.rfind("/") + 1]


def encodings(splits: Iterable[FileSplit]) -> str:
    """ "12 .jpg and 3 .png files": a re-encoded copy of a data set is another data set."""
    suffixes = Counter(suffix_of(key) for split in splits for key in split.keys)
    counted = (
        f"{number} {suffix or 'without a suffix'}" for suffix, number in sorted(suffixes.items())
    )
    return " and ".join(counted) + " files"


def require_every_class(labels: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    """`InputError` naming the classes of which ``where`` has no image."""
    missing = [classes[label] for label in np.setdiff1d(np.arange(len(classes)), labels)]
    if missing:
        raise InputError(
            f"{where} has no image of class {shown(missing)}; add some, or take the class out of "
            "every split."
        )


def _wrapping(folders: Sequence[Sequence[str]]) -> int:
    """How many folders lie around everything, as archives often have: they are no classes."""
    skip = 0
    while all(len(names) > skip + 1 for names in folders):
        tops = {names[skip] for names in folders}
        if len(tops) != 1 or tops.pop().lower() in ALIASES:
            break
        skip += 1
    return skip


def _has_splits(folders: Sequence[Sequence[str]]) -> bool:
    """Whether the top folders are splits: one is called train, and not as a class may be, with
    pictures directly in it beside folders that are no splits."""
    trains = [names for names in folders if names and ALIASES.get(names[0].lower()) == "train"]
    if not trains:
        return False
    if all(len(names) > 1 for names in trains):
        return True
    return all(names and names[0].lower() in ALIASES for names in folders)


def _refuse_unclear(folders: Sequence[Sequence[str]], depth: int, place: str) -> None:
    """`InputError` for folders that may be splits by another name, and where each class folder
    holds the same folders, so that either may be the classes."""
    classes: dict[str, set[str]] = {}
    for names in folders:
        if len(names) > depth:
            classes.setdefault("/".join(names[: depth + 1]), set()).update(names[depth + 1 :][:1])
    tops = sorted({name.rpartition("/")[2] for name in classes})
    inside = list(classes.values())
    if depth == 0 and len(tops) > 1 and all(inside):
        words = [set(re.split(r"[^a-z]+", top.lower())) & ALIASES.keys() for top in tops]
        if all(words) and "train" in {ALIASES[word] for of_top in words for word in of_top}:
            raise InputError(
                f"{place} holds the folders {shown(tops)}, which look like splits and not like "
                "classes; call them train, val and test, with the class folders directly inside."
            )
    same = inside[0] if inside else set()
    if len(tops) > 1 and len(same) > 1 and all(other == same for other in inside):
        raise InputError(
            f"{place}: the folders {shown(tops)} all hold the same folders {shown(sorted(same))}, "
            "and which of them are the classes is not plain; put the classes on top (or below "
            "train and test), or list the pictures in a csv:FILE."
        )


def _place(names: Sequence[str], depth: int) -> tuple[str, str | None] | None:
    """(split, class) of the pictures in a folder; (folder, None) beside the splits; None where
    there is no class."""
    if depth and names and names[0].lower() not in ALIASES:
        return names[0], None
    if len(names) < depth + 1:
        return None
    return (ALIASES[names[0].lower()] if depth else ""), names[depth]


def _refuse_twice(
    parts: dict[str, list[str]], places: dict[str, tuple[str, str | None] | None], where: str
) -> None:
    called: dict[str, str] = {}
    for folder, place in places.items():
        if place and place[0] and place[1] is not None:
            top = parts[folder][0]
            if called.setdefault(place[0], top) != top:
                raise InputError(
                    f"{where} has two {place[0]} folders, {called[place[0]]!r} and {top!r}; put "
                    "their pictures together, or take one out."
                )


def _without_masks(keys: list[str]) -> tuple[list[str], Counter[str]]:
    """The keys without NAME_mask.png and its like where NAME.* stands beside it, and how many
    there were."""
    suspects = [key for key in keys if key[: key.rfind(".")].lower().endswith(TAILS)]
    if not suspects:
        return keys, Counter()
    stems = {key[: len(key) - len(suffix_of(key))] for key in keys}
    masks = {key for key in suspects if _base(key) in stems}
    out = Counter({"mask or depth map beside its picture": len(masks)} if masks else {})
    return [key for key in keys if key not in masks], out


def _base(key: str) -> str:
    """NAME of a key NAME_mask.png, "" for others."""
    stem = key[: key.rfind(".")]
    tail = next((tail for tail in TAILS if stem[-len(tail) :].lower() == tail), "")
    return stem[: -len(tail)] if tail else ""


def _refuse_masks(names: set[str], place: str) -> None:
    lower = {name.lower() for name in names}
    if lower & PICTURES and lower & MASKS and lower <= PICTURES | MASKS:
        pictures = next(name for name in sorted(names) if name.lower() in PICTURES)
        raise InputError(
            f"{place} holds the folders {shown(sorted(names))}, which look like pictures and what "
            f"was drawn for them, not like classes; name the pictures: folder:PATH/{pictures}."
        )


def _empty_classes(
    store: FolderStore | ZipStore, folders: set[str], skip: int, depth: int
) -> list[str]:
    """Folders where classes lie that hold no picture."""
    full = {"/".join(folder.split("/")[: skip + depth + 1]) for folder in folders}
    around = {name.rpartition("/")[0] for name in full}
    return sorted(
        folder[:-1].rpartition("/")[2]
        for folder in store.folders
        if folder.count("/") == skip + depth + 1
        and folder[:-1] not in full
        and folder[:-1].rpartition("/")[0] in around
    )

"""Which of the registry's data sets are on this machine, and how the rest gets here."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aptheory.arguments import checked_arguments
from aptheory.errors import InputError
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.cache import data_folder
from aptheory.tasks.embedded_tasks import EMBEDDED_FACTS
from aptheory.tasks.registry import REGISTRY, SEE, DataSet
from aptheory.tasks.resizing import resize_of

_log = logging.getLogger("aptheory")
BELOW = ("", "vtab-1k", "vtab", "fgvc", "tfds")  # folders of the data folder that are looked into
#: What torchvision leaves behind when it has fetched a data set.
_TORCHVISION_MARKS = {
    "CIFAR10": "cifar-10-batches-py",
    "GTSRB": "gtsrb/GTSRB",
    "Food101": "food-101/meta",
    "SVHN": "train_32x32.mat",
}


@dataclass(frozen=True)
class Found:
    """A data set on this machine: the ``layout`` it is in, and where."""

    layout: str  # "vtab", "fgvc", "folder", "npz", "tfds", "torchvision"
    path: Path


def locate(entry: DataSet, root: Path) -> Found | None:
    """The first place below ``root`` that looks like the data set, or None.

    Raises:
        InputError: what lies there cannot be looked at.
    """
    try:
        return _found(entry, root)
    except PermissionError as error:
        raise InputError(
            f"{root} cannot be read ({error.strerror}); let yourself read it, or name another "
            "folder of data sets with the variable APTHEORY_DATA."
        ) from error


def _found(entry: DataSet, root: Path) -> Found | None:
    if entry.torchvision and (root / _TORCHVISION_MARKS[entry.torchvision]).exists():
        return Found("torchvision", root)
    for below in BELOW:
        for name in (entry.name, *entry.aliases):
            place = root / below / name
            if (place / "train800.txt").is_file() and entry.suite == "VTAB-1K":
                return Found("vtab", place)
            if (place / "train.json").is_file():
                return Found("fgvc", place)
            if (place / "train").is_dir():
                return Found("folder", place)
            for suffix, layout in ((".npz", "npz"), (".zip", "folder")):
                file = place.with_name(place.name + suffix)
                if file.is_file():
                    return Found(layout, file)
        if entry.builder and (root / below / entry.builder / "dataset_info.json").is_file():
            return Found("tfds", root / below / entry.builder)
    return None


def open_entry(entry: DataSet, *, root: str | Path | None = None, seed: int = 0) -> Task:
    """The task of a registry entry, from wherever it is found below the data folder.

    Raises `InputError` with the command that brings it if it is not there.
    """
    folder = data_folder(root)
    location = locate(entry, folder)
    if location is None:
        raise InputError(
            f"{entry.name} is not in {folder}; to bring it: {bring_command(entry, folder)}"
        )
    made = _OPENERS[location.layout](entry, location.path, seed)
    # The published protocol of a data set does not depend on the form in which it lies here.
    return made if resize_of(made.train) == "squash" else made.resized("squash")


def bring_command(entry: DataSet, root: Path) -> str:
    """The command, or where there is none the sentence, that brings a data set to ``root``."""
    if entry.torchvision:
        from aptheory.tasks.readers.torchvision_sets import download_command

        return download_command(entry.torchvision, root)
    if entry.builder:
        name, _, version = entry.builder.rpartition("/")
        command = (
            'pip install tensorflow tensorflow-datasets && python -c "import tensorflow_datasets '
            f"as tfds; tfds.builder('{name}:{version}', data_dir={str(root / 'tfds')!r})"
            '.download_and_prepare()" (only to prepare it: reading needs no TensorFlow)'
        )
        if "by hand" in entry.source:
            return (
                f"by hand from {entry.source}, into {root / 'tfds' / 'downloads/manual'}; then "
                f"{command}"
            )
        return command
    files = (
        "train.json, val.json, test.json and images/"
        if entry.suite == "FGVC"
        else ("train/CLASS/*.jpg and test/CLASS/*.jpg")
    )
    return f"by hand: {files} in {root / entry.name}, from {entry.source}"


@checked_arguments
def list_tasks(root: str | Path | None = None) -> pd.DataFrame:
    """Every task by name: the embedded ones, then the 29 data sets.

    Columns: name, suite, group, classes, train, val, test (images used), label (the rule),
    preprocessing, licence, source, layout ("" if it is not on this machine), place, and command
    (what brings it; "" if it is here).
    """
    folder = data_folder(root)
    readable = True
    rows: list[dict[str, str | int]] = []
    for name, (group, classes, sizes) in EMBEDDED_FACTS.items():
        rows.append(
            {
                "name": name,
                "suite": "embedded",
                "group": group,
                "classes": classes,
                **dict(zip(SPLITS, sizes, strict=True)),
                "label": "class as drawn" if name != "digits" else "class as recorded",
                "preprocessing": "resize without keeping the aspect ratio, bilinear, antialiased",
                "licence": SEE if name == "digits" else "drawn by this package",
                "source": "UCI handwritten digits, in scikit-learn"
                if name == "digits"
                else "generated",
                "layout": "embedded",
                "place": "",
                "command": "",
            }
        )
    for entry in REGISTRY.values():
        location = None
        try:
            location = locate(entry, folder) if readable else None
        except InputError as error:  # the list is worth having without it
            readable = False
            _log.warning("%s", error)
        rows.append(
            {
                "name": entry.name,
                "suite": entry.suite,
                "group": entry.group,
                "classes": entry.classes,
                **dict(zip(SPLITS, entry.used, strict=True)),
                "label": entry.label,
                "preprocessing": entry.preprocessing,
                "licence": entry.licence,
                "source": entry.source,
                "layout": location.layout if location else "",
                "place": str(location.path) if location else "",
                "command": "" if location else bring_command(entry, folder),
            }
        )
    return pd.DataFrame(rows)


def listing(root: str | Path | None = None) -> str:
    """`list_tasks` for a terminal of 80 columns: what is here, then how to bring the rest."""
    import textwrap

    if root is not None and not data_folder(root).is_dir():
        raise InputError(f"there is no folder {root}; --root names the one of the data sets.")
    table = list_tasks(root)
    width = max(len(name) for name in table["name"])
    lines = [f"{'name':<{width}}  classes   train     val    test  layout"]
    for row in table.to_dict("records"):
        sizes = "".join(f"{row[split]:>8}" for split in SPLITS)
        layout = row["layout"] or "not here"
        lines.append(f"{row['name']:<{width}}  {row['classes']:>7}{sizes}  {layout}")
    absent = table[table["command"] != ""]
    if len(absent):
        lines += ["", f"To bring those that are not in {data_folder(root)}:"]
    for row in absent.to_dict("records"):
        lines += ["", f"{row['name']}:"]
        lines += textwrap.wrap(
            row["command"], 78, initial_indent="  ", subsequent_indent="  ", break_long_words=False
        )
    return "\n".join(lines)


def _vtab(entry: DataSet, path: Path, seed: int) -> Task:
    from aptheory.tasks.readers.vtab_folder import vtab_folder_task

    return vtab_folder_task(path, name=entry.name, classes=entry.classes, group=entry.group)


def _fgvc(entry: DataSet, path: Path, seed: int) -> Task:
    from aptheory.tasks.readers.fgvc import fgvc_task

    return fgvc_task(path, name=entry.name, group=entry.group, seed=seed)


def _folder(entry: DataSet, path: Path, seed: int) -> Task:
    from aptheory.tasks.readers.folder import folder_task

    return folder_task(path, name=entry.name, group=entry.group, seed=seed)


def _npz(entry: DataSet, path: Path, seed: int) -> Task:
    from aptheory.tasks.readers.npz import npz_task

    return npz_task(path, name=entry.name, group=entry.group, seed=seed)


def _tfds(entry: DataSet, path: Path, seed: int) -> Task:
    from aptheory.tasks.readers.tfds import tfds_task

    return tfds_task(
        path,
        slices=dict(zip(SPLITS, entry.slices, strict=True)),
        rule=entry.rule,
        classes=entry.classes,
        name=entry.name,
        group=entry.group,
    )


def _torchvision(entry: DataSet, path: Path, seed: int) -> Task:
    from aptheory.tasks.readers.torchvision_sets import torchvision_task

    return torchvision_task(
        entry.torchvision, root=path, name=entry.name, group=entry.group, seed=seed
    )


_OPENERS: dict[str, Callable[[DataSet, Path, int], Task]] = {
    "vtab": _vtab,
    "fgvc": _fgvc,
    "folder": _folder,
    "npz": _npz,
    "tfds": _tfds,
    "torchvision": _torchvision,
}

"""One door: from a name, a place, or data in memory to a task. It knows every reader."""

import difflib
import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aptheory.arguments import Seed, checked_arguments
from aptheory.checked import expanded, shown
from aptheory.errors import InputError
from aptheory.tasks.base import Task
from aptheory.tasks.embedded_tasks import EMBEDDED
from aptheory.tasks.guarding import grouping, guarded
from aptheory.tasks.split import Split

READERS = {
    "folder": "readers.folder.folder_task",
    "zip": "readers.folder.folder_task",
    "npz": "readers.npz.npz_task",
    "csv": "readers.table.csv_task",
    "parquet": "readers.table.csv_task",
    "vtab": "readers.vtab_folder.vtab_folder_task",
    "fgvc": "readers.fgvc.fgvc_task",
    "tfds": "readers.tfds.tfds_task",
    "webdataset": "readers.webdataset.webdataset_task",
    "torchvision": "readers.torchvision_sets.torchvision_task",
    "hf": "readers.huggingface.huggingface_task",
}
"""Readers of the layouts that people use most; `readers` adds what lies beside them."""
NOT_PATHS = ("torchvision", "hf")
#: What may stand behind a place's question mark.
OPTIONS = {
    "csv": ("path", "label", "split", "group", "root"),
    "parquet": ("path", "label", "split", "group", "root"),
    "webdataset": ("image", "group"),
    "npz": ("group",),
    "hf": ("config", "image", "label", "group", "streaming", "limit"),
}
#: Why a layout has no groups.
NO_GROUPS = {
    "vtab": "cuts nothing, for its lists are the splits",
    "tfds": "cuts its examples as its builder's published splits say",
    "torchvision": "gives a picture and a class of each sample, and nothing to group them by",
}
#: Files that a plain path may name, by suffix.
SUFFIXES = {".zip": "zip", ".npz": "npz", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


@lru_cache(maxsize=1)
def readers() -> dict[str, str]:
    """Scheme -> reader, imported when used: `READERS`, and NAME for every further file NAME.py
    among the readers that has a function NAME_task of a path and a seed."""
    listed = {path.split(".")[1] for path in READERS.values()}
    beside = {
        file.stem: f"readers.{file.stem}.{file.stem}_task"
        for file in sorted((Path(__file__).parent / "readers").glob("*.py"))
        if file.stem not in listed and f"\ndef {file.stem}_task(" in file.read_text("utf-8")
    }
    return READERS | beside


def embedded() -> tuple[str, ...]:
    """Names of the tasks that need no file: real digits, and generated ones."""
    return tuple(EMBEDDED)


@checked_arguments
def task(
    source: Any,
    *,
    seed: Seed = 0,
    root: str | Path | None = None,
    resize: str | None = None,
    augment: Callable[[Any], Any] | None = None,
    group: str | Callable[..., Hashable] | None = None,
) -> Task:
    """The task of that name or place, or of data in memory.

    A name is an embedded task ("digits", "counting", ...) or one of the 29 data sets of the
    registry ("cifar100", "cub200", ...; see `list_tasks`), which are looked for in ``root``,
    or the folder that APTHEORY_DATA names, or ``~/.cache/aptheory/data``. A place is
    "folder:PATH", "zip:FILE", "npz:FILE", "csv:FILE" (paths and labels; Parquet too), "vtab:PATH",
    "fgvc:PATH", "tfds:PATH", "webdataset:PATH", "torchvision:CLASS" or "hf:REPOSITORY", or the
    path of a folder or file alone. In memory: a `Task`, which is returned as it is; a torch Dataset
    or DataLoader, or torchvision's sets; a Dataset or DatasetDict of Hugging Face; a DataFrame; a
    pair of arrays (images, labels); or a mapping from "train", "val", "test" to such data. Where
    options are needed, there is ``Task.from_arrays`` and its like.

    ``seed`` decides what is generated, and what is cut into splits where the source does not say.
    ``resize`` chooses how pictures become images where it is not the task's own way (see
    `Task.resized`). ``augment`` is a callable that is drawn anew for every training picture (see
    `augmented`). ``group`` is a column, or a function of a path or sample: pictures of one value
    are never torn apart by a cut. Raises `InputError` with the near names for a name that is not
    known.
    """
    made = _task(source, seed, root, group)
    if resize is not None:
        made = made.resized(resize)
    if augment is not None:
        from aptheory.tasks.augmenting import augmented

        made = augmented(made, augment)
    return made


def _task(source: Any, seed: int, root: str | Path | None, group: Any) -> Task:
    group = grouping(group) if callable(group) else group
    if isinstance(source, Task):
        if group is not None:
            raise InputError(
                f"task {source.name!r} has its splits; group= is for data that are yet to be cut."
            )
        return source
    if isinstance(source, Path):
        return _path(source, seed, group)
    if isinstance(source, str):
        return _named(source, seed, root, group)
    return guarded(f"a {type(source).__name__}", lambda: in_memory(source, seed, group))


def open_images(images: Any) -> Any:
    """What can be looked through for images: a task of what `task` makes one of, and pictures as
    an `Unlabelled` split; a task, a split, a tensor and an iterable of batches stay as they are."""
    kind = type(images).__module__.partition(".")[0]
    if hasattr(images, "is_meta") and (images.is_meta or images.is_sparse or not images.ndim):
        raise InputError(
            "the images are a tensor of one number, a sparse one, or one on meta; give an ordinary "
            "one of shape (images, channels, height, width)."
        )
    if isinstance(images, str | Path) or kind in ("pandas", "datasets"):
        return task(images)
    if hasattr(images, "getbands"):  # one picture of Pillow
        images = [images]
    first = images[0] if isinstance(images, list | tuple) and images else None
    if kind == "numpy" or hasattr(first, "getbands"):
        return guarded("the pictures", lambda: _function("readers.memory.unlabelled")(images))
    if kind != "torch" and hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        first = images[0] if len(images) and not isinstance(images, Mapping) else None
        sample = first[0] if isinstance(first, tuple | list) and first else first
        if hasattr(sample, "getbands") or getattr(sample, "ndim", 4) < 4:
            return task(images)
    return images


def in_memory(source: Any, seed: int = 0, group: Any = None) -> Task:
    """The task of data in memory: a table, a data set, arrays, or a mapping from splits to them."""
    kind = type(source).__module__.partition(".")[0]
    if kind == "pandas":
        return _function("readers.table.frame_task")(source, seed=seed, group=group)
    if kind == "datasets":
        return _function("readers.huggingface.hub_task")(source, seed=seed, group=group)
    if isinstance(source, Split) and not isinstance(source, Mapping):
        raise InputError(
            "a split alone is no task; give {'train': split, 'val': split, 'test': split}, or "
            "Task(name, classes, train, val, test)."
        )
    if isinstance(source, Mapping):
        return _splits(source, seed, group)
    if isinstance(source, tuple) and len(source) == 2 and all(map(_is_array, source)):
        images, labels = source
        return _function("readers.memory.array_task")({"": images}, {"": labels}, seed=seed)
    if source is None or isinstance(source, bool | int | float | bytes):
        raise InputError(
            f"{source!r} is no task; give a name, a place such as folder:PATH, or data in memory."
        )
    return _function("readers.memory.dataset_task")(source, seed=seed, together=group)


def _splits(source: Mapping[str, Any], seed: int, group: Any) -> Task:
    """The task of {"train": ..., "test": ...}, or of {"x_train": ..., "y_train": ...}."""
    if not source:
        raise InputError("an empty mapping is no task; give {'train': ..., 'test': ...}.")
    first = next(iter(source.values()))
    if type(first).__module__.partition(".")[0] == "datasets":
        return _function("readers.huggingface.hub_task")(source, seed=seed, group=group)
    if type(first).__module__.partition(".")[0] == "pandas":
        import pandas as pd

        frames = [frame.assign(split=str(key)) for key, frame in source.items()]
        table = pd.concat(frames, ignore_index=True)
        return _function("readers.table.frame_task")(table, split="split", seed=seed, group=group)
    if isinstance(first, tuple) and len(first) == 2 and all(map(_is_array, first)):
        images = {key: pair[0] for key, pair in source.items()}
        labels = {key: pair[1] for key, pair in source.items()}
        return Task.from_arrays(images, labels, seed=seed)
    if "x_train" in source:
        images = {key[2:]: value for key, value in source.items() if key.startswith("x_")}
        labels = {key[2:]: value for key, value in source.items() if key.startswith("y_")}
        return Task.from_arrays(images, labels, seed=seed, names=source.get("class_names"))
    return _function("readers.memory.dataset_task")(source, seed=seed, together=group)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") or (isinstance(value, list) and not _is_array_row(value))


def _is_array_row(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], tuple | dict)


def _named(name: str, seed: int, root: str | Path | None, group: Any) -> Task:
    from aptheory.tasks.registry import REGISTRY

    entry = next((e for e in REGISTRY.values() if name in (e.name, *e.aliases)), None)
    if group is not None and (name in EMBEDDED or entry is not None):
        raise InputError(
            f"task {name!r} comes with its splits and is not cut by groups; leave the group out."
        )
    if name in EMBEDDED:
        return _generated(name, seed)
    scheme, colon, place = name.partition(":")
    if colon and scheme in readers():
        if not place:
            raise InputError(f"{name!r} names nothing; expected {scheme}:PLACE.")
        return _read(scheme, place, seed, root, group)
    if entry is not None:
        from aptheory.tasks.present import open_entry

        return guarded(name, lambda: open_entry(entry, root=root, seed=seed))
    if name and _is_there(name) and ("/" in name or Path(name).suffix):
        return _path(expanded(name), seed, group)
    names = [*EMBEDDED, *REGISTRY]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}?" if near else f"embedded are {', '.join(EMBEDDED)}."
    if colon:
        known = f"places begin with {', '.join(f'{known}:' for known in readers())}."
    raise InputError(
        f"no task is called {name!r}; {known} Your own images: folder:PATH, csv:FILE or npz:FILE."
    )


def source_of(name: str) -> Path | None:
    """The file or folder that the name of a task points at; None of a catalogue's name."""
    scheme, colon, place = name.partition(":")
    if colon and scheme in readers():
        there = place if _is_there(place) else place.partition("?")[0]
        return expanded(there) if scheme not in NOT_PATHS or _is_there(there) else None
    return expanded(name) if "/" in name or Path(name).suffix.lower() in SUFFIXES else None


def rebased(name: str, base: Path) -> str:
    """The same task, its file or folder relative to ``base`` instead of to the working directory.

    A repository of the hub and a folder may be called alike: hf:NAME is the folder where there is
    one.
    """
    scheme, colon, place = name.partition(":")
    if colon and scheme in readers():
        if not place or (scheme in NOT_PATHS and not _is_there(str(base / place.split("?")[0]))):
            return name  # a name of somebody's catalogue
        return f"{scheme}:{base / expanded(place)}"
    if not colon and ("/" in name or Path(name).suffix.lower() in SUFFIXES):
        return str(base / expanded(name))
    return name


def _is_there(place: str) -> bool:
    """Whether a path exists; what no file can be called does not."""
    return os.path.exists(expanded(place))


def _path(path: Path, seed: int, group: Any) -> Task:
    scheme = SUFFIXES.get(path.suffix.lower(), "folder")
    return _read(scheme, str(path), seed, None, group)


def _read(scheme: str, place: str, seed: int, root: str | Path | None, group: Any) -> Task:
    reader = _function(readers()[scheme])
    options: dict[str, Any] = {}
    known = OPTIONS.get(scheme, ())
    if known and "?" in place and not _is_there(place):
        place, _, query = place.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        options = dict(pairs)
        if twice := next((key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])), None):
            raise InputError(f"{scheme}: option {shown(twice)} is given twice; give it once.")
        for key in options:
            if key not in known:
                raise InputError(f"{scheme}: has no option {key!r}; it has {', '.join(known)}.")
    if scheme == "torchvision":
        options = {"root": root}
    if group is not None:
        options |= _grouped(scheme, reader, group)
    if scheme == "npz" and "group" in options:  # whose own ``group`` is the suite of a task
        options["group_array"] = options.pop("group")
    source = place if scheme in NOT_PATHS else expanded(place)
    return guarded(f"{scheme}:{place}", lambda: reader(source, seed=seed, **options))


def _grouped(scheme: str, reader: Callable[..., Task], group: Any) -> dict[str, Any]:
    """The option of a reader that keeps groups whole: a function, or a column."""
    parameters = inspect.signature(reader).parameters
    if callable(group) and "together" in parameters:
        return {"together": group}
    if isinstance(group, str) and "group" in OPTIONS.get(scheme, ()):
        return {"group": group}
    if scheme in NO_GROUPS:
        raise InputError(f"{scheme}: {NO_GROUPS[scheme]}; leave the group out.")
    if "together" in parameters:
        raise InputError(
            f"{scheme}: names no column, so group must be a function of a path (in Python), not "
            f"{group!r}; or list the pictures in a csv:FILE with a column for them."
        )
    raise InputError(f"{scheme}: takes the name of a column as group; got {group!r}.")


@lru_cache(maxsize=16)
def _generated(name: str, seed: int) -> Task:
    return _function(f"embedded_tasks.{EMBEDDED[name]}")(seed=seed)


def _function(path: str) -> Callable[..., Task]:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"aptheory.tasks.{module}"), name)

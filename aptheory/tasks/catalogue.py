"""From a name or URI to a task: the one place that knows every reader."""

import difflib
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aptheory.errors import InputError
from aptheory.tasks.base import Task
from aptheory.tasks.embedded import EMBEDDED

SCHEMES = {
    "folder": "readers.folder.folder_task",
    "npz": "readers.npz.npz_task",
    "vtab": "readers.vtab_folder.vtab_folder_task",
    "fgvc": "readers.fgvc.fgvc_task",
    "tfds": "readers.tfds.tfds_task",
    "webdataset": "readers.webdataset.webdataset_task",
    "torchvision": "readers.torchvision_sets.torchvision_task",
    "hf": "readers.huggingface.huggingface_task",
}
NOT_PATHS = ("torchvision", "hf")
OPTIONS = ("config", "image", "label", "streaming", "limit")  # of hf:


def embedded() -> tuple[str, ...]:
    """Names of the tasks that need no file: real digits, and generated ones."""
    return tuple(EMBEDDED)


def task(
    name_or_uri: str,
    *,
    seed: int = 0,
    root: str | Path | None = None,
    resize: str | None = None,
) -> Task:
    """The task of that name or place.

    A name is an embedded task ("digits", "counting", ...) or one of the 29 data sets of the
    registry ("cifar100", "cub200", ...; see `list_tasks`), which are looked for in ``root``,
    or the folder that APTHEORY_DATA names, or ``~/.cache/aptheory/data``. A place is
    "folder:PATH", "npz:FILE", "vtab:PATH", "fgvc:PATH", "tfds:PATH", "webdataset:PATH",
    "torchvision:CLASS" or "hf:REPOSITORY".

    ``seed`` decides what is generated, and what is cut into splits where the source does not say.
    ``resize`` chooses how pictures become images where it is not the task's own way (see
    `Task.resized`). Raises `InputError` with the near names for a name that is not known.
    """
    made = _task(name_or_uri, seed, root)
    return made if resize is None else made.resized(resize)


def _task(name_or_uri: str, seed: int, root: str | Path | None) -> Task:
    from aptheory.tasks.registry import REGISTRY

    if name_or_uri in EMBEDDED:
        return _generated(name_or_uri, seed)
    scheme, colon, place = name_or_uri.partition(":")
    if colon and scheme in SCHEMES:
        if not place:
            raise InputError(f"{name_or_uri!r} names nothing; expected {scheme}:PLACE")
        return _read(scheme, place, seed, root)
    for entry in REGISTRY.values():
        if name_or_uri == entry.name or name_or_uri in entry.aliases:
            from aptheory.tasks.present import open_entry

            return open_entry(entry, root=root, seed=seed)
    names = [*EMBEDDED, *REGISTRY]
    near = difflib.get_close_matches(name_or_uri.lower(), names, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}?" if near else f"embedded are {', '.join(EMBEDDED)}."
    if colon:
        known = f"places begin with {', '.join(f'{known}:' for known in SCHEMES)}."
    raise InputError(
        f"no task is called {name_or_uri!r}; {known} Your own images: folder:PATH or npz:FILE"
    )


def _read(scheme: str, place: str, seed: int, root: str | Path | None) -> Task:
    reader = _function(SCHEMES[scheme])
    options: dict[str, Any] = {}
    if scheme == "hf":
        place, _, query = place.partition("?")
        options = dict(parse_qsl(query))
        for key in options:
            if key not in OPTIONS:
                raise InputError(f"hf: has no option {key!r}; it has {', '.join(OPTIONS)}")
    if scheme == "torchvision":
        options = {"root": root}
    given = place if scheme in NOT_PATHS else Path(place).expanduser()
    return reader(given, seed=seed, **options)


@lru_cache(maxsize=16)
def _generated(name: str, seed: int) -> Task:
    return _function(f"embedded.{EMBEDDED[name]}")(seed=seed)


def _function(path: str) -> Callable[..., Task]:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"aptheory.tasks.{module}"), name)

"""From a name or URI to a task: the one place that knows every reader."""

import difflib
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from aptheory.errors import InputError
from aptheory.tasks.base import Task

# name -> module.function, imported when used so that listing names costs nothing
EMBEDDED = {
    "digits": "digits.digits",
    "textures": "textures.textures",
    "objects": "objects.objects",
    "cells": "cells.cells",
    "counting": "structured.counting",
    "position": "structured.position",
    "orientation": "structured.orientation",
    "distance": "structured.distance",
}
SCHEMES = {
    "folder": "folder.folder_task",
    "npz": "npz.npz_task",
}


def embedded() -> tuple[str, ...]:
    """Names of the tasks that need no file: real digits, and generated ones."""
    return tuple(EMBEDDED)


def task(name_or_uri: str, *, seed: int = 0) -> Task:
    """The task of that name: embedded ("digits", "counting", ...), or read from "folder:PATH" or
    "npz:PATH".

    ``seed`` decides what is generated and what is cut into splits where the source does not say.
    Raises :class:`InputError` with the near names for a name that is not known.
    """
    if name_or_uri in EMBEDDED:
        return _generated(name_or_uri, seed)
    scheme, colon, path = name_or_uri.partition(":")
    if colon and scheme in SCHEMES:
        if not path:
            raise InputError(f"{name_or_uri!r} names no path; expected {scheme}:PATH")
        return _function(SCHEMES[scheme])(Path(path).expanduser(), seed=seed)
    names = list(EMBEDDED)
    near = difflib.get_close_matches(name_or_uri, names, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
    raise InputError(
        f"no task is called {name_or_uri!r}; {known} Your own images: folder:PATH or npz:FILE"
    )


@lru_cache(maxsize=16)
def _generated(name: str, seed: int) -> Task:
    return _function(EMBEDDED[name])(seed=seed)


def _function(path: str) -> Callable[..., Task]:
    module, name = path.split(".")
    return getattr(import_module(f"aptheory.tasks.{module}"), name)

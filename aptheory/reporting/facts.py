"""What a folder's numbers stand on, in sentences: pictures, weights, warnings, time, command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aptheory.reporting.run_folder import Tables
from aptheory.studies.status import duration

SPLITS = {"train": "training", "val": "validation", "test": "test"}


def facts(tables: Tables) -> list[str]:
    """What was measured on what, with which weights, in how long, by which command."""
    settings = tables.settings
    words = [
        sentence
        for task, pictures in _table(settings.get("pictures")).items()
        for sentence in _pictures(task, _table(pictures))
    ]
    for network, weights in _table(settings.get("weights")).items():
        expects = _table(_table(settings.get("preprocessing")).get(network)).get("network")
        expected = f"; it expects {str(expects).rstrip('.')}" if expects else ""
        words.append(f"Weights of {network}: {weights}{expected}.")
    words += [f"{place}." for place in _list(settings.get("reading"))]
    if tables.seconds:
        words.append(f"Training took {duration(tables.seconds)}, all runs one after the other.")
    if settings.get("command"):
        words.append(f"The command: {settings['command']}")
    return words


def warnings_of(tables: Tables) -> list[str]:
    """What a reader must know before believing the rest."""
    return [
        f"Warning: {network} has {words}."
        for network, words in _table(tables.settings.get("warnings")).items()
    ]


def _pictures(task: str, pictures: Mapping[str, Any]) -> list[str]:
    count, classes = _table(pictures.get("count")), _table(pictures.get("classes"))
    if not count:
        return []
    sizes = ", ".join(
        f"{count[split]} {name} pictures of {classes.get(split, '?')} classes"
        for split, name in SPLITS.items()
        if split in count
    )
    words = [f"{task}: {sizes}; {_copies(pictures.get('copies'))}; {_left_out(pictures)}."]
    return words + [f"{task}: {note}" for note in _list(pictures.get("notes"))]


def _copies(copies: object) -> str:
    if copies is None:
        return "copies across splits were not looked for"
    found = _table(copies)
    if not found:
        return "no picture stands in two splits"
    return "copies across splits: " + ", ".join(f"{n} of {where}" for where, n in found.items())


def _left_out(pictures: Mapping[str, Any]) -> str:
    kinds = _table(pictures.get("left_out"))
    if not kinds:
        return "nothing was left out on reading"
    return "left out on reading: " + ", ".join(f"{n} × {kind}" for kind, n in kinds.items())


def _table(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []

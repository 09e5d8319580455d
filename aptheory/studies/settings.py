"""What made a folder's tables, as FOLDER/settings.json, for its page and for whoever asks."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aptheory.checked import json_table, json_text, read_text
from aptheory.errors import InputError
from aptheory.studies.files import write_atomically
from aptheory.studies.tables import read_csv
from aptheory.tasks.base import SPLITS
from aptheory.tasks.copies import across_splits
from aptheory.tasks.split import is_random
from aptheory.version import __version__
from aptheory.writing import being_written

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.studies.study import Opened
    from aptheory.tasks import Task

MOST = 5_000
"""Pictures that are compared for copies; of more, ``aptheory tasks check`` tells."""


def record_settings(folder: str | Path, opened: Opened, **more: Any) -> None:
    """Write FOLDER/settings.json; ``more`` are entries of the caller's own."""
    study = opened.study
    settings = {
        "study": study.name,
        "seeds": list(study.seeds),
        "recipes": [r if isinstance(r, str | dict) else r.settings() for r in study.recipes],
        "layers": study.layers,
        **more,
    }
    nets, tasks = [each.net for each in opened.networks], [each.task for each in opened.tasks]
    write_settings(folder, nets, tasks, **settings)


def write_settings(
    folder: str | Path, nets: Sequence[Network], tasks: Sequence[Task], **more: Any
) -> None:
    """Write FOLDER/settings.json: the command, ``more``, and what the numbers stand on."""
    import timm
    import torch

    settings = {
        "command": command(),
        **more,
        "networks": {net.name: net.digest for net in nets},
        "weights": {net.name: weights_of(net) for net in nets},
        "tasks": {task.name: task.digest for task in tasks},
        "pictures": {task.name: pictures_of(task) for task in tasks},
        "preprocessing": {
            net.name: {
                "network": net.transform.note(),
                **{task.name: task.preprocessing_for(net) for task in tasks},
            }
            for net in nets
        },
        "versions": {
            "aptheory": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
    }
    text = json_text(settings, indent=2, default=str) + "\n"
    write_atomically(Path(folder) / "settings.json", text)


def check_belongs(folder: str | Path, opened: Opened) -> None:
    """Refuse networks and tasks that FOLDER's results know by the same names as others.

    Raises:
        InputError: FOLDER/settings.json names one of them with another digest.
    """
    for one, what in _others(Path(folder) / "settings.json", opened):
        raise InputError(
            f"{folder} holds results of another {one} than this one (other {what}), and its tables "
            "would mix the two; give the same as there, or another folder with --out."
        )


def check_is_about(folder: str | Path, net: Network, task: Task) -> None:
    """Refuse the folder of a run that is not about this network and this task.

    Raises:
        InputError: FOLDER/settings.json names others alone, or these with another digest, or a
            study has not come to write it yet.
    """
    if not (Path(folder) / "settings.json").is_file():
        if (Path(folder) / "plan.json").is_file():
            raise InputError(
                f"{folder} holds a study that is not finished, and a folder is about one thing; "
                "let it finish first, or give another folder with --out."
            )
        return
    known = _digests(Path(folder) / "settings.json")
    for kind, one in (("networks", net), ("tasks", task)):
        names = known[kind]
        if one.name not in names or names[one.name] not in (None, one.digest):
            other = f"another {one.name}" if one.name in names else ", ".join(names) or "no such"
            raise InputError(
                f"{folder} holds the results of a run on {other} and not on this {one.name}; give "
                "another folder with --out."
            )


def check_no_other_map(folder: str | Path, opened: Opened) -> None:
    """Refuse a study in the folder of a map: its settings would take the place of the map's. A map
    that was drawn in this study's own folder is no other.

    Raises:
        InputError: FOLDER holds a map alone, one of what the study is not about, or another command
            draws one there at this moment.
    """
    path = Path(folder) / "map.csv"
    if being_written(path):
        raise InputError(
            f"another command draws a map in {folder} at this moment; give the study a folder of "
            "its own with --out."
        )
    if not path.is_file():
        return
    known, drawn = _digests(Path(folder) / "settings.json"), read_csv(path)
    study = _named(opened)
    same = all(
        study[kind].get(str(name), "") == known[kind].get(str(name))
        for kind, column in (("networks", "network"), ("tasks", "task"))
        for name in (drawn[column].unique() if column in drawn else ())
    )
    if not (same and of_study(folder)):
        raise InputError(
            f"{folder} holds a map, whose settings this study's would replace; give the study "
            "another folder with --out."
        )


_PROFILED = Path("profile") / "of.json"
"""What FOLDER/profile.csv was measured on, by name and digest."""


def record_profiled(folder: str | Path, opened: Opened) -> None:
    """Write down what FOLDER/profile.csv was measured on, for a sweep that comes after it."""
    write_atomically(Path(folder) / _PROFILED, json_text(_named(opened)) + "\n")


def check_no_other_profile(folder: str | Path, opened: Opened) -> None:
    """Refuse a sweep beside a profile of networks or tasks that have these names and are others:
    `relate` and the page would join the two.

    Raises:
        InputError: FOLDER/profile.csv was measured on one of them with another digest.
    """
    if not (Path(folder) / "profile.csv").is_file():
        return
    for one, what in _others(Path(folder) / _PROFILED, opened):
        raise InputError(
            f"{Path(folder) / 'profile.csv'} was measured on another {one} than this one (other "
            f"{what}), and would be related to these accuracies; measure it again with `aptheory "
            "profile`, or give another folder with --out."
        )


def of_study(folder: str | Path) -> bool:
    """Whether FOLDER/settings.json is a study's."""
    return "study" in _read(Path(folder) / "settings.json")


def _named(opened: Opened) -> dict[str, dict[str, str]]:
    """The digests of a study's networks and tasks, by their names."""
    return {
        "networks": {each.net.name: each.net.digest for each in opened.networks},
        "tasks": {each.task.name: each.task.digest for each in opened.tasks},
    }


def _others(path: Path, opened: Opened) -> Iterator[tuple[str, str]]:
    """The names that a file knows with another digest than a study has, and what is another."""
    known = _digests(path)
    for kind, each in _named(opened).items():
        for name, digest in each.items():
            if known[kind].get(name) not in (None, digest):
                yield name, "pictures" if kind == "tasks" else "weights"


def _digests(path: Path) -> dict[str, dict[str, Any]]:
    """The digests of the networks and tasks that a file names; none without it."""
    known = _read(path)
    found = {kind: known.get(kind) for kind in ("networks", "tasks")}
    return {kind: each if isinstance(each, dict) else {} for kind, each in found.items()}


def _read(path: Path) -> dict[str, Any]:
    return json_table(read_text(path), name=str(path)) if path.is_file() else {}


def command() -> str:
    """The command line, or "" where the library was called from Python."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    ours = program.stem == "aptheory" or program.parts[-2:] == ("aptheory", "__main__.py")
    return shlex.join(["aptheory", *sys.argv[1:]]) if ours else ""


def weights_of(net: Network) -> str:
    """Where a network's weights come from."""
    weights, name = net.source.get("weights"), net.source.get("name", net.name)
    if weights in ("pretrained", "random"):
        return f"{name}, {weights}"
    return str(weights or net.source.get("name") or "the module that was given")


def pictures_of(task: Task) -> dict[str, Any]:
    """Pictures and classes of each split, what was left out, and copies across splits.

    ``copies`` is None where they were not looked for: too many pictures, or pictures that change.
    """
    splits = {name: getattr(task, name) for name in SPLITS}
    count = sum(len(split) for split in splits.values())
    steady = not any(is_random(split) for split in splits.values())
    return {
        "count": {name: len(split) for name, split in splits.items()},
        "classes": {name: len(np.unique(split.labels)) for name, split in splits.items()},
        "left_out": dict(task.left_out),
        "copies": across_splits(splits) if steady and count <= MOST else None,
        "splits": task.provenance,
        "notes": list(task.notes),
    }

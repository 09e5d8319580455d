"""What made a folder's tables, as FOLDER/settings.json, for its page and for whoever asks."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aptheory.checked import json_table, read_text
from aptheory.errors import InputError
from aptheory.studies.files import write_atomically
from aptheory.tasks.base import SPLITS
from aptheory.tasks.copies import across_splits
from aptheory.tasks.split import is_random
from aptheory.version import __version__

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
    text = json.dumps(settings, indent=2, default=str) + "\n"
    write_atomically(Path(folder) / "settings.json", text)


def check_belongs(folder: str | Path, opened: Opened) -> None:
    """Refuse networks and tasks that FOLDER's results know by the same names as others.

    Raises:
        InputError: FOLDER/settings.json names one of them with another digest.
    """
    known = _digests(folder)
    for kind, given in (
        ("networks", [each.net for each in opened.networks]),
        ("tasks", [each.task for each in opened.tasks]),
    ):
        for one in given:
            if known[kind].get(one.name) not in (None, one.digest):
                raise InputError(
                    f"{folder} holds results of another {one.name} than this one (other "
                    f"{'pictures' if kind == 'tasks' else 'weights'}), and its tables would mix "
                    "the two; give the same as there, or another folder with --out."
                )


def check_is_about(folder: str | Path, net: Network, task: Task) -> None:
    """Refuse the folder of a run that is not about this network and this task.

    Raises:
        InputError: FOLDER/settings.json names others alone, or these with another digest.
    """
    if not (Path(folder) / "settings.json").is_file():
        return
    known = _digests(folder)
    for kind, one in (("networks", net), ("tasks", task)):
        names = known[kind]
        if one.name not in names or names[one.name] not in (None, one.digest):
            other = f"another {one.name}" if one.name in names else ", ".join(names) or "no such"
            raise InputError(
                f"{folder} holds the results of a run on {other} and not on this {one.name}; give "
                "another folder with --out."
            )


def _digests(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The digests of the networks and tasks that FOLDER/settings.json names; none without it."""
    path = Path(folder) / "settings.json"
    known = json_table(read_text(path), name=str(path)) if path.is_file() else {}
    found = {kind: known.get(kind) for kind in ("networks", "tasks")}
    return {kind: each if isinstance(each, dict) else {} for kind, each in found.items()}


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

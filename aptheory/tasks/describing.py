"""A task in words: its splits' sizes, its classes and their balance, and how it is read."""

import html
from typing import Any

import numpy as np

from aptheory.preprocessing import SQUASHED
from aptheory.tasks.resizing import resize_of

SHOWN = 8  # classes that are named
_BY_NETWORK = {
    "network": "made images by the evaluation transform of the network that gets them",
    "center": "shorter side resized, aspect ratio kept, centre crop",
    "border": "longer side resized, aspect ratio kept, filled up with the mean colour",
}
"""What a split's choice of resizing says of every network, but for "squash"."""


def rows(task: Any) -> list[tuple[str, str]]:
    """(what, value) of a task, for its text and its page."""
    sizes, balance = [], []
    for name in ("train", "val", "test"):
        labels = getattr(task, name).labels
        counts = np.bincount(labels, minlength=len(task.classes))
        sizes.append(f"{name} {len(labels)}")
        even = counts.min() == counts.max()
        balance.append(f"{name} {counts.min()}" + ("" if even else f" to {counts.max()}"))
    names = ", ".join(task.classes[:SHOWN])
    more = f" and {len(task.classes) - SHOWN} more" if len(task.classes) > SHOWN else ""
    out = [
        ("pictures", ", ".join(sizes)),
        ("classes", f"{len(task.classes)}: {names}{more}"),
        ("a class has", ", ".join(balance)),
        ("preprocessing", preparation(task)),
        ("splits", task.provenance),
        *(("read", note) for note in task.notes),
        *(("left out", f"{number} × {kind}") for kind, number in task.left_out.items()),
    ]
    return [(what, value) for what, value in out if value]


def preparation(task: Any) -> str:
    """How pictures become images, as far as that is known without the network that gets them."""
    words = _BY_NETWORK.get(resize_of(task.train), SQUASHED)
    if SQUASHED in task.preprocessing or words == SQUASHED:
        return task.preprocessing.replace(SQUASHED, words)
    return f"{task.preprocessing}; {words}"


def text(task: Any) -> str:
    """The task in lines."""
    lines = [f"task {task.name} ({task.group})"]
    return "\n".join([*lines, *(f"  {what:<14} {value}" for what, value in rows(task))])


def page(task: Any) -> str:
    """The task as an HTML table."""
    cells = "".join(
        f"<tr><th>{html.escape(what)}</th><td>{html.escape(value)}</td></tr>"
        for what, value in rows(task)
    )
    return f"<table><caption>{html.escape(task.name)} ({task.group})</caption>{cells}</table>"

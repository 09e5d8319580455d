"""Tasks: labelled images with three splits, whatever they are read from or drawn by."""

from aptheory.tasks.base import ArraySplit, Joined, Selection, Split, Task, loader
from aptheory.tasks.catalogue import embedded, task

__all__ = [
    "ArraySplit",
    "Joined",
    "Selection",
    "Split",
    "Task",
    "embedded",
    "loader",
    "task",
]

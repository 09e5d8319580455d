"""Tasks: labelled images with three splits, whatever they are read from or drawn by."""

from aptheory.tasks.augmenting import augmented
from aptheory.tasks.base import Task
from aptheory.tasks.catalogue import embedded, open_images, task
from aptheory.tasks.checking import Checked, check
from aptheory.tasks.loading import loader
from aptheory.tasks.own import Unlabelled
from aptheory.tasks.present import list_tasks
from aptheory.tasks.published_splits import published, read_split, write_split
from aptheory.tasks.readers.decode import decoded, decoded_task
from aptheory.tasks.split import Split
from aptheory.tasks.views import ArraySplit, Joined, Selection
from aptheory.tasks.vtab import VtabSplits, vtab_splits, vtab_summary

__all__ = [
    "ArraySplit",
    "Checked",
    "Joined",
    "Selection",
    "Split",
    "Task",
    "Unlabelled",
    "VtabSplits",
    "augmented",
    "check",
    "decoded",
    "decoded_task",
    "embedded",
    "list_tasks",
    "loader",
    "open_images",
    "published",
    "read_split",
    "task",
    "vtab_splits",
    "vtab_summary",
    "write_split",
]

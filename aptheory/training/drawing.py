"""Which images a run learns from: the task's own splits, or a draw of its own from a pool.

A mean over seeds that all see the same images holds the luck of the optimiser alone. With
`Recipe.redraw` each seed draws its training and validation images anew, so that the spread over
seeds holds the luck of the training set too. Runs with different draws still train as one batch:
each gathers its own rows of one kept pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from aptheory.errors import InputError
from aptheory.tasks.split import is_random
from aptheory.tasks.splits import draw_by_class
from aptheory.training.recipe import Recipe, Run

if TYPE_CHECKING:
    from aptheory.tasks.base import Task

POOL = "pool"
_DRAW = 0x706F6F6C  # Decorrelates a draw from the task's own cuts, made from seeds as small.


@dataclass(frozen=True, eq=False)
class Part:
    """The images of one split of one run: ``rows`` of the kept split called ``store``."""

    store: str
    rows: Int64[Tensor, " images"]


Parts = dict[str, Part]
"""Split of a run ("train", "val", "test") -> where its images are."""


def parts_of(task: Task, runs: Sequence[Run], recipe: Recipe) -> list[Parts]:
    """For each run where its splits are; runs that see the same images share the same `Part`."""
    own = {name: _whole(name, len(getattr(task, name))) for name in ("train", "val", "test")}
    if not recipe.redraw:
        return [own for _ in runs]
    drawn = {run.seed: draw(task, run.seed) for run in runs}
    return [{**own, **drawn[run.seed]} for run in runs]


def images_kept(task: Task, recipe: Recipe) -> int:
    """How many images (views counted) the kept activations of one place hold, all splits."""
    if recipe.redraw:
        return len(task.drawn_from) + len(task.test)
    return len(task.train) * max(1, recipe.views) + len(task.val) + len(task.test)


def draw(task: Task, seed: int) -> Parts:
    """Training and validation images drawn from the task's pool, as many of each class as the
    task's own splits have; no image is in both.

    Raises:
        InputError: a pool that has fewer images of a class than the two splits need, or whose
            images are augmented anew at every look, as those to validate on must not be.
    """
    if is_random(task.drawn_from):
        raise InputError(
            f"The training images of task {task.name!r} are augmented at every look, so that none "
            "of them can be drawn to validate on; augment by the recipe instead, or leave redraw."
        )
    labels = task.drawn_from.labels
    train, val, pool = (
        np.bincount(split, minlength=len(task.classes))
        for split in (task.train.labels, task.val.labels, labels)
    )
    if (short := np.flatnonzero(pool < train + val)).size:
        label = int(short[0])
        raise InputError(
            f"The pool of task {task.name!r} has {pool[label]} images of class "
            f"{task.classes[label]!r}, but {train[label]} are to be trained on and {val[label]} to "
            "validate on; give the task a larger pool."
        )
    rows = draw_by_class(labels, (train, val), seed=(seed, _DRAW))
    return {
        name: Part(POOL, torch.from_numpy(drawn))
        for name, drawn in zip(("train", "val"), rows, strict=True)
    }


def _whole(name: str, images: int) -> Part:
    return Part(name, torch.arange(images))

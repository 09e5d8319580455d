"""The VTAB-1K protocol: which splits to use when, and how results over its 19 tasks are summed up.

1. Select (layer, learning rate, ...): train on ``train800``, compare on ``val200``.
2. Report: train on ``train1000``, the two together, with several seeds; the accuracy on the whole
   test set after the last epoch, nothing chosen on it.
3. Means over the tasks of a group, over the 19 tasks, and over the 3 groups, with intervals.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aptheory.arguments import Level, checked_arguments
from aptheory.errors import InputError
from aptheory.tasks.base import Task
from aptheory.tasks.registry import VTAB_GROUPS
from aptheory.tasks.split import Split

_SETTINGS = ("network", "layer", "layer_name", "depth", "method")


@dataclass(frozen=True)
class VtabSplits:
    """The splits of one task under the names of the protocol."""

    train800: Split
    val200: Split
    train1000: Split
    test: Split


@checked_arguments
def vtab_splits(task: Task, *, strict: bool = True) -> VtabSplits:
    """The protocol's four splits. With ``strict`` a task whose train and val are not 800 and 200
    images is refused; `Task.subset` makes one of a larger task."""
    sizes = (len(task.train), len(task.val))
    if strict and sizes != (800, 200):
        raise InputError(
            f"task {task.name!r} has {sizes[0]} training and {sizes[1]} validation images; VTAB-1K "
            "has 800 and 200: use task.subset(train=800, val=200)"
        )
    return VtabSplits(task.train, task.val, task.train_and_val, task.test)


@checked_arguments
def vtab_summary(
    table: pd.DataFrame,
    *,
    measure: str = "test_accuracy",
    groups: dict[str, Sequence[str]] | None = None,
    confidence: Level = 0.95,
) -> pd.DataFrame:
    """Means over seeds, tasks and groups, each with a confidence interval.

    ``table`` is tidy: columns task, seed, measure, value and, optionally, network, method, layer;
    each combination of the latter is summed up by itself. ``groups`` maps a group to its tasks
    (VTAB's own by default); tasks outside every group are left out.

    Returned: those columns, ``scope`` ("task", "group", "mean of tasks", "mean of groups"),
    ``name``, ``mean``, ``low``, ``high``, ``tasks`` (how many have a value), ``expected`` (how
    many there are) and ``seeds`` (the fewest of a task). A mean over fewer tasks than expected is
    given for what it is: compare ``tasks`` with ``expected`` before citing it.

    Intervals are Student's t over seeds. For a mean of tasks the tasks' seeds are independent:
    the variance is the sum of the tasks' own (s²/n), divided by the number of tasks squared, with
    Welch-Satterthwaite degrees of freedom. The interval is over seeds, for these tasks; it does
    not say how another set of tasks would turn out. With one seed it is NaN. Raises
    `InputError` if a column is missing, or a task has two values for one seed.
    """
    members = {key: tuple(value) for key, value in (groups or VTAB_GROUPS).items()}
    missing = {"task", "seed", "measure", "value"} - set(table.columns)
    if missing:
        raise InputError(f"the table lacks the column(s) {', '.join(sorted(missing))}")
    known = [name for tasks in members.values() for name in tasks]
    chosen = table[(table["measure"] == measure) & table["task"].isin(known)]
    if chosen.empty:
        raise InputError(f"the table has no {measure!r} for any task of {', '.join(members)}")
    by = [key for key in _SETTINGS if key in table.columns]
    twice = chosen.duplicated([*by, "task", "seed"])
    if twice.any():
        row = chosen[twice].iloc[0]
        raise InputError(
            f"the table has {measure!r} of task {row['task']!r}, seed {row['seed']}, twice; "
            "drop one, or keep the column that tells them apart"
        )
    parts: Iterable[tuple[Any, pd.DataFrame]] = [((), chosen)]
    if by:
        parts = chosen.groupby(by, dropna=False, sort=True)
    frames = [
        _summary(part, members, confidence).assign(**dict(zip(by, key, strict=True)))
        for key, part in parts
    ]
    joined = pd.concat(frames, ignore_index=True)
    return joined[[*by, *(column for column in joined.columns if column not in by)]]


@dataclass(frozen=True)
class _Mean:
    """A mean with the variance of the mean, and that variance's degrees of freedom."""

    mean: float
    variance: float
    freedom: float
    tasks: int
    seeds: int


def _of_seeds(values: np.ndarray) -> _Mean:
    count = len(values)
    variance = float(values.var(ddof=1)) / count if count > 1 else float("nan")
    return _Mean(float(values.mean()), variance, count - 1, 1, count)


def _of_means(means: list[_Mean]) -> _Mean:
    count = len(means)
    parts = np.array([m.variance for m in means]) / count**2
    freedoms = np.array([m.freedom for m in means], dtype=np.float64)
    total = float(parts.sum())
    freedom = float("nan")
    if np.isfinite(total) and total > 0:
        inner = parts > 0
        freedom = total**2 / float((parts[inner] ** 2 / freedoms[inner]).sum())
    return _Mean(
        float(np.mean([m.mean for m in means])),
        total,
        freedom,
        sum(m.tasks for m in means),
        min(m.seeds for m in means),
    )


def _summary(
    part: pd.DataFrame, groups: dict[str, tuple[str, ...]], confidence: float
) -> pd.DataFrame:
    values = {
        str(task): rows["value"].to_numpy(dtype=np.float64)
        for task, rows in part.groupby("task", sort=False)
    }
    rows, group_means, task_means = [], [], []
    for group, tasks in groups.items():
        present = {task: _of_seeds(values[task]) for task in tasks if task in values}
        rows += [_row("task", task, mean, 1, confidence) for task, mean in present.items()]
        if present:
            task_means += list(present.values())
            group_means.append((group, _of_means(list(present.values())), len(tasks)))
    rows += [_row("group", name, mean, size, confidence) for name, mean, size in group_means]
    expected = sum(len(tasks) for tasks in groups.values())
    overall = _of_means(task_means)
    rows.append(_row("mean of tasks", f"{overall.tasks} tasks", overall, expected, confidence))
    over_groups = _of_means([mean for _, mean, _ in group_means])
    name = f"{len(group_means)} groups"
    rows.append(_row("mean of groups", name, over_groups, expected, confidence))
    return pd.DataFrame(rows)


def _row(
    scope: str, name: str, mean: _Mean, expected: int, confidence: float
) -> dict[str, str | float | int]:
    from scipy import stats

    if mean.variance == 0:  # every seed gave the same: the interval is a point
        half = 0.0
    else:
        half = float(stats.t.ppf((1 + confidence) / 2, mean.freedom) * np.sqrt(mean.variance))
    return {
        "scope": scope,
        "name": name,
        "mean": mean.mean,
        "low": mean.mean - half,
        "high": mean.mean + half,
        "tasks": mean.tasks,
        "expected": expected,
        "seeds": mean.seeds,
    }

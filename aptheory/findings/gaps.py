"""Accuracies and their differences, each with the interval that its runs allow, in percent.

A table of accuracies may have a column ``correct``: which test pictures each run knew
(`aptheory.studies.tables.with_pictures`). With it intervals hold both sources, the test pictures
and the training; without it they hold the seeds alone (`aptheory.findings.statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from aptheory.findings.pictures import paired_pictures, two_source_interval
from aptheory.findings.statistics import Interval, mean_interval, mean_over
from aptheory.findings.verdict import UNPAIRED

Runs = pd.DataFrame
"""Test accuracies of one method at one layer, a row a seed: ``seed, value``, maybe ``correct``."""


def runs_of(rows: pd.DataFrame) -> dict[tuple[str, int], Runs]:
    """The test accuracies by (method, layer), of rows of one network, task and recipe."""
    rows = rows[rows["measure"] == "test_accuracy"].dropna(subset=["value"])
    groups = rows.assign(layer=rows["layer"].astype(int)).groupby(["method", "layer"])
    return {(str(key[0]), int(str(key[1]))): group for key, group in groups}


def mean_accuracy(runs: Runs) -> Interval:
    """Accuracy in percent: over seeds, and over test pictures where they are known."""
    return mean_share(runs).times(100)


def gap(ours: Runs | None, theirs: Runs | None) -> Interval:
    """Accuracy of ours minus theirs in points, paired by seed and, where they are known, pictures.

    The value is nan where one was not run, or no seed of both.
    """
    return share_gap(ours, theirs).times(100)


def mean_share(runs: Runs) -> Interval:
    """`mean_accuracy` as a fraction."""
    pictures = _pictures(runs, runs["seed"])
    if pictures is not None:
        return two_source_interval(pictures)
    return mean_over(runs["value"], within=(0, 1))


def share_gap(ours: Runs | None, theirs: Runs | None) -> Interval:
    """`gap` as a fraction."""
    if ours is None or theirs is None:
        return Interval(float("nan"), note="not run")
    seeds = sorted(set(ours["seed"]) & set(theirs["seed"]))
    if not seeds:
        return Interval(float("nan"), note=UNPAIRED)
    first, second = _pictures(ours, seeds), _pictures(theirs, seeds)
    if first is not None and second is not None and first.shape == second.shape:
        return paired_pictures(first, second)
    return mean_over(_by_seed(ours, seeds) - _by_seed(theirs, seeds), within=(-1, 1))


def by_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """``value, low, high`` in percent at each layer, of the rows of one method."""
    rows = rows.dropna(subset=["value"])
    layers = sorted({int(layer) for layer in rows["layer"]})
    means = {layer: mean_accuracy(rows[rows["layer"] == layer]) for layer in layers}
    bounds = [(mean.value, mean.low, mean.high) for mean in means.values()]
    return pd.DataFrame(bounds, index=list(means), columns=["value", "low", "high"])


def mean_by(rows: pd.DataFrame, column: str, value: str = "value") -> pd.DataFrame:
    """``value, low, high`` for each entry of a column: the mean and its 95 % t interval."""
    groups = rows.groupby(column)[value]
    bounds = {at: mean_interval(one.to_numpy(float)) for at, one in groups}
    table = pd.DataFrame.from_dict(bounds, orient="index", columns=["low", "high"])
    table.insert(0, "value", groups.mean())
    return table


def _by_seed(runs: Runs, seeds: list[int]) -> np.ndarray:
    return runs.groupby("seed")["value"].mean().loc[seeds].to_numpy(float)


def _pictures(
    runs: Runs, seeds: Sequence[int] | pd.Series
) -> Bool[np.ndarray, "runs pictures"] | None:
    """Which test pictures the runs of these seeds knew; None where that is not known of all."""
    if "correct" not in runs or runs["seed"].duplicated().any():
        return None
    known = list(runs.set_index("seed")["correct"].loc[list(seeds)])
    if not all(isinstance(one, np.ndarray) for one in known):
        return None
    return np.stack(known) if len({len(one) for one in known}) == 1 else None

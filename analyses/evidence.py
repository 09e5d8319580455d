"""Numbers for the claims: small functions from tidy tables to a value with its interval.

Every function takes tables as the toolkit writes them and returns an `Evidence`: a value, its
95 % interval, and how many observations stand behind it. Nothing here trains or loads a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from aptheory.findings.chosen import chosen_layer
from aptheory.findings.relate import spearman
from aptheory.findings.statistics import mean_interval


class NotMeasured(LookupError):
    """The tables hold nothing about this: its analysis was not run, or not on such networks."""


@dataclass(frozen=True)
class Evidence:
    """A number with its interval; ``unit`` follows it in print."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    count: int = 1
    unit: str = ""
    what: str = ""

    def __str__(self) -> str:
        said = f"{self.value:+.2f}" if self.unit == "points" else f"{self.value:.3g}"
        if np.isfinite(self.low):
            low, high = (
                f"{v:+.2f}" if self.unit == "points" else f"{v:.3g}" for v in (self.low, self.high)
            )
            said += f" [{low}, {high}]"
        said += f" {self.unit}" if self.unit else ""
        return f"{said} ({self.what})" if self.what else said

    @property
    def above_zero(self) -> bool:
        """The whole interval lies above zero."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """The whole interval lies below zero."""
        return self.high < 0


def pretrained(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of pretrained networks: the random-weight controls are labelled as such."""
    return table[~table["network"].str.contains("random")]


def is_vit(network: str) -> bool:
    """Whether a network of our evidence is a vision transformer, by its name."""
    return "vit" in network.lower()


def chosen(accuracy: pd.DataFrame, method: str = "ap") -> pd.DataFrame:
    """Test accuracy of a layered method at the layer best on mean validation accuracy.

    One row per (network, task, seed) with columns ``layer`` and ``value``.

    Raises:
        NotMeasured: the method is not in the table.
    """
    parts = []
    rows = accuracy[accuracy["method"] == method]
    for _, group in rows.groupby(["network", "task"]):
        layer = chosen_layer(group)
        test = group[(group["measure"] == "test_accuracy") & (group["layer"] == layer)]
        parts.append(test[["network", "task", "seed", "layer", "value"]])
    if not parts:
        raise NotMeasured(method)
    return pd.concat(parts, ignore_index=True)


def at_layer(accuracy: pd.DataFrame, method: str, layer: int | None = None) -> pd.DataFrame:
    """Test accuracy of a method, at one layer if it is given: a row per (network, task, seed)."""
    rows = accuracy[(accuracy["method"] == method) & (accuracy["measure"] == "test_accuracy")]
    if layer is not None:
        rows = rows[rows["layer"] == layer]
    return rows.groupby(["network", "task", "seed"], as_index=False)["value"].mean()


def gap(a: pd.DataFrame, b: pd.DataFrame, what: str) -> Evidence:
    """Mean of a − b in points, paired by (network, task, seed); interval over (network, task).

    Seeds of one pair share its images, so they are averaged before the interval is taken.
    """
    both = a.merge(b, on=["network", "task", "seed"], suffixes=("_a", "_b"))
    if both.empty:
        raise NotMeasured(what)
    both["gap"] = 100 * (both["value_a"] - both["value_b"])
    means = both.groupby(["network", "task"])["gap"].mean().to_numpy(float)
    if len(means) == 1:
        means = both["gap"].to_numpy(float)
        what += ", interval over seeds"
    low, high = mean_interval(means)
    return Evidence(float(means.mean()), low, high, len(means), "points", what)


def depth_correlation(accuracy: pd.DataFrame, what: str) -> Evidence:
    """Mean Spearman correlation of depth and AP's accuracy over (network, task)."""
    rows = accuracy[(accuracy["method"] == "ap") & (accuracy["measure"] == "test_accuracy")]
    values = []
    for _, group in rows.groupby(["network", "task"]):
        curve = group.groupby("layer")["value"].mean()
        values.append(spearman(curve.index.to_numpy(float), curve.to_numpy(float)))
    if not values:
        raise NotMeasured(what)
    low, high = mean_interval(np.asarray(values))
    return Evidence(float(np.mean(values)), low, high, len(values), "", what)


def best_depths(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Relative depth (0 image, 1 classifier's input) of the layer best on validation."""
    rows = []
    last = accuracy.groupby("network")["layer"].max()
    for key, group in chosen(accuracy).groupby(["network", "task"]):
        network, task = key
        layer = int(group["layer"].iloc[0])
        rows.append((network, task, layer, layer / last[network]))
    return pd.DataFrame(rows, columns=["network", "task", "layer", "depth"])


def spread_over_seeds(accuracy: pd.DataFrame) -> Evidence:
    """Median over (network, task, layer) of AP's standard deviation over seeds, in points."""
    rows = accuracy[(accuracy["method"] == "ap") & (accuracy["measure"] == "test_accuracy")]
    spread = 100 * rows.groupby(["network", "task", "layer"])["value"].std().dropna()
    if spread.empty:
        raise NotMeasured("several seeds of AP")
    low, high = np.percentile(spread, [2.5, 97.5])
    return Evidence(
        float(spread.median()),
        float(low),
        float(high),
        len(spread),
        "points",
        "median, 95 % of cells",
    )


def metric_slope(profile: pd.DataFrame, measure: str, what: str) -> Evidence:
    """Mean Spearman correlation of depth and a metric over the block layers of (network, task)."""
    rows = profile[profile["measure"] == measure]
    values = []
    for _, group in rows.groupby(["network", "task"]):
        curve = group.groupby("layer")["value"].mean()
        if len(curve) >= 4:
            values.append(spearman(curve.index.to_numpy(float), curve.to_numpy(float)))
    if not values:
        raise NotMeasured(what)
    low, high = mean_interval(np.asarray(values))
    return Evidence(float(np.mean(values)), low, high, len(values), "", what)

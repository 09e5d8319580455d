"""Numbers for the claims: small functions from tidy tables to a value with its interval.

Every function takes tables as the toolkit writes them and returns an `Interval`, with networks as
its units: tasks of one network share it and are no further evidence. Nothing here trains or loads
a network.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from analyses.campaign_plan import NETWORKS
from aptheory.findings.chosen import chosen_layer
from aptheory.findings.relate import spearman
from aptheory.findings.statistics import Interval, clustered_mean, mean_correlation


class NotMeasured(LookupError):
    """The tables hold nothing about this: its analysis was not run, or not on such networks."""


def pretrained(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of pretrained networks: the random-weight controls are labelled as such."""
    return table[~table["network"].str.contains("random")]


KINDS: Mapping[str, str] = {
    "aptheory_vit_mini": "vit",
    "aptheory_vit_gap_mini": "vit",
    "vit_tiny_patch16_224": "vit",
    "aptheory_resnet_mini": "cnn",
    "aptheory_resnet_deep_mini": "cnn",
    **{name: spec.kind for name, spec in NETWORKS.items()},
}
"""What the networks of the sweeps, the method comparisons and the campaign are."""


def is_vit(network: str) -> bool:
    """Whether a network of our evidence is a vision transformer, as `KINDS` says.

    Raises:
        LookupError: the network is not in `KINDS`.
    """
    name = network.removesuffix(" (random)")
    if name not in KINDS:
        raise LookupError(f"{name} has no kind; add it to analyses.evidence.KINDS as vit or cnn.")
    return KINDS[name] == "vit"


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


def gap(a: pd.DataFrame, b: pd.DataFrame, what: str) -> Interval:
    """Mean of a − b in points, paired by (network, task, seed); the units are networks.

    Raises:
        NotMeasured: no network, task and seed has both; ``what`` names the difference.
    """
    both = a.merge(b, on=["network", "task", "seed"], suffixes=("_a", "_b"))
    if both.empty:
        raise NotMeasured(what)
    return clustered_mean(100 * (both["value_a"] - both["value_b"]), both["network"], both["task"])


def depth_correlation(accuracy: pd.DataFrame) -> Interval:
    """Mean Spearman correlation of depth and AP's test accuracy; the units are networks."""
    rows = accuracy[(accuracy["method"] == "ap") & (accuracy["measure"] == "test_accuracy")]
    values = slopes(rows)
    return mean_correlation(values["value"], values["network"], values["task"])


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of depth and ``value`` for each network and task with four layers.

    Raises:
        NotMeasured: there is none.
    """
    found = []
    for (network, task), group in rows.groupby(["network", "task"]):
        curve = group.groupby("layer")["value"].mean()
        if len(curve) >= 4:
            rho = spearman(curve.index.to_numpy(float), curve.to_numpy(float))
            found.append((network, task, rho))
    if not found:
        raise NotMeasured("a curve over four layers or more")
    return pd.DataFrame(found, columns=["network", "task", "value"])


def best_depths(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Relative depth (0 image, 1 classifier's input) of the layer best on validation."""
    rows = []
    last = accuracy.groupby("network")["layer"].max()
    for key, group in chosen(accuracy).groupby(["network", "task"]):
        network, task = key
        layer = int(group["layer"].iloc[0])
        rows.append((network, task, layer, layer / last[network]))
    return pd.DataFrame(rows, columns=["network", "task", "layer", "depth"])


def share_between_networks(depths: pd.DataFrame) -> Interval:
    """Share of the variance of ``depth`` that lies between networks, and not between their tasks.

    The intraclass correlation of one-way analysis of variance, with the interval that the F
    distribution gives it (Shrout and Fleiss 1979, with the usual mean group size where networks
    have unequally many tasks). It is below 0 where networks differ less than chance would have it.

    Raises:
        NotMeasured: one network, or no network with several tasks.
    """
    groups = [group.to_numpy(float) for _, group in depths.groupby("network")["depth"]]
    sizes = np.array([len(group) for group in groups])
    networks, total = len(groups), int(sizes.sum())
    if networks < 2 or total == networks:
        raise NotMeasured("several networks and several tasks of a network")
    middle = np.concatenate(groups).mean()
    between = sum(len(group) * (group.mean() - middle) ** 2 for group in groups) / (networks - 1)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (total - networks)
    size = (total - (sizes**2).sum() / total) / (networks - 1)
    f = stats.f(networks - 1, total - networks)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.float64(between) / within
    share, low, high = (
        float(1 - size / (ratio / quantile + size - 1))
        for quantile in (1, f.ppf(0.975), f.ppf(0.025))
    )
    return Interval(share, low, high, networks, "networks")


def spread_over_seeds(accuracy: pd.DataFrame) -> Interval:
    """Median over (network, task, layer) of AP's standard deviation over seeds, in points.

    The bounds hold 95 % of the cells.
    """
    rows = accuracy[(accuracy["method"] == "ap") & (accuracy["measure"] == "test_accuracy")]
    spread = 100 * rows.groupby(["network", "task", "layer"])["value"].std().dropna()
    if spread.empty:
        raise NotMeasured("several seeds of AP")
    low, high = np.percentile(spread, [2.5, 97.5])
    return Interval(float(spread.median()), float(low), float(high), len(spread), "cells")

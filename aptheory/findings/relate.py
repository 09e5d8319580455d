"""Do global features explain where an activation prompt works best?

The paper answers by eye: two curves over depth, side by side. Here the answer is a rank
correlation over layers with an interval and a p-value that respect three facts about such
curves:

- *They are smooth.* Neighbouring layers are not independent observations, so the textbook
  p-value is far too small. The null distribution used here rotates one curve, followed by its
  mirror image, against the other (circular shift): it keeps each curve's smoothness and breaks
  only their alignment. With n layers p is never below 1/(2n): with the dozen of layers that
  networks have, no single curve survives a correction for many looks. Evidence comes from
  several networks (`across`).
- *They are short.* The interval counts how many independent layers a dozen smooth ones are worth
  (`aptheory.findings.statistics.correlation_interval`).
- *Depth may be the whole story.* Anything that rises with depth correlates with anything else
  that does; the partial correlation given depth says what is left.

Every table that goes in or comes out is tidy: one observation a row (network, task, layer,
method, seed, measure, value).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
import pandas as pd

from aptheory.arguments import PROFILE, RESULTS, checked_arguments
from aptheory.errors import InputError
from aptheory.findings.chosen import swept_prompt
from aptheory.findings.statistics import (
    Curve,
    Interval,
    circular_shift_p,
    corrected,
    correlation_interval,
    fisher_z,
    mean_correlation,
    mean_p,
    ranks,
)
from aptheory.studies.tables import check_once

TARGETS = ("ap", "ap - linear_probe", "ap - layer_probe")
"""What a metric may explain: AP's accuracy, or its gain over one of the two probes."""


def spearman(x: Curve, y: Curve) -> float:
    """Spearman's rank correlation, with ties at their mean rank; nan when a curve is constant."""
    return _pearson(ranks(x), ranks(y))


def partial_spearman(x: Curve, y: Curve, given: Curve) -> float:
    """Rank correlation of x and y with the rank of a third curve held fixed.

    r(xy|d) = (r_xy − r_xd·r_yd) / √((1 − r_xd²)(1 − r_yd²)). It is nan when x or y is a monotone
    function of the third curve: then the two cannot be told apart, whatever the data.
    """
    r_xy, r_xd, r_yd = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = (1 - r_xd**2) * (1 - r_yd**2)
    return float("nan") if not rest > 1e-12 else float((r_xy - r_xd * r_yd) / np.sqrt(rest))


@checked_arguments
def relate(
    profile: Annotated[pd.DataFrame, PROFILE],
    accuracy: Annotated[pd.DataFrame, RESULTS],
    *,
    measures: Sequence[str] | None = None,
    target: str = "ap",
    on: str = "test_accuracy",
) -> pd.DataFrame:
    """Rank correlation of every metric with the accuracy of AP over layers.

    The linear probe is one number a seed, the same for all layers: against
    ``"ap - linear_probe"`` the correlation and its p are by construction those against ``"ap"``.

    Args:
        profile: tidy metrics, one row per (network, task, layer, measure); rows that differ only
            in head are averaged, and pairwise measures (those with an ``other_layer``) left out.
        accuracy: tidy accuracies, one row per (network, task, layer, method, seed, measure).
        measures: the metrics to look at; all in the profile by default.
        target: ``"ap"``, ``"ap - linear_probe"`` or ``"ap - layer_probe"``.
        on: the accuracy that is explained, averaged over seeds.

    Returns:
        One row per (network, task, measure, statistic) with ``value, low, high, p, smallest_p, q,
        layers, seeds, looks, note``. ``statistic`` is ``spearman`` or ``spearman_given_depth``; the
        interval is `correlation_interval`, p comes from circular shifts, and q corrects it over
        all ``looks`` rows that could be significant at all (`corrected`). The others have no q,
        and ``note`` says that their layers are too few.

    Raises:
        InputError: no (network, task) has four layers or more in both tables.
    """
    if measures is not None and not len(measures):
        raise InputError("measures is empty; name some, or leave it out for all of the profile.")
    check_once(profile, "the profile")
    check_once(accuracy, "the accuracies")
    rows = []
    for network, task, x_of, y, layers in _pairs(profile, accuracy, measures, target, on):
        for measure, x in x_of.items():
            present = ~np.isnan(x)
            if present.sum() < 4:
                continue
            depth, mean = layers[present].astype(float), y[:, present].mean(0)
            for statistic in ("spearman", "spearman_given_depth"):
                rows.append(
                    {"network": network, "task": task, "measure": measure, "target": target}
                    | _row(statistic, x[present], mean, depth)
                    | {"seeds": len(y)}
                )
    if not rows:
        raise InputError(
            "nothing to relate: no network and task has at least four layers with both a metric "
            "and an accuracy; profile and sweep the same network on the same task first"
        )
    return corrected(pd.DataFrame(rows))


def across(relation: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """The mean correlation over networks and tasks, networks as the units.

    A random-effects model with an intercept for each network, in its balanced form: ``value, low,
    high`` are `mean_correlation`, Fisher's z averaged over a network's tasks and Student's t over
    the networks, and ``p`` is that of a mean of 0. Tasks on one network share its metrics and are
    not independent evidence, and a network's own smooth curve, however strongly it correlates by
    chance, is one observation here. With a single network there is no such interval: all three are
    nan and ``note`` says so. ``q`` corrects p over all ``looks`` rows (`corrected`).

    ``without_network_low/high`` and ``without_task_low/high`` are the extremes of the mean when
    any one network or task is left out: a finding that hangs on one of them shows it here.
    ``verdict`` is in words; a null result says "no relation shown".
    """
    rows = []
    for key, group in relation.dropna(subset=["value"]).groupby(["target", "measure", "statistic"]):
        target, measure, statistic = key
        mean = _mean(group, confidence)
        several = mean.unit == "networks"
        z = group.assign(value=fisher_z(group["value"].to_numpy(float)))
        row = {
            "target": target,
            "measure": measure,
            "statistic": statistic,
            "value": mean.value,
            "low": mean.low if several else np.nan,
            "high": mean.high if several else np.nan,
            "p": mean_p(z.groupby("network")["value"].mean().to_numpy()),
            "networks": group["network"].nunique(),
            "tasks": group["task"].nunique(),
            "note": mean.note if several else "one network: nothing can be said of others",
        }
        for name in ("network", "task"):
            rest = [group[group[name] != left_out] for left_out in group[name].unique()]
            means = [_mean(rows_left, confidence).value for rows_left in rest if len(rows_left)]
            means = means or [np.nan]
            row |= {f"without_{name}_low": min(means), f"without_{name}_high": max(means)}
        rows.append(row)
    table = corrected(pd.DataFrame(rows)) if rows else pd.DataFrame(rows)
    if rows:
        table["verdict"] = [
            _verdict(value, q) for value, q in zip(table["value"], table["q"], strict=True)
        ]
    return table


def _mean(rows: pd.DataFrame, confidence: float) -> Interval:
    values, networks, tasks = (rows[name].to_numpy() for name in ("value", "network", "task"))
    return mean_correlation(values.astype(float), networks, tasks, confidence=confidence)


def _verdict(value: float, q: float, level: float = 0.05) -> str:
    if np.isnan(q):
        return "cannot be told"
    if q > level:
        return "no relation shown"
    return "rises with accuracy" if value > 0 else "falls with accuracy"


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else float("nan")


def _row(statistic: str, x: Curve, y: Curve, depth: Curve) -> dict[str, object]:
    """One row of the relation table: value, interval, p and, where it is undefined, why.

    x alone is shifted: for the partial correlation a shift of accuracy would misalign depth too.
    """
    statistics: dict[str, tuple[Callable[[Curve], float], str]] = {
        "spearman": (lambda shifted: spearman(shifted, y), "constant over layers"),
        "spearman_given_depth": (
            lambda shifted: partial_spearman(shifted, y, depth),
            "a monotone function of depth: the two cannot be told apart",
        ),
    }
    correlation, undefined = statistics[statistic]
    value = correlation(x)
    low, high = correlation_interval(x, correlation)
    return {
        "statistic": statistic,
        "value": value,
        "low": low,
        "high": high,
        "p": circular_shift_p(x, correlation),
        "smallest_p": 1 / (2 * len(x)),
        "layers": len(x),
        "note": undefined if np.isnan(value) else "",
    }


def _pairs(
    profile: pd.DataFrame,
    accuracy: pd.DataFrame,
    measures: Sequence[str] | None,
    target: str,
    on: str,
) -> Iterator[tuple[str, str, dict[str, Curve], np.ndarray, np.ndarray]]:
    """Every (network, task) with its metric curves and its accuracy by seed over shared layers."""
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}")
    had = accuracy["measure"].unique().tolist()
    if len(had) and on not in had:
        raise InputError(
            f"the accuracies have no measure {on!r}: they have {', '.join(map(str, had))}"
        )
    single = profile
    if "other_layer" in profile:
        single = profile[profile["other_layer"].isna()]
    known = sorted(single["measure"].unique())
    for name in measures or ():
        if name not in known:
            raise InputError(f"the profile has no measure {name!r}: it has {', '.join(known)}")
    wanted = list(measures) if measures else known
    curves = single.pivot_table(
        index=["network", "task", "layer"], columns="measure", values="value", aggfunc="mean"
    )
    metrics = {key: rows.droplevel([0, 1]) for key, rows in curves.groupby(level=[0, 1])}
    for key, group in accuracy[accuracy["measure"] == on].groupby(["network", "task"]):
        network, task = key
        gain = _gain(group, target)
        metric = metrics.get((network, task))
        if gain is None or metric is None:
            continue
        layers = gain.columns.intersection(metric.index).sort_values()
        if len(layers) < 4:
            continue
        x_of = {name: metric.loc[layers, name].to_numpy(float) for name in wanted}
        yield str(network), str(task), x_of, gain[layers].to_numpy(float), layers.to_numpy()


def _gain(group: pd.DataFrame, target: str) -> pd.DataFrame | None:
    """AP's accuracy, less the control's of the same seed: seeds down, layers across."""
    tables = {
        method: rows.pivot_table(index="seed", columns="layer", values="value", aggfunc="mean")
        for method, rows in group.groupby("method")
    }
    prompt = swept_prompt(group)
    if prompt not in tables:
        return None
    ap = tables[prompt]
    control = target.removeprefix("ap").removeprefix(" - ")
    if not control:
        return ap.dropna(axis=1)
    if control not in tables:
        return None
    other = tables[control]
    if control == "linear_probe":  # one number a seed, whatever its place is called
        return ap.sub(other.mean(axis=1), axis=0).dropna()
    return (ap - other).dropna(axis=1, how="all").dropna()

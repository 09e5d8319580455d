"""The curves of a network and a task: computed once, drawn by the page and by matplotlib alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from aptheory.findings.cases import LAYER_PROBE, LINEAR_PROBE, Case, cases
from aptheory.findings.gaps import by_layer, gap, mean_accuracy, runs_of
from aptheory.findings.statistics import Interval
from aptheory.metrics.registry import in_order
from aptheory.reporting.legend import COLORS, measure_label, method_label, method_name, styles
from aptheory.studies.tables import with_roles


@dataclass(frozen=True)
class Curve:
    """One curve: x, y and maybe an interval around y.

    ``star`` is the index of the point to mark; ``names`` are those of the x; ``short`` is the label
    where there is little room. A curve without a ``marker`` is drawn without dots.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    color: str = COLORS["blue"]
    line: str = "-"
    marker: str = "o"
    star: int | None = None
    names: Sequence[str] = field(default_factory=tuple)
    short: str = ""

    @property
    def banded(self) -> bool:
        """Whether any point has an interval."""
        bounds = (self.low, self.high)
        return all(b is not None and bool(np.isfinite(b).any()) for b in bounds)

    @property
    def stretches(self) -> list[list[int]]:
        """The indices of neighbouring points that have an interval each."""
        if self.low is None or self.high is None:
            return []
        known = np.isfinite(np.asarray(self.low, float)) & np.isfinite(np.asarray(self.high, float))
        return [list(places) for there, places in groupby(range(len(known)), known.item) if there]


def case_of(accuracy: pd.DataFrame, network: str, task: str) -> Case | None:
    """What the table shows for a network and a task; None where no layer was chosen."""
    rows = runs_at(accuracy, network, task)
    return next(iter(cases(rows)), None) if len(rows) else None


def accuracy_curves(
    accuracy: pd.DataFrame, network: str, task: str, *, measure: str = "test_accuracy"
) -> list[Curve]:
    """Accuracy in percent by layer: prompts, controls and probes; [] where there is none.

    The stars mark the layers that validation data choose for the prompt and for the probe. The
    linear probe is one number, drawn at every layer.
    """
    rows = runs_at(accuracy, network, task)
    rows = rows[rows["measure"] == measure] if len(rows) else rows
    if rows.empty:
        return []
    case, names = case_of(accuracy, network, task), layer_names(rows)
    everywhere = sorted({int(layer) for layer in rows["layer"]})
    drawn = []
    for method, style in styles(rows).items():
        one = rows[rows["method"] == method]
        flat = _table(dict.fromkeys(everywhere, mean_accuracy(one)))
        bounds = flat if method == LINEAR_PROBE else by_layer(one)
        drawn.append(_curve(method, bounds, vars(style), names, _star(case, method, bounds)))
    return drawn


def gain_curves(accuracy: pd.DataFrame, network: str, task: str) -> list[Curve]:
    """Test accuracy of prompts and controls minus the linear probe's, in points, by layer."""
    rows = runs_at(accuracy, network, task)
    runs = runs_of(rows) if len(rows) else {}
    probe = next((of for (name, _), of in runs.items() if name == LINEAR_PROBE), None)
    if probe is None:
        return []
    case, names = case_of(accuracy, network, task), layer_names(rows)
    roles = with_roles(rows).drop_duplicates("method").set_index("method")["role"]
    drawn = []
    for method, style in styles(rows).items():
        if roles[method] not in ("prompt", "control"):
            continue
        gaps = {layer: gap(of, probe) for (name, layer), of in runs.items() if name == method}
        bounds = _table({layer: one for layer, one in gaps.items() if np.isfinite(one.value)})
        if len(bounds):
            star = _star(case, method, bounds)
            drawn.append(_curve(method, bounds, vars(style), names, star))
    return drawn


def metric_curves(profile: pd.DataFrame, network: str, task: str) -> dict[str, Curve]:
    """Every measure that has one number a layer, in the registry's order; heads are averaged."""
    rows = at(profile, network, task)
    if rows.empty:
        return {}
    if "other_layer" in rows:
        rows = rows[rows["other_layer"].isna()]
    names, found = layer_names(rows), in_order(sorted(set(rows["measure"].astype(str))))
    return {measure: _metric(rows, measure, names) for measure in found if measure != "cka"}


def _metric(rows: pd.DataFrame, measure: str, names: Mapping[int, str]) -> Curve:
    one = rows[rows["measure"] == measure]
    if "head" in one and (one["head"].astype(str) == "mean").any():
        one = one[one["head"].astype(str) == "mean"]  # its interval is that of the mean
    columns = [name for name in ("value", "low", "high") if name in one]
    table = one.groupby("layer")[columns].mean()
    banded = {"low", "high"} <= set(table)
    layers = [int(layer) for layer in table.index]
    return Curve(
        measure_label(measure),
        layers,
        list(table["value"]),
        list(table["low"]) if banded else None,
        list(table["high"]) if banded else None,
        color=COLORS["purple"],
        names=[names.get(layer, "") for layer in layers],
        short=measure.replace("_", " "),
    )


def _curve(
    method: str,
    bounds: pd.DataFrame,
    style: Mapping[str, Any],
    names: Mapping[int, str],
    star: int | None,
) -> Curve:
    layers = [int(layer) for layer in bounds.index]
    return Curve(
        method_label(method),
        layers,
        list(bounds["value"]),
        list(bounds["low"]),
        list(bounds["high"]),
        **style,
        star=star,
        names=[names.get(layer, "") for layer in layers],
        short=method_name(method),
    )


def _star(case: Case | None, method: str, bounds: pd.DataFrame) -> int | None:
    if case is None:
        return None
    chosen = {case.method: case.prompt} | ({LAYER_PROBE: case.probe} if case.probe else {})
    layers = list(bounds.index)
    place = chosen.get(method)
    return layers.index(place.layer) if place and place.layer in layers else None


def _table(intervals: Mapping[int, Interval]) -> pd.DataFrame:
    bounds = [(one.value, one.low, one.high) for one in intervals.values()]
    return pd.DataFrame(bounds, index=list(intervals), columns=["value", "low", "high"])


def layer_names(rows: pd.DataFrame) -> dict[int, str]:
    """Layer -> its name, where the table has names."""
    if "layer_name" not in rows:
        return {}
    named = rows.dropna(subset=["layer_name"]).groupby("layer")["layer_name"].first()
    return {int(layer): str(name) for layer, name in zip(named.index, named, strict=True)}


def runs_at(accuracy: pd.DataFrame, network: str, task: str) -> pd.DataFrame:
    """The accuracies of one network on one task; of several recipes, those of the first."""
    rows = at(accuracy, network, task)
    if "recipe" not in rows or rows["recipe"].nunique() < 2:
        return rows
    return rows[rows["recipe"] == rows["recipe"].iloc[0]]


def at(table: pd.DataFrame, network: str, task: str) -> pd.DataFrame:
    """The rows of one network on one task."""
    if table.empty:
        return table
    return table[(table["network"] == network) & (table["task"] == task)]

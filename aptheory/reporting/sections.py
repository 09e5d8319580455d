"""The page's charts and tables: each function turns the tables of a run into pieces of HTML."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

from aptheory.findings.cases import Case
from aptheory.findings.sentences import headline, percent, points
from aptheory.methods import role_of
from aptheory.reporting import svg as charts
from aptheory.reporting.curves import accuracy_curves, at, gain_curves, metric_curves, runs_at
from aptheory.reporting.legend import COLORS, method_label, method_name
from aptheory.reporting.run_folder import Tables

LAYER = "layer (0 is the image)"


def accuracy_charts(tables: Tables, network: str, task: str, case: Case | None) -> list[str]:
    """Gain over the linear probe, and accuracy with its controls, by layer."""
    parts = []
    gains = gain_curves(tables.accuracy, network, task)
    if gains:
        parts.append(
            charts.line_chart(
                gains,
                title="What a prompt gains over the linear probe",
                x_label=LAYER,
                y_label="test accuracy minus the linear probe's, in points, paired over seeds",
                summary=f"Gain over the linear probe by layer for {network} on {task}",
                zero=True,
            )
        )
    curves = accuracy_curves(tables.accuracy, network, task)
    if curves:
        parts.append(
            charts.line_chart(
                curves,
                title=headline(case) if case else "Accuracy of each method",
                x_label=LAYER,
                y_label="test accuracy (%), bands are 95 % intervals; ★ chosen on validation data",
                summary=f"Test accuracy by layer for {network} on {task}",
            )
        )
    return parts


def metric_charts(tables: Tables, network: str, task: str) -> list[str]:
    """Each metric by layer, and the similarity of the layers."""
    parts = [
        charts.line_chart(
            [curve],
            title=curve.short.capitalize(),
            x_label=LAYER,
            y_label=curve.label,
            summary=f"{curve.label} by layer for {network} on {task}",
        )
        for curve in metric_curves(tables.profile, network, task).values()
    ]
    rows = at(tables.profile, network, task)
    cka = rows[rows["measure"] == "cka"] if len(rows) else rows
    if len(cka):
        wide = cka.pivot_table(index="layer", columns="other_layer", values="value")
        wide = wide.combine_first(wide.T)
        wide.index, wide.columns = wide.index.astype(int), wide.columns.astype(int)
    if len(cka) and len(wide):
        parts.append(
            charts.heat_map(
                wide,
                title="Similarity of layers",
                x_label="layer",
                y_label="linear CKA between layers (across and up): 0 unlike, 1 alike",
                summary=f"CKA between all pairs of layers for {network} on {task}",
            )
        )
    return parts


def numbers(tables: Tables, network: str, task: str) -> list[str]:
    """What the charts of one network and task show, as folded tables."""
    parts = []
    rows = runs_at(tables.accuracy, network, task)
    rows = rows[rows["measure"] == "test_accuracy"] if len(rows) else rows
    if len(rows):
        wide = (100 * rows.pivot_table(index="layer", columns="method", values="value")).round(2)
        parts.append(_details("Accuracy (%) of every layer as a table", _named(wide)))
    single = at(tables.profile, network, task)
    single = single[single["measure"] != "cka"] if len(single) else single
    if len(single):
        wide = single.pivot_table(index="layer", columns="measure", values="value")
        parts.append(_details("Metrics of every layer as a table", _named(wide.round(4))))
    return parts


def relation_section(relation: pd.DataFrame) -> list[str]:
    """Correlations of the metrics with the accuracy over layers."""
    rows = relation.dropna(subset=["value"]) if len(relation) else relation
    rows = rows[rows["statistic"] == "spearman"] if len(rows) else rows
    if len(rows) and "target" in rows:
        rows = rows[rows["target"] == "ap"]
    if rows.empty:
        return []
    parts = [
        "<h2>Do the metrics explain the preference?</h2>",
        "<p class='note'>Rank correlation over layers of each metric with the prompt's accuracy, "
        "and its 95 % interval. Filled: clear of chance after correction for every look "
        "(q ≤ 0.05).</p><div class='grid2'>",
    ]
    for measure, group in rows.groupby("measure"):
        group = group.sort_values("value", ascending=False)
        parts.append(
            charts.bars(
                [f"{row.network}, {row.task}" for row in group.itertuples()],
                list(group["value"]),
                list(group["low"]),
                list(group["high"]),
                title=str(measure).replace("_", " ").capitalize(),
                x_label="rank correlation",
                summary=f"Rank correlation of {measure} with accuracy, with intervals",
                solid=list(group["q"] <= 0.05) if "q" in group else None,
                limits=(-1, 1),
                zero=True,
                digits=2,
            )
        )
    told = "The numbers: also given depth, and for the gains over the probes; p from shifts"
    return [*parts, "</div>", _details(told, relation.round(4))]


def comparison_section(comparison: pd.DataFrame) -> list[str]:
    """Every method's accuracy on each network and task."""
    if comparison.empty:
        return []
    parts = ["<h2>AP beside the other ways to adapt a frozen network</h2><div class='grid2'>"]
    for (network, task), rows in comparison.groupby(["network", "task"]):
        rows = rows.sort_values("value", ascending=False)
        shades = ["orange" if role_of(name) == "prompt" else "blue" for name in rows["method"]]
        parts.append(
            charts.bars(
                [method_name(method) for method in rows["method"]],
                list(100 * rows["value"]),
                list(100 * rows["low"]),
                list(100 * rows["high"]),
                title=f"{network} on {task}",
                x_label="test accuracy (%), 95 % intervals",
                summary=f"Test accuracy of each method for {network} on {task}",
                colors=[COLORS[shade] for shade in shades],
            )
        )
    return [*parts, "</div>", _details("The method table", method_table(comparison))]


def method_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """The comparison in a reader's words: accuracies in percent, differences in points."""
    table = comparison.sort_values(["network", "task", "value"], ascending=[True, True, False])
    shown = pd.DataFrame({"method": [method_name(name) for name in table["method"]]})
    for column in ("network", "task", "layer", "parameters", "seeds", "rank"):
        if column in table:
            values = table[column].to_numpy()
            numeric = pd.api.types.is_numeric_dtype(table[column])
            shown[column] = [f"{v:,.0f}" if numeric and v == v else v for v in values]
    bounds = table[["value", "low", "high"]].to_numpy(float)
    shown.insert(3, "test accuracy", [percent(*row) for row in bounds])
    if {"difference", "difference_low", "difference_high"} <= set(table):
        gaps = 100 * table[["difference", "difference_low", "difference_high"]].to_numpy(float)
        told = [points(*row) if row[0] == row[0] else "–" for row in gaps]
        if any(word != "–" for word in told):
            shown.insert(4, "over AP", told)
    return shown


def priced(tables: Tables) -> tuple[pd.DataFrame, str, str]:
    """The comparison's rows that have a cost, its column, and what it is called.

    The time of a step where it was measured, else the tunable parameters.
    """
    rows, cost = tables.comparison, tables.cost
    if rows.empty or "parameters" not in rows:
        return pd.DataFrame(), "", ""
    column, label = "parameters", "tunable parameters without the head"
    if {"network", "method", "step_ms", "kept"} <= set(cost):
        steps = cost[~cost["kept"].astype(bool)].groupby(["network", "method"])["step_ms"].min()
        timed = rows.join(steps, on=["network", "method"])
        if timed["step_ms"].notna().any():
            rows, column, label = timed, "step_ms", "time of a training step (ms)"
    return rows[rows[column] > 0], column, label


def front_section(tables: Tables) -> list[str]:
    """Accuracy against cost, a chart a network and task."""
    rows, column, label = priced(tables)
    if rows.empty:
        return []
    parts = []
    for (network, task), one in rows.groupby(["network", "task"]):
        one = one.sort_values([column, "value"], ascending=[True, False])
        best = one["value"] > one["value"].cummax().shift(fill_value=-np.inf)
        parts.append(
            charts.front_chart(
                [method_name(method) for method in one["method"]],
                list(one[column]),
                list(100 * one["value"]),
                list(best),
                title=f"{network} on {task}",
                x_label=label,
                y_label="test accuracy (%)",
                summary=f"Test accuracy against {label} for {network} on {task}",
            )
        )
    if not parts:
        return []
    free = sorted(set(tables.comparison["method"]) - set(rows["method"]))
    told = (
        "Means, without their intervals. Of what is drawn, nothing is both cheaper and better than "
        "a method on the line."
    )
    if free:
        names = ", ".join(method_name(method) for method in free)
        told += f" Not drawn, because the axis has no zero or no cost is known: {names}."
    note = f"<p class='note'>{escape(told)}</p>"
    return ["<h2>Accuracy against cost</h2>", note, "<div class='grid2'>", *parts, "</div>"]


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Columns in a reader's words, the layer as a column."""
    table = table.rename_axis(columns=None).reset_index()
    table["layer"] = table["layer"].astype(int)
    return table.rename(columns=lambda name: "layer" if name == "layer" else method_label(name))


def _details(title: str, table: pd.DataFrame) -> str:
    return f"<details><summary>{escape(title)}</summary>{table_html(table)}</details>"


def table_html(table: pd.DataFrame) -> str:
    """A table that scrolls where it is wider than the page."""
    body = table.to_html(index=False, border=0, na_rep="–", escape=True)
    return f"<div class='scroll'>{body}</div>"

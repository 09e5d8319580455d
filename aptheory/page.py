"""The page as a string: findings in words, then curves, methods, cost, and what made them.

No scripts, no images, no links but those to its own sections. Every chart has its table, folded,
for whoever reads with images off, with a screen reader, or wants the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aptheory import charts, plots
from aptheory.findings import (
    by_seed,
    cases,
    checks,
    clear,
    overview,
    paired,
    percent,
    points,
    sentences,
)
from aptheory.relate import mean_interval

if TYPE_CHECKING:
    from aptheory.report import Tables

STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;color:#1c1c1c;background:#fff;max-width:64rem;
 margin:0 auto;padding:1rem;overflow-wrap:break-word}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}h2{font-size:1.25rem;margin-top:2.4rem;
 border-top:1px solid #ddd;padding-top:1rem}h3{font-size:1rem}
.lead,ul{max-width:46rem}.lead{color:#555;margin-top:0}ul{padding-left:1.2rem}li{margin:.45rem 0}
a{color:#0b5394}.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));
 gap:.6rem 2.2rem;margin-top:1rem}
table{border-collapse:collapse;font-size:.85rem}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid #eee;vertical-align:top;
 font-variant-numeric:tabular-nums}
th{font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:0}
.sure{font-weight:600}.scroll{overflow-x:auto}details{margin:.6rem 0}
summary{cursor:pointer;color:#0b5394}.note{font-size:.85rem;color:#444;max-width:46rem}
code{font-size:.9em;background:#f4f4f4;padding:0 .2em;overflow-wrap:anywhere}
.settings td{text-align:left}.settings td:first-child{white-space:nowrap}
@media(min-width:50rem){.cases td{white-space:nowrap}}
@media(max-width:36rem){h1{font-size:1.4rem}.cases :is(th,td):nth-child(n+5){display:none}
 .cases :is(th,td){padding:.25rem .3rem}.settings td{display:block;border:0}}
@media print{body{max-width:none}.chart{break-inside:avoid}}
"""

OVERLAYS = ("attention_distance", "receptive_field", "globality", "effective_rank")


def html(tables: Tables) -> str:
    """The whole page."""
    table = cases(tables.accuracy)
    said = sentences(tables.accuracy, tables.relation)
    if len(table) > 1:  # the table of cases says the rest
        said = overview(tables.accuracy) + checks(tables.accuracy, tables.relation)
    said = said or ["The folder holds metrics but no accuracies yet."]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Layer preference</title><style>{STYLE}{charts.STYLE}</style></head><body>",
        "<h1>Where does the prompt do its work?</h1>",
        f"<p class='lead'>{escape(_scope(tables))}</p>",
        "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in said) + "</ul>",
    ]
    if len(table) > 1:
        parts += _cases_section(table, sentences(tables.accuracy, pd.DataFrame()))
    for network, task in pairs(tables):
        name = _anchor(network, task)
        parts.append(f"<h2 id='{name}'>{escape(network)} on {escape(task)}</h2>")
        parts.append("<div class='grid2'>")
        parts += _accuracy_charts(tables, network, task, table)
        parts += _metric_charts(tables, network, task)
        parts.append("</div>")
        parts += _numbers(tables, network, task)
    parts += _relation_section(tables.relation)
    parts += _comparison_section(tables.comparison)
    parts += _front_section(tables)
    if len(tables.cost):
        parts += ["<h2>What it costs</h2>", _table(tables.cost.round(4))]
    parts += ["<h2>What made this page</h2>", _settings(tables.settings)]
    return "\n".join(parts) + "</body></html>\n"


def pairs(tables: Tables) -> list[tuple[str, str]]:
    """Every (network, task) of the folder, in the order of its tables."""
    both = [t[["network", "task"]] for t in (tables.accuracy, tables.profile) if len(t)]
    return [(str(n), str(t)) for n, t in pd.concat(both).drop_duplicates().itertuples(index=False)]


def at(table: pd.DataFrame, network: str, task: str) -> pd.DataFrame:
    """The rows of one network on one task."""
    if table.empty:
        return table
    return table[(table["network"] == network) & (table["task"] == task)]


def _scope(tables: Tables) -> str:
    found = pairs(tables)
    networks, tasks = {n for n, _ in found}, {t for _, t in found}
    said = (
        "An activation prompt is one learned tensor added at a layer of a frozen network. "
        f"{len(networks)} network{'s' * (len(networks) > 1)} on {len(tasks)} "
        f"task{'s' * (len(tasks) > 1)}"
    )
    if len(tables.accuracy):
        seeds = tables.accuracy["seed"].nunique()
        said += f", {seeds} seed{'s' * (seeds > 1)}; the layer is chosen on validation data"
    return said + "."


def _cases_section(table: pd.DataFrame, said: list[str]) -> list[str]:
    rows = []
    for row in table.to_dict("records"):
        gain = (row["gain"], row["gain_low"], row["gain_high"])
        image = (row["image"], row["image_low"], row["image_high"])
        link = f"<a href='#{_anchor(row['network'], row['task'])}'>"
        rows.append(
            f"<tr><td>{link}{escape(row['network'])} on {escape(row['task'])}</a></td>"
            f"<td>{row['layer']} of {row['layers']}</td>"
            f"<td>{percent(row['value'], row['low'], row['high'])}</td>"
            f"{_gain(*gain)}{_gain(*image)}<td>{escape(str(row['layer_name']))}</td></tr>"
        )
    head = "case, best layer, test accuracy, over the linear probe, over a prompt on the image"
    cells = "".join(f"<th>{name}</th>" for name in (*head.split(", "), "the layer's name"))
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    return [
        f"<div class='scroll'><table class='cases'><tr>{cells}</tr>{''.join(rows)}</table></div>",
        "<p class='note'>Means over seeds with 95 % intervals; differences in points, paired over "
        "seeds. Bold: the interval lies on one side of zero.</p>",
        f"<details><summary>The same in words</summary><ul>{listed}</ul></details>",
    ]


def _gain(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "<td>–</td>"
    mark = " class='sure'" if clear(low, high) else ""
    return f"<td{mark}>{points(value, low, high).replace(' points', '')}</td>"


def _accuracy_charts(tables: Tables, network: str, task: str, table: pd.DataFrame) -> list[str]:
    rows = at(tables.accuracy, network, task)
    rows = rows[rows["measure"] == "test_accuracy"] if len(rows) else rows
    if rows.empty:
        return []
    chosen = at(table, network, task)
    best = int(chosen["layer"].iloc[0]) if len(chosen) else None
    layers = sorted(int(layer) for layer in rows.loc[rows["method"] == "ap", "layer"].unique())
    names = _names(rows)
    curves = by_seed(tables.accuracy, network, task)
    parts = []
    probe = curves["linear_probe"].mean() if "linear_probe" in curves else None
    gains = []
    for method in ("ap", "random_perturbation") if probe is not None else ():
        if method not in curves:
            continue
        bounds = {int(layer): paired(row, probe) for layer, row in curves[method].iterrows()}
        gains.append(_line(method, bounds, names, best))
    if gains:
        parts.append(
            charts.line_chart(
                gains,
                title="What a prompt gains over the linear probe",
                x_label="layer (0 is the image)",
                y_label="test accuracy minus the linear probe's, in points, paired over seeds",
                summary=f"Gain over the linear probe by layer for {network} on {task}",
                zero=True,
            )
        )
    lines = []
    for method in plots.METHODS:
        one = rows[rows["method"] == method]
        if one.empty:
            continue
        if method == "linear_probe":
            values = one["value"].to_numpy(float)
            flat = (100 * values.mean(), *(100 * np.array(mean_interval(values))))
            bounds = dict.fromkeys(layers or [int(one["layer"].iloc[0])], flat)
        else:
            found = 100 * plots.by_layer(one)
            bounds = {int(layer): tuple(row) for layer, row in found.iterrows()}
        lines.append(_line(method, bounds, names, best))
    parts.append(
        charts.line_chart(
            lines,
            title="Accuracy of a prompt at each layer, with its controls",
            x_label="layer (0 is the image)",
            y_label="test accuracy (%); bands are 95 % intervals of the mean over seeds",
            summary=f"Test accuracy by layer for {network} on {task}",
        )
    )
    return parts


def _line(
    method: str,
    bounds: Mapping[int, tuple[float, ...]],
    names: dict[int, str],
    best: int | None,
) -> charts.Line:
    label, color, line, _ = plots.METHODS[method]
    layers = list(bounds)
    value, low, high = (list(column) for column in zip(*bounds.values(), strict=True))
    return charts.Line(
        label,
        layers,
        value,
        plots.COLORS[color],
        low,
        high,
        {"-": "", "--": "6 4", ":": "2 4", "-.": "8 3 2 3"}[line],
        [names.get(layer, "") for layer in layers],
        layers.index(best) if method == "ap" and best in layers else None,
        plots.SHORT[method],
        dots=method != "linear_probe",
    )


def _metric_charts(tables: Tables, network: str, task: str) -> list[str]:
    rows = at(tables.profile, network, task)
    if rows.empty:
        return []
    parts = []
    names = _names(rows)
    for measure in [m for m in OVERLAYS if m in set(rows["measure"])]:
        one = rows[rows["measure"] == measure]
        if "head" in one and (one["head"].astype(str) == "mean").any():
            one = one[one["head"].astype(str) == "mean"]  # its interval is that of the mean
        columns = [name for name in ("value", "low", "high") if name in one]
        found = one.groupby("layer")[columns].mean()
        label = plots.MEASURES.get(measure, measure.replace("_", " "))
        layers = [int(layer) for layer in found.index]
        line = charts.Line(
            label,
            layers,
            list(found["value"]),
            plots.COLORS["purple"],
            low=list(found["low"]) if "low" in found else None,
            high=list(found["high"]) if "high" in found else None,
            names=[names.get(layer, "") for layer in layers],
            short=measure.replace("_", " "),
        )
        parts.append(
            charts.line_chart(
                [line],
                title=measure.replace("_", " ").capitalize(),
                x_label="layer (0 is the image)",
                y_label=label,
                summary=f"{label} by layer for {network} on {task}",
            )
        )
    cka = rows[rows["measure"] == "cka"]
    if len(cka):
        wide = cka.pivot_table(index="layer", columns="other_layer", values="value")
        wide = wide.combine_first(wide.T)
        wide.index, wide.columns = wide.index.astype(int), wide.columns.astype(int)
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


def _numbers(tables: Tables, network: str, task: str) -> list[str]:
    parts = []
    rows = at(tables.accuracy, network, task)
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


def _relation_section(relation: pd.DataFrame) -> list[str]:
    rows = relation.dropna(subset=["value"]) if len(relation) else relation
    rows = rows[rows["statistic"] == "spearman"] if len(rows) else rows
    if len(rows) and "target" in rows:
        rows = rows[rows["target"] == "ap"]
    if rows.empty:
        return []
    parts = [
        "<h2>Do the metrics explain the preference?</h2>",
        "<p class='note'>Rank correlation over layers of each metric with the accuracy of AP, and "
        "its 95 % interval. Filled: clear of chance after correction for every look "
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


def _comparison_section(comparison: pd.DataFrame) -> list[str]:
    if comparison.empty:
        return []
    parts = ["<h2>AP beside the other ways to adapt a frozen network</h2><div class='grid2'>"]
    for (network, task), rows in comparison.groupby(["network", "task"]):
        rows = rows.sort_values("value", ascending=False)
        shades = ["orange" if method == "ap" else "blue" for method in rows["method"]]
        parts.append(
            charts.bars(
                [plots.method_name(method) for method in rows["method"]],
                list(100 * rows["value"]),
                list(100 * rows["low"]),
                list(100 * rows["high"]),
                title=f"{network} on {task}",
                x_label="test accuracy (%), 95 % interval over seeds",
                summary=f"Test accuracy of each method for {network} on {task}",
                colors=[plots.COLORS[shade] for shade in shades],
            )
        )
    return [*parts, "</div>", _details("The method table", _method_table(comparison))]


def _method_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """The comparison in a reader's words: accuracies in percent, differences in points."""
    table = comparison.sort_values(["network", "task", "value"], ascending=[True, True, False])
    shown = pd.DataFrame({"method": [plots.method_name(name) for name in table["method"]]})
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
        shown.insert(4, "over AP", told)
    return shown


def _front_section(tables: Tables) -> list[str]:
    """Accuracy against cost: time of a step where it was measured, else tunable parameters."""
    rows, cost = tables.comparison, tables.cost
    if rows.empty or "parameters" not in rows:
        return []
    column, label = "parameters", "tunable parameters without the head"
    if {"network", "method", "step_ms", "kept"} <= set(cost):
        steps = cost[~cost["kept"].astype(bool)].groupby(["network", "method"])["step_ms"].min()
        timed = rows.join(steps, on=["network", "method"])
        if timed["step_ms"].notna().any():
            rows, column, label = timed, "step_ms", "time of a training step (ms)"
    parts = []
    for (network, task), one in rows[rows[column] > 0].groupby(["network", "task"]):
        one = one.sort_values([column, "value"], ascending=[True, False])
        best = one["value"] > one["value"].cummax().shift(fill_value=-np.inf)
        parts.append(
            charts.front_chart(
                [plots.method_name(method) for method in one["method"]],
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
    note = "<p class='note'>Nothing is both cheaper and better than a method on the line.</p>"
    return ["<h2>Accuracy against cost</h2>", note, "<div class='grid2'>", *parts, "</div>"]


def _settings(settings: dict[str, object]) -> str:
    if not settings:
        return "<p>The folder has no settings.json, so what made its tables is not known.</p>"
    rows = []
    for name, value in settings.items():
        told = "<br>".join(f"<code>{escape(line)}</code>" for line in _lines(value))
        rows.append(f"<tr><td>{escape(str(name))}</td><td>{told}</td></tr>")
    return f"<div class='scroll'><table class='settings'>{''.join(rows)}</table></div>"


def _lines(value: object) -> list[str]:
    if isinstance(value, dict) and value:
        return [f"{name}: {_plain(one)}" for name, one in value.items()]
    if isinstance(value, list) and value:
        return [", ".join(_plain(one) for one in value)]
    return [_plain(value)]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _anchor(network: object, task: object) -> str:
    """A name for a section that may stand in a link."""
    return "".join(c if c.isalnum() else "-" for c in f"{network}-on-{task}")


def _names(rows: pd.DataFrame) -> dict[int, str]:
    if "layer_name" not in rows:
        return {}
    named = rows.dropna(subset=["layer_name"]).groupby("layer")["layer_name"].first()
    return {int(layer): str(name) for layer, name in named.items()}


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Columns in a reader's words, the layer as a column."""
    table = table.reset_index()
    table["layer"] = table["layer"].astype(int)
    words = {name: said[0] for name, said in plots.METHODS.items()}
    return table.rename(columns=lambda name: words.get(name, str(name).replace("_", " ")))


def _details(title: str, table: pd.DataFrame) -> str:
    return f"<details><summary>{escape(title)}</summary>{_table(table)}</details>"


def _table(table: pd.DataFrame) -> str:
    body = table.to_html(index=False, border=0, na_rep="–", escape=True)
    return f"<div class='scroll'>{body}</div>"

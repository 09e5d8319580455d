"""The page as a string: findings in words, then curves, methods, cost, and what made them.

No scripts, no images, no links but those to its own sections. Every chart has its table, folded,
for whoever reads with images off, with a screen reader, or wants the numbers.
Both are made in `aptheory.reporting.sections`.
"""

from __future__ import annotations

import json
from html import escape

import numpy as np
import pandas as pd

from aptheory.findings.sentences import cases, checks, clear, overview, percent, points, sentences
from aptheory.reporting import map_section as maps
from aptheory.reporting import svg as charts
from aptheory.reporting.run_folder import Tables, pairs
from aptheory.reporting.sections import (
    accuracy_charts,
    comparison_section,
    front_section,
    metric_charts,
    numbers,
    relation_section,
    table_html,
)

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


def html(tables: Tables) -> str:
    """The whole page."""
    table = cases(tables.accuracy)
    said = sentences(tables.accuracy, tables.relation)
    if len(table) > 1:  # the table of cases says the rest
        said = overview(tables.accuracy) + checks(tables.accuracy, tables.relation)
    said += maps.map_sentences(tables.map)
    said = said or ["The folder holds metrics but no accuracies yet."]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        "<title>Layer preference</title>",
        f"<style>{STYLE}{charts.STYLE}{maps.STYLE}</style></head><body>",
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
        parts += accuracy_charts(tables, network, task, table)
        parts += metric_charts(tables, network, task)
        parts.append("</div>")
        parts += numbers(tables, network, task)
    parts += maps.map_section(tables.map)
    parts += relation_section(tables.relation)
    parts += comparison_section(tables.comparison)
    parts += front_section(tables)
    if len(tables.cost):
        parts += ["<h2>What it costs</h2>", table_html(tables.cost.round(4))]
    if tables.failed:
        listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in tables.failed)
        parts += ["<h2>Runs that failed</h2>", f"<ul>{listed}</ul>"]
    parts += ["<h2>What made this page</h2>", _settings(tables.settings)]
    return "\n".join(parts) + "</body></html>\n"


def _scope(tables: Tables) -> str:
    found = {*pairs(tables), *maps.pairs_of(tables.map)}
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

"""The page as a string: findings in words, then curves, methods, cost, and what made them.

No scripts, no images, no links but those to its own sections. Every chart has its table, folded,
for whoever reads with images off, with a screen reader, or wants the numbers.
Both are made in `aptheory.reporting.sections`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd

from aptheory.findings.cases import Case, cases
from aptheory.findings.readings import judge_of, read_cells, reading_sentences
from aptheory.findings.sentences import case_sentences, checks, overview, sentences, without_prompt
from aptheory.findings.statistics import Interval
from aptheory.findings.verdict import Verdict, verdict
from aptheory.reporting import map_section as maps
from aptheory.reporting import svg as charts
from aptheory.reporting.facts import facts, warnings_of
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
:root{color-scheme:light dark;--ink:#1c1c1c;--soft:#555;--line:#ddd;--paper:#fff;--shade:#f4f4f4;
 --link:#0b5394}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--soft:#b4b4b4;--line:#444;--paper:#161616;
 --shade:#262626;--link:#8ab8e6}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:64rem;
 margin:0 auto;padding:1rem;overflow-wrap:break-word}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}h2{font-size:1.25rem;margin-top:2.4rem;
 border-top:1px solid var(--line);padding-top:1rem}h3{font-size:1rem}
.lead,ul{max-width:46rem}.lead{color:var(--soft);margin-top:0}ul{padding-left:1.2rem}
li{margin:.45rem 0}a{color:var(--link)}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));
 gap:.6rem 2.2rem;margin-top:1rem}
table{border-collapse:collapse;font-size:.85rem}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;
 font-variant-numeric:tabular-nums}
th{font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:0}
.sure{font-weight:600}.scroll{overflow-x:auto}.scroll td{white-space:nowrap}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--link)}.note{font-size:.85rem;color:var(--soft);max-width:46rem}
code{font-size:.9em;background:var(--shade);padding:0 .2em;overflow-wrap:anywhere}
.settings td{text-align:left}.settings td+td,.cases td{white-space:normal}
.cases :is(th,td){padding:.25rem .3rem}
@media(max-width:36rem){h1{font-size:1.4rem}.cases :is(th,td):nth-child(n+5){display:none}
 .settings td{display:block;border:0;white-space:normal}}
@media print{body{max-width:none}.chart{break-inside:avoid}}
"""


def html(tables: Tables) -> str:
    """The whole page."""
    found = cases(tables.accuracy)
    judge = judge_of(tables.settings)
    words = sentences(tables.accuracy, tables.relation, judge=judge)
    if len(found) > 1:  # the table of cases says the rest
        words = overview(found) + reading_sentences(tables.accuracy, judge=judge)
        words += without_prompt(tables.accuracy, found)
        words += checks(found, tables.relation)
    words += maps.map_sentences(tables.map)
    words += warnings_of(tables)
    words = words or ["The folder holds metrics but no accuracies yet."]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        "<title>Layer preference</title>",
        f"<style>{STYLE}{charts.STYLE}{maps.STYLE}</style></head><body>",
        "<h1>Where does the prompt do its work?</h1>",
        f"<p class='lead'>{escape(_scope(tables))}</p>",
        "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in words) + "</ul>",
    ]
    parts += _cases_section(found)
    by_pair = {(case.network, case.task): case for case in reversed(found)}
    for network, task in pairs(tables):
        name = _anchor(network, task)
        parts.append(f"<h2 id='{name}'>{escape(network)} on {escape(task)}</h2>")
        parts.append("<div class='grid2'>")
        parts += accuracy_charts(tables, network, task, by_pair.get((network, task)))
        parts += metric_charts(tables, network, task)
        parts.append("</div>")
        parts += numbers(tables, network, task)
    parts += maps.map_section(tables.map)
    parts += maps.map_section(_swept_cells(tables, judge), swept=True)
    parts += relation_section(tables.relation)
    parts += comparison_section(tables.comparison)
    parts += front_section(tables)
    if len(tables.cost):
        parts += ["<h2>What it costs</h2>", table_html(tables.cost.round(4))]
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in facts(tables))
    if told:
        parts += ["<h2>What it was measured on</h2>", f"<ul>{told}</ul>"]
    if tables.failed:
        listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in tables.failed)
        parts += ["<h2>Runs that failed</h2>", f"<ul>{listed}</ul>"]
    parts += ["<h2>What made this page</h2>", _settings(tables.settings)]
    return "\n".join(parts) + "</body></html>\n"


def _swept_cells(tables: Tables, judge: str) -> pd.DataFrame:
    """What the sweep has of a map, for networks and tasks that have none of their own."""
    cells, mapped = read_cells(tables.accuracy, judge=judge), maps.pairs_of(tables.map)
    if cells.empty:
        return cells
    each = zip(cells["network"], cells["task"], strict=True)
    return cells[[pair not in mapped for pair in each]]


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
        said += f", {seeds} seed{'s' * (seeds > 1)}"
        if "val_accuracy" in set(tables.accuracy["measure"]):
            said += "; the layer is chosen on validation data"
    return said + "."


def _cases_section(found: list[Case]) -> list[str]:
    if not found:
        return []
    rows = []
    for case in found:
        link = f"<a href='#{_anchor(case.network, case.task)}'>"
        last = "" if case.last is None else f" of {case.last}"
        probe = f"{case.probe}: {_value(case.probe.accuracy)}" if case.probe else "–"
        cells = [
            f"{link}{_breakable(case.network)} on {_breakable(case.task)}</a> "
            f"{escape(case.recipe)}",
            f"{case.prompt.layer}{last} ({escape(case.prompt.name)})",
            _value(case.prompt.accuracy),
            case.verdict.value,
        ]
        gaps = [case.gain, case.over_random, case.over_probe, case.over_image]
        rows.append(
            "<tr>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "".join(_difference(gap) for gap in gaps)
            + f"<td>{escape(probe)}</td></tr>"
        )
    head = (
        *("case", "chosen layer", "test accuracy (%)", "verdict", "over the linear probe"),
        *("over a random pattern", "over the best earlier probe", "over a prompt on the image"),
        "best earlier probe (%)",
    )
    titles = "".join(f"<th>{name}</th>" for name in head)
    parts = [
        f"<div class='scroll'><table class='cases'><tr>{titles}</tr>{''.join(rows)}</table></div>",
        "<p class='note'>Means with 95 % intervals; differences in points, paired over seeds. "
        "Layers of prompts and probes are chosen on validation data. Bold: the interval lies on "
        "one side of zero. The verdict also asks what the controls move: a random pattern, and a "
        "prompt at the last place. A dash: not run.</p>",
    ]
    if len(found) > 1:
        words = [sentence for case in found for sentence in case_sentences(case)]
        listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in words)
        parts.append(f"<details><summary>The same in words</summary><ul>{listed}</ul></details>")
    return parts


def _breakable(name: str) -> str:
    """A name that may be broken behind its underscores where there is little room."""
    return escape(name).replace("_", "_<wbr>")


def _value(accuracy: Interval) -> str:
    return _together(f"{replace(accuracy, note=''):.1f}")


def _difference(gap: Interval) -> str:
    if np.isnan(gap.value):
        return "<td>–</td>"
    sure = verdict(gap) in (Verdict.GAIN, Verdict.LOSS)
    told = _together(f"{replace(gap, note=''):+.1f}")
    return f"<td{' class=' + repr('sure') if sure else ''}>{told}</td>"


def _together(interval: str) -> str:
    """An interval whose two bounds stay on one line."""
    return interval.replace(", ", ",\N{NO-BREAK SPACE}")


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

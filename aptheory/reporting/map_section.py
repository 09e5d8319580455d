"""The page's section on a map: accuracy over the prompted and the read layer."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from aptheory.findings.readings import best_cell, way
from aptheory.findings.sentences import over_seeds, percent
from aptheory.reporting.svg import shade

STYLE = """
.map td{text-align:center;min-width:2.4rem;border:1px solid var(--paper)}.map td.none{border:0}
.map th{border:0;text-align:center}
.map th:first-child{position:sticky;left:0;background:var(--paper)}
@media(max-width:36rem){.map{font-size:.75rem}.map :is(td,th){min-width:0;padding:.25rem .15rem}}
.map .best{outline:3px solid #d55e00;outline-offset:-3px;font-weight:600}
.map .dropped{font-style:italic;color:var(--ink);
 box-shadow:inset 0 0 0 9rem color-mix(in srgb,var(--paper) 65%,transparent)}
"""


def pairs_of(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Every (network, task) that has a map."""
    return [(str(network), str(task)) for (network, task), _ in _each(cells)]


def map_sentences(cells: pd.DataFrame) -> list[str]:
    """What each map says: the best cell on validation images, and the three that it must beat."""
    sentences = []
    for (network, task), rows in _each(cells):
        chosen = rows[rows["chosen"]]
        if chosen.empty:
            continue
        end = _end(rows)
        probes = rows["layer"] == rows["read"]
        rivals = {
            "the best layer probe": rows[probes],
            "the best prompt read at the end": rows[(rows["read"] == end) & ~probes],
            "the linear probe": rows[probes & (rows["read"] == end)],
        }
        compared = [
            f"{name} {_accuracy(some.loc[best])}"
            for name, some in rivals.items()
            if (best := best_cell(some)) is not None and not some.loc[best, "chosen"]
        ]
        cell = chosen.iloc[0]
        said = (
            f"{network} on {task}, both layers chosen on validation images: {way(cell)}, "
            f"{_accuracy(cell)} {over_seeds(int(cell['seeds']))}"
        )
        sentences.append("; ".join(filter(None, [said, ", ".join(compared)])) + ".")
    return sentences


NOTE = (
    "Test accuracy (%): the prompt's layer across, the layer that the head reads up. The diagonal "
    "holds the layer probes, without a prompt. Outlined: the best on validation images. "
)
AT_THE_END = (
    "The top row holds the prompts read at the network's end, as published; their corner is the "
    "linear probe. "
)
DROPPED = "Pale: dropped early by successive halving, with validation accuracy. "
SWEPT = "Only the reading places of the sweep are filled. "


def map_section(cells: pd.DataFrame, *, swept: bool = False) -> list[str]:
    """A heat map of each network and task, and all cells with their intervals, folded.

    ``swept``: the cells of a sweep (`aptheory.findings.readings.read_cells`), not of a map.
    """
    parts = []
    for (network, task), rows in _each(cells):
        parts += [
            f"<h2>Prompt here, read there: {escape(str(network))} on {escape(str(task))}</h2>",
            _grid(rows),
            f"<p class='note'>{NOTE}{AT_THE_END if _end(rows) in set(rows['read']) else ''}"
            f"{SWEPT if swept else DROPPED}Intervals (95 %) stand in the table below.</p>",
            "<details><summary>Every cell as a table</summary><div class='scroll'>"
            + _table(rows).to_html(index=False, border=0, na_rep="–")
            + "</div></details>",
        ]
    return parts


def _end(rows: pd.DataFrame) -> int:
    """The network's last place; a map always reads there, a sweep where it was asked to."""
    return int((rows["last"] if "last" in rows else rows["read"]).max())


def _each(cells: pd.DataFrame) -> Any:
    if cells.empty:
        return ()
    marks = {name: cells[name].astype(bool) for name in ("finished", "chosen")}
    return cells.assign(**marks).groupby(["network", "task"], sort=False)


def _grid(rows: pd.DataFrame) -> str:
    shown = rows["test_accuracy"].where(rows["finished"], rows["val_accuracy"])
    low, high = shown.min(), shown.max()
    layers = sorted({int(layer) for layer in rows["layer"]})
    by_place = {(int(row["layer"]), int(row["read"])): row for _, row in rows.iterrows()}
    lines = []
    for read in sorted({int(read) for read in rows["read"]}, reverse=True):
        tiles = [
            _tile(by_place[layer, read], low, high)
            if (layer, read) in by_place
            else "<td class='none'></td>"
            for layer in layers
        ]
        name = next(row["read_name"] for (_, k), row in by_place.items() if k == read)
        lines.append(f"<tr><th>read {read} {escape(str(name))}</th>{''.join(tiles)}</tr>")
    across = "".join(f"<th>{layer}</th>" for layer in layers)
    lines.append(f"<tr><th>prompt at</th>{across}</tr>")
    return f"<div class='scroll'><table class='map'>{''.join(lines)}</table></div>"


def _tile(cell: pd.Series, low: float, high: float) -> str:
    value = cell["test_accuracy"] if cell["finished"] else cell["val_accuracy"]
    if np.isnan(value):
        return "<td class='none'>–</td>"
    place = (value - low) / (high - low) if high > low else 0.5
    kinds = [
        name for name, on in (("best", cell["chosen"]), ("dropped", not cell["finished"])) if on
    ]
    ink = f";color:{'#000' if place > 0.5 else '#fff'}" if cell["finished"] else ""
    return (
        f"<td class='{' '.join(kinds)}' style='background:{shade(place)}{ink}' "
        f"title='{escape(way(cell), quote=True)}: {_accuracy(cell)}'>{100 * value:.1f}</td>"
    )


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prompt": [_prompt(row) for _, row in rows.iterrows()],
            "read": rows["read_name"],
            "test accuracy": [_accuracy(row) for _, row in rows.iterrows()],
            "validation (%)": (100 * rows["val_accuracy"]).round(1),
            "validation loss": rows["val_loss"].round(3),
            "epochs": rows["epochs"],
            "seeds": rows["seeds"],
        }
    )


def _prompt(cell: pd.Series) -> str:
    return "none" if cell["layer"] == cell["read"] else str(cell["layer_name"])


def _accuracy(cell: pd.Series) -> str:
    if not cell["finished"] or np.isnan(cell["test_accuracy"]):
        return f"dropped, {100 * cell['val_accuracy']:.1f} % on validation images"
    return percent(cell["test_accuracy"], cell["low"], cell["high"])

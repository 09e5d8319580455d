"""What a sweep shows of prompts that are read before the network's end.

A table whose prompts differ in where their head reads is a part of the map of both places
(`aptheory.findings.layer_map`): `read_cells` brings it into the map's form, `reading_sentences`
says what such a prompt gains over the same read at the end, and over the probe of its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from aptheory.findings.cases import LAYER_PROBE, LINEAR_PROBE, groups
from aptheory.findings.chosen import last_place, layer_name, swept_prompt
from aptheory.findings.gaps import Runs, gap, mean_accuracy
from aptheory.findings.statistics import Interval
from aptheory.findings.verdict import Verdict, unknown_because, verdict
from aptheory.studies.tables import with_roles
from aptheory.training.judging import Score

_READ = re.compile(r"read=(\d+)")


def judge_of(settings: Mapping[str, Any]) -> str:
    """What the recipes of a run's settings judge by on validation images."""
    recipes = settings.get("recipes", [])
    listed = recipes if isinstance(recipes, list) else []
    own = [r["judge"] for r in listed if isinstance(r, Mapping) and "judge" in r]
    return str(own[0]) if own else "accuracy"


def read_cells(accuracy: pd.DataFrame, *, judge: str = "accuracy") -> pd.DataFrame:
    """A row a cell of every network and task with a prompt that is read early.

    Of several recipes the first is taken. Columns as `LayerMap.cells`; ``epochs`` is not told by
    the table. Prompts with settings beside their reading are left out. Empty where every prompt is
    read at the end.
    """
    tables = [_cells(rows, accuracy, judge) for rows in groups(accuracy)]
    found = [table for table in tables if len(table)]
    first = {tuple(t[["network", "task"]].iloc[0]): t for t in reversed(found)}
    return pd.concat(reversed(list(first.values())), ignore_index=True) if first else pd.DataFrame()


def reading_sentences(accuracy: pd.DataFrame, *, judge: str = "accuracy") -> list[str]:
    """Of each network and task: the prompt read early, against its two rivals."""
    found = [_cells(rows, accuracy, judge) for rows in groups(accuracy)]
    several = "recipe" in accuracy and accuracy["recipe"].nunique() > 1
    return [_sentence(cells, recipes=several) for cells in found if len(cells)]


def _cells(rows: pd.DataFrame, accuracy: pd.DataFrame, judge: str) -> pd.DataFrame:
    """The cells of one network, task and recipe, each with its ``runs``."""
    network, task, recipe = (str(rows[name].iloc[0]) for name in ("network", "task", "recipe"))
    last = last_place(accuracy[accuracy["network"] == network])
    if last is None or "settings" not in rows:
        return pd.DataFrame()
    if not rows["settings"].astype(str).str.contains("read=", regex=False).any():
        return pd.DataFrame()  # every prompt is read at the end
    found: dict[tuple[int, int], dict[str, Any]] = {}
    table = with_roles(rows)
    table = table.assign(
        settings=table["settings"].astype(object).where(rows["settings"].notna(), "")
    )
    prompt = swept_prompt(rows).partition(":")[0]
    table = table[(table["role"] != "prompt") | (table["method"].str.partition(":")[0] == prompt)]
    for key, some in table.groupby(["method", "role", "settings", "layer"], sort=False):
        method, role, settings, place = (str(word) for word in key)
        layer = int(float(place))
        read = _read_at(method, role, settings, layer, last)
        cell = None if read is None else _cell(some, judge)
        if read is None or cell is None or ((layer, read) in found and method == LAYER_PROBE):
            continue
        names = {"layer_name": layer_name(rows, layer), "read_name": layer_name(rows, read)}
        about = {"network": network, "task": task, "layer": layer, "read": read, **names}
        found[layer, read] = {**about, "method": method, "recipe": recipe, **cell}
    if not any(layer < read < last for layer, read in found):
        return pd.DataFrame()
    cells = pd.DataFrame(list(found.values()))
    cells = cells.assign(judge=judge, last=last)
    return cells.assign(chosen=cells.index == best_cell(cells))


def _read_at(method: str, role: str, settings: str, layer: int, last: int) -> int | None:
    """The place that the head reads; None for what is no cell of the map."""
    if method in (LINEAR_PROBE, LAYER_PROBE):
        return None if settings else layer
    told = _READ.fullmatch(settings)
    read = int(told[1]) if told else last
    if role != "prompt" or (settings and not told) or layer >= read:
        return None
    return read


def _cell(rows: pd.DataFrame, judge: str) -> dict[str, Any] | None:
    """What the runs of a cell came to; None where they have no test or validation accuracy."""
    means = rows.groupby("measure")["value"].mean()
    if not {"test_accuracy", "val_accuracy"} <= set(means.index):
        return None
    runs: Runs = rows[rows["measure"] == "test_accuracy"].dropna(subset=["value"])
    accuracy = mean_accuracy(runs).times(0.01)
    return {
        "seeds": runs["seed"].nunique(),
        "epochs": float("nan"),
        "val_accuracy": means["val_accuracy"],
        "val_loss": means.get("val_loss", float("nan")),
        "test_accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "finished": True,
        "runs": runs,
    }


def best_cell(cells: pd.DataFrame) -> Any:
    """The index of the finished cell that is best on validation images, as the map was judged.

    None where no cell was trained to the end.
    """
    cells = cells[cells["finished"].astype(bool)]
    judge = str(cells["judge"].iloc[0]) if "judge" in cells and len(cells) else "accuracy"
    costs = {
        index: Score(row["val_accuracy"], row["val_loss"]).cost(judge)
        for index, row in cells.iterrows()
    }
    return min(costs, key=lambda index: costs[index]) if costs else None


def _sentence(cells: pd.DataFrame, *, recipes: bool) -> str:
    end = cells["last"].iloc[0]
    prompts = cells[cells["layer"] < cells["read"]]
    ours = _row(prompts[prompts["read"] < end])
    at_end = prompts[prompts["read"] == end]
    recipe = f" with recipe {ours['recipe']}" if recipes else ""
    parts = [
        f"On {ours['task']}{recipe}, {ours['network']}, read before its end: {way(ours)} has "
        f"{_percent(ours)} test accuracy, the best such prompt on validation data"
    ]
    if len(at_end):
        theirs = _row(at_end)
        over = gap(ours["runs"], theirs["runs"])
        parts.append(
            f"{way(theirs)} has {_percent(theirs)} ({_points(over)}): "
            + _PAYS[verdict(over)].format(why=unknown_because(over, "the other"))
        )
    probe = cells[(cells["layer"] == ours["read"]) & (cells["read"] == ours["read"])]
    if len(probe):
        alone = probe.iloc[0]
        over = gap(ours["runs"], alone["runs"])
        parts.append(
            f"{way(alone)} alone has {_percent(alone)} ({_points(over)}): "
            + _ADDS[verdict(over)].format(why=unknown_because(over, "the probe"))
        )
    parts.append(f"of all, validation data choose {way(cells[cells['chosen']].iloc[0])}")
    return "; ".join(parts) + "."


_PAYS = {
    Verdict.GAIN: "reading earlier pays",
    Verdict.LOSS: "reading at the end is better",
    Verdict.UNCLEAR: "whether reading earlier pays is not decided",
    Verdict.UNKNOWN: "whether reading earlier pays is unknown ({why})",
}
_ADDS = {
    Verdict.GAIN: "the prompt adds to it",
    Verdict.LOSS: "the probe is better, and cheaper",
    Verdict.UNCLEAR: "whether the prompt adds to it is not decided, and the probe is cheaper",
    Verdict.UNKNOWN: "whether the prompt adds to it is unknown ({why})",
}


def way(cell: pd.Series) -> str:
    """What is done in a cell, with the names of its places."""
    read = f"{cell['read_name']} ({int(cell['read'])})"
    if cell["layer"] == cell["read"]:
        return f"the probe of {read}"
    return f"a prompt at {cell['layer_name']} ({int(cell['layer'])}) read at {read}"


def _row(cells: pd.DataFrame) -> pd.Series:
    return cells.loc[best_cell(cells)]


def _percent(cell: pd.Series) -> str:
    return f"{Interval(cell['test_accuracy'], cell['low'], cell['high']).times(100):.1f %}"


def _points(difference: Interval) -> str:
    return f"{replace(difference, note=''):+.1f points}"

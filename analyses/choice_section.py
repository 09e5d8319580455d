"""What `paper_repro.md` says of the choice of the layer, written from `analyses.layer_front`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analyses.results import Results
from aptheory.choosing.trials import share_text

GOALS = ((0.02, 0.7), (0.1, 0.5), (1.0, 0.43))
"""(share of a careful full sweep's cost, points of regret)."""
TITLES = {
    "campaign": "The campaign's pairs, read at the end (about 210 optimiser steps)",
    "campaign, both draws": "The campaign's pairs that have both draws, chosen by the mean of both",
    "older sweeps": "The older pairs (three seeds, 24 to 84 steps; a run costs the same at "
    "every place)",
    "reading place": "The place to read, for a probe (all probes are one pass of the network)",
    "both places": "Both places at once, on the campaign's maps (cost in shares of a map's; "
    "the pull to halfway before the reading place is fixed at 4 points, not learnt; counting a "
    "cell's neighbours with it was tried after the maps had been seen)",
}


def section(results: Results) -> str:
    """The section, or nothing where the tables are missing."""
    if not results.has("evidence/choice_summary"):
        return ""
    table = results.table("evidence/choice_summary")
    parts = [
        "## The choice of the layer",
        "Regret: points of test accuracy lost at the chosen place against the place with the best "
        "measured accuracy. That best is itself lucky: *luck* is what a perfect choice is charged, "
        "were the measured accuracies the truth. *Fresh* counts against the place that the other "
        "half of the test pictures (or the other seeds) name, and is rather too small; the truth "
        "lies between. Of most of the campaign's pairs there are two draws of the training and "
        "validation pictures: chosen on each of them, judged by the mean accuracy of both. What a "
        "way learns (the rate, the pull λ · |2 · depth − 1|, the mean curve's share) it learns on "
        "other networks *and* tasks. 95 % intervals over networks. Cost is the share of a careful "
        "full sweep: every place, every rate, three seeds. The journal keeps no curves over "
        "epochs, so halving over epochs is not among the ways. Made by `python -m "
        "analyses.layer_front` from the stored tables; figure `results/figures/layer_front.png`. "
        "Exploratory: the ways were listed after the runs.",
        *(_goal(table, cost, goal) for cost, goal in GOALS),
        _middle(table),
    ]
    for data, title in TITLES.items():
        rows = table[table["data"] == data].sort_values(["cost", "regret"])
        if len(rows):
            count = f"{int(rows['pairs'].max())} pairs, {int(rows['networks'].max())} networks"
            parts += [f"**{title}: {count}**", _table(rows)]
    return "\n\n".join(parts)


def _goal(table: pd.DataFrame, cost: float, goal: float) -> str:
    """Whether a way of at most this cost reached a goal, in each source."""
    said = []
    for data in ("campaign", "campaign, both draws", "older sweeps"):
        rows = table[(table["data"] == data) & (table["cost"] <= cost + 1e-9)]
        if not (rows["cost"] > 0).any() and data.endswith("both draws"):
            continue  # nothing but the middle is so cheap
        best = rows.loc[rows["regret"].idxmin()]
        reached = "reached" if best["regret"] <= goal else "not reached"
        if best["high"] <= goal:
            reached = "reached by the whole interval"
        luck = f", of which luck {best['luck']:.2f}" if best["luck"] == best["luck"] else ""
        said.append(
            f"{data}: {reached}; best is *{best['way']}*, {best['regret']:.2f} "
            f"[{best['low']:.2f}, {best['high']:.2f}]{luck}, fresh {best['fresh']:.2f}"
        )
    return f"- Goal of {goal:g} points at {cost:.0%}: " + ". ".join(said) + "."


def _middle(table: pd.DataFrame) -> str:
    """Which ways are clearly better than the middle, if any."""
    said = []
    for data in ("campaign", "campaign, both draws", "older sweeps"):
        rows = table[(table["data"] == data) & (table["better_low"] > 0)]
        names = ", ".join(
            f"*{row.way}* by {row.better:.2f} [{row.better_low:.2f}, {row.better_high:.2f}] at "
            f"{row.cost:.2g} of a sweep"
            for row in rows.itertuples()
        )
        said.append(f"{data}: {names or 'nothing beats the middle with an interval above 0'}")
    return (
        "- Better than the middle, paired (no correction for the number of ways): "
        + "; ".join(said)
        + ". Without training the shipped rule stays the middle."
    )


def _table(rows: pd.DataFrame) -> str:
    lines = [
        "| way | cost | regret | fresh | gain on doing without | worst |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in rows.to_dict("records")]
    return "\n".join(lines)


def _line(row: dict[Any, Any]) -> str:
    gain = f"{row['better']:+.2f} [{row['better_low']:+.2f}, {row['better_high']:+.2f}]"
    cost = "–" if row["data"] == "reading place" else share_text(float(row["cost"]))
    return (
        f"| {row['way']} | {cost} | {row['regret']:.2f} [{row['low']:.2f}, "
        f"{row['high']:.2f}] | {row['fresh']:.2f} | {gain if row['better'] else '–'} | "
        f"{row['worst']:.1f} |"
    )

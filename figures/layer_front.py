"""What does it cost to choose the layer, and what is lost by it? Regret against cost."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_front"
DATA = {"campaign": "campaign: two draws", "older sweeps": "older sweeps: three seeds, few steps"}
FREE = 0.5
"""Where, in % of a sweep, what costs nothing is drawn on the logarithmic axis."""
GOALS = ((2, 0.7), (10, 0.5), (100, 0.43))


def draw(results: Results) -> Figure:
    """A panel a source: a point a way with its interval over networks; the line is the front."""
    table = results.table("evidence/choice_summary")
    sheet, axes = page.panels(2, columns=2, height=3.4)
    with plots.style():
        for ax, (data, words) in zip(axes, DATA.items(), strict=True):
            rows = table[table["data"] == data]
            _front(ax, rows)
            count = f"{int(rows['pairs'].max())} pairs, {int(rows['networks'].max())} networks"
            ax.set_title(f"{words}\n({count})")
            ax.set_xlabel("cost (% of a careful full sweep)")
        axes[0].set_ylabel("regret (points)")
    page.one_legend(sheet, axes, columns=3)
    said = []
    for data, words in (("campaign", "Campaign"), ("older sweeps", "Older sweeps")):
        rows = table[(table["data"] == data) & (table["cost"] > 0)]
        best = rows.loc[rows["regret"].idxmin()]
        middle = table[(table["data"] == data) & (table["way"] == "the middle")].iloc[0]
        clear = "told apart" if best["better_low"] > 0 else "not told apart"
        said.append(
            f"{words}: {best['regret']:.2f} by the best way, {middle['regret']:.2f} by the middle, "
            + clear
        )
    return page.title(sheet, "Points lost by the choice of the layer.\n" + ". ".join(said))


def _front(ax: Axes, rows: pd.DataFrame) -> None:
    kinds = {
        "nothing trained": ("grey", rows["cost"] == 0),
        "by validation": ("blue", (rows["cost"] > 0) & ~rows["way"].str.contains("pulled")),
        "by validation, pulled to the middle": ("orange", rows["way"].str.contains("pulled")),
    }
    for words, (color, mask) in kinds.items():
        some = rows[mask]
        # Ways of one cost stand side by side.
        cost = _shown(some["cost"]) * np.geomspace(0.85, 1.18, max(1, len(some)))
        errors = [some["regret"] - some["low"], some["high"] - some["regret"]]
        ax.errorbar(
            cost,
            some["regret"],
            yerr=errors,
            fmt="o",
            markersize=3.5,
            linewidth=0.7,
            color=plots.COLORS[color],
            label=words,
        )
    ordered = rows.sort_values("cost")
    best = ordered["regret"].cummin()
    ax.step(
        [*_shown(ordered["cost"]), 100],
        [*best, best.iloc[-1]],
        where="post",
        color=plots.COLORS["black"],
        linewidth=0.9,
        label="the best so far",
    )
    luck = rows["luck"].mean()
    if np.isfinite(luck):
        ax.axhline(luck, color="0.4", linestyle=":", label="charged to a perfect choice")
    for cost, goal in GOALS:
        ax.plot(cost, goal, "x", color=plots.COLORS["purple"], markersize=5, label="goal")
    ax.set_xscale("log")
    ax.set_xlim(FREE * 0.75, 130)
    ax.set_ylim(-0.2, 3.4)
    ax.set_xticks([FREE, 2, 10, 33, 100], ["none", "2", "10", "33", "100"])
    ax.minorticks_off()


def _shown(cost: pd.Series) -> np.ndarray:
    return np.maximum(100 * cost.to_numpy(float), FREE)


if __name__ == "__main__":
    page.alone(draw, __file__)

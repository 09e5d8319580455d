"""What becomes of the shallow prompt's advantage when the two layers' ranges are exchanged?"""

from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import two_layer_findings as found
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.two_layer, then python -m analyses.collect"
COLOR = {"layer 1": "blue", "both": "sky", "layer 2": "orange", "neither": "grey"}
ADVANTAGE = "error of layer 2 − layer 1,\nN → ∞ (points)"


def draw(results: Results) -> Figure:
    """Which layers are global, by kind of network; both ranges as a dial; what is removed."""
    table = page.two_layers(results)
    flips = found.flips(table)
    sheet = plots.figure(1, 3, height=3.0)
    with plots.style():
        _arrangements(sheet.axes[0], flips)
        _dose(sheet.axes[1], found.dose(table))
        _mechanism(sheet.axes[2], found.mechanism(table))
    page.one_legend(sheet, sheet.axes[:1])
    counts = Counter(flips["turn"])
    said = ", ".join(f"a {turn} in {count}" for turn, count in counts.items() if turn != "none")
    return page.title(
        sheet,
        f"Exchanging the ranges: {said or 'no effect'} of {len(flips)} networks "
        f"({counts['none']} without an advantage)",
    )


def _arrangements(ax: Axes, flips: pd.DataFrame) -> None:
    """The advantage of layer 1 in each arrangement of the ranges."""
    for line, row in enumerate(flips.iloc[::-1].to_dict("records")):
        for shift, (name, color) in zip((0.24, 0.08, -0.08, -0.24), COLOR.items(), strict=True):
            if name not in row or not np.isfinite(row[name]):
                continue
            ends = [row[f"{name} low"], row[f"{name} high"]]
            ax.plot(ends, [line + shift] * 2, color=plots.COLORS[color])
            look = {"color": plots.COLORS[color], "label": f"global: {name}", "ms": 3}
            ax.plot(row[name], line + shift, "o", **look)
    names = [f"{row.model}, {row.prompt}" for row in flips.iloc[::-1].itertuples()]
    ax.set_yticks(range(len(names)), names, fontsize=5.5)
    ax.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
    ax.set_xlabel(ADVANTAGE, fontsize=6)


def _dose(ax: Axes, rows: pd.DataFrame) -> None:
    heat = rows.pivot(index="range_1", columns="range_2", values="advantage")
    limit = float(np.abs(heat.to_numpy()).max()) or 1.0
    ax.imshow(heat, origin="lower", cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(heat.to_numpy()):
        ink = "white" if abs(value) > 0.6 * limit else "black"
        ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=5.5, color=ink)
    ax.grid(False)
    ax.set_title("the same, softmax, linear", fontsize=7)
    ax.set_xticks(range(heat.shape[1]), [f"{v:g}" for v in heat.columns])
    ax.set_yticks(range(heat.shape[0]), [f"{v:g}" for v in heat.index])
    ax.set(xlabel="range of layer 2 (tokens)", ylabel="range of layer 1 (tokens)")


def _mechanism(ax: Axes, rows: pd.DataFrame) -> None:
    """Does the place whose prompt removes more of the nuisance err less?"""
    for name, color, some in (
        ("attention", "blue", rows[rows["model"] != "cnn"]),
        ("convolutions", "green", rows[rows["model"] == "cnn"]),
    ):
        ax.scatter(some["more"], some["advantage"], s=7, color=plots.COLORS[color], alpha=0.6)
        rank = found.rank_interval(some["more"].to_numpy(), some["advantage"].to_numpy())[0]
        ax.scatter([], [], s=7, color=plots.COLORS[color], label=f"{name}: ρ = {rank:.2f}")
    ax.axhline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
    ax.legend(fontsize=6)
    ax.set_xscale("symlog", linthresh=0.1)  # a prompt that wipes the gap out has no share
    ax.set_xticks([-1, 0, 1, 10], ["−1", "0", "1", "10"])
    ax.minorticks_off()
    ax.set_xlabel("share of the nuisance removed,\nlayer 1 − layer 2", fontsize=6)
    ax.set_ylabel(ADVANTAGE, fontsize=6)


if __name__ == "__main__":
    page.alone(draw, __file__)

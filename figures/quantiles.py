"""Median and quartiles against x on logarithmic axes: the panel of the theory's figures."""

import pandas as pd
from matplotlib.axes import Axes

from aptheory.reporting import plots


def band(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    x: str,
    y: str,
    color: str,
    label: str,
    base: int = 10,
    dash: str = "-",
) -> None:
    """One curve: medians over repetitions, quartiles as a band, ticks at the values of x."""
    grouped = rows.groupby(x)[y]
    middle = grouped.median()
    shade = plots.COLORS[color]
    with plots.style():
        ax.plot(middle.index, middle, marker="o", linestyle=dash, color=shade, label=label)
        ax.fill_between(
            middle.index,
            grouped.quantile(0.25),
            grouped.quantile(0.75),
            color=shade,
            alpha=0.2,
            linewidth=0,
        )
        ax.set_xscale("log")
        ax.set_yscale("log", base=base)
        values = sorted(rows[x].unique())
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()

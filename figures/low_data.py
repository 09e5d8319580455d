"""With few images: VPT, VAPT, AP and the linear probe against images a class (claim V4)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.findings.statistics import mean_interval
from aptheory.reporting import plots
from figures import sheet as page

LOOKS = (("grey", "s"), ("blue", "o"), ("green", "^"), ("orange", "D"), ("purple", "v"))
NEEDS = "python analyses/low_data.py, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One panel a task; bands are 95 % intervals over draws of the training images."""
    table = page.theory(results, "low_data")
    rows = table[table["measure"] == "test_accuracy"].assign(value=lambda t: 100 * t["value"])
    tasks = list(rows["task"].unique())
    width = plots.PAGE if len(tasks) > 1 else 0.65 * plots.PAGE
    sheet, axes = page.panels(len(tasks), columns=2, height=2.4, width=width)
    for task, ax in zip(tasks, axes, strict=True):
        one = rows[rows["task"] == task]
        _methods(ax, one)
        counts = sorted(one["images_a_class"].unique())
        with plots.style():
            ax.set_xscale("log")
            ax.set_xticks(counts, counts)
            ax.minorticks_off()
            ax.set(xlabel="training images a class", ylabel="test accuracy (%)")
            ax.set_title(task)
    page.one_legend(sheet, axes)
    fewest = rows[rows["images_a_class"] == rows["images_a_class"].min()]
    wide = fewest.pivot_table(index=["task", "seed"], columns="method", values="value")
    gap = page.interval(wide["VAPT"] - wide["VPT"], 1)
    count = fewest["images_a_class"].iloc[0]
    noun = "image" if count == 1 else "images"
    low, high = mean_interval((wide["VAPT"] - wide["VPT"]).to_numpy(float))
    unclear = "" if low > 0 or high < 0 else ": no clear difference"
    return page.title(sheet, f"With {count} {noun} a class: VAPT − VPT {gap} points{unclear}")


def _methods(ax: Axes, rows: pd.DataFrame) -> None:
    """Mean and 95 % interval of each method, side by side so that no interval hides another."""
    methods = list(rows["method"].unique())
    looks = zip(methods, LOOKS, strict=False)
    for place, (method, (color, marker)) in enumerate(looks):
        groups = rows[rows["method"] == method].groupby("images_a_class")["value"]
        shift = 1.05 ** (place - (len(methods) - 1) / 2)
        counts = [shift * float(count) for count, _ in groups]
        means = groups.mean().to_numpy()
        bounds = np.array([mean_interval(one.to_numpy(float)) for _, one in groups])
        reach = np.abs(bounds.T - means)
        with plots.style():
            ax.errorbar(
                counts, means, yerr=reach, marker=marker, color=plots.COLORS[color], label=method
            )


if __name__ == "__main__":
    page.alone(draw, __file__)

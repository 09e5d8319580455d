"""One picture a class: VPT and VAPT against the number of tokens, trained and untrained (V4)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import token_count
from analyses.results import Results
from aptheory.findings.statistics import mean_interval
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.token_count --assets DIR, then python -m analyses.collect"
LOOKS = {"VPT": ("blue", "o"), "VAPT": ("green", "^")}


def draw(results: Results) -> Figure:
    """A fixed probe before any training; where it was run, training at one picture a class."""
    start = results.table("theory/token_count/untrained")
    panels = {"untrained, a fixed probe reads": (start, "accuracy")}
    clean = 100 * float(start.loc[start["method"] == "no prompt", "accuracy"].iloc[0])
    said = ""
    if results.has("theory/token_count/token_count"):
        trained = results.table("theory/token_count/token_count")
        panels["trained, one picture a class"] = (trained, "test_accuracy")
        said = "\nVAPT − VPT at one picture a class, points: " + "; ".join(
            f"p = {tokens}: {page.interval(gap, 1)} ({len(gap)} draws)"
            for tokens, gap, _ in token_count.gaps(trained)
        )
    sheet, axes = page.panels(len(panels), columns=2, height=2.4)
    with plots.style():
        for ax, (title, (rows, column)) in zip(axes, panels.items(), strict=True):
            _lines(ax, rows, column)
            chance = 100 / float(start["classes"].iloc[0])
            ax.axhline(chance, color=plots.COLORS["black"], linestyle=":", label="chance")
            ax.set(xlabel="tokens a block", ylabel="test accuracy (%)", ylim=(0, None), title=title)
        axes[0].axhline(clean, color=plots.COLORS["grey"], linestyle="--", label="no prompt")
    page.one_legend(sheet, axes)
    read = 100 * start[start["tokens"] == 5].groupby("method")["accuracy"].mean()
    return page.title(
        sheet,
        f"Before training, 5 tokens a block take a fixed probe from {clean:.0f} % to "
        f"{read['VPT']:.0f} % (VPT) and {read['VAPT']:.0f} % (VAPT)" + said,
    )


def _lines(ax: Axes, rows: pd.DataFrame, column: str) -> None:
    """Mean and 95 % interval of each method at each number of tokens."""
    counts = sorted(rows.loc[rows["tokens"] > 0, "tokens"].unique())
    for place, (method, (color, marker)) in enumerate(LOOKS.items()):
        groups = 100 * rows[rows["method"] == method].set_index("tokens")[column]
        means = groups.groupby(level=0).mean()
        bounds = [mean_interval(groups.loc[[p]].to_numpy(float)) for p in means.index]
        reach = [[m - low for m, (low, _) in zip(means, bounds, strict=True)],
                 [high - m for m, (_, high) in zip(means, bounds, strict=True)]]  # fmt: skip
        at = [p * 1.06 ** (2 * place - 1) for p in means.index]
        ax.errorbar(at, means, yerr=reach, marker=marker, color=plots.COLORS[color], label=method)
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_xticks(counts, [str(count) for count in counts])


if __name__ == "__main__":
    page.alone(draw, __file__)

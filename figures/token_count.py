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
    """Left: trained at one picture a class, 95 % over draws. Right: a fixed probe, untrained."""
    trained = page.theory(results, token_count.NAME)
    start = results.table("theory/token_count/untrained")
    sheet, (left, right) = page.panels(2, columns=2, height=2.4)
    with plots.style():
        _lines(left, trained, "test_accuracy")
        _lines(right, start, "accuracy")
        clean = 100 * float(start.loc[start["method"] == "no prompt", "accuracy"].iloc[0])
        right.axhline(clean, color=plots.COLORS["grey"], linestyle="--", label="no prompt")
        chance = 100 / float(trained["classes"].iloc[0])
        for ax in (left, right):
            ax.axhline(chance, color=plots.COLORS["black"], linestyle=":", label="chance")
            ax.set(xlabel="tokens a block", ylabel="test accuracy (%)", ylim=(0, None))
        left.set_title("trained, one picture a class")
        right.set_title("untrained, a fixed probe reads")
    page.one_legend(sheet, [left, right])
    said = "; ".join(
        f"p = {tokens}: {page.interval(gap, 1)} ({len(gap)} draws)"
        for tokens, gap, _ in token_count.gaps(trained)
    )
    return page.title(sheet, f"VAPT − VPT at one picture a class, points: {said}")


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

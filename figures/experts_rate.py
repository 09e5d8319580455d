"""At what rate are adaptive prompts learned, and where do constant ones stop? (claim V3)"""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from aptheory.theory.slopes import pivot, slope_interval
from figures import sheet as page
from figures.quantiles import band

NEEDS = "python analyses/experts_rate.py, then python -m analyses.collect"
COLORS = {"constant": "blue", "exact": "green", "overfitted": "orange", "far": "purple"}


def draw(results: Results) -> Figure:
    """The function's error by setting: median and quartiles over repetitions."""
    table = page.theory(results, "experts_rate")
    table = table[table["measure"] == "function_error"]
    settings = list(table["setting"].unique())
    sheet, axes = page.panels(len(settings), columns=4, height=2.0)
    slopes: dict[str, list[float]] = {}
    for setting, ax in zip(settings, axes, strict=True):
        rows = table[table["setting"] == setting]
        for fit, group in rows.groupby("fit"):
            band(ax, group, x="n", y="value", color=COLORS[str(fit)], label=str(fit))
            x, y = pivot(group, "n", "value")
            slope = slope_interval(x, y, summary="median")[0]
            slopes.setdefault(str(fit), []).append(round(slope, 2) + 0.0)
        start = rows.loc[rows["n"] == rows["n"].min(), "value"].median()
        counts = sorted(rows["n"].unique())
        with plots.style():
            guide = [start * (n / counts[0]) ** -0.5 for n in counts]
            ax.plot(counts, guide, ":", color=plots.COLORS["grey"], label="n^(-1/2)")
            ax.set_title(setting, fontsize=7)
            ax.set_xlabel("samples n")
            ax.tick_params(axis="x", labelsize=6)
            if setting == settings[0]:
                ax.set_ylabel("error of the function")
    # One scale for all: what is a hundred times worse looks it.
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    page.one_legend(sheet, axes, columns=5)
    said = "; ".join(f"{fit} {min(found):.2f} to {max(found):.2f}" for fit, found in slopes.items())
    return page.title(sheet, f"Slope of the function's error in n, over settings: {said}")


if __name__ == "__main__":
    page.alone(draw, __file__)

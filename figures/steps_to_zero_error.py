"""Do the steps to zero test error grow like P/η? (claim 18)"""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from aptheory.theory.slopes import pivot, slope_interval
from figures import sheet as page
from figures.quantiles import band

NEEDS = "python analyses/steps_to_zero_error.py, then python -m analyses.collect"
COLORS = ("sky", "blue", "purple")


def draw(results: Results) -> Figure:
    """Steps against tokens, a line a step size: median and quartiles over repetitions."""
    table = page.theory(results, "steps_to_zero_error")
    settings = sorted(table.groupby(["model", "prompt", "place"]).groups)
    sheet, axes = page.panels(len(settings), columns=2, height=2.0)
    slopes: dict[str, list[float]] = {"token": [], "shared": []}
    for (model, shape, place), ax in zip(settings, axes, strict=True):
        keys = (table["model"] == model) & (table["prompt"] == shape) & (table["place"] == place)
        rows = table[keys]
        rates = sorted(rows["rate"].unique())
        for rate, color in zip(rates, COLORS, strict=False):
            group = rows[rows["rate"] == rate]
            band(ax, group, x="tokens", y="steps", color=color, label=f"η = {rate:.3g}", base=2)
        x, y = pivot(rows[rows["rate"] == rates[len(rates) // 2]], "tokens", "steps")
        slope, low, high = slope_interval(x, y)
        slopes[shape].append(slope)
        with plots.style():
            ax.set_title(
                f"{model}, {shape}, {place}: P^{slope:.2f} [{low:.2f}, {high:.2f}]", fontsize=7
            )
            ax.set(xlabel="tokens P", ylabel="steps T")
            for line in ax.get_lines():  # named where they end, so that no legend hides a curve
                end = float(line.get_xdata()[-1]), float(line.get_ydata()[-1])
                where = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
                ax.annotate(line.get_label(), end, color=line.get_color(), fontsize=6, **where)
            ax.set_xlim(right=1.5 * rows["tokens"].max())
    said = "; ".join(
        f"{shape} prompt P^{min(found):.1f} to P^{max(found):.1f}"
        for shape, found in slopes.items()
        if found
    )
    return page.title(sheet, f"Steps to zero test error grow as: {said}")


if __name__ == "__main__":
    page.alone(draw, __file__)

"""What does it cost to choose the layer without a sweep? Regret of each way of choosing."""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_choice, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """Mean regret with its 95 % interval over networks and tasks; a dot a network and task."""
    summary = results.table("layer_choice/summary").rename(columns={"regret": "value"})
    dots = results.table("layer_choice/regret").rename(columns={"regret": "value"})
    summary, dots = (
        table.assign(way=table["way"].str.replace("_", " ")) for table in (summary, dots)
    )
    summary = summary.sort_values("value")
    sheet, (ax,) = page.panels(1, height=0.8 + 0.21 * len(summary))
    with plots.style():
        page.forest(ax, summary, label="way", dots=dots, highlight=("rule",))
        ax.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
        ax.set_xlabel(
            "regret: accuracy lost against the layer that measured best (points);\n"
            "grey: one network and task"
        )
    ways = ("rule", "middle layer", "paper's place", "random layer")
    known = summary.set_index("way")
    said = ", ".join(
        "{} {value:.1f} [{low:.1f}, {high:.1f}]".format(way, **known.loc[way])
        for way in ways
        if way in known.index
    )
    return page.title(sheet, f"Points lost by choosing without a sweep: {said}")


if __name__ == "__main__":
    page.alone(draw, __file__)

"""The positive control: how often does a sweep choose the place at which a tensor was planted?"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.campaign_plan import NETWORKS
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = (
    "python -m analyses.campaign --assets DIR --question planted, then python -m "
    "analyses.campaign_planted"
)


SIZES = {
    "random": "shares of the activation's RMS",
    "trained": "times the negative of a learnt prompt",
}


def draw(results: Results) -> Figure:
    """A row a plant, two panels over its size: the share of cases that was found, with Wilson's
    interval; and the gain of a prompt at the planted place beside that of the best one elsewhere.
    """
    judged, cases = (results.table(f"evidence/{name}") for name in ("judged_planted", "planted"))
    plants = [plant for plant in SIZES if plant in set(cases["plant"])]
    sheet, axes = page.panels(2 * len(plants), columns=2, height=2.4)
    said = []
    with plots.style():
        for number, plant in enumerate(plants):
            share, gain = axes[2 * number : 2 * number + 2]
            rows, own = (table[table["plant"] == plant] for table in (judged, cases))
            sizes = sorted(own["planted_size"].unique())
            _found(share, rows.set_index("planted_size").loc[sizes])
            _gains(gain, own, sizes)
            for ax in (share, gain):
                ax.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
                ax.set_xlabel(f"size of a {plant} tensor\n({SIZES[plant]})")
            found = ", ".join(
                f"{int(row.found)} of {int(row.cases)} at size {row.planted_size:g}"
                for row in rows.sort_values("planted_size").itertuples()
            )
            said.append(f"{plant} {found}")
        axes[1].set_title("small: a case (square CNN, triangle ViT)", fontsize=7)
    page.one_legend(sheet, axes, columns=4)
    return page.title(
        sheet, f"The place of a planted tensor is found by validation: {'; '.join(said)}"
    )


def _found(ax: Axes, rows: pd.DataFrame) -> None:
    bounds = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    style = {"color": plots.COLORS["blue"], "fmt": "o-", "capsize": 2}
    ax.errorbar(range(len(rows)), rows["value"], yerr=bounds, label="found", **style)
    chance = rows["chance"].iloc[0]
    ax.axhline(chance, color=plots.COLORS["black"], linestyle=":", label="chance")
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("share of cases found")


def _gains(ax: Axes, cases: pd.DataFrame, sizes: list[float]) -> None:
    for column, label, color in (
        ("gain_planted", "at the planted place", "blue"),
        ("next_best", "at the best other place", "orange"),
    ):
        ink = plots.COLORS[color]
        means = cases.groupby("planted_size")[column].mean()
        ax.plot(range(len(sizes)), means, "o-", color=ink, label=label)
        for name, own in cases.groupby("network"):
            marker = "s" if NETWORKS[str(name)].kind == "cnn" else "^"
            x = [sizes.index(size) for size in own["planted_size"]]
            ax.scatter(x, own[column], s=9, marker=marker, alpha=0.6, color=ink)
    ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
    ax.set_ylabel("gain over the linear\nprobe (points)")


if __name__ == "__main__":
    page.alone(draw, __file__)

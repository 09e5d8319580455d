"""What of a prompt's gain the next norm's γ and β imitate, place by place."""

from matplotlib.figure import Figure

from analyses.campaign_parts import at_every_place
from analyses.campaign_plan import NETWORKS
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = (
    "python -m analyses.norm_and_prompt --assets DIR --every, then python -m "
    "analyses.campaign_parts"
)
LINES = {
    "gain": ("the prompt", "orange", "-"),
    "of norm": ("what γ and β of the next norm imitate of it", "purple", "-"),
    "of beta": ("what β alone imitates", "green", "--"),
}


def draw(results: Results) -> Figure:
    """A panel a network, CNNs above and ViTs below: points with a new head for each, means over
    tasks (dots: each task)."""
    table = at_every_place(results.table("evidence/parts"))
    order = sorted(table["network"].unique(), key=lambda name: (NETWORKS[name].kind, name))
    sheet, axes = page.panels(len(order), columns=min(2, len(order)), height=2.1)
    with plots.style():
        for ax, network in zip(axes, order, strict=True):
            rows = table[table["network"] == network]
            for column, (label, color, dashes) in LINES.items():
                look = {"color": plots.COLORS[color], "linestyle": dashes}
                means = rows.groupby("depth")[column].mean()
                ax.plot(means.index, means, label=label, marker=".", ms=4, **look)
                ax.plot(rows["depth"], rows[column], ".", ms=2, alpha=0.5, color=look["color"])
            ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
            tasks = ", ".join(sorted(rows["task"].unique()))
            ax.set_title(f"{page.short(network)}\n{tasks}", fontsize=7)
            ax.set_xlabel("depth")
        sheet.supylabel("gain over no prompt (points,\na new head for each)", fontsize=8)
    page.one_legend(sheet, axes, columns=3)
    whole, norm = (
        clustered_mean(table[column], table["network"], table["task"])
        for column in ("gain", "of norm")
    )
    return page.title(
        sheet,
        f"Over all places a prompt gains {whole:.1f points}, and what γ and β imitate of it "
        f"{norm:.1f points} ({whole.n} networks; exploratory)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

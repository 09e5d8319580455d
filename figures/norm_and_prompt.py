"""A prompt beside the normalisation at the same place: what each gains, by depth."""

import numpy as np
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign --assets DIR, then python -m analyses.campaign_tables"
METHODS = {
    "ap": ("prompt, every position its own", "orange"),
    "ap_channel": ("prompt, one value a channel", "blue"),
    "beta": ("β of the norm there", "green"),
    "gamma_beta": ("γ and β there", "purple"),
}
WHOLE = {"all_beta": ("all β", ":"), "all_norms": ("all γ and β", "--")}


def draw(results: Results) -> Figure:
    """A panel a network, CNNs above and ViTs below; lines are means over its tasks."""
    table = results.table("evidence/norm")
    networks = table[["network", "kind"]].drop_duplicates().sort_values(["kind", "network"])
    sheet, axes = page.panels(len(networks), columns=3, height=2.2)
    with plots.style():
        for ax, network in zip(axes, networks["network"], strict=True):
            rows = table[table["network"] == network]
            for method, (label, color) in METHODS.items():
                curve = rows[rows["method"] == method].groupby("depth")["gain"].mean()
                colour = plots.COLORS.get(color, color)
                ax.plot(curve.index, 100 * curve, color=colour, label=label, marker=".", ms=3)
            for method, (label, dashes) in WHOLE.items():
                gain = 100 * rows.loc[rows["method"] == method, "gain"].mean()
                if np.isfinite(gain):
                    ax.axhline(gain, color="0.4", linestyle=dashes, linewidth=0.9, label=label)
            ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
            tasks = ", ".join(sorted(rows["task"].unique()))
            ax.set_title(f"{page.short(network)}\n{tasks}", fontsize=7)
            ax.set_xlabel("depth")
        sheet.supylabel("gain over the linear probe (points)", fontsize=8)
    page.one_legend(sheet, axes, columns=3)
    curves = table[table["method"] == "ap"].groupby(["network", "depth"])["gain"].mean()
    whole = table[table["method"] == "all_norms"].groupby("network")["gain"].mean()
    above = int((whole > curves.groupby("network").max()).sum())
    return page.title(
        sheet,
        f"All norms together gain more than the prompt at any place on {above} of {len(whole)} "
        "networks (exploratory: one seed, runs still moving)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

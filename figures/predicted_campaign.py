"""Does the linear theory predict the gain that the campaign measured at every place?"""

import numpy as np
from matplotlib.figure import Figure

from analyses.campaign_tables import FEWEST, parts
from analyses.results import Results
from aptheory.findings.statistics import mean_correlation
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign_predicted --assets DIR"
LOOKS = {"cnn": ("orange", "CNNs"), "vit": ("blue", "ViTs")}


def draw(results: Results) -> Figure:
    """Every place of every pair; where the linear theory ends; rank correlations by network; what
    the predicted best place loses."""
    pairs = results.table("evidence/predicted_pairs")
    table = results.table("evidence/predicted_places")
    sheet, axes = page.panels(4, columns=2, height=2.5)
    scatter, norms, ranks, regret = axes
    with plots.style():
        for kind, (color, label) in LOOKS.items():
            some = table[table["kind"] == kind]
            look = {"s": 6, "alpha": 0.5, "color": plots.COLORS[color], "label": label}
            scatter.scatter(some["predicted"], some["measured"], **look)
            norms.scatter(some["norm"], (some["applied"] - some["predicted"]).abs(), **look)
        for line in (scatter.axhline, scatter.axvline):
            line(0, color=plots.COLORS["grey"], linewidth=0.6)
        ends = np.array(scatter.get_xlim())
        scatter.plot(ends, ends, ":", color=plots.COLORS["black"], label="equal")
        scatter.set(xlabel="predicted gain (points)", ylabel="measured gain (points)")
        page.near_and_far(ranks, pairs, "spearman")
        ranks.set_xlabel("Spearman over places")
        ways = results.table("evidence/predicted_choice").assign(value=lambda t: t["regret"])
        page.forest(regret, ways, label="way")
        regret.tick_params(axis="y", labelsize=6)
        regret.set_xlabel("points lost at the chosen place")
        norms.set_xlabel("norm of the predicted prompt\n(shares of the activation's)")
        norms.set_ylabel("|linear − real| gain (points)")
    page.one_legend(sheet, axes, columns=5)
    said = []
    for name, part in parts(pairs).items():
        if name in ("all", "CNNs", "ViTs") and len(part):
            mean = mean_correlation(part["spearman"], part["network"], part["task"])
            few = part["network"].nunique() < FEWEST
            said.append(f"{name} {mean.value:+z.2f}" if few else f"{name} {mean:+z.2f}")
    return page.title(
        sheet,
        f"Predicted and measured gain over places, mean rank correlation: {'; '.join(said)} "
        f"({len(pairs)} pairs of {pairs['network'].nunique()} networks)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

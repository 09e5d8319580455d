"""Does the linear theory of head and prompt predict the measured gain of every layer?"""

import numpy as np
from matplotlib.figure import Figure

from analyses import predicted_curves
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.predicted_curves, then python -m analyses.collect"
COLOR = {"CNNs": "orange", "ViTs": "blue"}


def draw(results: Results) -> Figure:
    """Left: every layer of every pair. Right: rank correlation of each pair."""
    table = results.table("predicted_curves/predicted_curves")
    each = predicted_curves.agreement(table).sort_values("spearman", ascending=False)
    kinds = dict(zip(each["network"], each["kind"], strict=True))
    sheet = plots.figure(1, 2, height=3.4)
    left, right = sheet.axes
    with plots.style():
        for kind, color in COLOR.items():
            some = table[table["network"].map(kinds) == kind]
            left.scatter(
                some["predicted"], some["measured"], s=6, alpha=0.5, color=plots.COLORS[color],
                label=kind,
            )  # fmt: skip
        both = table[["predicted", "measured"]].to_numpy()
        ends = [float(np.nanmin(both)), float(np.nanmax(both))]
        left.plot(ends, ends, ":", color=plots.COLORS["grey"], label="equal")
        left.set(xlabel="predicted gain (points)", ylabel="measured gain (points)")
        left.legend(fontsize=6)
        rows = each.assign(
            value=each["spearman"],
            pair=[f"{page.short(row.network)}, {row.task}" for row in each.itertuples()],
        )
        page.forest(right, rows, label="pair")
        right.tick_params(axis="y", labelsize=5)
        right.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
        right.set_xlabel("Spearman over layers")
    mean = predicted_curves.summary(each)["all pairs"]
    return page.title(
        sheet,
        f"Predicted and measured gain by layer: mean rank correlation {mean:.2f} over "
        f"{len(each)} pairs, median R² {each['r2'].median():.2f}",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

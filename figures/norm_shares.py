"""What a trained prompt is at the next norm: β, γ, or neither; and what is lost with the rest."""

import numpy as np
from matplotlib.figure import Figure

from analyses.campaign_plan import NETWORKS
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.norm_and_prompt --assets DIR, then python -m analyses.campaign_parts"
SHARES = {
    "beta": ("β imitates it", "green"),
    "gamma": ("γ adds to that", "purple"),
    "left": ("neither", "orange"),
}


def draw(results: Results) -> Figure:
    """Two panels: shares of the change at the next norm, and points that are lost without the rest;
    a bar a network and prompt at its chosen place, means over tasks."""
    table = results.table("evidence/parts")
    table = table[table["chosen"]]
    order = sorted(table["network"].unique(), key=lambda n: (NETWORKS[n].kind, n))
    means = table.groupby(["network", "shape"])[[*SHARES]].mean()
    both = [(name, shape) for name in order for shape in ("full", "channel")]
    rows = [row for row in both if row in means.index]
    sheet, (shares, points) = page.panels(2, columns=2, height=0.9 + 0.3 * len(rows))
    with plots.style():
        for height, (name, shape) in enumerate(reversed(rows)):
            start = 0.0
            for part, (label, color) in SHARES.items():
                width = means.loc[(name, shape), part]
                bar = {"left": start, "height": 0.7, "color": plots.COLORS[color]}
                shares.barh(height, width, label=label, **bar)
                start += width
            one = table[(table["network"] == name) & (table["shape"] == shape)]
            heights = height + 0.4 * (0.5 - (np.arange(len(one)) + 0.5) / len(one))
            bounds = [one["more"] - one["more_low"], one["more_high"] - one["more"]]
            style = {"color": plots.COLORS["blue"], "fmt": "o", "ms": 3, "lw": 0.9}
            points.errorbar(one["more"], heights, xerr=bounds, **style)
        for ax in (shares, points):
            ax.set_yticks(range(len(rows)))
            ax.set_ylim(-0.6, len(rows) - 0.4)
            ax.tick_params(axis="y", length=0)
        shares.set_yticklabels([f"{page.short(name)}, {shape}" for name, shape in reversed(rows)])
        points.set_yticklabels([])
        shares.set_xlim(0, 1)
        shares.set_xlabel("share of the prompt's change\nat the next norm's output")
        points.axvline(0, color=plots.COLORS["black"], linewidth=0.6)
        points.set_xlabel(
            "points that the prompt has on what\nγ and β imitate (a task a mark, 95 %)"
        )
    page.one_legend(sheet, [shares], columns=3)
    left = table.groupby(["shape", "network"])["left"].mean()
    full, channel = (left[shape] for shape in ("full", "channel"))
    return page.title(
        sheet,
        f"γ and β of the next norm miss {full.min():.0%} to {full.max():.0%} of a full prompt, and "
        f"{channel.min():.0%} to {channel.max():.0%} of one with a value a channel "
        f"({len(full)} and {len(channel)} networks, at the chosen places; exploratory)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

"""The same pictures shifted in steps: where does a prompt work then? (J11)"""

from matplotlib.figure import Figure

from analyses.campaign_dial import changes
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign --question dial --assets DIR, then analyses.campaign_dial"
DIALS = {
    "resolution": "lower resolution",
    "pattern": "a fixed pattern",
    "colour": "less colour, then its complement",
}
STEPS = {0: ("as they are", "grey"), 1: ("first step", "blue"), 2: ("second step", "orange")}


def draw(results: Results) -> Figure:
    """A row a network, a column a dial: gain over the last place's probe by depth, a line a step;
    a ring is the place that validation pictures chose."""
    curves = results.table("evidence/dial_curves")
    table = results.table("evidence/dial")
    networks, dials = sorted(table["network"].unique()), list(DIALS)
    sheet, axes = page.panels(
        len(networks) * len(dials), columns=len(dials), height=1.8 + 1 / len(networks)
    )
    places = [(network, dial) for network in networks for dial in dials]
    with plots.style():
        for ax, (network, dial) in zip(axes, places, strict=True):
            for step, (words, color) in STEPS.items():
                at = {"network": network, "dial": dial, "step": step}
                curve, one = (
                    t[(t[[*at]] == list(at.values())).all(axis=1)] for t in (curves, table)
                )
                ink = plots.COLORS[color]
                ax.plot(curve["depth"], curve["gain"], ".-", ms=3, color=ink, label=words)
                ax.plot(
                    one["depth_end"],
                    one["gain_end"],
                    "o",
                    ms=7,
                    mfc="none",
                    color=ink,
                    clip_on=False,
                )
            ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
            ax.set_title(f"{page.short(network)}\n{DIALS[dial]}", fontsize=7)
            ax.set_xlabel("depth")
            if dial == dials[0]:
                ax.set_ylabel("gain (points)")
    page.one_legend(sheet, axes, columns=3)
    moved = changes(table)
    shallower, deeper = (int((sign * moved["depth_end"] < 0).sum()) for sign in (1, -1))
    grown = moved["gain_end"]
    return page.title(
        sheet,
        f"Dialled up, a shift moves the chosen place towards the image in {shallower} of "
        f"{len(moved)} cases and away in {deeper}; gains change by {grown.min():+.1f} to "
        f"{grown.max():+.1f} points\n({len(networks)} network{'s' * (len(networks) > 1)}, one "
        "seed; dials of one share its sweep of the plain pictures)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

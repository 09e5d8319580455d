"""Do the metrics explain where a prompt works? Every correlation with its interval (claim 16)."""

import pandas as pd
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.findings.relate import across
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"
STATISTICS = {
    "spearman": "rank correlation with AP's accuracy",
    "spearman_given_depth": "the same, given depth",
}


def draw(results: Results) -> Figure:
    """Mean over networks and tasks with its two-level interval; a dot a network and task."""
    relation = results.gathered("relation")
    relation = relation[relation["target"] == "ap"].dropna(subset=["value"])
    shown = {key: said for key, said in STATISTICS.items() if key in set(relation["statistic"])}
    networks = 0
    height = 1.1 + 0.4 * relation["measure"].nunique()
    sheet, axes = page.panels(len(shown), columns=2, height=height)
    said = ""
    for (statistic, label), ax in zip(shown.items(), axes, strict=True):
        rows = relation[relation["statistic"] == statistic]
        means = across(rows).sort_values("measure")
        means["measure"] = means["measure"].str.replace("_", " ")
        dots = pd.DataFrame(
            {"measure": rows["measure"].str.replace("_", " "), "value": rows["value"]}
        )
        with plots.style():
            page.forest(ax, means, label="measure", dots=dots)
            ax.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
            ax.set_xlim(-1.05, 1.05)
            ax.set_xlabel(f"{label}\n(grey: one network and task)", fontsize=7)
        clear = means[(means["low"] > 0) | (means["high"] < 0)]
        which = ", ".join(
            f"{row.measure} {row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
            for row in clear.itertuples()
        )
        which = f" ({which})" if which else ""
        if statistic == "spearman":
            networks = int(means["networks"].max())
            said = (
                f"{len(clear)} of {len(means)} metrics correlate clearly with AP's accuracy{which}"
            )
        else:
            said += f", {len(clear)} of {len(means)} given depth{which}"
    said += f"; mean over {networks} networks, 95 % intervals, not corrected for {len(means)} looks"
    return page.title(sheet, said)


if __name__ == "__main__":
    page.alone(draw, __file__)

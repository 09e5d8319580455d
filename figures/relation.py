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
    height = 0.9 + 0.32 * relation["measure"].nunique()
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
            ax.set_xlabel(label)
        clear = means[(means["low"] > 0) | (means["high"] < 0)]
        if statistic == "spearman":
            said = f"{len(clear)} of {len(means)} metrics correlate clearly with AP's accuracy"
        else:
            said += f", {len(clear)} of {len(means)} given depth"
    return page.title(sheet, said)


if __name__ == "__main__":
    page.alone(draw, __file__)

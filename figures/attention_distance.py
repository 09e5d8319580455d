"""How far does attention look, by layer and head? (Figure 5B, claim 15)"""

import pandas as pd
from matplotlib.figure import Figure

from analyses import evidence
from analyses.results import Results
from aptheory.findings.statistics import mean_correlation, mean_interval
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One panel a transformer: a dot a head, averaged over tasks."""
    profile = results.gathered("profile")
    rows = profile[profile["measure"] == "attention_distance"]
    networks = sorted(rows["network"].unique(), key=page.real_first)
    sheet, axes = page.panels(len(networks), columns=2, height=2.3)
    for network, ax in zip(networks, axes, strict=True):
        keys = ["network", "measure", "layer", "head"]
        own = rows[rows["network"] == network]
        one = page.mean_of_tasks(own, keys)
        bounds = own[own["head"] == "mean"].groupby("layer").apply(_bounds, include_groups=False)
        if len(bounds):
            one = one.join(bounds, on="layer")
        plots.attention_distance(one, network=network, task=one["task"].iloc[0], ax=ax)
        with plots.style():
            said = ax.get_title(loc="left").replace(network, page.short(network))
            ax.set_title(said, loc="left", fontsize=7.5)
    page.one_legend(sheet, axes)
    trend = evidence.slopes(rows)
    each = trend.groupby("network")["value"].mean()
    listed = ", ".join(f"{page.short(n)} {each[n]:+.2f}" for n in networks if n in each)
    mean = mean_correlation(trend["value"], trend["network"], trend["task"])
    return page.title(
        sheet,
        f"Rank correlation of attention distance with depth: {listed}; mean {mean:+.2f} over "
        f"{mean.n} {mean.unit}",
    )


def _bounds(rows: pd.DataFrame) -> pd.Series:
    """Interval of the mean of heads: over tasks, or over images where there is one task."""
    low, high = mean_interval(rows["value"].to_numpy(float))
    if len(rows) == 1 and {"low", "high"} <= set(rows):
        low, high = rows["low"].iloc[0], rows["high"].iloc[0]
    return pd.Series({"low": low, "high": high})


if __name__ == "__main__":
    page.alone(draw, __file__)

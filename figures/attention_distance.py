"""How far does attention look, by layer and head? (Figure 5B, claim 15)"""

import pandas as pd
from matplotlib.figure import Figure

from analyses import evidence
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean, mean_interval
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One panel a transformer: a dot a head, averaged over tasks."""
    profile = results.gathered("profile")
    rows = profile[profile["measure"] == "attention_distance"]
    networks = sorted(rows["network"].unique())
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
    slope = clustered_mean(trend["value"], trend["network"], trend["task"])
    # At every step of every network: no spread, and clear.
    everywhere = abs(slope.value) == 1
    clear = everywhere or slope.low > 0 or slope.high < 0
    way = "rises" if slope.value > 0 else "falls"
    finding = f"Attention distance {way if clear else 'has no clear trend'} with depth"
    return page.title(sheet, f"{finding}: rank correlation {slope:.2g}, networks as units")


def _bounds(rows: pd.DataFrame) -> pd.Series:
    """Interval of the mean of heads: over tasks, or over images where there is one task."""
    low, high = mean_interval(rows["value"].to_numpy(float))
    if len(rows) == 1 and {"low", "high"} <= set(rows):
        low, high = rows["low"].iloc[0], rows["high"].iloc[0]
    return pd.Series({"low": low, "high": high})


if __name__ == "__main__":
    page.alone(draw, __file__)

"""The positive control: how often does a sweep choose the place at which a tensor was planted?"""

import numpy as np
from matplotlib.figure import Figure

from analyses.campaign_plan import NETWORKS
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = (
    "python -m analyses.campaign --assets DIR --question planted, then python -m "
    "analyses.campaign_planted"
)


def draw(results: Results) -> Figure:
    """Two panels over the planted size: the share of cases that was found, with Wilson's interval;
    and the gain of a prompt at the planted place beside that of the best one elsewhere."""
    judged, cases = (results.table(f"evidence/{name}") for name in ("judged_planted", "planted"))
    sizes = sorted(cases["planted_size"].unique())
    sheet, (share, gain) = page.panels(2, columns=2, height=2.4)
    at = np.arange(len(sizes))
    with plots.style():
        bounds = [judged["value"] - judged["low"], judged["high"] - judged["value"]]
        style = {"color": plots.COLORS["blue"], "fmt": "o-", "capsize": 2}
        share.errorbar(at, judged["value"], yerr=bounds, label="found", **style)
        chance = judged["chance"].iloc[0]
        share.axhline(chance, color=plots.COLORS["black"], linestyle=":", label="chance")
        share.set_ylim(0, 1.05)
        share.set_ylabel("share of cases found")
        for column, label, color in (
            ("gain_planted", "at the planted place", "blue"),
            ("next_best", "at the best other place", "orange"),
        ):
            gain.plot(at, cases.groupby("planted_size")[column].mean(), "o-",
                      color=plots.COLORS[color], label=label)  # fmt: skip
            for name, own in cases.groupby("network"):
                marker = "s" if NETWORKS[str(name)].kind == "cnn" else "^"
                x = [sizes.index(size) for size in own["planted_size"]]
                gain.scatter(x, own[column], s=9, marker=marker, alpha=0.6,
                             color=plots.COLORS[color])  # fmt: skip
        gain.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
        gain.set_ylabel("gain over the linear\nprobe (points)")
        for ax in (share, gain):
            ax.set_xticks(at, [f"{size:g}" for size in sizes])
            ax.set_xlabel("size of the planted tensor\n(shares of the activation's RMS)")
        gain.set_xlabel(gain.get_xlabel() + ";\nsmall: a case (square CNN, triangle ViT)")
    page.one_legend(sheet, [share, gain], columns=4)
    said = "; ".join(
        f"size {size:g}: {int(row.found)} of {int(row.cases)}"
        for size, row in zip(sizes, judged.itertuples(), strict=True)
    )
    return page.title(sheet, f"A planted place is found by validation at {said}")


if __name__ == "__main__":
    page.alone(draw, __file__)

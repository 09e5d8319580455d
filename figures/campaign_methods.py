"""All methods at convergence: what each gains, and what the activation prompt has more in pairs."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign --question methods, then python -m analyses.campaign_methods"
NAMES = {
    "full": "all weights",
    "ap": "activation prompt, chosen place",
    "lora:rank=4": "LoRA, rank 4",
    "ssf": "SSF",
    "bitfit": "all biases (BitFit)",
    "norm_tuning": "all norms, γ and β",
    "norm_tuning:scale=false": "all norms, β",
    "partial": "last block's weights",
    "layer_probe": "probe of the best layer",
    "vp": "visual prompt",
    "vp_rank1": "visual prompt, rank 1",
    "vp_rank4": "visual prompt, rank 4",
    "adapter:bottleneck=16": "adapters, width 16",
    "vpt:tokens=10": "VPT, every layer",
    "vpt:tokens=10,deep=false": "VPT, first layer",
    "vapt:tokens=10": "VAPT",
    "gate_vpt:tokens=10": "GateVPT",
    "e2vpt:tokens=10": "E2VPT",
}
KINDS = {"cnn": ("CNN", "orange"), "vit": ("ViT", "blue")}
FEW = 3
"""Networks below which no interval is drawn: with two, t is 12.7."""
BOUNDS = (-45.0, 60.0)


def draw(results: Results) -> Figure:
    """Two panels, a row a method read at the end: a dot a network and task; a mean and its 95 %
    interval over networks where there are three."""
    pairs = results.table("evidence/methods")
    means = results.table("evidence/judged_methods").set_index("method")
    rows = [name for name in means.index if name in NAMES and means.loc[name, "networks"] > 1]
    sheet, axes = page.panels(2, columns=2, height=1.0 + 0.2 * len(rows))
    panels = zip(axes, ("gain", "ap_has_more"), strict=True)
    with plots.style():
        for ax, column in panels:
            _forest(ax, pairs, means, rows, column)
        labels = [f"{NAMES[name]} ({int(means.loc[name, 'networks'])})" for name in rows[::-1]]
        axes[0].set_yticklabels(labels)
        axes[1].set_yticklabels([])
        axes[0].set_xlabel("gain over the linear probe (points)")
        axes[1].set_xlabel("what the activation prompt\nhas more (points, in pairs)")
    page.one_legend(sheet, axes[:1], columns=4)
    tasks, networks = pairs["task"].nunique(), pairs["network"].nunique()
    prompt, norms = means.loc["ap"], means.loc["norm_tuning"]
    told = "told apart" if norms["ap_has_more_low"] * norms["ap_has_more_high"] > 0 else "not sure"
    return page.title(
        sheet,
        f"At the place that validation chose, a prompt gains {_said(prompt, 'gain')}; on all norms "
        f"it has {_said(norms, 'ap_has_more')}, {told}\n({networks} networks, {tasks} "
        f"task{'s' * (tasks > 1)}, exploratory: the prompt also chose its place)",
    )


def _forest(
    ax: Axes, pairs: pd.DataFrame, means: pd.DataFrame, rows: list[str], column: str
) -> None:
    for height, name in enumerate(reversed(rows)):
        for kind, (words, color) in KINDS.items():
            some = pairs[(pairs["method"] == name) & (pairs["kind"] == kind)][column]
            style = {"s": 9, "color": plots.COLORS[color], "alpha": 0.6}
            ax.scatter(some, [height] * len(some), label=f"{words}, a task a dot", **style)
        one = means.loc[name]
        if column == "ap_has_more" and name == "ap":
            continue
        ink = plots.COLORS["black"]
        ax.plot(one[column], height, "D", ms=3.5, color=ink, label="mean over networks")
        if one["networks"] >= FEW:
            ends = [one[f"{column}_low"], one[f"{column}_high"]]
            ax.plot(ends, [height] * 2, color=ink, lw=1.1, label="95 %, from three networks on")
            for end, mark, beyond in zip(
                BOUNDS, "<>", (ends[0] < BOUNDS[0], ends[1] > BOUNDS[1]), strict=True
            ):
                if beyond:
                    ax.plot(end, height, mark, ms=4, color=ink, clip_on=False)
    ax.axvline(0, color=plots.COLORS["black"], linewidth=0.6)
    ax.set_xlim(*BOUNDS)
    ax.set_yticks(range(len(rows)))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.tick_params(axis="y", length=0)


def _said(row: pd.Series, column: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.1f} points [{low:.1f}, {high:.1f}]".replace("-", "−")


if __name__ == "__main__":
    page.alone(draw, __file__)

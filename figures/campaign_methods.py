"""All methods at convergence: what each gains, and what the activation prompt has more in pairs."""

from collections.abc import Iterable

import numpy as np
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
    "ap, middle": "activation prompt, middle place",
    "random pattern": "random pattern, chosen place",
    "random pattern, middle": "random pattern, middle place",
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
    """Two panels, a row a method read at the end: gains, a dot a network and task; and what the
    prompt has more, at its chosen place and at the middle one. Means over networks, with their
    95 % intervals where there are three."""
    pairs = results.table("evidence/methods")
    means = results.table("evidence/judged_methods").set_index("method")
    rows = [name for name in means.index if name in NAMES and means.loc[name, "networks"] > 1]
    means = means.loc[rows[::-1]]  # the first on top
    sheet, (gains, more) = page.panels(2, columns=2, height=1.0 + 0.2 * len(rows))
    with plots.style():
        for height, name in enumerate(means.index):
            for kind, (words, color) in KINDS.items():
                some = pairs[(pairs["method"] == name) & (pairs["kind"] == kind)]["gain"]
                style = {"s": 9, "color": plots.COLORS[color], "alpha": 0.6}
                gains.scatter(some, [height] * len(some), label=f"{words}, a task a dot", **style)
        _means(gains, means, "gain", label="mean, 95 % from three networks on")
        words = "prompt at its chosen place", "at the middle place: equal search"
        compared = means[~means.index.str.startswith("ap")]
        heights = np.flatnonzero(~means.index.str.startswith("ap"))
        _means(more, compared, "ap_has_more", heights + 0.17, label=words[0], color="green")
        _means(more, compared, "middle_has_more", heights - 0.17, label=words[1], color="purple")
        for ax in (gains, more):
            ax.axvline(0, color=plots.COLORS["black"], linewidth=0.6)
            ax.set_xlim(*BOUNDS)
            ax.set_yticks(range(len(rows)))
            ax.set_ylim(-0.6, len(rows) - 0.4)
            ax.tick_params(axis="y", length=0)
        counts = means["networks"].astype(int)
        gains.set_yticklabels([f"{NAMES[name]} ({counts[name]})" for name in means.index])
        more.set_yticklabels([])
        gains.set_xlabel("gain over the linear probe (points)")
        more.set_xlabel("what the prompt has more\n(points, in pairs)")
    page.one_legend(sheet, [gains, more], columns=3)
    tasks, networks = pairs["task"].nunique(), pairs["network"].nunique()
    norms = means.loc["norm_tuning"]
    return page.title(
        sheet,
        f"A prompt at its chosen place has {_said(norms, 'ap_has_more')} on all norms, and at the "
        f"middle place, with equal search, {_said(norms, 'middle_has_more')}\n"
        f"({networks} networks, {tasks} task{'s' * (tasks > 1)}, exploratory)",
    )


def _means(
    ax: Axes,
    means: pd.DataFrame,
    column: str,
    heights: Iterable[float] | None = None,
    *,
    label: str,
    color: str = "black",
) -> None:
    """A diamond a row with its interval; an arrow where that leaves the panel."""
    ink = plots.COLORS[color]
    rows = range(len(means)) if heights is None else heights
    for height, (_, row) in zip(rows, means.iterrows(), strict=True):
        ax.plot(row[column], height, "D", ms=3.2, color=ink, label=label)
        if row["networks"] < FEW:
            continue
        ends = row[f"{column}_low"], row[f"{column}_high"]
        ax.plot(ends, [height] * 2, color=ink, lw=1.1)
        beyond = ends[0] < BOUNDS[0], ends[1] > BOUNDS[1]
        for bound, mark, leaves in zip(BOUNDS, "<>", beyond, strict=True):
            if leaves:
                ax.plot(bound, height, mark, ms=4, color=ink, clip_on=False)


def _said(row: pd.Series, column: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{row[column]:.1f} points [{low:.1f}, {high:.1f}]".replace("-", "−")


if __name__ == "__main__":
    page.alone(draw, __file__)

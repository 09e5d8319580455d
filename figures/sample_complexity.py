"""Floor and rate: how a prompt's error falls with N, by its place and the number of tokens. (17)"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import two_layer_findings as found
from analyses.results import Results
from analyses.theory_verdicts import LEARNT
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.two_layer, then python -m analyses.collect"
COLOR = {"layer 1": "blue", "layer 2": "orange"}


def draw(results: Results) -> Figure:
    """Left: floors by P. Right: excess over the floor against N at the largest P."""
    table = page.two_layers(results)
    settings = [
        (words, each)
        for words, each in found.by_tokens(table)
        if min(one.floors[0][0] for one in each) <= LEARNT and words[1] == "shared"
    ]
    sheet, axes = page.panels(2 * len(settings), columns=4, height=1.9)
    lower = 0
    for number, ((model, _, fraction), each) in enumerate(settings):
        left, right = axes[2 * number], axes[2 * number + 1]
        _floors(left, each)
        _excess(right, each[-1])
        lower += each[-1].verdict == "layer 1"
        with plots.style():
            left.set_title(f"{model}, {fraction}: floor", fontsize=6.5)
            right.set_title(f"excess at P = {each[-1].labels['tokens']}", fontsize=6.5)
    page.one_legend(sheet, axes)
    return page.title(
        sheet,
        f"At N → ∞ layer 1 errs less than layer 2 in {lower} of {len(settings)} settings, "
        "one prompt for all tokens",
    )


def _floors(ax: Axes, each: list[found.Comparison]) -> None:
    tokens = [one.labels["tokens"] for one in each]
    with plots.style():
        for place, name in enumerate(found.PLACES):
            value, low, high = np.array([one.floors[place] for one in each]).T
            color = plots.COLORS[COLOR[name]]
            ax.plot(tokens, value, "o-", color=color, label=name)
            ax.fill_between(tokens, low, high, color=color, alpha=0.2, linewidth=0)
        ax.set_xscale("log", base=2)
        powers = [count for count in tokens if count & (count - 1) == 0]  # others have no room
        ax.set_xticks(powers, [f"{count:g}" for count in powers])
        ax.minorticks_off()
        ax.set(xlabel="tokens P", ylabel="error at N → ∞ (%)")


def _excess(ax: Axes, one: found.Comparison) -> None:
    with plots.style():
        for place, name in enumerate(found.PLACES):
            curve = one.curves[place]
            excess = 100 * (curve.errors.mean(0)[:-1] - curve.errors[:, -1].mean())
            shown = excess > 0.1
            color = plots.COLORS[COLOR[name]]
            ax.plot(curve.sizes[:-1][shown], excess[shown], "o-", color=color, label=name)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set(xlabel="training samples N", ylabel="excess (points)")


if __name__ == "__main__":
    page.alone(draw, __file__)

"""Prompt here, read there: what each rival gains, and the map over both places."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.campaign_tables import mean_over_draws
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign --assets DIR, then python -m analyses.campaign_tables"
RIVALS = {
    "ap_end": "prompt, read at the end",
    "layer_probe": "best layer's probe",
    "ap_read_early": "prompt, read there",
    "all_layers_probe": "probe of all layers",
}
MAPPED = (("resnet56", "gtsrb32"), ("vit_tiny", "gtsrb32"))


def draw(results: Results) -> Figure:
    """Gains over the linear probe, networks as units; below them two of the maps."""
    pairs = mean_over_draws(results.table("evidence/pairs"))
    maps = results.table("evidence/maps")
    sheet, axes = page.panels(4, columns=2, height=2.5)
    with plots.style():
        for ax, near, words in zip(axes, (False, True), ("far", "near"), strict=False):
            rows = pairs[pairs["near"] == near]
            _gains(ax, rows)
            ax.set_title(f"{words} tasks ({rows['network'].nunique()} networks)")
            ax.set_xlabel("gain over the linear probe (points)")
        for ax, (network, task) in zip(axes[2:], MAPPED, strict=True):
            _map(ax, maps[(maps["network"] == network) & (maps["task"] == task)])
            ax.set_title(f"{page.short(network)} on {task} (%)")
    far = pairs[~pairs["near"]]
    gap = clustered_mean(
        100 * (far["ap_read_early"] - far["layer_probe"]), far["network"], far["task"]
    )
    rival = clustered_mean(
        100 * (far["ap_read_early"] - far["all_layers_probe"]), far["network"], far["task"]
    )
    return page.title(
        sheet,
        f"On far tasks a prompt that is read early: {gap:+.1f points} over the best "
        f"layer's probe; over the probe of all layers {rival:+.1f points}",
    )


def _gains(ax: Axes, rows: pd.DataFrame) -> None:
    lines, dots = [], []
    for column, label in RIVALS.items():
        gains = 100 * (rows[column] - rows["linear_probe"])
        interval = clustered_mean(gains, rows["network"], rows["task"])
        lines.append(
            {"label": label, "value": interval.value, "low": interval.low, "high": interval.high}
        )
        means = gains.groupby(rows["network"]).mean()
        dots += [{"label": label, "value": value} for value in means]
    page.forest(
        ax,
        pd.DataFrame(lines),
        label="label",
        dots=pd.DataFrame(dots),
        highlight=(RIVALS["ap_read_early"],),
    )
    ax.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")


def _map(ax: Axes, rows: pd.DataFrame) -> None:
    """The prompt's place across, the reading's up; the layer probes in a column of their own."""
    prompts = rows[rows["method"] == "ap"].pivot_table(
        index="read", columns="layer", values="test_accuracy"
    )
    probes = rows[rows["method"] == "layer_probe"].set_index("read")["test_accuracy"]
    grid = prompts.reindex(index=sorted(set(prompts.index) | set(probes.index)))
    grid.insert(0, "none", probes.reindex(grid.index))
    values = 100 * grid.to_numpy(float)
    ax.imshow(values, origin="lower", cmap="viridis", aspect="auto")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "black" if value > middle else "white"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color=color)
    ax.set_xticks(range(len(grid.columns)), [str(c) for c in grid.columns])
    names = [str(int(place)) for place in grid.index]
    names[-1] += " (end)"
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("prompt at place")
    ax.set_ylabel("read at place")
    ax.grid(visible=False)


if __name__ == "__main__":
    page.alone(draw, __file__)

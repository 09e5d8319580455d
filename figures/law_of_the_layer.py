"""Where each network wants its prompt, near its pretraining and far from it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.findings.statistics import mean_correlation
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign --assets DIR, then python -m analyses.campaign_tables"
READ = {"slope_end": "read at the end", "slope_read_early": "read at the best probe's place"}


def draw(results: Results) -> Figure:
    """Spearman of depth and accuracy, a row a network, a colour for near and far."""
    pairs = results.table("evidence/pairs")
    sheet, axes = page.panels(2, columns=2, height=2.9)
    with plots.style():
        for ax, (column, words) in zip(axes, READ.items(), strict=True):
            _slopes(ax, pairs, column)
            ax.set_title(f"prompt {words}")
            ax.set_xlabel("Spearman(place of the prompt, test accuracy)")
        axes[1].set_yticklabels([])
    page.one_legend(sheet, axes)
    kinds = []
    for kind, name in (("cnn", "CNNs"), ("vit", "ViTs")):
        rows = pairs[pairs["kind"] == kind]
        interval = mean_correlation(rows["slope_end"], rows["network"], rows["task"])
        kinds.append(f"{name} {interval:+.2f}")
    return page.title(
        sheet,
        f"Accuracy against depth, read at the end: {'; '.join(kinds)} "
        "(mean correlation over 4 networks each)",
    )


def _slopes(ax: Axes, pairs: pd.DataFrame, column: str) -> None:
    networks = (
        pairs[["network", "kind"]].drop_duplicates().sort_values(["kind", "network"])["network"]
    )
    names = list(networks)
    for near, color, words in ((False, "orange", "far tasks"), (True, "blue", "near tasks")):
        rows = pairs[(pairs["near"] == near) & pairs[column].notna()]
        heights = [len(names) - 1 - names.index(name) for name in rows["network"]]
        offset = 0.14 if near else -0.14
        ax.scatter(
            rows[column],
            [height + offset for height in heights],
            s=12,
            color=plots.COLORS[color],
            label=words,
        )
    ax.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
    kinds = pairs.set_index("network")["kind"].to_dict()
    labels = [f"{page.short(n)} ({'CNN' if kinds[n] == 'cnn' else 'ViT'})" for n in names]
    ax.set_yticks(range(len(names)), labels[::-1])
    ax.set_xlim(-1.05, 1.05)


if __name__ == "__main__":
    page.alone(draw, __file__)

"""What the figure scripts share: short names, panels on a page, the command line of one figure."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import evidence, two_layer
from analyses.results import Results
from analyses.two_layer_findings import joined
from aptheory.findings.statistics import mean_interval
from aptheory.reporting import plots

Draw = Callable[[Results], Figure]

NAMES = {
    "aptheory_vit_mini": "ViT-mini",
    "aptheory_resnet_mini": "ResNet-mini",
    "aptheory_vit_gap_mini": "ViT-GAP-mini",
    "aptheory_resnet_deep_mini": "deep ResNet-mini",
    "vit_tiny_patch16_224": "ViT-Tiny",
    "vit_small_patch16_224": "ViT-Small",
    "vit_large_patch16_224": "ViT-Large",
    "mobilenetv2_035": "MobileNetV2-0.35",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "vit_tiny": "ViT-Tiny",
    "vit_small": "ViT-S/14 (saliency)",
    "cifar_vit128": "CIFAR ViT",
    "cifar_vit_postnorm": "CIFAR ViT, post-norm",
    "resnet32": "ResNet-32",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
}


def short(network: str) -> str:
    """A network's name as a figure says it."""
    if network in NAMES:
        return NAMES[network]
    return "ResNet-56" if "resnet56" in network else network


def real_first(network: str) -> tuple[bool, bool, str]:
    """A key to sort networks by: real weights before home-made ones, CNNs before ViTs."""
    return network.startswith("aptheory_"), evidence.is_vit(network), network


def panels(
    count: int, *, columns: int = 3, height: float = 2.2, width: float = plots.PAGE
) -> tuple[Figure, list[Axes]]:
    """A page of ``count`` panels, the places that are left over empty."""
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = plots.figure(rows, columns, width=width, height=height)
    axes = list(sheet.axes)
    for ax in axes[count:]:
        ax.remove()
    return sheet, axes[:count]


def title(sheet: Figure, finding: str) -> Figure:
    """The finding above the whole sheet, at its left edge, in as many lines as it needs."""
    finding = re.sub(r"(?<=\d), (?=[+−-]?[\d.]+\])", ",\u00a0", finding)  # no interval is torn
    letters = int(12.8 * sheet.get_figwidth())  # of 9 points, bold, that fit across
    lines = [textwrap.fill(line, letters, break_on_hyphens=False) for line in finding.split("\n")]
    with plots.style():
        sheet.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9, fontweight="bold")
    return sheet


def one_legend(sheet: Figure, axes: list[Axes], columns: int = 4) -> None:
    """One legend below the sheet in place of one a panel."""
    handles: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    with plots.style():
        sheet.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def theory(results: Results, name: str) -> pd.DataFrame:
    """The table of an analysis of the theory, the full run's where there is one."""
    full = f"theory/{name}_full/{name}"
    return results.table(full if results.has(full) else f"theory/{name}/{name}")


def two_layers(results: Results) -> pd.DataFrame:
    """All forms of the theory's two-layer experiment, as the verdicts read them."""
    names = {form: f"theory/{two_layer.folder(form)}/two_layer" for form in two_layer.FORMS}
    there = {form: results.table(name) for form, name in names.items() if results.has(name)}
    return joined(there) if there else results.table(names["short"])


def mean_of_tasks(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Values averaged over tasks, as one task that says over how many."""
    count = table["task"].nunique()
    name = table["task"].iloc[0] if count == 1 else f"mean of {count} tasks"
    return table.groupby(keys, as_index=False, dropna=False)["value"].mean().assign(task=name)


def forest(
    ax: Axes,
    rows: pd.DataFrame,
    *,
    label: str,
    dots: pd.DataFrame | None = None,
    highlight: tuple[str, ...] = (),
) -> None:
    """``value, low, high`` of each row as a point with its interval, first row on top.

    ``dots`` has the single observations behind them, in columns ``label`` and ``value``.
    """
    for place, row in enumerate(rows.iloc[::-1].itertuples()):
        name = getattr(row, label)
        color = plots.COLORS["orange" if name in highlight else "blue"]
        if dots is not None:
            single = dots.loc[dots[label] == name, "value"]
            ax.scatter(single, [place] * len(single), s=6, color=plots.COLORS["grey"], alpha=0.5)
        if np.isfinite(row.low):
            ax.plot([row.low, row.high], [place, place], color=color, linewidth=1.4)
        ax.plot(row.value, place, "o", color=color, markersize=4)
    ax.set_yticks(range(len(rows)), list(rows[label].iloc[::-1]))
    ax.set_ylim(-0.6, len(rows) - 0.4)


def near_and_far(ax: Axes, pairs: pd.DataFrame, column: str) -> None:
    """A correlation of each pair, a row a network, a colour for near and far tasks."""
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
    labels = [f"{short(n)} ({'CNN' if kinds[n] == 'cnn' else 'ViT'})" for n in names]
    ax.set_yticks(range(len(names)), labels[::-1])
    ax.set_ylim(-0.5, len(names) - 0.5)
    ax.set_xlim(-1.05, 1.05)


def interval(values: np.ndarray | pd.Series, digits: int = 2) -> str:
    """``+0.31 [+0.12, +0.50]``: mean and 95 % t interval."""
    values = np.asarray(values, float)
    low, high = mean_interval(values)
    said = f"{values.mean():+.{digits}f}"
    return said + (f" [{low:+.{digits}f}, {high:+.{digits}f}]" if np.isfinite(low) else "")


def alone(draw: Draw, file: str) -> None:
    """The command line of one figure: read results/, write results/figures/NAME.pdf and .png."""
    name = Path(file).stem
    parser = argparse.ArgumentParser(description=f"Draw {name}.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--to", type=Path, default=None, help="folder, RESULTS/figures")
    given = parser.parse_args()
    folder = given.to or given.results / "figures"
    for path in plots.save(draw(Results(given.results)), folder / name):
        print(path)

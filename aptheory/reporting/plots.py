"""A figure a function: each takes a tidy table and returns an Axes.

Drawing and computing are apart: whatever is shown stands in the table, and the title says the
finding, read from the table as well. Names and colours are those of `aptheory.reporting.legend`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Annotated, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from aptheory.arguments import PROFILE, RESULTS, Columns, checked_arguments
from aptheory.errors import InputError
from aptheory.findings.gaps import mean_by
from aptheory.findings.sentences import headline
from aptheory.methods import role_of
from aptheory.reporting.curves import Curve, accuracy_curves, case_of, metric_curves
from aptheory.reporting.legend import COLORS, measure_label, method_name
from aptheory.reporting.style import COLUMN, PAGE, figure, figure_of, save, style, styled
from aptheory.studies.tables import check_once

__all__ = [
    "COLORS",
    "COLUMN",
    "PAGE",
    "accuracy_by_layer",
    "attention_distance",
    "cka_map",
    "cost_front",
    "curves",
    "figure",
    "figure_of",
    "layer_map",
    "measure_label",
    "method_comparison",
    "method_name",
    "metric_by_layer",
    "relation",
    "save",
    "style",
    "styled",
]

Profile = Annotated[pd.DataFrame, PROFILE]
Comparison = Annotated[pd.DataFrame, Columns("method", "value", "low", "high")]
Relation = Annotated[pd.DataFrame, Columns("network", "task", "measure", "statistic", "value")]
Cells = Annotated[pd.DataFrame, Columns("network", "task", "layer", "read", "finished")]
Costs = Annotated[pd.DataFrame, Columns("label", "value")]


@styled
@checked_arguments
def accuracy_by_layer(
    accuracy: Annotated[pd.DataFrame, RESULTS],
    *,
    network: str,
    task: str,
    measure: str = "test_accuracy",
    focus: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against the layer that a prompt or a probe stands at (paper, Figure 4).

    Points are means over seeds, bands their 95 % intervals. The stars mark the layers that
    validation accuracy chooses for the prompt and for the probe. ``focus`` gives the height to the
    prompt and what it must beat: probes of single layers that are far below leave the frame.
    """
    check_once(accuracy, "the accuracies")
    rows = _rows(accuracy, network=network, task=task, measure=measure)
    ax = _axes(ax)
    drawn = accuracy_curves(accuracy, network, task, measure=measure)
    for curve in drawn:
        _draw(ax, curve)
    case = case_of(accuracy, network, task)
    if case is not None:
        ax.set_title(f"{network} on {task}\n{headline(case).replace('; ', chr(10))}")
    compared = rows.loc[rows["method"] != "layer_probe", "value"]
    if focus and len(compared):
        ax.set_ylim(bottom=100 * (compared.min() - 0.6 * np.ptp(compared)))
    _layer_axis(ax)
    ax.set_ylabel(measure_label(measure))
    _legend(ax)
    return ax


@styled
@checked_arguments
def metric_by_layer(
    profile: Profile,
    *,
    network: str,
    task: str,
    measure: str,
    color: str = "purple",
    ax: Axes | None = None,
) -> Axes:
    """One metric against depth, with its interval where the table has one; heads are averaged."""
    _rows(profile, network=network, task=task, measure=measure)
    ax = _axes(ax)
    curve = metric_curves(profile, network, task)[measure]
    _draw(ax, replace(curve, color=COLORS[color]))
    _layer_axis(ax)
    ax.set_ylabel(curve.label)
    return ax


@styled
@checked_arguments
def attention_distance(
    profile: Profile, *, network: str, task: str, ax: Axes | None = None
) -> Axes:
    """Mean attention distance of every head against depth (paper, Figure 5B)."""
    rows = _rows(profile, network=network, task=task, measure="attention_distance")
    ax = _axes(ax)
    if "head" in rows:  # the profile also has the mean of the heads, as a row of its own
        whole = rows[rows["head"].astype(str) == "mean"].set_index("layer").sort_index()
        rows = rows[rows["head"].astype(str) != "mean"]
        if len(whole) and {"low", "high"} <= set(whole):
            _band(ax, whole, COLORS["blue"])
    ax.scatter(rows["layer"], rows["value"], s=10, color=COLORS["sky"], alpha=0.8, label="one head")
    mean = rows.groupby("layer")["value"].mean()
    ax.plot(mean.index, mean, color=COLORS["blue"], label="mean of heads")
    ends = f"{mean.iloc[0]:.1f} pixels in the first block, {mean.iloc[-1]:.1f} in the last"
    ax.set_title(f"{network} on {task}\n{ends}")
    _layer_axis(ax)
    ax.set_ylabel(measure_label("attention_distance"))
    _legend(ax)
    return ax


@styled
@checked_arguments
def cka_map(
    profile: Profile,
    *,
    network: str,
    task: str,
    other_network: str | None = None,
    scale: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Linear CKA between all pairs of layers, within a network or between two (Figure 5A)."""
    rows = _rows(profile, network=network, task=task, measure="cka")
    if "other_network" in rows:
        same = rows["other_network"].isna() | (rows["other_network"] == network)
        rows = rows[rows["other_network"] == other_network] if other_network else rows[same]
    table = rows.pivot_table(index="layer", columns="other_layer", values="value")
    if table.empty:
        raise InputError(f"the profile has no CKA of {network} on {task} that is a number.")
    if other_network is None:
        table = table.combine_first(table.T)
    ax = _axes(ax)
    image = ax.imshow(table, origin="lower", vmin=0, vmax=1, cmap="cividis")
    ax.grid(False)
    if scale:
        ax.figure.colorbar(image, ax=ax, label="CKA")
    ax.set_xlabel(f"layer of {other_network or network}")
    ax.set_ylabel(f"layer of {network}")
    step = -(-len(table) // 7)
    ax.set_yticks(range(0, len(table), step), [str(int(i)) for i in table.index[::step]])
    step = -(-table.shape[1] // 7)
    ax.set_xticks(range(0, table.shape[1], step), [str(int(i)) for i in table.columns[::step]])
    return ax


@styled
@checked_arguments
def layer_map(
    cells: Cells, *, measure: str | None = None, scale: bool = True, ax: Axes | None = None
) -> Axes:
    """Accuracy over the place that is prompted (across) and the place that is read (up).

    The diagonal holds the layer probes, the top row the prompts read at the network's end, and
    their corner the linear probe. The frame marks the best cell on validation images of those
    trained to the end; cells that successive halving dropped are hatched.

    Args:
        cells: of a `LayerMap`: one row a cell of one network and task.
        measure: "test_accuracy" or "val_accuracy"; by default the first where every cell has it.

    Raises:
        InputError: there is no cell, one stands twice, or they are of several networks or tasks.
    """
    if len(cells[["network", "task"]].drop_duplicates()) != 1:
        raise InputError("the cells are none, or of several networks or tasks; give those of one.")
    if cells.duplicated(["layer", "read"]).any():
        raise InputError("the cells hold one place of prompt and reading twice; give each once.")
    if measure is None:
        measure = "test_accuracy" if cells["finished"].all() else "val_accuracy"
    ax = _axes(ax)
    places = sorted({*cells["layer"], *cells["read"]})
    across = {place: number for number, place in enumerate(places)}
    up = {place: number for number, place in enumerate(sorted(set(cells["read"])))}
    table = 100 * cells.pivot(index="read", columns="layer", values=measure)
    table = table.reindex(index=list(up), columns=places)
    image = ax.imshow(table, origin="lower", cmap="cividis", aspect="auto")
    ax.grid(False)
    middle = np.nanmean([image.norm.vmin, image.norm.vmax])
    for cell in cells.itertuples():
        x, y, value = across[cell.layer], up[cell.read], 100 * getattr(cell, measure)
        if not cell.finished:
            _frame(ax, x, y, hatch="////", edgecolor="white", linewidth=0, alpha=0.5)
        if np.isfinite(value) and len(places) <= 14:
            color = "black" if value > middle else "white"
            ax.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=5.5, color=color)
    for best in cells[cells["chosen"]].to_dict("records"):
        _frame(ax, across[best["layer"]], up[best["read"]], edgecolor=COLORS["orange"], linewidth=2)
        way = f"prompt {best['layer_name']}, read {best['read_name']}"
        if best["layer"] == best["read"]:
            way = f"probe {best['read_name']}"
        ax.set_title(f"{best['network']} on {best['task']}: {way}")
    if scale:
        ax.figure.colorbar(image, ax=ax, label=measure_label(measure))
    ax.set_xlabel("prompted layer (diagonal: none, a probe)")
    ax.set_ylabel("layer that the head reads")
    names = [str(place) for place in places]
    ax.set_xticks(range(len(places)), names)
    ax.set_yticks(range(len(up)), [str(place) for place in up])
    return ax


def _frame(ax: Axes, x: int, y: int, **options: Any) -> None:
    """A square around one cell of a heat map."""
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, clip_on=False, **options))


@styled
@checked_arguments
def relation(table: Relation, *, statistic: str = "spearman", ax: Axes | None = None) -> Axes:
    """Every correlation with its interval: filled where q ≤ 0.05, hollow where it is not."""
    rows = table[table["statistic"] == statistic].dropna(subset=["value"])
    if rows.empty:
        raise InputError(f"the relation table has no defined {statistic!r}")
    rows = rows.sort_values(["measure", "network", "task"], ascending=False)
    ax = _axes(ax)
    for place, row in enumerate(rows.to_dict("records")):
        solid = row.get("q", np.nan) <= 0.05
        ax.plot([row["low"], row["high"]], [place, place], color=COLORS["blue"], linewidth=1)
        ax.plot(
            row["value"],
            place,
            "o",
            color=COLORS["blue"],
            markerfacecolor=COLORS["blue"] if solid else "white",
        )
    ax.axvline(0, color=COLORS["grey"], linewidth=0.8)
    labels = [f"{row.measure}: {row.network}, {row.task}" for row in rows.itertuples()]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_xlim(-1.05, 1.05)
    ax.set_xlabel("rank correlation with the accuracy of AP over layers")
    ax.set_title(_tested(rows))
    return ax


def _tested(rows: pd.DataFrame) -> str:
    """How many correlations are clear of zero, of those that could be at all (`corrected`)."""
    q = rows["q"].dropna() if "q" in rows else pd.Series(dtype=float)
    if q.empty:
        return f"{len(rows)} correlations, none testable: too few layers"
    untested = len(rows) - len(q)
    more = f", {untested} not testable" if untested else ""
    return f"{int((q <= 0.05).sum())} of {len(q)} correlations are clear of zero (q ≤ 0.05){more}"


@styled
@checked_arguments
def method_comparison(
    comparison: Comparison, *, order: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Mean test accuracy of each method with its interval, best on top.

    Args:
        comparison: one row per method with ``method, value, low, high`` and maybe ``parameters``.
    """
    rows = comparison.copy()
    if order is None:
        rows = rows.sort_values("value")
    else:
        rows = rows.set_index("method").loc[list(order)].reset_index()
    ax = _axes(ax)
    for place, row in enumerate(rows.to_dict("records")):
        color = COLORS["orange" if role_of(str(row["method"])) == "prompt" else "blue"]
        ax.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=1.2)
        ax.plot(100 * row["value"], place, "o", color=color)
    labels = [method_name(method) for method in rows["method"]]
    if "parameters" in rows:
        labels = [
            f"{label} ({int(count):,})"
            for label, count in zip(labels, rows["parameters"], strict=True)
        ]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_xlabel("test accuracy (%)")
    return ax


@styled
@checked_arguments
def cost_front(table: Costs, *, cost: str = "relative_time", ax: Axes | None = None) -> Axes:
    """Accuracy against cost; the line joins the points that nothing beats in both.

    Args:
        table: one row per method and layer with ``label, value`` and the cost column; ``low`` and
            ``high`` draw its interval.
    """
    ax = _axes(ax)
    _need(table, cost)
    rows = table.sort_values([cost, "value"], ascending=[True, False])
    best = rows["value"] > rows["value"].cummax().shift(fill_value=-np.inf)
    front = rows[best]
    ax.step(front[cost], 100 * front["value"], where="post", color=COLORS["orange"])
    if {"low", "high"} <= set(rows):
        bounds = 100 * rows["low"], 100 * rows["high"]
        ax.vlines(rows[cost], *bounds, color=COLORS["sky"], linewidth=0.8)
    ax.scatter(rows[cost], 100 * rows["value"], s=14, color=COLORS["blue"], zorder=3)
    for row, on_front in zip(rows.to_dict("records"), best, strict=True):
        ax.annotate(
            str(row["label"]),
            (row[cost], 100 * row["value"]),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=6,
            fontweight="bold" if on_front else "normal",
        )
    ax.set_xlabel(cost.replace("_", " "))
    ax.set_ylabel("test accuracy (%)")
    return ax


@styled
@checked_arguments
def curves(
    table: pd.DataFrame,
    *,
    x: str,
    by: str,
    value: str = "value",
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Mean and 95 % interval of a value against x, one line a group (few-shot curves, slopes)."""
    _need(table, x, by, value)
    ax = _axes(ax)
    for color, (name, group) in zip(cycle(COLORS.values()), table.groupby(by, sort=False)):
        means = mean_by(group, x, value)
        ax.plot(means.index, means["value"], marker="o", color=color, label=str(name))
        _band(ax, means, color)
    if log:
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlabel(x.replace("_", " "))
    _legend(ax)
    return ax


def _draw(ax: Axes, curve: Curve) -> None:
    """A curve with its interval and its star."""
    look: dict[str, Any] = {"color": curve.color, "linestyle": curve.line, "marker": curve.marker}
    ax.plot(curve.x, curve.y, label=curve.label, **look)
    for places in curve.stretches:
        x, low, high = (np.asarray(side)[places] for side in (curve.x, curve.low, curve.high))
        ax.fill_between(x, low, high, color=curve.color, alpha=0.2, linewidth=0)
    if curve.star is not None:
        at = curve.x[curve.star], curve.y[curve.star]
        ax.plot(*at, "*", color=curve.color, markersize=10, markeredgecolor="white", zorder=4)


def _band(ax: Axes, table: pd.DataFrame, color: str) -> None:
    """An interval at each index of the table."""
    ax.fill_between(table.index, table["low"], table["high"], color=color, alpha=0.2, linewidth=0)


def _legend(ax: Axes) -> None:
    """Below the axes, where it covers no data."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.6, ncols=2)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    return figure(width=COLUMN).axes[0]


def _need(table: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if column not in table:
            raise InputError(
                f"the table has no column {column!r}; it has {', '.join(map(str, table))}."
            )


def _rows(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    rows = table
    for column, value in wanted.items():
        if value not in set(rows[column]):
            have = ", ".join(sorted(map(str, rows[column].unique()))) or "nothing"
            raise InputError(f"no rows with {column} = {value!r} in the table: it has {have}")
        rows = rows[rows[column] == value]
    return rows


def _layer_axis(ax: Axes) -> None:
    ax.set_xlabel("layer (0 is the image)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))

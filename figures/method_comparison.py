"""AP beside the other ways to adapt a frozen network, by group of tasks (claims 9, 10, 23, V5)."""

from itertools import product

import pandas as pd
from matplotlib.figure import Figure

from analyses import evidence
from analyses.results import Results
from aptheory.reporting import plots
from aptheory.tasks.embedded_tasks import EMBEDDED_FACTS
from figures import sheet as page

NEEDS = "python -m analyses.method_comparison, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """The networks with real weights on top, then a row an embedded network, a column a task.

    Methods stand in the order of their mean over a network's tasks.
    """
    table = read_at_the_end(results.table("methods/comparison").dropna(subset=["rank"]))
    tasks = list(table["task"].unique())
    rows = [list(product([one], tasks)) for one in _cnns_first(table)]
    if real := results.elsewhere("methods/*/comparison.csv"):
        more = pd.concat(real).dropna(subset=["rank"])
        table = pd.concat([table, more], ignore_index=True)
        rows.insert(0, [(one, _tasks(more, one)[0]) for one in _cnns_first(more)][: len(tasks)])
    height = 0.6 + 0.15 * int(table.groupby("network")["method"].nunique().max())
    sheet = plots.figure(len(rows), len(tasks), height=height)
    axes = list(sheet.axes)
    places = {}
    for row, cases in enumerate(rows):
        for column in range(len(tasks)):
            ax = axes[row * len(tasks) + column]
            if column >= len(cases):
                ax.remove()
                continue
            network, task = cases[column]
            order = _order(table, network)
            shown = _rows(table, network, task).drop(columns="parameters", errors="ignore")
            plots.method_comparison(shown, order=order, ax=ax)
            group = EMBEDDED_FACTS[task][0] if task in EMBEDDED_FACTS else "photographs"
            with plots.style():
                ax.set_title(f"{page.short(network)}, {task} ({group})", fontsize=7)
                ax.tick_params(labelsize=6)
            ax.set_xlabel("")
            same_row = column > 0 and cases[0][0] == network
            ax.set_yticklabels([] if same_row else _labels(table, network, order))
            places[network] = f"{len(order) - order.index('ap')} of {len(order)}"
    with plots.style():
        sheet.supxlabel(
            "test accuracy (%), 95 % interval over seeds; in brackets: parameters, over tasks",
            fontsize=8,
        )
    said = ", ".join(f"{place} on {page.short(network)}" for network, place in places.items())
    return page.title(sheet, f"AP ranks {said}, by its mean over the tasks")


def read_at_the_end(table: pd.DataFrame) -> pd.DataFrame:
    """The table with AP's row for the prompt that is read where the probes read best, on tasks
    where that is the end: there it is AP, and was not trained a second time."""
    early = table[table["method"] == "ap:read=best"]
    lacking = table[(table["method"] == "ap") & table["network"].isin(early["network"])]
    keys = ["network", "task"]
    known = set(early[keys].itertuples(index=False, name=None))
    same = [pair not in known for pair in lacking[keys].itertuples(index=False, name=None)]
    return pd.concat([table, lacking[same].assign(method="ap:read=best")], ignore_index=True)


def _cnns_first(table: pd.DataFrame) -> list[str]:
    return sorted(sorted(table["network"].unique()), key=evidence.is_vit)


def _tasks(table: pd.DataFrame, network: str) -> list[str]:
    return list(table.loc[table["network"] == network, "task"].unique())


def _rows(table: pd.DataFrame, network: str, task: str) -> pd.DataFrame:
    return table[(table["network"] == network) & (table["task"] == task)]


def _labels(table: pd.DataFrame, network: str, order: list[str]) -> list[str]:
    """The methods with their tunable parameters: from the fewest to the most over the tasks."""
    if "parameters" not in table:
        return [plots.method_name(method) for method in order]
    own = table[table["network"] == network].groupby("method")["parameters"]
    least, most = own.min(), own.max()
    return [
        f"{plots.method_name(method)} ({least[method]:,.0f}"
        + (f" to {most[method]:,.0f})" if most[method] > least[method] else ")")
        for method in order
    ]


def _order(table: pd.DataFrame, network: str) -> list[str]:
    """The methods that ran on all of a network's tasks, the best last."""
    rows = table[table["network"] == network]
    means = rows.groupby("method")["value"].mean().sort_values()
    everywhere = rows.groupby("method")["task"].nunique() == rows["task"].nunique()
    return [method for method in means.index if everywhere[method]]


if __name__ == "__main__":
    page.alone(draw, __file__)

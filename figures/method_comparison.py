"""AP beside the other ways to adapt a frozen network, by group of tasks (claims 9, 10, 23, V5)."""

from matplotlib.figure import Figure

from analyses import evidence
from analyses.results import Results
from aptheory import plots
from aptheory.tasks.catalogue import EMBEDDED_FACTS
from figures import sheet as page

NEEDS = "python -m analyses.method_comparison, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """A row a network, a column a task; methods in the order of their mean over the tasks."""
    table = results.table("methods/comparison").dropna(subset=["rank"])
    networks, tasks = sorted(table["network"].unique()), list(table["task"].unique())
    sheet = plots.figure(
        len(networks),
        len(tasks),
        height=0.6 + 0.15 * int(table.groupby("network")["method"].nunique().max()),
    )
    axes = iter(sheet.axes)
    said = []
    for network in sorted(networks, key=evidence.is_vit):
        of_network = table[table["network"] == network]
        means = of_network.groupby("method")["value"].mean().sort_values()
        everywhere = of_network.groupby("method")["task"].nunique() == len(tasks)
        order = [method for method in means.index if everywhere[method]]
        for task in tasks:
            ax = next(axes)
            rows = of_network[of_network["task"] == task]
            plots.method_comparison(rows, order=order, ax=ax)
            group = EMBEDDED_FACTS[task][0] if task in EMBEDDED_FACTS else "user"
            with plots.style():
                ax.set_title(f"{page.short(network)}, {task} ({group})", fontsize=7)
                ax.tick_params(labelsize=6)
            ax.set_xlabel("")
            if task != tasks[0]:
                ax.set_yticklabels([])
        place = len(order) - order.index("ap")
        said.append(f"{place} of {len(order)} on {page.short(network)}")
    with plots.style():
        sheet.supxlabel(
            "test accuracy (%), 95 % interval over seeds; in brackets: tunable parameters",
            fontsize=8,
        )
    return page.title(sheet, "AP ranks " + ", ".join(said) + ", by its mean over the tasks")


if __name__ == "__main__":
    page.alone(draw, __file__)

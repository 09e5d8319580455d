"""The same network pretrained from three seeds: does its preference stay?"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.campaign_plan import MINI_TASKS, NEAR
from analyses.campaign_pretraining import NAMES
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = (
    "python -m analyses.campaign --question pretraining --assets DIR, then python -m "
    "analyses.campaign_pretraining"
)
SEEDS = {0: ("blue", "seed 0 (packaged)"), 1: ("orange", "seed 1"), 2: ("green", "seed 2")}


def draw(results: Results) -> Figure:
    """A row an architecture, a column a task: gain over the linear probe by depth, a line a seed of
    the pretraining."""
    curves = results.table("evidence/pretraining_curves")
    found = results.table("evidence/judged_pretraining").set_index("statistic")
    kinds = [kind for kind in NAMES if kind in set(curves["kind"])]
    tasks = [task for task in MINI_TASKS if task in set(curves["task"])]
    sheet, axes = page.panels(len(kinds) * len(tasks), columns=len(tasks), height=1.7)
    with plots.style():
        for ax, (kind, task) in zip(axes, [(k, t) for k in kinds for t in tasks], strict=True):
            rows = curves[(curves["kind"] == kind) & (curves["task"] == task)]
            _lines(ax, rows)
            ax.set_title(f"{NAMES[kind]}, {task}\n({'near' if task in NEAR else 'far'})", size=7)
            if task == tasks[0]:
                ax.set_ylabel("gain (points)")
            if kind == kinds[-1]:
                ax.set_xlabel("place")
    page.one_legend(sheet, axes, columns=3)

    def said(what: str) -> str:
        shares = (found.loc[f"share of {what} in the curves, {NAMES[k]}", "value"] for k in kinds)
        return " and ".join(f"{100 * share:.0f} %" for share in shares)

    return page.title(
        sheet,
        f"Of what tells these curves apart {said('task')} lies between tasks, "
        f"{said('pretraining seed')} between pretraining seeds "
        f"({' and '.join(NAMES[kind] for kind in kinds)}; exploratory)",
    )


def _lines(ax: Axes, rows: pd.DataFrame) -> None:
    for seed, (color, words) in SEEDS.items():
        own = rows[rows["pretraining"] == seed].sort_values("layer")
        look = {"color": plots.COLORS[color], "label": words}
        ax.plot(own["layer"], own["measured"], ".-", ms=3, **look)
    ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)


if __name__ == "__main__":
    page.alone(draw, __file__)

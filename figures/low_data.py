"""With few images: VPT, VAPT, AP and the linear probe against images a class (claim V4)."""

from matplotlib.figure import Figure

from analyses.claims import Results
from aptheory import plots
from figures import sheet as page

NEEDS = "python analyses/low_data.py, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One panel a task; bands are 95 % intervals over draws of the training images."""
    table = results.table("theory/low_data/low_data")
    rows = table[table["measure"] == "test_accuracy"].assign(value=lambda t: 100 * t["value"])
    tasks = list(rows["task"].unique())
    sheet, axes = page.panels(len(tasks), columns=2, height=2.4)
    for task, ax in zip(tasks, axes, strict=True):
        one = rows[rows["task"] == task]
        plots.curves(one, x="images_a_class", by="method", ax=ax)
        counts = sorted(one["images_a_class"].unique())
        with plots.style():
            ax.set_xscale("log")
            ax.set_xticks(counts, counts)
            ax.minorticks_off()
            ax.set(xlabel="training images a class", ylabel="test accuracy (%)")
            ax.set_title(task)
    page.one_legend(sheet, axes)
    fewest = rows[rows["images_a_class"] == rows["images_a_class"].min()]
    wide = fewest.pivot_table(index=["task", "seed"], columns="method", values="value")
    gap = page.interval(wide["VAPT"] - wide["VPT"], 1)
    count = fewest["images_a_class"].iloc[0]
    noun = "image" if count == 1 else "images"
    return page.title(sheet, f"With {count} {noun} a class: VAPT − VPT {gap} points")


if __name__ == "__main__":
    page.alone(draw, __file__)

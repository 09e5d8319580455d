"""Accuracy of AP at every layer with all its controls, one panel a network and task (Figure 4)."""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.findings.cases import Case, cases
from aptheory.findings.verdict import Verdict, verdict
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """Means over seeds with 95 % intervals; the stars are the layers chosen on validation data."""
    accuracy = results.gathered("accuracy")
    pairs = accuracy[["network", "task"]].drop_duplicates().itertuples(index=False)
    keys = sorted((page.real_first(n), n, t) for n, t in pairs)
    sheet, axes = page.panels(len(keys), columns=4, height=1.65 if len(keys) > 4 else 2.4)
    for (_, network, task), ax in zip(keys, axes, strict=True):
        plots.accuracy_by_layer(accuracy, network=network, task=task, focus=True, ax=ax)
        with plots.style():
            ax.set_title(f"{page.short(network)}, {task}", fontsize=6.5)
            ax.tick_params(labelsize=6)
        ax.set(xlabel="", ylabel="")
    for ax in axes[-4:]:
        ax.set_xlabel("layer (0 is the image)", fontsize=7)
    page.one_legend(sheet, axes)
    with plots.style():
        sheet.supylabel("test accuracy (%)", fontsize=8)
        sheet.legends[0].set_title(
            "star: chosen on validation data; probes far below leave the frame", {"size": 6}
        )
    return page.title(sheet, finding(cases(accuracy)))


def finding(found: list[Case]) -> str:
    """How often the chosen prompt gains, and how it fares against the chosen probe."""
    gains = sum(case.verdict is Verdict.GAIN for case in found)
    rivals = [verdict(case.over_probe) for case in found if case.probe is not None]
    return (
        f"A prompt gains over the linear probe in {gains} of {len(found)} cases (95 % intervals "
        f"over seeds); of the best earlier probe it is clearly better in "
        f"{rivals.count(Verdict.GAIN)} and worse in {rivals.count(Verdict.LOSS)} of {len(rivals)}"
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

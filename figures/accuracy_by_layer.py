"""Accuracy of AP at every layer with all its controls, one panel a network and task (Figure 4)."""

from matplotlib.figure import Figure

from analyses import evidence
from analyses.results import Results
from aptheory.findings.chosen import best_layers
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """Means over seeds with 95 % intervals; the star is the layer chosen on validation data."""
    accuracy = results.gathered("accuracy")
    pairs = accuracy[["network", "task"]].drop_duplicates().itertuples(index=False)
    chosen = best_layers(accuracy).set_index(["network", "task"])
    keys = sorted((evidence.is_vit(n), n, t) for n, t in pairs)
    sheet, axes = page.panels(len(keys), columns=4, height=1.65 if len(keys) > 4 else 2.4)
    above = 0
    for (_, network, task), ax in zip(keys, axes, strict=True):
        plots.accuracy_by_layer(accuracy, network=network, task=task, focus=True, ax=ax)
        best = chosen.loc[(network, task)]
        probe = evidence.at_layer(accuracy, "linear_probe")
        probe = probe[(probe["network"] == network) & (probe["task"] == task)]["value"]
        above += bool(best["low"] > probe.mean())
        with plots.style():
            ax.set_title(f"{page.short(network)}, {task}", fontsize=7)
            ax.tick_params(labelsize=6)
        ax.set(xlabel="", ylabel="")
    for ax in axes[-4:]:
        ax.set_xlabel("layer (0 is the image)", fontsize=7)
    page.one_legend(sheet, axes)
    with plots.style():
        sheet.supylabel("test accuracy (%)", fontsize=8)
        sheet.legends[0].set_title("probes of a layer far below leave the frame", {"size": 6})
    return page.title(
        sheet, f"The best prompt is clear of the linear probe in {above} of {len(keys)} cases"
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

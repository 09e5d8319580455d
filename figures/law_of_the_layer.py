"""Where each network wants its prompt, near its pretraining and far from it."""

from matplotlib.figure import Figure

from analyses.campaign_tables import mean_over_draws
from analyses.results import Results
from aptheory.findings.statistics import mean_correlation
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign --assets DIR, then python -m analyses.campaign_tables"
READ = {"slope_end": "read at the end", "slope_read_early": "read at the best probe's place"}


def draw(results: Results) -> Figure:
    """Spearman of depth and accuracy, a row a network, a colour for near and far."""
    draws = results.table("evidence/pairs")
    pairs = mean_over_draws(draws)
    sheet, axes = page.panels(2, columns=2, height=2.9)
    with plots.style():
        for ax, (column, words) in zip(axes, READ.items(), strict=True):
            page.near_and_far(ax, pairs, column)
            ax.set_title(f"prompt {words}")
            ax.set_xlabel("Spearman(place of the prompt, test accuracy)")
        axes[1].set_yticklabels([])
    page.one_legend(sheet, axes)
    kinds = []
    for kind, name in (("cnn", "CNNs"), ("vit", "ViTs")):
        rows = draws[draws["kind"] == kind]
        interval = mean_correlation(rows["slope_end"], rows["network"], rows["task"])
        kinds.append(f"{name} {interval:+.2f}")
    return page.title(
        sheet,
        f"Accuracy against depth, read at the end: {'; '.join(kinds)} "
        "(mean correlation over 4 networks each)",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

"""The shift from the pretraining, and what prompts do where it is large."""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.campaign_shift --assets DIR, then python -m analyses.shift_law"
SHOWN = {
    "slope_end": ("Spearman(depth, accuracy),\nread at the end", 1),
    "gain_end": ("AP − linear probe (points)", 100),
    "gain_probe": ("best layer's probe −\nlinear probe (points)", 100),
}
KINDS = {"cnn": ("CNNs", "orange"), "vit": ("ViTs", "blue")}


def draw(results: Results) -> Figure:
    """A point a network and task, against the shift from a reference; near tasks are hollow."""
    pairs = results.table("evidence/shift_pairs")
    pairs = pairs[pairs["origin"] == "reference"]
    law = results.table("evidence/shift_law").set_index(["origin", "kind", "outcome"])
    sheet, axes = page.panels(3, columns=3, height=2.6)
    with plots.style():
        for ax, (column, (words, factor)) in zip(axes, SHOWN.items(), strict=True):
            for kind, (name, color) in KINDS.items():
                for near in (False, True):
                    rows = pairs[(pairs["kind"] == kind) & (pairs["near"] == near)]
                    ax.scatter(
                        rows["shift"],
                        factor * rows[column],
                        s=14,
                        facecolors="none" if near else plots.COLORS[color],
                        edgecolors=plots.COLORS[color],
                        linewidths=0.9,
                        label=f"{name}, {'near' if near else 'far'} tasks",
                    )
            ax.axhline(0, color=plots.COLORS["black"], linewidth=0.6)
            ax.set_xlabel("shift (standard deviations)")
            ax.set_ylabel(words)
    page.one_legend(sheet, axes)
    said = []
    for words, outcome in (
        ("with the slope over depth", "Spearman(depth, accuracy), read at the end"),
        ("with the prompt's gain", "AP − linear probe"),
    ):
        row = law.loc[("reference", "all", outcome)]
        said.append(f"{words} {row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]")
    count = pairs["network"].nunique()
    return page.title(
        sheet,
        f"Rank correlation of the shift over a network's tasks, mean of {count} networks: "
        + ", ".join(said),
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

"""What a prompt and the norms at its place cost: parameters, time and memory, by depth."""

from matplotlib.figure import Figure

from analyses.campaign_section import against_the_norm
from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page
from figures.norm_and_prompt import METHODS, WHOLE

NEEDS = "python -m analyses.norm_cost --assets DIR"
OF_IMAGES = "(share of visual prompting's;\ndotted: from images)"
SHOWN = {
    "parameters_without_head": "parameters without the head",
    "measured_ratio": f"time of a training step\n{OF_IMAGES}",
    "memory_ratio": f"memory of a training step\n{OF_IMAGES}",
}
KINDS = {"cnn": "CNNs", "vit": "ViTs"}


def draw(results: Results) -> Figure:
    """CNNs above, ViTs below; a line a network, from kept activations, and from images (dotted)."""
    costs = results.table("evidence/norm_cost")
    sheet, axes = page.panels(len(KINDS) * len(SHOWN), columns=len(SHOWN), height=2.2)
    panels = iter(axes)
    with plots.style():
        for kind, name in KINDS.items():
            rows = costs[costs["kind"] == kind]
            for column, label in SHOWN.items():
                ax = next(panels)
                for method, (words, color) in METHODS.items():
                    look = {"color": plots.COLORS.get(color, color), "linewidth": 0.9, "ms": 2.5}
                    curves = rows[rows["method"] == method].groupby(["network", "kept"])
                    for (_, kept), curve in curves:
                        if column == "parameters_without_head" and kept:
                            continue
                        drawn = curve.sort_values("depth")
                        style = {"marker": ".", "label": words} if kept else {"linestyle": ":"}
                        if column == "parameters_without_head":
                            style = {"marker": "."}
                        ax.plot(drawn["depth"], drawn[column], **look, **style)
                for method, (words, dashes) in WHOLE.items():
                    one = rows[(rows["method"] == method)].groupby("network")[column].median()
                    if len(one):
                        style = {"color": "0.4", "linestyle": dashes, "linewidth": 0.9}
                        ax.axhline(one.median(), label=words, **style)
                ax.set_title(f"{name}: {label}", fontsize=7)
                ax.set_xlabel("depth")
                if column == "parameters_without_head":
                    ax.set_yscale("log")
                else:
                    ax.set_ylim(bottom=0)
    page.one_legend(sheet, axes, columns=3)
    time = against_the_norm(costs, "measured_ratio").quantile([0.25, 0.5, 0.75])
    size = against_the_norm(costs, "parameters_without_head").groupby("network").median()
    return page.title(
        sheet,
        f"At one place a prompt's step takes {time[0.5]:.2f} times that of γ and β "
        f"(quartiles {time[0.25]:.2f} and {time[0.75]:.2f} over places), for "
        f"{size.min():.0f} to {size.max():.0f} times the parameters",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

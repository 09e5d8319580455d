"""Which layers of a ViT do the layers of a CNN resemble? CKA between two networks (claim 14)."""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.cka_between, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One map a pair of networks, averaged over its tasks; dots mark each row's best match."""
    table = results.table("cka_between/cka")
    pairs = sorted(
        table.groupby(["network", "other_network"]).groups,
        key=lambda pair: tuple(map(page.real_first, pair)),
    )
    sheet, axes = page.panels(
        len(pairs), columns=3, height=2.9, width=plots.PAGE if len(pairs) > 1 else plots.PAGE / 2
    )
    said = []
    for (network, other), ax in zip(pairs, axes, strict=True):
        rows = table[(table["network"] == network) & (table["other_network"] == other)]
        keys = ["network", "other_network", "measure", "layer", "other_layer"]
        one = page.mean_of_tasks(rows, keys)
        task = one["task"].iloc[0]
        plots.cka_map(one, network=network, task=task, other_network=other, ax=ax)
        wide = one.pivot_table(index="layer", columns="other_layer", values="value")
        best = wide.to_numpy().argmax(axis=1)
        with plots.style():
            ax.plot(best, range(len(wide)), ".", color=plots.COLORS["orange"], markersize=5)
            ax.set(xlabel=f"layer of {page.short(other)}", ylabel=f"layer of {page.short(network)}")
            ax.set_title(task, fontsize=7)
        depth = best[-(len(wide) // 3) :].mean() / (wide.shape[1] - 1)
        said.append(f"{page.short(network)} matches {page.short(other)} at {depth:.2f}")
    return page.title(
        sheet, "Deepest third of the CNN: " + "; ".join(said) + " of its depth (dots)"
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

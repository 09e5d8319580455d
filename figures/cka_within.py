"""How alike are the layers of one network? Linear CKA between all pairs (Figure 5A)."""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.layer_preference, then python -m analyses.collect"


def draw(results: Results) -> Figure:
    """One map a network, averaged over its tasks."""
    profile = results.gathered("profile")
    rows = profile[profile["measure"] == "cka"]
    networks = sorted(rows["network"].unique(), key=page.real_first)
    sheet, axes = page.panels(len(networks), columns=4, height=2.1)
    said = []
    for network, ax in zip(networks, axes, strict=True):
        one = page.mean_of_tasks(
            rows[rows["network"] == network], ["network", "measure", "layer", "other_layer"]
        )
        task = one["task"].iloc[0]
        plots.cka_map(one, network=network, task=task, scale=False, ax=ax)
        with plots.style():
            ax.set_title(f"{page.short(network)}\n{task}", fontsize=6.5)
            ax.set(xlabel="layer", ylabel="layer")
        near = one[one["other_layer"] - one["layer"] == 1]["value"].mean()
        ends = one[
            (one["layer"] == one["layer"].min()) & (one["other_layer"] == one["other_layer"].max())
        ]["value"].mean()
        said.append(f"{page.short(network)} {near:.2f} and {ends:.2f}")
    with plots.style():
        sheet.colorbar(axes[-1].images[0], ax=axes, label="CKA", aspect=14, shrink=0.9)
    return page.title(sheet, "CKA of neighbours and of first with last: " + "; ".join(said))


if __name__ == "__main__":
    page.alone(draw, __file__)

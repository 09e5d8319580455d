"""How many samples does a prompt need, by its place and the number of tokens? (claim 17)"""

from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from aptheory.theory.comparison import preference
from figures import sheet as page
from figures.quantiles import band

NEEDS = "python analyses/sample_complexity.py, then python -m analyses.collect"
COLOR = {"input": "grey", "layer 1": "blue", "layer 2": "orange"}
DASH = {"input": ":", "layer 1": "-", "layer 2": "--"}  # equal curves stay visible


def draw(results: Results) -> Figure:
    """Smallest training set with at most 5 % error: median and quartiles over repetitions."""
    table = page.theory(results, "sample_complexity")
    rows = table[
        (table["sweep"] == "tokens") & (table["nuisance"] == "shared") & (table["epsilon"] == 0.05)
    ]
    settings = sorted(rows.groupby(["prompt", "model"]).groups)
    sheet, axes = page.panels(len(settings), columns=3, height=2.0)
    shallow = deep = 0
    for (shape, model), ax in zip(settings, axes, strict=True):
        one = rows[(rows["prompt"] == shape) & (rows["model"] == model)]
        for place, group in one.groupby("place"):
            look = {"color": COLOR[place], "dash": DASH[place]}
            band(ax, group, x="tokens", y="samples", label=place, base=2, **look)
        pairs = one[one["place"] != "input"].assign(network=one["tokens"])
        value, low, high = preference(pairs)
        shallow, deep = shallow + (low > 0), deep + (high < 0)
        with plots.style():
            ax.set_title(f"{model}, {shape}: 2^{value:.1f} [{low:.1f}, {high:.1f}]", fontsize=6.5)
            ax.set(xlabel="tokens P", ylabel="smallest N")
    page.one_legend(sheet, axes)
    return page.title(
        sheet,
        f"Layer 2 needs more samples than layer 1 in {shallow} of {len(settings)} settings, fewer "
        f"in {deep}",
    )


if __name__ == "__main__":
    page.alone(draw, __file__)

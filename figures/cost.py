"""What does a prompt cost? Step time, memory and throughput (claims 19 to 22)."""

import numpy as np
from matplotlib.figure import Figure

from analyses.claims import Results
from aptheory import plots
from figures import sheet as page

NEEDS = "python -m analyses.cost_tables, then python -m analyses.collect"
BARS = {
    "predicted_ratio": ("time, predicted", "grey"),
    "time_ratio": ("time, measured", "blue"),
    "memory_ratio": ("memory, measured", "sky"),
    "kept_time_ratio": ("time, activations kept", "orange"),
}


def draw(results: Results) -> Figure:
    """A training step of AP as a share of VP's; throughput; tunable parameters."""
    steps = results.table("cost/ap_against_vp")
    throughput = results.table("cost/throughput")
    counts = results.table("cost/parameters").sort_values("parameters")
    sheet, (left, middle, right) = page.panels(3, height=2.9)
    with plots.style():
        shown = [column for column in BARS if column in steps]
        width = 0.8 / len(shown)
        places = np.arange(len(steps))
        for i, column in enumerate(shown):
            label, color = BARS[column]
            x = places + (i - (len(shown) - 1) / 2) * width
            bars = left.bar(x, steps[column], width, color=plots.COLORS[color], label=label)
            left.bar_label(bars, fmt="%.2f", fontsize=5)
        left.axhline(1, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
        left.set_xticks(places, [f"{page.short(r.network)}\n{r.layer}" for r in steps.itertuples()])
        left.set_ylabel("AP's training step / VP's")
        left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
        bars = middle.barh(
            throughput["method"], throughput["throughput_ratio"], color=plots.COLORS["blue"]
        )
        middle.bar_label(bars, fmt="%.2f", fontsize=6)
        middle.axvline(1, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
        middle.set_xlim(0, 1.2 * max(1.0, throughput["throughput_ratio"].max()))
        middle.set_xlabel("throughput / frozen network's")
        right.barh(counts["what"], counts["parameters"], color=plots.COLORS["green"])
        right.set_xscale("log")
        right.tick_params(axis="y", labelsize=5.5)
        right.set_xlabel("tunable parameters, no head")
    said = ", ".join(f"{r.time_ratio:.2f} ({page.short(r.network)})" for r in steps.itertuples())
    return page.title(sheet, f"A step of AP takes {said} of the time of VP's")


if __name__ == "__main__":
    page.alone(draw, __file__)

"""What does a prompt cost? Step time, memory and throughput (claims 19 to 22)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from figures import sheet as page

NEEDS = "python -m analyses.cost_tables, then python -m analyses.collect"
BARS = {
    "predicted_ratio": ("time, predicted", "grey"),
    "measured_ratio": ("time, measured", "blue"),
    "memory_ratio": ("memory, measured", "sky"),
    "kept_ratio": ("time, activations kept", "orange"),
}


def prompts(steps: pd.DataFrame) -> pd.DataFrame:
    """AP's row of each network, its time from kept activations beside it."""
    rows = steps[steps["method"] == "ap"]
    kept = rows[rows["kept"]].set_index("network")
    plain = rows[~rows["kept"]].copy()
    for end in ("", "_low", "_high"):
        plain[f"kept_ratio{end}"] = plain["network"].map(kept[f"measured_ratio{end}"])
    return plain


def errors(rows: pd.DataFrame, column: str) -> np.ndarray | None:
    """Lengths below and above a bar, where the column has an interval."""
    if f"{column}_low" not in rows:
        return None
    lengths = [rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]]
    return np.maximum(np.array(lengths), 0)


def draw(results: Results) -> Figure:
    """A training step of AP as a share of VP's; throughput; tunable parameters."""
    steps = prompts(results.steps())
    throughput = results.table("cost/steps").query("kind == 'vit' and not kept")
    counts = results.table("cost/parameters").sort_values("parameters")
    height = 3.0 + 0.16 * len(counts)
    with plots.style():
        sheet = plt.figure(figsize=(plots.PAGE, height + 0.6), layout="constrained")
        grid = sheet.add_gridspec(2, 2, height_ratios=[3.0, 0.5 + 0.16 * len(counts)])
        left, middle = sheet.add_subplot(grid[0, 0]), sheet.add_subplot(grid[0, 1])
        right = sheet.add_subplot(grid[1, :])
        width = 0.8 / len(BARS)
        places = np.arange(len(steps))[::-1]
        for i, (column, (label, color)) in enumerate(BARS.items()):
            y = places - (i - (len(BARS) - 1) / 2) * width
            bars = left.barh(
                *(y, steps[column], width),
                xerr=errors(steps, column),
                error_kw={"elinewidth": 0.6},
                color=plots.COLORS[color],
                label=label,
            )
            labels = left.bar_label(bars, fmt="%.2f", fontsize=5.5, padding=2)
            for label_text in labels:  # readable on the dashed line
                label_text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
        left.axvline(1, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
        names = [f"{page.short(r.network)}\n{r.layer_name}" for r in steps.itertuples()]
        left.set_yticks(places, names, fontsize=7)
        left.set_xlim(0, 1.1)
        left.set_xlabel("AP's training step / VP's")
        left.legend(loc="upper center", bbox_to_anchor=(0.4, -0.18), ncols=2, fontsize=6)
        named = [plots.method_name(method) for method in throughput["method"]]
        bars = middle.barh(
            *(named, throughput["throughput_ratio"], 0.6),
            xerr=errors(throughput, "throughput_ratio"),
            error_kw={"elinewidth": 0.8},
            color=plots.COLORS["blue"],
        )
        middle.bar_label(bars, fmt="%.2f", label_type="center", color="white", fontsize=7)
        middle.axvline(1, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
        middle.set_xlabel("throughput / the frozen network's")
        bars = right.barh(counts["what"], counts["parameters"], 0.6, color=plots.COLORS["green"])
        right.bar_label(bars, fmt="{:,.0f}", fontsize=6, padding=2)
        right.tick_params(axis="y", labelsize=7)
        right.margins(x=0.1)
        right.xaxis.set_major_formatter("{x:,.0f}")
        right.set_xlabel("tunable parameters without the head")
    said = ", ".join(
        f"{r.measured_ratio:.2f} ({page.short(r.network)})" for r in steps.itertuples()
    )
    return page.title(sheet, f"A step of AP takes {said} of the time of VP's")


if __name__ == "__main__":
    page.alone(draw, __file__)

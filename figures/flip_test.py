"""Does the preferred layer flip when the ranges of the two layers are exchanged?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.results import Results
from aptheory.reporting import plots
from aptheory.theory.comparison import preference
from figures import sheet as page

NEEDS = "python analyses/flip_test.py, then python -m analyses.collect"
COLOR = {"theorem": "blue", "flipped": "orange"}
LABEL = {"theorem": "layer 1 global, 2 local", "flipped": "layer 2 global, 1 local"}
DOUBLINGS = "log2 N(layer 2) / N(layer 1)"


def draw(results: Results) -> Figure:
    """A row a shape of prompt: preference, dose-response over both ranges, convolutions."""
    table = page.theory(results, "flip_test")
    rows = table[table["epsilon"] == 0.05]
    sheet = plots.figure(2, 3, height=2.4)
    axes = np.array(sheet.axes).reshape(2, 3)
    flips, models = 0, 0
    with plots.style():
        for line, shape in zip(axes, ("shared", "token"), strict=True):
            some = rows[rows["prompt"] == shape]
            found = _flip(line[0], some[some["question"] == "flip"])
            flips, models = flips + found, models + some[some["question"] == "flip"].model.nunique()
            line[0].set_title(f"{shape} prompt")
            _dose(line[1], some[some["question"] == "dose"])
            _convolutions(line[2], some[some["question"] == "cnn"])
    page.one_legend(sheet, [axes[0, 0]], columns=2)
    return page.title(
        sheet, f"Exchanging the ranges flips the preferred layer in {flips} of {models} settings"
    )


def _flip(ax: Axes, rows: pd.DataFrame) -> int:
    """Preference of each model in both arrangements; returns in how many it turns over."""
    turned = 0
    models = list(rows["model"].unique())[::-1]
    for place, model in enumerate(models):
        found = {}
        for shift, arrangement in ((0.12, "theorem"), (-0.12, "flipped")):
            one = rows[(rows["model"] == model) & (rows["arrangement"] == arrangement)]
            value, low, high = found[arrangement] = preference(one)
            color = plots.COLORS[COLOR[arrangement]]
            ax.plot([low, high], [place + shift] * 2, color=color)
            label = LABEL[arrangement] if place == 0 else None
            ax.plot(value, place + shift, "o", color=color, label=label)
        turned += found["theorem"][1] > 0 > found["flipped"][2]
    ax.axvline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(models)), models)
    ax.set_xlabel(DOUBLINGS)
    return turned


def _dose(ax: Axes, rows: pd.DataFrame) -> None:
    """Mean preference at each pair of ranges."""
    keys = ["range 1", "range 2", "repetition"]
    wide = rows.pivot(index=keys, columns="place", values="samples")
    doublings = np.log2(wide["layer 2"] / wide["layer 1"]).groupby(["range 1", "range 2"]).mean()
    heat = doublings.unstack()
    limit = float(np.abs(heat.to_numpy()).max()) or 1.0
    image = ax.imshow(heat, origin="lower", cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(heat.to_numpy()):
        ink = "white" if abs(value) > 0.6 * limit else "black"
        ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=6, color=ink)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax)
    ax.set_title(DOUBLINGS, fontsize=7)
    ax.set_xticks(range(heat.shape[1]), [f"{v:g}" for v in heat.columns])
    ax.set_yticks(range(heat.shape[0]), [f"{v:g}" for v in heat.index])
    ax.set(xlabel="range of layer 2 (tokens)", ylabel="range of layer 1 (tokens)")


def _convolutions(ax: Axes, rows: pd.DataFrame) -> None:
    """Preference of each convolutional network against how much more global layer 2 is."""
    for _, group in rows.groupby("model"):
        value, low, high = preference(group.drop(columns="network", errors="ignore"))
        x = float(np.log2(group["distance 2"] / group["distance 1"]).iloc[0])
        ax.plot([x, x], [low, high], color=plots.COLORS["green"])
        ax.plot(x, value, "s", color=plots.COLORS["green"])
    ax.axhline(0, color=plots.COLORS["black"], linewidth=0.8, linestyle="--")
    ax.set(xlabel="log2 (distance 2 / 1)", ylabel=DOUBLINGS)
    ax.set_title("convolutional networks", fontsize=7)


if __name__ == "__main__":
    page.alone(draw, __file__)

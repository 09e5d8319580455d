"""At what rate are adaptive prompts learned, and where do constant prompts stop? (VAPT's theory)

Least squares for prompts-as-experts (`theory.expert_rate`): exactly fitted, over-fitted by an atom,
and with constant prompts, under an adaptive truth (which constants cannot express) and under a
static one (which both classes hold: what does flexibility cost?); from starts away from the truth;
with the identity for σ; L2 error of the function and Voronoi loss against the number of samples n,
log-log slopes of the medians with 95 % bootstrap intervals over repetitions (each its own frozen
layer and its own truth). tanh, GELU, ReLU; one head to four.

    python -m analyses.experts_rate --out runs/theory/experts_rate      # minutes
    python -m analyses.experts_rate --full                              # n up to 20,000
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from tqdm.auto import tqdm

from analyses.theory_output import arguments, finish, interval, part
from aptheory.theory.expert_rate import Setting, one_repetition
from aptheory.theory.slopes import pivot, slope_interval

NAME = "experts_rate"
FITS = ("exact", "overfitted", "constant")
SETTINGS: dict[str, tuple[Setting, tuple[str, ...]]] = {
    "tanh, 1 head": (Setting(), FITS),
    "gelu, 1 head": (Setting(activation="gelu"), FITS),
    "relu, 1 head": (Setting(activation="relu"), FITS),
    "tanh, 2 heads": (Setting(heads=2), FITS),
    "tanh, 4 heads": (Setting(heads=4), ("exact", "overfitted")),
    "identity, 1 head": (Setting(activation="identity"), ("exact", "overfitted")),
    "tanh, 1 head, far starts": (Setting(), ("far",)),
    "tanh, 1 head, static truth": (Setting(truth="static"), ("exact", "constant")),
}


def main(
    out: str | Path = f"runs/theory/{NAME}",
    *,
    full: bool = False,
    counts: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Run, write the folder, print the findings; returns the tidy table.

    counts: numbers of samples n in place of the form's own.
    """
    out = Path(out)
    counts = counts or ((1000, 2000, 5000, 10_000, 20_000) if full else (1000, 2000, 4000))
    repetitions = 15 if full else 8
    frames = []
    jobs = [(name, n) for n in counts for name in SETTINGS]
    for name, samples in tqdm(jobs, desc=NAME, unit="setting"):

        def compute(name=name, samples=samples):
            (setting, fits), rows = SETTINGS[name], []
            for repetition in range(repetitions):
                for row in one_repetition(setting, samples, seed=repetition, fits=fits):
                    rows.append({"repetition": repetition, "n": samples, **row})
            return pd.DataFrame(rows)

        table = part(
            out, f"{name.replace(', ', '-').replace(' ', '')}_{samples}_{repetitions}", compute
        )
        frames.append(table.assign(setting=name))
    table = pd.concat(frames, ignore_index=True)
    finish(out, NAME, table, draw(table), findings(table))
    return table


def findings(table: pd.DataFrame) -> list[str]:
    """Slopes in words, with intervals."""
    lines = ["Log-log slopes against n of the median over repetitions; 95 % bootstrap intervals."]
    for (setting, fit, measure), rows in table.groupby(["setting", "fit", "measure"]):
        x, y = pivot(rows, "n", "value")
        slope = interval(slope_interval(x, y, summary="median"))
        last = rows[rows.n == rows.n.max()].value.median()
        lines.append(
            f"{setting}, {fit}, {measure}: slope {slope}; median at n = {x[-1]:.0f}: {last:.4f}"
        )
    return lines


def draw(table: pd.DataFrame) -> plt.Figure:
    """Error against n: a column a setting, a row a measure."""
    grid = sns.relplot(
        table, x="n", y="value", hue="fit", col="setting", row="measure", kind="line",
        estimator="median", errorbar=("pi", 50), marker="o", height=2.6, aspect=1.1,
    )  # fmt: skip
    grid.set(xscale="log", yscale="log")
    for axes in grid.axes.flat:
        x = sorted(table.n.unique())
        middle = table[table.fit == "exact"].value.median()
        axes.plot(x, [middle * (v / x[0]) ** -0.5 for v in x], color="grey", lw=0.8, ls=":")
    grid.set_axis_labels("samples n", "median, quartiles")
    grid.set_titles("{col_name}; {row_name}")
    return grid.figure


if __name__ == "__main__":
    given = arguments(__doc__ or "", NAME)
    main(given.out, full=given.full)

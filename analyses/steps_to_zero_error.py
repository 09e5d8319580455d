"""Do the steps to zero test error grow like P/η? (claim 18)

Online SGD with a constant step size on the prompt of the theory's two-layer network: the first step
without a test error, against the number of tokens P and against 1/η; log-log slopes with 95 %
bootstrap intervals over repetitions. A token's own prompt feels 1/P of the gradient; a prompt that
all tokens share does not, so the growth with P is a property of the prompt's shape.

    python -m analyses.steps_to_zero_error --out runs/theory/steps_to_zero_error
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from tqdm.auto import tqdm

from analyses.theory_output import arguments, finish, interval, part
from aptheory.theory.patterns import Patterns
from aptheory.theory.sample_complexity import steps_to_zero
from aptheory.theory.slopes import bootstrap_mean, pivot, slope_interval
from aptheory.theory.two_layer_vit import TwoLayerViT

NAME = "steps_to_zero_error"
RATES = {"token": (0.2, 0.4, 0.8), "shared": (0.0125, 0.025, 0.05)}
MODELS = {
    "hard, ReLU": {"attention": "hard", "activation": "relu"},
    "softmax, linear": {"attention": "softmax", "activation": "linear"},
}
EPSILON = (
    0.01  # one sample in a hundred: the softmax network cannot reach none with local attention
)


def main(
    out: str | Path = f"runs/theory/{NAME}", *, full: bool = False, device: str = "cpu"
) -> pd.DataFrame:
    """Run, write the folder, print the findings; returns the tidy table."""
    out = Path(out)
    tokens = (8, 16, 32, 64) if full else (8, 16, 32)
    repetitions = 16 if full else 6
    settings = [
        (model, shape, place, count)
        for model in MODELS
        for shape in ("token", "shared")
        if model == "hard, ReLU" or shape == "shared" or full
        for place in ("layer 1", "layer 2")
        for count in tokens
    ]
    frames = []
    for model, shape, place, count in tqdm(settings, desc=NAME, unit="setting"):
        data = Patterns(count)
        network = TwoLayerViT.for_data(data, **MODELS[model])
        steps = 30 * count if shape == "token" else 400

        def compute(network=network, data=data, place=place, shape=shape, steps=steps):
            return steps_to_zero(
                network,
                data,
                place,
                rates=RATES[shape],
                shape=shape,
                repetitions=repetitions,
                steps=steps,
                looks=60,
                epsilon=EPSILON,
                device=device,
            )

        name = "_".join(map(str, (model.replace(", ", "-"), shape, place, count, repetitions)))
        table = part(out, name.replace(" ", ""), compute)
        frames.append(table.assign(model=model, prompt=shape, place=place, tokens=count))
    table = pd.concat(frames, ignore_index=True)
    finish(out, NAME, table, draw(table), findings(table))
    return table


def findings(table: pd.DataFrame) -> list[str]:
    """Slopes in P and in 1/η, in words."""
    lines = [f"T = first step with test error <= {EPSILON}; log-log slopes, 95 % intervals."]
    for (model, shape, place), rows in table.groupby(["model", "prompt", "place"]):
        middle_rate = sorted(rows.rate.unique())[1]
        middle_tokens = sorted(rows.tokens.unique())[1]
        x, y = pivot(rows[rows.rate == middle_rate], "tokens", "steps")
        in_tokens = interval(slope_interval(x, y))
        x, y = pivot(rows[rows.tokens == middle_tokens], "rate", "steps")
        in_rate = interval(slope_interval([1 / v for v in x], y))
        missing = 1 - rows.reached.mean()
        lines.append(
            f"{model}, {shape} prompt, {place}: T ~ P^{in_tokens} (eta = {middle_rate}), "
            f"T ~ (1/eta)^{in_rate} (P = {middle_tokens})"
            + (f"; {missing:.0%} of the runs did not get there" if missing else "")
        )
    for (model, shape), rows in table.groupby(["model", "prompt"]):
        keys = ["repetition", "rate", "tokens"]
        wide = rows.pivot(index=keys, columns="place", values="steps")
        ratio = np.log2(wide["layer 2"] / wide["layer 1"]).groupby("repetition").mean()
        lines.append(
            f"{model}, {shape} prompt: layer 2 takes "
            f"2^{interval(bootstrap_mean(ratio.to_numpy()))} "
            "times the steps of layer 1, each at the same rate."
        )
    return lines


def draw(table: pd.DataFrame) -> plt.Figure:
    """T against P; colour: step size; a column a model and shape of prompt, a row a place."""
    rows = table.assign(setting=table.model + "\n" + table["prompt"] + " prompt")
    grid = sns.relplot(
        rows, x="tokens", y="steps", hue="rate", col="setting", row="place", kind="line",
        estimator="median", errorbar=("pi", 50), marker="o", height=2.8, aspect=1.1,
        palette="viridis", hue_norm=plt.matplotlib.colors.LogNorm(), legend="full",
    )  # fmt: skip
    grid.set(xscale="log", yscale="log")
    for axes in grid.axes.flat:
        axes.set_xticks(sorted(rows.tokens.unique()), sorted(rows.tokens.unique()))
        axes.minorticks_off()
    grid.set_axis_labels("tokens P", "steps T (median, quartiles)")
    grid.set_titles("{col_name}; {row_name}")
    return grid.figure


if __name__ == "__main__":
    given = arguments(__doc__ or "", NAME)
    main(given.out, full=given.full, device=given.device)

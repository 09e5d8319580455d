"""How many samples does a prompt need, by its place and by the number of tokens? (claim 17)

Frozen two-layer attention networks with layer 1 global and layer 2 local (`theory.two_layer_vit`);
the prompt is learned at the input, at layer 1 or at layer 2. Reported: the smallest training set
with no test error, and with at most 5 %, against the number of tokens P, with log-log slopes and
95 % bootstrap intervals over repetitions; then the dependence on noise and on the discriminative
fraction at fixed P; norm of the prompt and what it removed.

    python -m analyses.sample_complexity --out runs/theory/sample_complexity      # minutes
    python -m analyses.sample_complexity --full                                   # about an hour
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from tqdm.auto import tqdm

from analyses.theory_output import arguments, finish, interval, part
from aptheory.theory.comparison import preference, smallest_by_place
from aptheory.theory.patterns import Patterns
from aptheory.theory.prompt_learning import Learning
from aptheory.theory.slopes import pivot, slope_difference, slope_interval
from aptheory.theory.two_layer_vit import TwoLayerViT

NAME = "sample_complexity"
MODELS = {
    "softmax, linear": {"attention": "softmax", "activation": "linear"},
    "softmax, ReLU": {"attention": "softmax", "activation": "relu"},
    "hard, ReLU": {"attention": "hard", "activation": "relu"},
}


def measure(
    out: Path, data: Patterns, model: str, shape: str, *, repetitions: int, places: tuple[str, ...]
) -> pd.DataFrame:
    """Smallest numbers of samples in one setting (kept under `out`)."""
    network = TwoLayerViT.for_data(data, **MODELS[model])
    learning = Learning(batch=8, steps=240, shape=shape)
    words = (data.tokens, data.fraction, data.noise, data.nuisance, model, shape, repetitions)
    name = "_".join(str(w).replace(", ", "-") for w in (*words, len(places)))
    table = part(
        out,
        name,
        lambda: smallest_by_place(
            network, data, places=places, learning=learning, repetitions=repetitions
        ),
    )
    return table.assign(
        tokens=data.tokens,
        fraction=data.fraction,
        noise=data.noise,
        nuisance=data.nuisance,
        model=model,
        prompt=shape,
    )


def main(out: str | Path = f"runs/theory/{NAME}", *, full: bool = False) -> pd.DataFrame:
    """Run, write the folder, print the findings; returns the tidy table."""
    out = Path(out)
    tokens = (8, 12, 16, 24, 32, 48) if full else (8, 12, 16, 24)
    repetitions = 16 if full else 5
    nuisances = ("shared", "independent") if full else ("shared",)
    deep_and_shallow = ("layer 1", "layer 2")
    settings = []
    for nuisance in nuisances:
        for model in MODELS:
            for shape in ("shared", "token"):
                places = ("input", *deep_and_shallow) if model == "softmax, linear" else ()
                for count in tokens:
                    settings.append(
                        ("tokens", Patterns(count, nuisance=nuisance), model, shape,
                         places or deep_and_shallow)
                    )  # fmt: skip
    base = Patterns(16)
    for noise in (0.0, 0.2, 0.4, 0.6) if full else (0.0, 0.4):
        settings.append(
            ("noise", replace(base, noise=noise), "softmax, linear", "shared", deep_and_shallow)
        )
    for fraction in (0.0625, 0.125, 0.375, 0.5) if full else (0.125, 0.5):
        settings.append(
            ("fraction", replace(base, fraction=fraction), "softmax, linear", "shared",
             deep_and_shallow)
        )  # fmt: skip
    frames = []
    for sweep, data, model, shape, places in tqdm(settings, desc=NAME, unit="setting"):
        table = measure(out, data, model, shape, repetitions=repetitions, places=places)
        frames.append(table.assign(sweep=sweep))
    table = pd.concat(frames, ignore_index=True)
    finish(out, NAME, table, draw(table), findings(table))
    return table


def findings(table: pd.DataFrame) -> list[str]:
    """The results in words, with intervals."""
    lines = [
        "Reconstructed model, not the theorem's own; N = smallest training set; 95 % intervals."
    ]
    sweep = table[table.sweep == "tokens"]
    for (nuisance, model, shape), group in sweep.groupby(["nuisance", "model", "prompt"]):
        for epsilon, rows in group.groupby("epsilon"):
            words = []
            arrays = {}
            for place, part_of in rows.groupby("place"):
                x, arrays[place] = pivot(part_of, "tokens", "samples")
                bound = 1 - part_of.reached.mean()
                words.append(
                    f"{place} slope {interval(slope_interval(x, arrays[place]))}"
                    + (
                        f" ({bound:.0%} not reached, counted as twice the largest N)"
                        if bound
                        else ""
                    )
                )
            apart = interval(slope_difference(x, arrays["layer 1"], arrays["layer 2"]))
            paired = rows[rows.place != "input"].assign(network=rows.tokens)
            doublings = interval(preference(paired))
            lines.append(
                f"{model}, {shape} prompt, {nuisance} nuisance, error <= {epsilon}: "
                + "; ".join(words)
                + f"; slope of layer 2 minus layer 1 {apart}; layer 2 needs 2^{doublings} times "
                "the samples of layer 1."
            )
        norms = group[group.epsilon == 0].groupby("place")[["norm", "removed"]].median()
        lines.append(
            "    at 256 samples: "
            + "; ".join(
                f"{place} norm {row.norm_:.2f}, removed {row.removed:.0%}"
                for place, row in norms.rename(columns={"norm": "norm_"}).iterrows()
            )
        )
    for name in ("noise", "fraction"):
        rows = table[(table.sweep == name) & (table.epsilon == 0.05)]
        for value, group in rows.groupby(name):
            lines.append(
                f"softmax, linear, shared prompt, {name} {value}, error <= 0.05: "
                f"layer 2 needs 2^{interval(preference(group))} times the samples of layer 1."
            )
    return lines


def draw(table: pd.DataFrame) -> plt.Figure:
    """N against P: a row a shape of prompt, a column a model."""
    rows = table[(table.sweep == "tokens") & (table.nuisance == "shared")].copy()
    rows["N"] = rows.samples
    rows["place, error"] = rows.place + ", ≤ " + rows.epsilon.map("{:.0%}".format)
    grid = sns.relplot(
        rows, x="tokens", y="N", hue="place", style="epsilon", col="model", row="prompt",
        kind="line", estimator="median", errorbar=("pi", 50), marker="o", height=2.6, aspect=1.2,
    )  # fmt: skip
    grid.set(xscale="log", yscale="log")
    for axes in grid.axes.flat:
        axes.set_xticks(sorted(rows.tokens.unique()), sorted(rows.tokens.unique()))
        axes.minorticks_off()
    grid.set_axis_labels("tokens P", "smallest N (median, quartiles)")
    grid.set_titles("{col_name}; {row_name} prompt")
    return grid.figure


if __name__ == "__main__":
    given = arguments(__doc__ or "", NAME)
    main(given.out, full=given.full)

"""The flip test: put the globality into layer 2 instead; does the preferred layer flip?

The theory explains the preference of transformers for shallow prompts by a first layer that attends
globally and a second that attends locally. Then exchanging the two ranges must exchange the
preference. Three questions, all in doublings of the smallest number of samples N:

1. Preference log2 N(layer 2) − log2 N(layer 1) in the theorem's network and in the flipped one, for
   each kind of attention (by kind, by position, softmax), for hand-built and for trained networks.
2. Dose-response: N of each place against the range of each layer, swept separately.
3. A convolutional network, for which there is no theory: does the same measure of globality (mean
   distance that a layer's own aggregation bridges) predict the preferred place?

    python -m analyses.flip_test --out runs/theory/flip_test      # minutes
    python -m analyses.flip_test --full
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from tqdm.auto import tqdm

from analyses.theory_output import arguments, finish, interval, part
from aptheory.theory.comparison import preference, smallest_by_place
from aptheory.theory.patterns import Patterns
from aptheory.theory.prompt_learning import FrozenNetwork, Learning
from aptheory.theory.slopes import bootstrap_mean
from aptheory.theory.trained_vit import pretrain
from aptheory.theory.two_layer_cnn import TwoLayerCNN
from aptheory.theory.two_layer_vit import TwoLayerViT

NAME = "flip_test"
TOKENS = 16
RANGES = {"theorem": (8, 2), "flipped": (2, 8)}
BUILT = {
    "hard, ReLU": {"attention": "hard", "activation": "relu"},
    "even, ReLU": {"attention": "even", "activation": "relu"},
    "softmax, ReLU": {"attention": "softmax", "activation": "relu"},
    "softmax, linear": {"attention": "softmax", "activation": "linear"},
}
KERNELS = (((3, 3), 1), ((3, 3), 2), ((3, 7), 1), ((7, 3), 1), ((7, 7), 1), ((7, 3), 2))


def main(out: str | Path = f"runs/theory/{NAME}", *, full: bool = False) -> pd.DataFrame:
    """Run, write the folder, print the findings; returns the tidy table."""
    out = Path(out)
    data = Patterns(TOKENS)
    repetitions, trained, reaches = (16, 6, (0, 1, 2, 4, 8)) if full else (6, 2, (1, 2, 4, 8))
    # (part, labels, network): a network is built only when its part is missing
    jobs: list[tuple[str, dict, Callable[[], FrozenNetwork], str]] = []
    for shape in ("shared", "token"):
        for arrangement, ranges in RANGES.items():
            for model, settings in BUILT.items():
                jobs.append((
                    "flip", {"model": model, "arrangement": arrangement, "network": 0},
                    lambda r=ranges, s=settings: TwoLayerViT.for_data(data, ranges=r, **s), shape,
                ))  # fmt: skip
            for seed in range(trained):
                jobs.append((
                    "flip", {"model": "trained", "arrangement": arrangement, "network": seed},
                    lambda r=ranges, s=seed: _pretrained(data, r, s), shape,
                ))  # fmt: skip
        for first in reaches:
            for second in reaches:
                jobs.append((
                    "dose", {"model": "softmax, linear", "range 1": first, "range 2": second},
                    lambda r=(first, second): TwoLayerViT.for_data(data, ranges=r), shape,
                ))  # fmt: skip
        for kernels, stride in KERNELS:
            jobs.append((
                "cnn", {"model": f"kernels {kernels[0]}, {kernels[1]}; stride {stride}"},
                lambda k=kernels, s=stride: TwoLayerCNN.for_data(data, kernels=k, stride=s), shape,
            ))  # fmt: skip
    frames = []
    for kind, labels, build, shape in tqdm(jobs, desc=NAME, unit="network"):
        name = "_".join([kind, shape, str(repetitions), *(str(v) for v in labels.values())])
        table = part(
            out,
            name.replace(", ", "-").replace(" ", "").replace(";", "-"),
            lambda build=build, shape=shape: _measure(build(), data, shape, repetitions),
        )
        frames.append(table.assign(question=kind, prompt=shape, **labels))
    table = pd.concat(frames, ignore_index=True)
    finish(out, NAME, table, draw(table), findings(table))
    return table


@cache
def _pretrained(data: Patterns, ranges: tuple[int, int], seed: int) -> FrozenNetwork:
    """A trained network: used for both shapes of the prompt."""
    return pretrain(data, ranges, seed=seed)


def _measure(network: FrozenNetwork, data: Patterns, shape: str, repetitions: int) -> pd.DataFrame:
    learning = Learning(batch=8, steps=240, shape=shape)  # type: ignore[arg-type]
    places = ("layer 1", "layer 2")
    table = smallest_by_place(
        network, data, places=places, learning=learning, repetitions=repetitions
    )
    if isinstance(network, TwoLayerCNN):
        distances = network.globality()
    else:
        sample = data.draw(1, 200, torch.Generator().manual_seed(0))
        distances = network.attention_distance(sample)  # type: ignore[attr-defined]
    return table.assign(**{"distance 1": distances[0], "distance 2": distances[1]})


def findings(table: pd.DataFrame) -> list[str]:
    """The results in words, with 95 % intervals."""
    lines = [
        "Preference = log2 N(layer 2) - log2 N(layer 1) at <= 5 % error: positive means that the "
        "shallow prompt needs fewer samples. 95 % intervals over repetitions."
    ]
    rows = table[table.epsilon == 0.05]
    flip = rows[rows.question == "flip"]
    for (shape, model), group in flip.groupby(["prompt", "model"]):
        by = dict(list(group.groupby("arrangement")))
        theorem, flipped = preference(by["theorem"]), preference(by["flipped"])
        verdict = "no clear preference in either"
        if theorem[1] > 0:
            verdict = "the preference flips" if flipped[2] < 0 else "the preference vanishes"
            verdict = "the preference stays" if flipped[1] > 0 else verdict
        elif theorem[2] < 0:
            verdict = "the theorem's network prefers the deep prompt"
        elif flipped[2] < 0 or flipped[1] > 0:
            verdict = "a preference only in the flipped network"
        lines.append(
            f"{model}, {shape} prompt: {interval(theorem)} with layer 1 global, "
            f"{interval(flipped)} with layer 2 global: {verdict}."
        )
    for shape, group in rows[rows.question == "dose"].groupby("prompt"):
        for place, part_of in group.groupby("place"):
            first, second = dose_response(part_of)
            lines.append(
                f"softmax, linear, {shape} prompt at {place}: each doubling of 1 + range changes "
                f"log2 N by {interval(first)} (layer 1's range), {interval(second)} (layer 2's)."
            )
    for shape, group in rows[rows.question == "cnn"].groupby("prompt"):
        more_global = _globality_against_preference(group)
        shallow = preference(group.assign(network=group.model))
        deep = (-shallow[0], -shallow[2], -shallow[1])
        lines.append(
            f"CNN, {shape} prompt: preference for the deep place per doubling of (distance 2 / "
            f"distance 1) {interval(more_global)}; over all kernels the deep place is preferred by "
            f"{interval(deep)}."
        )
    return lines


def dose_response(
    rows: pd.DataFrame,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Least squares of log2 N on log2(1 + range) of both layers, a fit a repetition."""
    x = np.log2(1 + rows[["range 1", "range 2"]].to_numpy(dtype=float))
    design = np.column_stack([x, np.ones(len(x))])
    fits = []
    for _, index in rows.groupby("repetition").indices.items():
        y = np.log2(rows.samples.to_numpy(dtype=float)[index])
        fits.append(np.linalg.lstsq(design[index], y, rcond=None)[0])
    values = np.array(fits)
    return bootstrap_mean(values[:, 0]), bootstrap_mean(values[:, 1])


def _globality_against_preference(rows: pd.DataFrame) -> tuple[float, float, float]:
    """Slope of log2 N(1)/N(2) on log2 distance 2 / distance 1, a fit a repetition."""
    fits = []
    for _, group in rows.groupby("repetition"):
        wide = group.pivot(index="model", columns="place", values="samples")
        ratio = group.groupby("model")[["distance 1", "distance 2"]].first().loc[wide.index]
        x = np.log2(ratio["distance 2"] / ratio["distance 1"])
        fits.append(np.polyfit(x, np.log2(wide["layer 1"] / wide["layer 2"]), 1)[0])
    return bootstrap_mean(fits)


def draw(table: pd.DataFrame) -> plt.Figure:
    """Left: preference by network and arrangement. Middle: dose-response. Right: CNN."""
    rows = table[table.epsilon == 0.05]
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), width_ratios=(1.2, 1, 1))
    for line, shape in enumerate(("shared", "token")):
        chosen = rows[rows["prompt"] == shape]
        flip = _log_ratio(chosen[chosen.question == "flip"], ["model", "arrangement", "network"])
        sns.pointplot(
            flip, x="doublings", y="model", hue="arrangement",
            hue_order=list(RANGES), dodge=0.3, linestyle="none",
            errorbar=("ci", 95), ax=axes[line, 0], order=[*BUILT, "trained"],
        )  # fmt: skip
        axes[line, 0].axvline(0, color="grey", lw=0.8)
        axes[line, 0].set(xlabel="log2 N(layer 2) / N(layer 1)", ylabel="", title=f"{shape} prompt")
        dose = _log_ratio(chosen[chosen.question == "dose"], ["range 1", "range 2"])
        dose = dose.astype({"range 1": int, "range 2": int})
        heat = dose.pivot_table(index="range 1", columns="range 2", values="doublings")
        sns.heatmap(
            heat, center=0, cmap="coolwarm", annot=True, fmt=".1f", ax=axes[line, 1],
            cbar_kws={"label": "log2 N(layer 2) / N(layer 1)"},
        )  # fmt: skip
        axes[line, 1].set_title(f"softmax, linear; {shape} prompt: range of each layer")
        cnn = chosen[chosen.question == "cnn"]
        ratio = _log_ratio(cnn, ["model", "distance 1", "distance 2"])
        ratio["x"] = np.log2(ratio["distance 2"] / ratio["distance 1"]).round(3)
        ratio["doublings"] = -ratio.doublings
        sns.lineplot(
            ratio, x="x", y="doublings", errorbar=("ci", 95), err_style="bars", marker="o",
            linestyle="none", ax=axes[line, 2],
        )  # fmt: skip
        axes[line, 2].axhline(0, color="grey", lw=0.8)
        axes[line, 2].set(
            xlabel="log2 distance of layer 2 / layer 1",
            ylabel="log2 N(layer 1) / N(layer 2)",
            title=f"CNN; {shape} prompt",
        )
    figure.tight_layout()
    return figure


def _log_ratio(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    wide = rows.pivot(index=[*keys, "repetition"], columns="place", values="samples").reset_index()
    return wide.assign(doublings=np.log2(wide["layer 2"] / wide["layer 1"]))


if __name__ == "__main__":
    given = arguments(__doc__ or "", NAME)
    main(given.out, full=given.full)

"""What the table of `two_layer` says: floors, rates, which place is better where, and by what.

Errors come back as learning curves; every number has a 95 % bootstrap interval over repetitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from analyses.theory_output import interval
from analyses.two_layer import FORMS, TEST_SAMPLES
from aptheory.theory.learning_curve import Interval, LearningCurve, zero_error_bound
from aptheory.theory.slopes import bootstrap_mean, slope_difference, slope_interval

SETTING = [
    "question", "model", "prompt", "tokens", "discriminative", "range_1", "range_2", "listening",
    "network",
]  # fmt: skip
PLACES = ("layer 1", "layer 2")
MARGIN = 0.02
"""How near its own floor a curve must come for its number of samples to count."""


def joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of every form, by its name: of a question, model and kind of prompt those of the
    first form in `two_layer.FORMS` that has it.

    The column ``form`` says which that is.
    """
    every = pd.concat(
        [tables[form].assign(form=form) for form in FORMS if form in tables], ignore_index=True
    )
    first = every.groupby(["question", "model", "prompt"])["form"].transform("first")
    return every[every["form"] == first]


def curve(rows: pd.DataFrame) -> LearningCurve:
    """The learning curve of one setting and place, a row a repetition."""
    counts = [name for name in rows.columns if name[0] == "n" and name[1:].isdigit()]
    columns = sorted(counts, key=lambda name: int(name[1:]))
    wide = rows.sort_values("repetition")[columns].dropna(axis=1)  # other forms' sizes
    sizes = np.array([float(name[1:]) for name in wide.columns])
    return LearningCurve(sizes, wide.to_numpy(float) / TEST_SAMPLES, TEST_SAMPLES)


@dataclass(frozen=True)
class Comparison:
    """Both places in one setting.

    floors : errors at the largest N, in percent. advantage : of layer 1, floor of layer 2 − floor
    of layer 1 in points, repetitions paired. doublings : log2 of N(layer 2) / N(layer 1), each to
    within two points of its own floor. removed, norm : of the learned prompt at the largest N.
    """

    labels: dict
    curves: tuple[LearningCurve, LearningCurve]
    floors: tuple[Interval, Interval]
    advantage: Interval
    doublings: Interval
    removed: tuple[float, float]
    norm: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Which place errs less at N → ∞: by the interval, and by more than can be resolved.

        A difference below 3/n of n test samples is none, however often it recurs.
        """
        if abs(self.advantage[0]) <= 100 * zero_error_bound(TEST_SAMPLES):
            return "neither"
        if self.advantage[1] > 0:
            return PLACES[0]
        return PLACES[1] if self.advantage[2] < 0 else "neither"


def compare(rows: pd.DataFrame) -> Comparison:
    """Both places of one setting."""
    parts = [rows[rows["place"] == place].sort_values("repetition") for place in PLACES]
    first, second = (curve(part) for part in parts)
    gap = 100 * (second.errors[:, -1] - first.errors[:, -1])
    ratio = np.log2(second.samples_within(MARGIN) / first.samples_within(MARGIN))
    return Comparison(
        rows[SETTING].iloc[0].to_dict(),
        (first, second),
        tuple(_percent(each.floor()) for each in (first, second)),  # type: ignore[arg-type]
        bootstrap_mean(gap),
        bootstrap_mean(ratio),
        tuple(float(part["removed"].median()) for part in parts),  # type: ignore[arg-type]
        tuple(float(part["norm"].median()) for part in parts),  # type: ignore[arg-type]
    )


def comparisons(table: pd.DataFrame, question: str) -> Iterator[Comparison]:
    """Every setting of a question."""
    rows = table[table["question"] == question]
    for _, group in rows.groupby(SETTING, sort=False):
        yield compare(group)


def _percent(value: Interval) -> Interval:
    return tuple(100 * v for v in value)  # type: ignore[return-value]


@dataclass(frozen=True)
class Growth:
    """How the samples that a place needs, to within two points of its floor, grow with x.

    slopes : log N on log x at each place. difference : of layer 2 minus layer 1.
    """

    slopes: tuple[Interval, Interval]
    difference: Interval


def growth(each: Sequence[Comparison], x: Sequence[float]) -> Growth | None:
    """Slopes over settings that differ in x alone; None where N moves at neither place."""
    x = [float(value) for value in x]
    needed = [
        np.stack([one.curves[place].samples_within(MARGIN) for one in each], 1) for place in (0, 1)
    ]
    if len(each) < 2:
        return None
    slopes = tuple(slope_interval(x, samples) for samples in needed)
    return Growth(slopes, slope_difference(x, *needed))  # type: ignore[arg-type]


def by_tokens(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], list[Comparison]]]:
    """((model, prompt, fraction in words), its settings by growing P) of "floor and rate"."""
    every = list(comparisons(table, "floor and rate"))
    for model, prompt in dict.fromkeys((c.labels["model"], c.labels["prompt"]) for c in every):
        same = [c for c in every if (c.labels["model"], c.labels["prompt"]) == (model, prompt)]
        for words, count in (
            ("1/P", lambda tokens: 1),
            ("2/P", lambda tokens: 2),
            ("1/4", lambda tokens: tokens // 4),
        ):
            some = [c for c in same if c.labels["discriminative"] == count(c.labels["tokens"])]
            if len(some) > 1:
                yield (model, prompt, words), sorted(some, key=lambda c: c.labels["tokens"])


def arrangement(labels: dict) -> str:
    """Which layers attend globally, over more than an eighth of the ring to either side."""
    near = labels["tokens"] / 8
    first, second = labels["range_1"] > near, labels["range_2"] > near
    if first and second:
        return "both"
    return "layer 1" if first else "layer 2" if second else "neither"


def flips(table: pd.DataFrame) -> pd.DataFrame:
    """What the exchange of the ranges does: a row a model and prompt.

    theorem, flipped : the advantage of layer 1 in either arrangement; turn : "reversal" where layer
    1 is better in the theorem's network and layer 2 in the flipped one, "loss" where the advantage
    only vanishes, "kept" where it stays, "gain" where it appears, "reversal against the theory"
    where it is the other way round, and "none" otherwise.
    """
    rows = []
    kinds = list(comparisons(table, "kinds"))
    keys = dict.fromkeys(
        (c.labels["model"], c.labels["prompt"], c.labels["network"]) for c in kinds
    )
    for model, prompt, network in keys:
        same = {
            arrangement(c.labels): c
            for c in kinds
            if (c.labels["model"], c.labels["prompt"], c.labels["network"])
            == (model, prompt, network)
        }
        theorem, flipped = same["layer 1"], same["layer 2"]
        turns = {
            ("layer 1", "layer 2"): "reversal",
            ("layer 1", "neither"): "loss",
            ("layer 1", "layer 1"): "kept",
            ("neither", "layer 1"): "gain",
            ("layer 2", "layer 1"): "reversal against the theory",
        }
        rows.append(
            {
                "model": model,
                "prompt": prompt,
                "network": network,
                "turn": turns.get((theorem.verdict, flipped.verdict), "none"),
                **{
                    f"{name}{end}": value
                    for name, one in same.items()
                    for end, value in zip(("", " low", " high"), one.advantage, strict=True)
                },
            }
        )
    return pd.DataFrame(rows)


def dose(table: pd.DataFrame) -> pd.DataFrame:
    """Advantage of layer 1 (points) at each pair of ranges: a row a setting."""
    return pd.DataFrame(
        {
            "range_1": c.labels["range_1"],
            "range_2": c.labels["range_2"],
            "advantage": c.advantage[0],
            "low": c.advantage[1],
            "high": c.advantage[2],
            "better": c.verdict,
        }
        for c in comparisons(table, "ranges")
    )


def mechanism(table: pd.DataFrame) -> pd.DataFrame:
    """What the prompts remove, beside what it is worth: a row a setting of every question.

    removed 1, removed 2, norm 1, norm 2; more : removed at layer 1 − at layer 2; advantage.
    """
    rows = []
    for question in table["question"].unique():
        for c in comparisons(table, question):
            rows.append(
                {
                    **c.labels,
                    "removed 1": c.removed[0],
                    "removed 2": c.removed[1],
                    "norm 1": c.norm[0],
                    "norm 2": c.norm[1],
                    "more": c.removed[0] - c.removed[1],
                    "advantage": c.advantage[0],
                }
            )
    return pd.DataFrame(rows).drop_duplicates(SETTING[1:])


def rank_interval(x: np.ndarray, y: np.ndarray) -> Interval:
    """Spearman with the interval of Fisher's z (Bonett & Wright's variance)."""
    value = float(spearmanr(x, y)[0])
    half = 1.96 * np.sqrt((1 + value**2 / 2) / (len(x) - 3))
    z = np.arctanh(np.clip(value, -0.999, 0.999))
    return value, float(np.tanh(z - half)), float(np.tanh(z + half))


def spread_words(values: pd.Series) -> str:
    """Median and quartiles over settings: ``0.85 (0.71 to 0.93)``."""
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def floor_words(value: Interval) -> str:
    """A floor in percent; none at all as the bound that it is."""
    if value[2] <= 0:
        return f"no error in any repetition (at most {300 / TEST_SAMPLES:.1f} %)"
    return f"{interval(value)} %"

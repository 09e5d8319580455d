"""Which place needs fewer samples: the comparison that every bench of this room repeats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from aptheory.theory.patterns import Patterns
from aptheory.theory.prompt_learning import FrozenNetwork, Learning, learn, with_best_rate
from aptheory.theory.sample_complexity import smallest_samples
from aptheory.theory.slopes import bootstrap_mean

SIZES: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)
"""Training-set sizes that are tried: powers of two."""

RATES: tuple[float, ...] = (0.004, 0.0125, 0.04, 0.125)
"""Step sizes among which each place picks its own (`prompt_learning.with_best_rate`)."""

LEARNING = Learning(batch=8, steps=240)
"""How each prompt is learned unless told otherwise."""


def smallest_by_place(
    network: FrozenNetwork,
    data: Patterns,
    *,
    places: Sequence[str] | None = None,
    sizes: Sequence[int] = SIZES,
    rates: Sequence[float] = RATES,
    epsilons: Sequence[float] = (0.0, 0.05),
    repetitions: int = 6,
    learning: Learning = LEARNING,
    seed: int = 0,
) -> pd.DataFrame:
    """Smallest number of samples for each place, each at its own best step size.

    The places of one repetition see the same training samples (the seed decides them).
    Returns place, epsilon, repetition, samples, reached, rate, and of the run on the most samples
    its norm (of the prompt, per token) and removed (see `prompt_learning.learn`).
    """
    frames = []
    for place in places or network.places:
        runs = with_best_rate(
            learn(
                network,
                data,
                place,
                sizes=sizes,
                rates=rates,
                repetitions=repetitions,
                learning=learning,
                seed=seed,
            )
        )
        most = runs[runs.samples == max(sizes)].set_index("repetition")
        for epsilon in epsilons:
            found = smallest_samples(runs, epsilon=epsilon).set_index("repetition")
            found = found.join(most[["norm", "removed", "test_error", "rate"]]).reset_index()
            frames.append(found.assign(place=place, epsilon=epsilon))
    return pd.concat(frames, ignore_index=True)


def preference(
    table: pd.DataFrame, *, first: str = "layer 1", second: str = "layer 2", seed: int = 0
) -> tuple[float, float, float]:
    """Preference for the shallow place, in doublings: mean of log2 N(second) − log2 N(first).

    table : rows of `smallest_by_place` for one epsilon (and any number of networks, told apart by
        a column ``network`` if it has one). Repetitions are paired. Positive: `first` needs fewer.
    Returns (mean, low, high), 95 % bootstrap interval over repetitions.
    """
    keys = ["repetition"] + (["network"] if "network" in table.columns else [])
    wide = table.pivot(index=keys, columns="place", values="samples")
    return bootstrap_mean(np.log2((wide[second] / wide[first]).to_numpy()), seed=seed)

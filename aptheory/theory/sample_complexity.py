"""How many samples, and how many steps, a prompt needs: by place, by number of tokens.

Claim [2nd]: in a frozen two-layer ViT whose first layer attends to distant tokens and whose second
attends locally, the prompt at layer 1 needs fewer samples than the prompt at layer 2. Orders as
remembered [recalled], never to be quoted as the paper's statement: T = Θ(P/η) steps; N = Θ(P) at
layer 1 and Θ(P² log P) at layer 2. The model that is run here is a reconstruction [rebuilt]
(`patterns`, `two_layer_vit`): it tests the explanation, not the letter of the theorem.

Two quantities are measured, one for each way of counting samples:

* `smallest_samples`: train to the end on N samples, as in practice; the smallest N whose test error
  is at most ε (ε = 0: no error on the test samples).
* `steps_to_zero`: fresh samples at every step, as in the proof; the first step with no test error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from aptheory.errors import InputError
from aptheory.theory.patterns import Patterns
from aptheory.theory.prompt_learning import FrozenNetwork, Learning, PromptShape, learn


def smallest_samples(runs: pd.DataFrame, *, epsilon: float = 0.0) -> pd.DataFrame:
    """Smallest training-set size with test error ≤ `epsilon`, for each repetition.

    runs : from `prompt_learning.learn` (its last look is used).
    Returns repetition, samples, reached. Where no size reaches it, `reached` is False and `samples`
    is twice the largest size that was tried: a lower bound, to be reported as one.
    """
    if runs.empty:
        raise InputError("no runs to search")
    last = runs[runs.step == runs.step.max()]
    rows = []
    for repetition, group in last.groupby("repetition"):
        good = group[group.test_error <= epsilon].samples
        rows.append(
            {
                "repetition": repetition,
                "samples": int(good.min()) if len(good) else 2 * int(group.samples.max()),
                "reached": bool(len(good)),
            }
        )
    return pd.DataFrame(rows)


def steps_to_zero(
    network: FrozenNetwork,
    data: Patterns,
    place: str,
    *,
    rates: Sequence[float],
    shape: PromptShape = "token",
    repetitions: int = 8,
    steps: int = 400,
    looks: int = 100,
    batch: int = 16,
    epsilon: float = 0.0,
    test_samples: int = 400,
    seed: int = 0,
    device: str = "cpu",
) -> pd.DataFrame:
    """First step of online SGD (fresh samples, constant rate) with test error ≤ `epsilon`.

    rates : step sizes η, the same for every number of tokens (the 1/P of a token's own gradient is
        left in, as in the claim T = Θ(P/η)).
    Returns repetition, rate, steps, reached; `steps` is 2 × the longest run where not reached.
    """
    learning = Learning(
        steps=steps,
        batch=batch,
        schedule="constant",
        shape=shape,
        scale_rate=False,
    )
    runs = learn(
        network,
        data,
        place,
        sizes=None,
        rates=rates,
        repetitions=repetitions,
        learning=learning,
        looks=looks,
        test_samples=test_samples,
        seed=seed,
        device=device,
    )
    rows = []
    for (repetition, rate), group in runs.groupby(["repetition", "rate"]):
        good = group[group.test_error <= epsilon].step
        rows.append(
            {
                "repetition": repetition,
                "rate": rate,
                "steps": int(good.min()) if len(good) else 2 * steps,
                "reached": bool(len(good)),
            }
        )
    return pd.DataFrame(rows)


def rate_for(head: Sequence[float], *, scale: float = 0.16) -> float:
    """Step size in proportion to 1 / the largest head weight, so that networks compare fairly."""
    return float(scale / np.abs(np.asarray(head, dtype=float)).max())

"""Which of several layers is best: by score, ties by loss, and what is still tied is drawn.

On a few hundred validation images accuracies tie often. Were ties to go to the first, the
shallowest of equal layers would be chosen several times more often than chance, and "shallow is
best" would be an artefact of the order of a list.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from aptheory.errors import InputError

DIGITS = 9
"""Scores that agree to so many digits after the point are tied: the rest is rounding."""


def ranking(
    scores: Sequence[float] | Float[np.ndarray, " layers"],
    losses: Sequence[float] | Float[np.ndarray, " layers"] | None = None,
    *,
    key: str = "",
    seed: int = 0,
) -> Int[np.ndarray, " layers"]:
    """Positions from best to worst: greater score, then smaller loss, then a draw.

    The draw depends on ``seed``, on ``key`` (what is chosen for, such as network and task) and on
    the scores themselves: the same table always gives the same order, and two tables do not share
    their luck. nan scores come last, nan losses after the others of their score.

    Raises:
        InputError: no scores, or another number of losses.

    >>> ranking([0.5, 0.75, 0.75], [1.0, 0.25, 0.125]).tolist()
    [2, 1, 0]
    """
    values = np.round(np.asarray(scores, dtype=np.float64), DIGITS)
    if values.ndim != 1 or not len(values):
        raise InputError(f"scores have shape {values.shape}; expected one a layer, at least one.")
    costs = np.zeros(len(values)) if losses is None else np.asarray(losses, dtype=np.float64)
    if costs.shape != values.shape:
        raise InputError(f"{len(values)} scores and losses of shape {costs.shape}: give one each.")
    costs = np.round(costs, DIGITS)
    salt = zlib.crc32(values.tobytes() + costs.tobytes() + key.encode())
    luck = np.random.default_rng([seed, salt]).random(len(values))
    worst = np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return np.lexsort((luck, np.nan_to_num(costs, nan=np.inf, posinf=np.inf), -worst))

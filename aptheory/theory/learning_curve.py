"""A learning curve taken apart: the floor that no number of samples breaks, and the rate above it.

A prompt that cannot express the solution errs for ever, and one that can errs less with every
sample; "needs more samples" is a statement about the second alone. So error(N) is read as

    error(N) = floor + excess(N),      excess(N) ≈ c N^(−r),

and floor and rate are reported apart. The floor is measured twice: as the error at a very large N,
and as the constant of a fit to the whole curve, which does not rest on that one point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from aptheory.errors import InputError

Interval = tuple[float, float, float]
"""Value, low and high: a 95 % percentile bootstrap over repetitions."""

_EXPONENTS = np.geomspace(0.1, 4.0, 40)


def zero_error_bound(samples: int) -> float:
    """What no error on n samples says: a true error of at most 3/n, at 95 % (the rule of three).

    >>> zero_error_bound(1000)
    0.003
    """
    if samples < 1:
        raise InputError(f"An error was looked for on {samples} samples: give at least one.")
    return 3 / samples


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Test errors, in [0, 1], of repetitions at growing sizes; the last size stands for N → ∞."""

    sizes: Float[np.ndarray, " sizes"]
    errors: Float[np.ndarray, "repetitions sizes"]
    test_samples: int = 1000

    def __post_init__(self) -> None:
        if len(self.sizes) < 3 or (np.diff(self.sizes) <= 0).any():
            raise InputError("A learning curve needs three or more growing sizes.")

    def floor(self) -> Interval:
        """Mean error at the largest N."""
        return self._interval(lambda errors: errors[:, -1].mean())

    def fitted_floor(self) -> Interval:
        """The constant of error(N) = floor + c N^(−r), floor and c not negative, least squares."""
        return self._interval(lambda errors: _fit(self.sizes, errors.mean(0))[0])

    def rate(self) -> Interval:
        """Slope of log excess(N) on log N, where the excess can be told from nothing.

        Excess is the mean error over repetitions less the floor at the largest N; sizes count while
        it exceeds 3/n for n test samples. nan where fewer than three do.
        """
        return self._interval(self._rate)

    def samples_within(self, margin: float = 0.02) -> Float[np.ndarray, " repetitions"]:
        """Smallest N at which each repetition is within `margin` of the curve's own floor.

        Twice the largest finite size where none is: a lower bound.
        """
        good = self.errors[:, :-1] <= self.errors[:, -1].mean() + margin
        first = np.where(good.any(1), good.argmax(1), len(self.sizes) - 1)
        return np.append(self.sizes[:-1], 2 * self.sizes[-2])[first]

    def _rate(self, errors: np.ndarray) -> float:
        excess = errors.mean(0)[:-1] - errors[:, -1].mean()
        above = excess > zero_error_bound(self.test_samples)
        if above.sum() < 3:
            return float("nan")
        return float(np.polyfit(np.log(self.sizes[:-1][above]), np.log(excess[above]), 1)[0])

    def _interval(
        self, statistic: Callable[[np.ndarray], float], draws: int = 500, seed: int = 0
    ) -> Interval:
        count = len(self.errors)
        chosen = np.random.default_rng(seed).integers(0, count, (draws, count))
        drawn = np.array([statistic(self.errors[rows]) for rows in chosen])
        drawn = drawn[np.isfinite(drawn)]
        value = float(statistic(self.errors))
        if not len(drawn):
            return value, float("nan"), float("nan")
        low, high = np.quantile(drawn, [0.025, 0.975])
        return value, float(low), float(high)


def _fit(sizes: np.ndarray, error: np.ndarray) -> tuple[float, float, float]:
    """(floor, c, r) with the smallest sum of squares, floor and c not negative; r from a grid."""
    power = sizes ** -_EXPONENTS[:, None]  # exponents × sizes
    middle, centred = power.mean(1), power - power.mean(1, keepdims=True)
    scale = (centred @ error) / (centred**2).sum(1)
    floor = error.mean() - scale * middle
    without = floor < 0  # the best line has a negative floor: the best one without a floor
    scale = np.where(without, (power @ error) / (power**2).sum(1), scale)
    floor = np.where(without, 0.0, floor)
    floor, scale = np.where(scale < 0, error.mean(), floor), np.maximum(scale, 0.0)
    best = ((floor[:, None] + scale[:, None] * power - error) ** 2).sum(1).argmin()
    return float(floor[best]), float(scale[best]), float(_EXPONENTS[best])

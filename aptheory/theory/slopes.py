"""Slopes on log-log axes with bootstrap intervals over repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from aptheory.errors import InputError

SLOPE_COLUMNS = ("slope", "low", "high")


def loglog_slope(
    x: Sequence[float], y: Float[np.ndarray, "repetitions points"], *, summary: str = "median"
) -> float:
    """Least-squares slope of log(summary of y over repetitions) against log x. NaN is ignored."""
    y = np.asarray(y, dtype=float)
    logs = np.log(y)
    middle = np.nanmedian(logs, 0) if summary == "median" else np.nanmean(logs, 0)
    return float(np.polyfit(np.log(np.asarray(x, dtype=float)), middle, 1)[0])


def slope_interval(
    x: Sequence[float],
    y: Float[np.ndarray, "repetitions points"],
    *,
    summary: Literal["median", "geometric"] = "geometric",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Slope with its percentile interval; repetitions are resampled whole, with replacement.

    Returns (slope, low, high).
    """
    slopes = _bootstrap(x, np.asarray(y, dtype=float), summary, draws, seed)
    slope = loglog_slope(x, y, summary=summary)
    low, high = np.quantile(slopes, [(1 - level) / 2, (1 + level) / 2])
    return slope, float(low), float(high)


def slope_difference(
    x: Sequence[float],
    first: Float[np.ndarray, "repetitions points"],
    second: Float[np.ndarray, "repetitions points"],
    *,
    summary: Literal["median", "geometric"] = "geometric",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Slope of `second` minus slope of `first`, repetitions paired, with its interval."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    # the same seed resamples the same repetitions in both
    apart = _bootstrap(x, b, summary, draws, seed) - _bootstrap(x, a, summary, draws, seed)
    low, high = np.quantile(apart, [(1 - level) / 2, (1 + level) / 2])
    middle = loglog_slope(x, b, summary=summary) - loglog_slope(x, a, summary=summary)
    return middle, float(low), float(high)


def _bootstrap(
    x: Sequence[float], y: np.ndarray, summary: str, draws: int, seed: int
) -> np.ndarray:
    if y.ndim != 2 or y.shape[1] != len(x) or len(x) < 2:
        raise InputError(f"need y of shape (repetitions, {len(x)}) and two points, got {y.shape}")
    if not (y > 0).all() or not (np.asarray(x) > 0).all():
        raise InputError("log-log slopes need positive values")
    chosen = np.random.default_rng(seed).integers(0, len(y), (draws, len(y)))
    sample = y[chosen]  # (draws, repetitions, points)
    logs = np.log(sample)
    middle = np.median(logs, 1) if summary == "median" else logs.mean(1)
    t = np.log(np.asarray(x, dtype=float))
    t = t - t.mean()
    return middle @ t / (t @ t)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean with its percentile bootstrap interval: (mean, low, high)."""
    v = np.asarray(values, dtype=float)
    chosen = np.random.default_rng(seed).integers(0, len(v), (draws, len(v)))
    low, high = np.quantile(v[chosen].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(v.mean()), float(low), float(high)


def pivot(table: pd.DataFrame, x: str, value: str) -> tuple[list[float], np.ndarray]:
    """Tidy rows -> (sorted x, array repetitions × points)."""
    wide = table.pivot(index="repetition", columns=x, values=value).sort_index(axis=1)
    return [float(c) for c in wide.columns], wide.to_numpy()

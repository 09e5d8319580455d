"""The curve that scores of its places make one expect, as other pairs have taught it.

A score may speak for a place where the task lies near the pretraining and against it where it lies
far, so it can enter twice: alone, and times the shift of the task (its mean over places).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from analyses.choice_curves import SCORES, Curve

PENALTIES = (0.03, 0.3, 3.0, 30.0)
"""Of the ridge regression, a place."""


def expected(by_shift: bool) -> Callable[[Curve, Sequence[Curve]], np.ndarray]:
    """A prior from `SCORES` and depth, or from them and their products with the task's shift."""

    def prior(curve: Curve, others: Sequence[Curve]) -> np.ndarray:
        """Points above the mean over places: ridge regression over the places of the others, its
        penalty as it does best on networks that are left out."""
        if not others:
            return np.zeros(len(curve.layers))
        shifts = np.array([_shift(one) for one in others])
        typical = (float(shifts.mean()), float(shifts.std()) or 1.0) if by_shift else None
        tables = [_features(one, typical) for one in others]
        gains = [one.test - one.test.mean() for one in others]
        networks = np.array([one.network for one in others])
        errors = np.zeros(len(PENALTIES))
        for network in np.unique(networks):
            kept = np.flatnonzero(networks != network)
            if not len(kept):
                continue
            for number, penalty in enumerate(PENALTIES):
                weights = _ridge([tables[k] for k in kept], [gains[k] for k in kept], penalty)
                errors[number] += sum(
                    float(((gains[k] - tables[k] @ weights) ** 2).mean())
                    for k in np.flatnonzero(networks == network)
                )
        weights = _ridge(tables, gains, PENALTIES[int(errors.argmin())])
        return np.asarray(_features(curve, typical) @ weights)

    return prior


def _scores(curve: Curve) -> Float[np.ndarray, "places scores"]:
    assert curve.scores is not None, "curves without scores have no such prior"
    return curve.scores


def _shift(curve: Curve) -> float:
    return float(np.log(_scores(curve)[:, SCORES.index("shift")].mean()))


def _features(
    curve: Curve, typical: tuple[float, float] | None
) -> Float[np.ndarray, "places features"]:
    """Depth, its square and the scores, in standard deviations over the curve's places; with a
    typical shift (mean, spread) also their products with the curve's own."""
    raw = np.column_stack([curve.depth, (curve.depth - 0.5) ** 2, _scores(curve)])
    centred = raw - raw.mean(0)
    scale = centred.std(0)
    single = centred / np.where(scale > 0, scale, 1.0)
    if typical is None:
        return single
    return np.hstack([single, single * (_shift(curve) - typical[0]) / typical[1]])


def _ridge(
    tables: Sequence[np.ndarray], gains: Sequence[np.ndarray], penalty: float
) -> Float[np.ndarray, " features"]:
    x, y = np.vstack(tables), np.concatenate(gains)
    return np.asarray(np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ y))

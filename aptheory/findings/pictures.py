"""Intervals and p-values that hold the test pictures: of one method, and of two on the same ones.

Two sources are told apart: the **test pictures** (another sample of pictures of the same kind) and
the **training** (seeds, which redraw the training pictures and their order). `two_source_interval`
and `paired_pictures` hold both.

    f"{two_source_interval(correct).times(100):.1f %}"    # 71.7 % [59.2, 81.5]

``benchmarks/coverage.py`` simulates what each of these promises and prints what it finds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import stats

from aptheory.errors import InputError
from aptheory.findings.statistics import Interval

Z = 1.959963984540054
"""The normal quantile of a 95 % interval."""

Correct = Bool[np.ndarray, "runs pictures"] | Bool[np.ndarray, " pictures"]


def wilson(share: float, count: float, *, quantile: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a share of ``count``, which need not be whole.

    It does not shrink to a point at 0 or 1. (Wilson 1927.)

    >>> low, high = wilson(43 / 60, 60)
    >>> round(low, 3), round(high, 3)
    (0.592, 0.815)
    """
    square = quantile**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = np.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return max(0.0, float(middle - quantile * half)), min(1.0, float(middle + quantile * half))


def two_source_interval(correct: Correct, *, confidence: float = 0.95) -> Interval:
    """Accuracy with the interval that holds both sources: test pictures and training.

    Args:
        correct: whether each run (one a seed) was right on each test picture, the same pictures in
            the same order; one run may come as a vector.
        confidence: coverage of the interval.

    Returns:
        The mean over runs and pictures; ``errors`` has the standard error of each source.

    Runs and pictures are crossed random effects: the variance of the mean is that of the runs'
    means, plus that of the pictures', less the residual that both hold, with Student's t for the
    few runs (`_crossed`). The bounds are Wilson's for the number of pictures that alone would give
    this width, so that a small test set and an accuracy near 1 are treated well. With one run, or
    with runs that are all the same, they are Wilson's own and hold the pictures alone; ``note``
    says so, and names seeds with the same predictions.
    """
    table = _runs_by_pictures(correct)
    runs, pictures = table.shape
    share = float(table.mean())
    half, quantile, errors = _crossed(table, confidence)
    equal = equal_runs(correct)
    spread = runs == 1 or bool(table.std(0).any())
    note = ""
    if runs == 1:
        note = "one seed: the interval is that of the test pictures alone"
    elif not spread:
        note = "no spread over seeds: the runs are the same"
    elif equal:
        note = "the same predictions from runs " + ", ".join(f"{a} and {b}" for a, b in equal)
    effective = pictures
    if half > 0 and pictures > 1:
        effective = pictures * share * (1 - share) / (pictures - 1) / (half / quantile) ** 2
    low, high = wilson(share, effective, quantile=float(stats.norm.ppf((1 + confidence) / 2)))
    return Interval(share, low, high, runs, "seeds", note, errors, spread)


def paired_pictures(
    first: Correct, second: Bool[np.ndarray, ...], *, confidence: float = 0.95
) -> Interval:
    """Accuracy of ``first`` minus that of ``second`` on the same test pictures.

    One run each, or several that are paired by seed, (runs, pictures). The interval holds the test
    pictures and, with several runs, the training as well (crossed as in `two_source_interval`,
    Student's t). One picture that only the first knows and one that only the second knows are
    added for the bounds (Bonett and Price 2012; each a 1/√runs where there are several), so that
    two methods which agree on every picture of a small test set are not called equal to the last
    digit.

    Raises:
        InputError: different shapes.
    """
    ours, theirs = _runs_by_pictures(first), _runs_by_pictures(second)
    if ours.shape != theirs.shape:
        raise InputError(
            f"one method has {ours.shape} (runs, pictures) and the other {theirs.shape}; expected "
            "the same test pictures and as many runs of both."
        )
    table = ours - theirs
    runs = len(table)
    lone = np.full((runs, 1), 1 / np.sqrt(runs))
    added = np.concatenate([table, lone, -lone], axis=1)
    half, _, errors = _crossed(added, confidence)
    middle = added.mean()
    note = "one seed: the interval is that of the test pictures alone" if runs == 1 else ""
    spread = runs == 1 or bool(table.std(0).any())
    if not spread:
        note = "no spread over seeds: the runs are the same"
    low, high = max(-1.0, float(middle - half)), min(1.0, float(middle + half))
    return Interval(float(table.mean()), low, high, runs, "seeds", note, errors, spread)


def mcnemar(first: Bool[np.ndarray, " pictures"], second: Bool[np.ndarray, ...]) -> float:
    """McNemar's two-sided p that two methods know equally many pictures, one run each.

    The mid-p form (Fagerland, Lydersen and Laake 2013): the exact one is far from level at the few
    pictures on which methods differ. 1 where they differ on none.
    """
    ours, theirs = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if ours.shape != theirs.shape or ours.ndim != 1:
        raise InputError(
            f"McNemar's test got {ours.shape} and {theirs.shape}; expected one run of each method "
            "on the same test pictures, as two vectors."
        )
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if gained + lost == 0:
        return 1.0
    binomial = stats.binom(gained + lost, 0.5)
    fewer = min(gained, lost)
    return float(min(1.0, 2 * binomial.cdf(fewer) - binomial.pmf(fewer)))


def equal_runs(correct: Correct) -> list[tuple[int, int]]:
    """Pairs of runs that were right on exactly the same pictures: seeds that changed nothing."""
    table = np.atleast_2d(np.asarray(correct, dtype=bool))
    return [
        (a, b)
        for a in range(len(table))
        for b in range(a + 1, len(table))
        if np.array_equal(table[a], table[b])
    ]


def _crossed(
    table: Float[np.ndarray, "runs pictures"], confidence: float
) -> tuple[float, float, dict[str, float]]:
    """Half-width of the mean of a table whose rows and columns are both drawn.

    The variance of the pictures' means holds the residual, and so does that of the runs' means; it
    is taken off the first. Each source has Student's t with its own degrees of freedom, and the
    squares of the two half-widths add up. (With one pooled number of degrees of freedom three runs
    cover 91 % where they differ.)

    Returns:
        The half-width, the quantile of the pictures, and the standard error of each source.
    """
    runs, pictures = table.shape
    tail = (1 + confidence) / 2
    quantile = float(stats.t.ppf(tail, max(1, pictures - 1)))
    by_run, by_picture = table.mean(1), table.mean(0)
    images = float(by_picture.var(ddof=1) / pictures) if pictures > 1 else 0.0
    if runs == 1:
        return (
            quantile * float(np.sqrt(images)),
            quantile,
            {"test pictures": float(np.sqrt(images))},
        )
    residual = table - by_run[:, None] - by_picture + table.mean()
    noise = float((residual**2).sum() / (runs - 1) / max(1, pictures - 1) / table.size)
    errors = {
        "test pictures": float(np.sqrt(max(images - noise, 0))),
        "training": float(by_run.std(ddof=1) / np.sqrt(runs)),
    }
    half = np.hypot(
        quantile * errors["test pictures"], stats.t.ppf(tail, runs - 1) * errors["training"]
    )
    return float(half), quantile, errors


def _runs_by_pictures(correct: Num[np.ndarray, ...] | Correct) -> Float[np.ndarray, "r p"]:
    table = np.atleast_2d(np.asarray(correct))
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(
            f"predictions have shape {np.shape(correct)}; expected (runs, pictures), or "
            "(pictures,) of one run, with at least one picture."
        )
    return table.astype(np.float64)

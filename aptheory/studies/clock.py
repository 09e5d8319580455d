"""One estimate of the time that a study has left: the bar's, the log's and `status`'s.

A batch takes about a · (its predicted seconds) + b. Both numbers are fitted to the batches that are
finished, and to those under way whose epochs tell when they will be; before there are any, the
prediction stands alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OVERHEAD = 1.0
"""Seconds of a batch beside its training, as predicted before any is finished."""


@dataclass(frozen=True)
class Underway:
    """A batch that trains: predicted seconds, those it has had, and those its epochs say are left.

    ``remaining`` is `Epochs.remaining`, ``whole`` what all its epochs take: the start of a worker,
    which comes once, is not in it.
    """

    predicted: float
    elapsed: float
    remaining: float | None = None
    whole: float | None = None


@dataclass(frozen=True)
class Epochs:
    """How far a batch is: epochs of a run that are done, of ``total`` over all its runs.

    ``step`` of them were done at the time ``first``, the others until ``last``. ``epoch`` of
    ``epochs`` is where the runs that train now stand.
    """

    done: int
    total: int
    step: int
    first: float
    last: float
    epoch: int = 0
    epochs: int = 0

    @property
    def each(self) -> float | None:
        """Seconds of an epoch, from those after the first; None before there are two."""
        trained = self.done - self.step
        return (self.last - self.first) / trained if trained > 0 else None

    def remaining(self, now: float) -> float | None:
        """Seconds to go; None before there are two epochs."""
        if self.each is None:
            return None
        return max(0.0, (self.total - self.done) * self.each - (now - self.last))


def seconds_left(
    finished: Sequence[tuple[float, float]],
    underway: Iterable[Underway],
    waiting: Iterable[float],
    *,
    workers: int = 1,
) -> float:
    """Seconds to go.

    Args:
        finished: (predicted, measured) seconds of each finished batch.
        underway: the batches that train.
        waiting: predicted seconds of those that nobody has begun.
        workers: how many batches train at once.
    """
    underway = list(underway)
    known = list(finished)
    known += [(b.predicted, b.whole) for b in underway if b.whole is not None]
    slope, constant = _fit(known)
    left = sum(
        b.remaining
        if b.remaining is not None
        else max(0.0, slope * b.predicted + constant - b.elapsed)
        for b in underway
    )
    left += sum(slope * predicted + constant for predicted in waiting)
    return left / max(1, workers)


def _fit(known: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """a and b of ``measured = a · predicted + b``, neither below zero; the prediction's own first.

    With fewer than three different predictions one factor on both is all that can be told.
    """
    if not known:
        return 1.0, OVERHEAD
    import numpy as np
    from scipy.optimize import nnls

    predicted, measured = np.asarray(known, dtype=np.float64).T
    if len(np.unique(predicted)) < 3:
        factor = measured.sum() / (predicted + OVERHEAD).sum()
        return float(factor), float(factor * OVERHEAD)
    (slope, constant), _ = nnls(np.stack([predicted, np.ones_like(predicted)], 1), measured)
    return float(slope), float(constant)

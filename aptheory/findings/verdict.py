"""What a difference shows: the one place where a number becomes a word.

Every sentence of this toolkit that says "gains", "beats" or "more than" has asked `verdict` first.
What is not known is not a gain.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from aptheory.findings.statistics import Interval

UNPAIRED = "no seed of both"
"""The note of a difference whose sides were run, but never with the same seed."""


class Verdict(Enum):
    """What a difference between two accuracies shows."""

    GAIN = "gain"
    LOSS = "loss"
    UNCLEAR = "unclear"
    UNKNOWN = "unknown"


def verdict(gap: Interval | None) -> Verdict:
    """GAIN or LOSS where the whole interval lies on one side of zero, UNCLEAR where it holds zero.

    UNKNOWN: there is no difference to judge (the other side was not run), it comes from one seed,
    or the seeds changed nothing, so that no spread is known.
    """
    if gap is None or np.isnan(gap.value) or gap.n < 2 or not gap.known or not gap.spread:
        return Verdict.UNKNOWN
    if gap.low > 0:
        return Verdict.GAIN
    return Verdict.LOSS if gap.high < 0 else Verdict.UNCLEAR


def unknown_because(gap: Interval | None, other: str) -> str:
    """Why the verdict on a difference from ``other`` is unknown, in words."""
    if gap is None or np.isnan(gap.value):
        unpaired = gap is not None and gap.note == UNPAIRED
        return f"{other} was run with other seeds" if unpaired else f"{other} was not run"
    return "one seed" if gap.n < 2 else "no spread: the difference is the same with every seed"

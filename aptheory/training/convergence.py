"""Whether a run was trained until nothing changed any more: its loss, or its accuracy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

WINDOW = 1 / 3
"""The share of a run, counted in learning rate, that is its end."""
SHARE, FLOOR = 0.05, 0.002
"""The change that counts as none: as a share of all that the loss changed in the run, in nats."""
FEWEST = 4
"""Losses that the window must hold; from fewer nothing is concluded."""


def flat(curve: Sequence[Mapping[str, float]]) -> bool | None:
    """Whether a run's loss is flat at its end; None where the curve is too short to tell.

    The loss is the validation loss where the run was validated more than once on the way, else
    the training loss. The end is the last third of the run *counted in learning rate*: an epoch
    counts as much as its rate, because the last epochs of a cosine schedule hardly move anything
    and are flat in every run. (With a constant rate it is the last third of the epochs, with a
    cosine from its start the last 63 %.)

    A line is fitted to the losses in the window. They are flat when it rises or falls, over the
    window, by at most 5 % of the range that the loss went through in the whole run (a steady fall:
    33 %), or by at most twice the standard deviation about the line, or by at most 0.002 nats.
    The range is the measure, not the loss: a rate that is far too small gives a loss that hardly
    changes, and changes as much at the end as at the start. A loss that rises is not flat either:
    such a run depends on where it was stopped.

    Args:
        curve: one entry an epoch with "lr", "train_loss" and, where it was validated, "val_loss".
    """
    measure = "val_loss" if sum("val_loss" in entry for entry in curve) > 1 else "train_loss"
    end = _end(curve, measure)
    if end is None:
        return None
    change, scatter, losses = end
    return bool(change <= max(SHARE * float(np.ptp(losses)), 2 * scatter, FLOOR))


def accuracy_flat(curve: Sequence[Mapping[str, float]], pictures: int) -> bool | None:
    """Whether a run's validation accuracy is flat at its end; None where that cannot be told.

    The loss of a head that grows overconfident rises while its accuracy stays; this looks at the
    accuracy alone. The end and the line are those of `flat`; the accuracy is flat when the line
    rises or falls over the window by at most one binomial standard error √(a(1 − a)/n) of the
    accuracy a at the end on n pictures. Smaller changes cannot be seen on so many pictures: 3.5
    points on 200.

    Args:
        curve: as in `flat`, with "val_accuracy" where the run was validated.
        pictures: how many it was validated on.
    """
    end = _end(curve, "val_accuracy")
    if end is None or pictures < 1:
        return None
    change, _, accuracies = end
    share = (accuracies[-1] * pictures + 0.5) / (pictures + 1)  # 0 and 1 have an error too
    return bool(change <= np.sqrt(share * (1 - share) / pictures))


def _end(
    curve: Sequence[Mapping[str, float]], measure: str
) -> tuple[float, float, np.ndarray] | None:
    """(change along a line over the window, scatter about it, all values); None where too few."""
    rates = np.array([entry["lr"] for entry in curve], dtype=np.float64)
    if not rates.sum() > 0:
        rates = np.ones(len(curve))
    done = np.cumsum(rates) / rates.sum()  # of the run, after each epoch
    measured = np.array([measure in entry for entry in curve], dtype=bool)
    values = np.array([entry[measure] for entry in curve if measure in entry], dtype=np.float64)
    window = values[done[measured] > 1 - WINDOW + 1e-9]
    if len(window) < FEWEST or not np.isfinite(values).all():
        return None
    epochs = np.arange(len(curve), dtype=np.float64)[measured][-len(window) :]
    slope, level = np.polyfit(epochs, window, 1)
    change = abs(slope) * (epochs[-1] - epochs[0])
    return float(change), float(np.std(window - slope * epochs - level)), values

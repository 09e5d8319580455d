"""Seeded cuts of a data set: who trains, who selects, who tests."""

from collections.abc import Sequence

import numpy as np

from aptheory.errors import InputError

Seed = int | Sequence[int]


def _orders(labels: np.ndarray, seed: Seed) -> dict[int, np.ndarray]:
    """For each class the positions of its samples, in a seeded order."""
    generator = np.random.default_rng(seed)
    return {
        int(label): generator.permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels)
    }


def balanced_indices(labels: np.ndarray, count: int, *, seed: Seed) -> np.ndarray:
    """``count`` sorted positions with every class as often as every other, as far as it goes.

    Rounds are dealt: the first sample of each class, then the second, and so on, so that a class
    that runs out leaves its share to the others. Within the last round the classes served are
    drawn by the seed. For one seed a smaller count gives a subset of a larger count's.
    """
    if not 0 <= count <= len(labels):
        raise InputError(f"{count} samples asked for; expected 0 to {len(labels)}")
    orders = _orders(labels, seed)
    if not orders:
        return np.empty(0, dtype=np.int64)
    classes = [int(c) for c in np.random.default_rng(seed).permutation(np.array(list(orders)))]
    position = np.concatenate([orders[label] for label in classes])
    dealt = np.concatenate([np.arange(len(orders[label])) for label in classes])
    turn = np.concatenate([np.full(len(orders[c]), number) for number, c in enumerate(classes)])
    return np.sort(position[np.lexsort((turn, dealt))[:count]]).astype(np.int64)


def stratified_cut(
    labels: np.ndarray, fractions: Sequence[float], *, seed: Seed, where: str = "data"
) -> list[np.ndarray]:
    """Cut the samples into ``len(fractions)`` parts, each class in the same proportion.

    ``fractions`` sum to 1. Of each class every part gets at least one sample; the remainders of
    rounding go to the first part. Returns sorted positions. Raises `InputError` naming
    ``where`` if a class has fewer samples than there are parts.
    """
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise InputError(f"fractions {tuple(fractions)} must be positive and sum to 1")
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    for label, order in _orders(labels, seed).items():
        if len(order) < len(fractions):
            raise InputError(
                f"{where}: class {label} has {len(order)} image(s); a cut into "
                f"{len(fractions)} splits needs at least {len(fractions)} of each class"
            )
        counts = [max(1, int(len(order) * fraction)) for fraction in fractions]
        counts[0] = len(order) - sum(counts[1:])
        bounds = np.cumsum([0, *counts])
        for part, start, stop in zip(parts, bounds[:-1], bounds[1:], strict=True):
            part.append(order[start:stop])
    return [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]

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
        raise InputError(f"{count} samples asked for; expected 0 to {len(labels)}.")
    orders = _orders(labels, seed)
    if not orders:
        return np.empty(0, dtype=np.int64)
    classes = [int(c) for c in np.random.default_rng(seed).permutation(np.array(list(orders)))]
    position = np.concatenate([orders[label] for label in classes])
    dealt = np.concatenate([np.arange(len(orders[label])) for label in classes])
    turn = np.concatenate([np.full(len(orders[c]), number) for number, c in enumerate(classes)])
    return np.sort(position[np.lexsort((turn, dealt))[:count]]).astype(np.int64)


def draw_by_class(
    labels: np.ndarray, counts: Sequence[np.ndarray], *, seed: Seed
) -> list[np.ndarray]:
    """Disjoint parts of the samples: part i gets ``counts[i][c]`` samples of class c, if there are.

    Which ones is drawn by the seed; earlier parts are served first. Returns sorted positions.
    """
    parts: list[list[np.ndarray]] = [[] for _ in counts]
    for label, order in _orders(labels, seed).items():
        for part, count in zip(parts, counts, strict=True):
            part.append(order[: count[label]])
            order = order[count[label] :]
    return [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]


def stratified_cut(
    labels: np.ndarray,
    fractions: Sequence[float],
    *,
    seed: Seed,
    where: str = "data",
    copies: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> list[np.ndarray]:
    """Cut the samples into ``len(fractions)`` parts, each class in the same proportion.

    ``fractions`` sum to 1. Of each class every part gets at least one sample; the remainders of
    rounding go to the first part. Samples of an equal number in ``copies`` end in one part, that
    of the first of them; so do those of an equal number in ``groups``, which are dealt whole.
    Returns sorted positions. Raises `InputError` naming ``where`` and the class (by ``classes``) if
    a class has fewer samples (or groups) than there are parts.
    """
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise InputError(f"fractions {tuple(fractions)} must be positive and sum to 1.")
    if groups is not None:
        units = groups if copies is None else joined(groups, copies)
        parts = _deal_groups(labels, units, fractions, seed)
    elif copies is not None:
        units, kept = copies, _cut_classes(labels, fractions, seed, where, classes)
        parts = keep_together(kept, copies)
    else:
        return _cut_classes(labels, fractions, seed, where, classes)
    if len(_lacking(labels, parts)):
        parts = _deal_groups(labels, units, fractions, seed, rare_first=True)
    for label in _lacking(labels, parts).tolist():
        own = labels == label
        number = len(np.unique(units[own]))
        kind = "different picture(s)" if groups is None else "group(s)"
        if groups is not None and number < len(np.unique(groups[own])):
            kind += ", those that share a picture counted as one"
        few = number < len(fractions)
        why = "" if few else ", bound to those of other classes so that none was found"
        raise InputError(
            f"{where}: class {_called(label, classes)} has {number} {kind}; a cut into "
            f"{len(fractions)} splits needs at least {len(fractions)} of each class{why}: give the "
            "splits yourself, or add pictures."
        )
    return parts


def _lacking(labels: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The classes that some part has no sample of."""
    return np.unique(np.concatenate([np.setdiff1d(labels, labels[part]) for part in parts]))


def _called(label: int, classes: Sequence[str]) -> str:
    return repr(classes[label]) if label < len(classes) else str(label)


def folds(
    labels: np.ndarray,
    count: int,
    *,
    seed: Seed,
    where: str = "data",
    copies: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> list[np.ndarray]:
    """``count`` parts of equal size, as `stratified_cut` makes them."""
    if count < 2:
        raise InputError(f"{count} folds were asked for; expected at least 2.")
    shares = [1 / count] * count
    if groups is None:  # one round of dealing: no part is left the remainders
        groups = np.arange(len(labels))
    return stratified_cut(labels, shares, seed=seed, where=where, copies=copies, groups=groups)


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers that are equal wherever ``first`` or ``second`` are, directly or by a chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = (np.unique(numbers, return_inverse=True)[1] for numbers in (first, second))
    nodes = left.max() + right.max() + 2
    edges = coo_array((np.ones(len(left)), (left, right + left.max() + 1)), shape=(nodes, nodes))
    return connected_components(edges, directed=False)[1][left]


def _cut_classes(
    labels: np.ndarray, fractions: Sequence[float], seed: Seed, where: str, classes: Sequence[str]
) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    for label, order in _orders(labels, seed).items():
        if len(order) < len(fractions):
            raise InputError(
                f"{where}: class {_called(label, classes)} has {len(order)} image(s); a cut into "
                f"{len(fractions)} splits needs at least {len(fractions)} of each class."
            )
        counts = [max(1, int(len(order) * fraction)) for fraction in fractions]
        counts[0] = len(order) - sum(counts[1:])
        bounds = np.cumsum([0, *counts])
        for part, start, stop in zip(parts, bounds[:-1], bounds[1:], strict=True):
            part.append(order[start:stop])
    return [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]


def keep_together(parts: list[np.ndarray], copies: np.ndarray) -> list[np.ndarray]:
    """The parts, with every copy (an equal number) moved to the part of the first of its kind."""
    part_of = np.empty(len(copies), dtype=np.int64)
    for number, part in enumerate(parts):
        part_of[part] = number
    _, first, kind = np.unique(copies, return_index=True, return_inverse=True)
    part_of = part_of[first][kind]
    return [np.flatnonzero(part_of == number).astype(np.int64) for number in range(len(parts))]


def _deal_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    fractions: Sequence[float],
    seed: Seed,
    *,
    rare_first: bool = False,
) -> list[np.ndarray]:
    """Whole groups, the largest first, each to the part that lacks most of what it holds.

    ``rare_first`` begins with one group of each class for each part.
    """
    _, group = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    sizes = np.bincount(group)
    order = order[np.argsort(-sizes[order], kind="stable")]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    given = _one_of_each(label, group, fractions, order) if rare_first else {}
    order = np.array([*given, *(number for number in order.tolist() if number not in given)])
    wanted = np.outer(fractions, np.bincount(label, minlength=len(classes)))
    part_of = np.empty(len(labels), dtype=np.int64)
    for number in order:
        rows = members[number]
        held, counts = np.unique(label[rows], return_counts=True)
        lack = wanted[:, held]  # in shares of what the part should have: small parts are not last
        most = np.argmax((lack / np.asarray(fractions)[:, None] * counts).sum(axis=1))
        part = given.get(int(number), int(most))
        wanted[part, held] -= counts
        part_of[rows] = part
    return [np.flatnonzero(part_of == number).astype(np.int64) for number in range(len(fractions))]


def _one_of_each(
    label: np.ndarray, group: np.ndarray, fractions: Sequence[float], order: np.ndarray
) -> dict[int, int]:
    """Group -> part, so that each part has each class: the rarest classes choose first, and the
    smallest of their groups."""
    held = [np.unique(group[label == number]) for number in range(label.max() + 1)]
    smallest = order[::-1].tolist()
    given: dict[int, int] = {}
    for number in sorted(range(len(held)), key=lambda number: len(held[number])):
        mine = set(held[number].tolist())
        served = {given[unit] for unit in mine if unit in given}
        free = [unit for unit in smallest if unit in mine and unit not in given]
        for part in sorted(set(range(len(fractions))) - served, key=lambda part: fractions[part]):
            if free:
                given[free.pop(0)] = part
    return given

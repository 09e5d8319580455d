"""From the splits that a source has to train, validation and test: what is cut, and how it is said.

Three splits are taken as they are. Two: the second is what results are reported on, and validation
is cut from train. None: all three are cut, 60/20/20.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.published_splits import PUBLISHED, checksum, hold_out
from aptheory.tasks.splits import stratified_cut

#: What sources call their splits.
ALIASES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
Numbers = Callable[[str], np.ndarray | None]


@dataclass(frozen=True)
class Parts:
    """Of each split, the source's split and the positions in it; and what was done, in words."""

    train: tuple[str, np.ndarray]
    val: tuple[str, np.ndarray]
    test: tuple[str, np.ndarray]
    note: str

    def items(self) -> list[tuple[str, str, np.ndarray]]:
        """(split, the source's split, positions) of the three."""
        return [(name, *getattr(self, name)) for name in ("train", "val", "test")]


def complete(
    labels: Mapping[str, np.ndarray],
    *,
    seed: int,
    where: str,
    name: str = "",
    word: str = "split",
    expected: str = "splits called train and test",
    copies: Numbers = lambda split: None,
    groups: Numbers = lambda split: None,
) -> Parts:
    """All three splits of a source whose splits have these ``labels``.

    The one key "" is a source without splits. ``copies`` and ``groups`` give a number for each
    picture of a split (see `stratified_cut`); they are asked only where something is cut. ``word``
    is what the source's splits are ("folder"), ``expected`` what it should have.
    """
    whole = {split: np.arange(len(values)) for split, values in labels.items()}
    if "" in labels:
        kinds, groups_of = copies(""), groups("")
        cut = stratified_cut(
            labels[""], (0.6, 0.2, 0.2), seed=seed, where=where, copies=kinds, groups=groups_of
        )
        note = f"no {word}s given; cut 60/20/20 class by class, seed {seed}"
        train, val, test = (("", part) for part in cut)
        return Parts(train, val, test, note + _facts(np.concatenate(cut[1:]), kinds, groups_of))
    if "train" not in labels or not ({"val", "test"} & set(labels)):
        lacking = "train" if "train" not in labels else "test"
        raise InputError(
            f"{where} has {_listed(labels, word)} but no {lacking} {word}; expected {expected}."
        )
    if {"val", "test"} <= set(labels):
        note = f"train, validation and test {word}s as given"
        train, val, test = ((split, whole[split]) for split in ("train", "val", "test"))
        return Parts(train, val, test, note)
    last = "test" if "test" in labels else "val"
    note = f"train and test {word}s as given"
    if last == "val":
        note = f"train {word} as given, val {word} used as test"
    kinds = None if published(name, labels["train"]) else copies("train")
    groups_of = groups("train")
    kept, held, how = hold_out(
        labels["train"],
        name=name,
        seed=seed,
        where=f"{where}: the train {word}",
        copies=kinds,
        groups=groups_of,
    )
    facts = "" if published(name, labels["train"]) else _facts(held, kinds, groups_of)
    return Parts(("train", kept), ("train", held), (last, whole[last]), f"{note}; {how}{facts}")


def published(name: str, labels: np.ndarray) -> bool:
    """Whether a split of the training images of that name is published by us."""
    return name in PUBLISHED and PUBLISHED[name].total == len(labels)


def _facts(held: np.ndarray, copies: np.ndarray | None, groups: np.ndarray | None) -> str:
    words = f" (sha256 {checksum(held)[:12]})"
    if groups is not None:
        words += f", {len(np.unique(groups))} groups kept whole"
    if copies is not None and len(np.unique(copies)) < len(copies):
        words += f", {len(copies) - len(np.unique(copies))} copies kept on one side"
    return words


def _listed(labels: Mapping[str, np.ndarray], word: str) -> str:
    names = sorted(labels)
    if not names:
        return f"no {word}"
    return f"a {names[0]} {word}" if len(names) == 1 else f"{word}s {', '.join(names)}"

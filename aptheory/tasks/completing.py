"""From the splits that a source has to train, validation and test: what is cut, and how it is said.

Three splits are taken as they are. Two: the second is what results are reported on, and validation
is cut from train. None: all three are cut, 60/20/20.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.copies import kinds
from aptheory.tasks.published_splits import PUBLISHED, checksum, hold_out
from aptheory.tasks.splits import stratified_cut

#: What sources call their splits.
ALIASES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
Numbers = Callable[[str], np.ndarray | None]
Values = Callable[[str], Sequence[Hashable] | None]


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
    groups: Values = lambda split: None,
    classes: Sequence[str] = (),
) -> Parts:
    """All three splits of a source whose splits have these ``labels``.

    The one key "" is a source without splits. ``copies`` gives a number for each picture of a
    split, ``groups`` what must not be torn apart (see `stratified_cut`); copies are asked for only
    where something is cut, and groups that stand in two given splits are said. ``word`` is what
    the source's splits are ("folder"), ``expected`` what it should have, ``classes`` their names.
    """
    whole = {split: np.arange(len(values)) for split, values in labels.items()}
    if "" in labels:
        same, groups_of = copies(""), _numbers(groups(""))
        cut = stratified_cut(
            labels[""],
            (0.6, 0.2, 0.2),
            seed=seed,
            where=where,
            copies=same,
            groups=groups_of,
            classes=classes,
        )
        note = f"no {word}s given; cut 60/20/20 class by class, seed {seed}"
        train, val, test = (("", part) for part in cut)
        return Parts(train, val, test, note + _facts(np.concatenate(cut[1:]), same, groups_of))
    if "train" not in labels or not ({"val", "test"} & set(labels)):
        lacking = "train" if "train" not in labels else "test"
        raise InputError(
            f"{where} has {_listed(labels, word)} but no {lacking} {word}; expected {expected}."
        )
    values = {split: groups(split) for split in labels}
    if {"val", "test"} <= set(labels):
        note = f"train, validation and test {word}s as given{_torn(values)}"
        train, val, test = ((split, whole[split]) for split in ("train", "val", "test"))
        return Parts(train, val, test, note)
    last = "test" if "test" in labels else "val"
    note = f"train and test {word}s as given"
    if last == "val":
        note = f"train {word} as given, val {word} used as test"
    note += _torn(values)
    same = None if published(name, labels["train"]) else copies("train")
    groups_of = _numbers(values["train"])
    kept, held, how = hold_out(
        labels["train"],
        name=name,
        seed=seed,
        where=f"{where}: the train {word}",
        copies=same,
        groups=groups_of,
        classes=classes,
    )
    facts = "" if published(name, labels["train"]) else _facts(held, same, groups_of)
    return Parts(("train", kept), ("train", held), (last, whole[last]), f"{note}; {how}{facts}")


def _numbers(values: Sequence[Hashable] | None) -> np.ndarray | None:
    return None if values is None else kinds(values)


def _torn(values: Mapping[str, Sequence[Hashable] | None]) -> str:
    """How many groups stand in several of the given splits."""
    sets = [set(of_split) for of_split in values.values() if of_split is not None]
    everywhere = set().union(*sets)
    torn = sum(sum(value in of_split for of_split in sets) > 1 for value in everywhere)
    return f", which tear {torn} group(s) apart" if torn else ""


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

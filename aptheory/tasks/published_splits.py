"""Splits published by us, for the data sets whose official split has no validation part.

Each is decided by a seed, a total and a size, and by nothing else: the images of the official
training split are put in the sorted order of their relative paths (for a data set that comes as
arrays: in the order of the arrays), and the positions below are held out for selection. The
checksum pins them: a numpy that shuffled differently would be refused, not believed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aptheory.arguments import checked_arguments
from aptheory.checked import read_text
from aptheory.errors import InputError
from aptheory.tasks.splits import stratified_cut

SEED = 0
_LARGEST = 2**28
HEADER = "# aptheory published split"


@dataclass(frozen=True)
class PublishedSplit:
    """``held_out`` of the ``total`` images of a data set's official training split."""

    name: str
    total: int
    held_out: int
    checksum: str  # sha256 of the held-out positions as little-endian int64

    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted positions (train, val). Raises `InputError` on a wrong checksum."""
        order = np.random.default_rng((SEED, self.total)).permutation(self.total)
        val = np.sort(order[: self.held_out]).astype(np.int64)
        if checksum(val) != self.checksum:
            raise InputError(
                f"the published split of {self.name} cannot be made again with this numpy "
                f"({np.__version__}); expected checksum {self.checksum[:12]}"
            )
        return np.setdiff1d(np.arange(self.total), val), val


def checksum(positions: np.ndarray) -> str:
    """sha256 of positions as little-endian int64."""
    return hashlib.sha256(np.asarray(positions).astype("<i8").tobytes()).hexdigest()


PUBLISHED = {
    split.name: split
    for split in (
        PublishedSplit(
            "cub200",
            5994,
            600,
            "429396f1c5b33181ea30acc46bc2d1363f70c5eed5d2dbb426f0529193c5a4cf",
        ),
        PublishedSplit(
            "nabirds",
            23929,
            2393,
            "1a58c39640e70f86ea7f52f1c14f75c4ae54558ace69200b1ddc31eb48175c92",
        ),
        PublishedSplit(
            "stanford_dogs",
            12000,
            1200,
            "19018fad67335870b70d8b0a7311905b84a8d569557ac7bc645c969b3e078a2d",
        ),
        PublishedSplit(
            "stanford_cars",
            8144,
            815,
            "30839c7756df8cd73c5213b7f8f19a82dfe75351e5199669d6e4c3bf9ebc2924",
        ),
        PublishedSplit(
            "cifar10",
            50000,
            10000,
            "39eecbe0755bb4aa125249b82b9621faef373bb47c7fd0b16b195d7a924a7f96",
        ),
        PublishedSplit(
            "gtsrb",
            26640,
            5328,
            "e242f98ef8758c2fdf4e45990b38d5d4574c9b083dacd6413ea21dc872b48691",
        ),
        PublishedSplit(
            "food101",
            75750,
            15150,
            "3d62c3593909f2b39f32065ab77b96f23159af193848df13047fe316a7129472",
        ),
        PublishedSplit(
            "ucf101",
            7639,
            1528,
            "fc413b0651859e6f335c0053f5cfd7bec6e2c18ca06713211c3f37d86f8dc321",
        ),
        PublishedSplit(
            "svhn_full",
            73257,
            14651,
            "d6d4d3c1a23c26538f490cf5e3d8b15ea68c6f4aceec6b569113f722f2ef4abd",
        ),
    )
}


@checked_arguments
def published(name: str) -> PublishedSplit:
    """The published split of a data set, by its registry name."""
    if name not in PUBLISHED:
        raise InputError(
            f"no split is published for {name!r}; there are {', '.join(sorted(PUBLISHED))}"
        )
    return PUBLISHED[name]


def hold_out(
    labels: np.ndarray,
    *,
    name: str,
    seed: int,
    where: str,
    share: float = 0.2,
    copies: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray, str]:
    """Positions (train, val) of an official training split, and the sentence that says how.

    The published split, where ``name`` has one for as many images; else ``share`` of each class,
    by ``seed``, with ``copies`` and ``groups`` on one side (see `stratified_cut`).
    """
    known = PUBLISHED.get(name)
    if known is not None and known.total == len(labels):
        kept, held = known.indices()
        return kept, held, f"validation is the published split (sha256 {known.checksum[:12]})"
    kept, held = stratified_cut(
        labels,
        (1 - share, share),
        seed=seed,
        where=where,
        copies=copies,
        groups=groups,
        classes=classes,
    )
    part = {0.1: "a tenth", 0.2: "a fifth"}.get(share, f"{share:.0%}")
    return kept, held, f"validation is {part} of train, cut class by class, seed {seed}"


@checked_arguments
def write_split(name: str, path: str | Path) -> None:
    """Write a published split as text: two comment lines, then one held-out position a line."""
    split = published(name)
    _, val = split.indices()
    head = f"{HEADER}: {name}, {split.held_out} of {split.total} held out, seed {SEED}\n"
    lines = "".join(f"{position}\n" for position in val)
    Path(path).write_text(f"{head}# sha256 {split.checksum}\n{lines}", encoding="utf-8")


@checked_arguments
def read_split(path: str | Path) -> np.ndarray:
    """The held-out positions in a file of `write_split`.

    Raises `InputError` if the file is not one, or its checksum does not fit its lines.
    """
    try:
        lines = read_text(path, most=_LARGEST).splitlines()
        positions = np.array([int(line) for line in lines[2:]], dtype=np.int64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a split ({error}); write it again") from error
    if len(lines) < 2 or not lines[0].startswith(HEADER):
        raise InputError(f"{path} is not a split file; expected its first line to be {HEADER!r}")
    if lines[1] != f"# sha256 {checksum(positions)}":
        raise InputError(f"{path} was changed: its positions do not fit its checksum")
    return positions

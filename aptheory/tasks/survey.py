"""One look at every picture of a task: what there is, what is damaged, what stands there twice."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from aptheory.errors import InputError
from aptheory.tasks import pictures
from aptheory.tasks.base import SPLITS, Task
from aptheory.tasks.copies import hash_of, near, prints
from aptheory.tasks.readers.files import FileSplit, decode_image
from aptheory.tasks.split import Split
from aptheory.tasks.views import CentreCropped, Joined, Resized, Selection

PRINT = (8, 9)  # height, width of the picture that a perceptual hash is made of
ALIKE = 6  # mean difference of two small pictures, of 255, up to which they may be one
BATCH = 64


@dataclass
class Look:
    """What was seen of one picture. ``damage`` is the sentence that says why it cannot be read."""

    name: str
    label: int
    size: str = ""
    mode: str = ""
    bits: int = 8
    peculiar: tuple[str, ...] = ()
    content: bytes = b""
    print: int = 0
    thumb: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint8), repr=False)
    flat: bool = False
    damage: str = ""


@dataclass
class Survey:
    """What a look at every picture of a task found: {split: [a `Look` a picture]}."""

    classes: tuple[str, ...]
    looks: dict[str, list[Look]] = field(default_factory=dict)

    def counts(self) -> dict[str, list[int]]:
        """{split: pictures of each class}."""
        return {
            split: np.bincount([look.label for look in looks], minlength=len(self.classes)).tolist()
            for split, looks in self.looks.items()
        }

    def damaged(self, split: str) -> list[str]:
        """A sentence for each picture of a split that cannot be read."""
        return [look.damage for look in self.looks[split] if look.damage]

    def flat(self) -> list[str]:
        """The pictures that are of one colour throughout."""
        return [look.name for look in self._readable() if look.flat]

    def kinds(self) -> dict[str, Counter[str]]:
        """How often each size, mode, depth and peculiarity occurs."""
        looks = list(self._readable())
        return {
            "sizes": Counter(look.size for look in looks),
            "modes": Counter(look.mode for look in looks),
            "bits": Counter(f"{look.bits} bits" for look in looks),
            "read by more than their pixels": Counter(p for look in looks for p in look.peculiar),
        }

    def copies(self) -> list[tuple[str, str, str, str]]:
        """(split, picture, split, picture) of equal contents, the first of each kind first."""
        first: dict[bytes, tuple[str, str]] = {}
        pairs = []
        for split, looks in self.looks.items():
            for look in looks:
                if look.content and not look.damage:
                    other = first.setdefault(look.content, (split, look.name))
                    if other != (split, look.name):
                        pairs.append((*other, split, look.name))
        return pairs

    def copies_across(self) -> list[tuple[str, str, str, str]]:
        """The copies that stand in two splits: what is measured on them was learned by heart."""
        groups: dict[bytes, dict[str, str]] = defaultdict(dict)
        for split, looks in self.looks.items():
            for look in looks:
                if look.content and not look.damage:
                    groups[look.content].setdefault(split, look.name)
        return [
            (a, names[a], b, names[b])
            for names in groups.values()
            for a, b in (("train", "val"), ("train", "test"), ("val", "test"))
            if a in names and b in names
        ]

    def near_across(self) -> list[tuple[str, str, str, str]]:
        """(split, picture, split, picture) that are nearly equal and stand in two splits."""
        pairs = []
        for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
            first, second = ([k for k in self.looks[s] if not k.damage] for s in (a, b))
            values = [
                np.array([k.print for k in looks], dtype=np.uint64) for looks in (first, second)
            ]
            for row, column in near(values[1], values[0]):
                one, other = first[column], second[row]
                away = np.abs(one.thumb.astype(np.int64) - other.thumb).mean()
                if one.content != other.content and away <= ALIKE:
                    pairs.append((a, one.name, b, other.name))
        return pairs

    def two_labels(self) -> list[str]:
        """Pictures of equal contents that stand in two classes."""
        labels: dict[bytes, set[int]] = defaultdict(set)
        names: dict[bytes, str] = {}
        for look in self._readable():
            if look.content:
                labels[look.content].add(look.label)
                names.setdefault(look.content, look.name)
        return [
            f"{names[content]} ({', '.join(self.classes[label] for label in sorted(classes))})"
            for content, classes in labels.items()
            if len(classes) > 1
        ]

    def _readable(self) -> Iterator[Look]:
        for looks in self.looks.values():
            yield from (look for look in looks if not look.damage)


def survey(task: Task, *, progress: bool = True) -> Survey:
    """Look at every picture of a task, once."""
    from tqdm import tqdm

    made = Survey(task.classes)
    for name in SPLITS:
        split = getattr(task, name)
        made.looks[name] = list(
            tqdm(
                _looks(split, name),
                total=len(split),
                desc=f"{task.name} {name}",
                disable=not progress,
                leave=False,
            )
        )
    return made


def file_split_of(split: Split) -> tuple[FileSplit, np.ndarray] | None:
    """The files that a split reads, below selections and crops, and the rows of them."""
    if isinstance(split, FileSplit):
        return split, np.arange(len(split))
    if isinstance(split, Selection):
        inner = file_split_of(split.split)
        return (inner[0], inner[1][split.indices]) if inner else None
    if isinstance(split, CentreCropped | Resized):
        return file_split_of(split.split)
    return None


def _looks(split: Split, name: str) -> Iterator[Look]:
    if isinstance(split, Joined):
        for part in split.splits:
            yield from _looks(part, name)
        return
    files = file_split_of(split)
    if files is None:
        yield from _array_looks(split, name)
        return
    inner, rows = files
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, len(rows), BATCH):  # in parts: a map would queue all of them
            part = rows[start : start + BATCH].tolist()
            yield from pool.map(lambda row: _file_look(inner, row), part)


def _file_look(split: FileSplit, row: int) -> Look:
    look = Look(split.keys[row], int(split.labels[row]))
    try:
        data = split.store.read(split.keys[row])
        small = decode_image(data, split.where(row), PRINT, gain=split.gain, scale=split.scale)
        header = pictures.read_header(data, frames=True)
    except InputError as error:
        look.damage = str(error)
        return look
    look.size, look.mode, look.bits = f"{header.size[0]}×{header.size[1]}", header.mode, header.bits
    words = {
        f"upright from EXIF's {header.orientation}": header.orientation != 1,
        "transparency, on white": header.transparent,
        f"the first of {_number(header.frames)} frames": (header.frames or 1) > 1,
        "the first frame of a file that is cut short": header.frames is None,
    }
    look.peculiar = tuple(word for word, holds in words.items() if holds)
    look.content = hashlib.sha256(data).digest()
    pixels = torch.from_numpy(small.copy()).permute(2, 0, 1)[None]
    look.print, look.thumb = int(prints(pixels)[0]), small
    look.flat = bool(small.min() == small.max())
    return look


def _number(frames: int | None) -> str:
    return f"{frames} or more" if frames == pictures.MOST_FRAMES else str(frames)


def _array_looks(split: Split, name: str) -> Iterator[Look]:
    pixels = getattr(split, "pixels", None)
    size = f"{pixels.shape[2]}×{pixels.shape[1]}" if pixels is not None else ""
    for start in range(0, len(split), BATCH):
        rows = range(start, min(start + BATCH, len(split)))
        try:
            large = split.images(rows, (64, 64)).numpy()
            small = split.images(rows, PRINT)
        except InputError:  # find out which
            yield from (_single(split, row, name) for row in rows)
            continue
        for row, image, thumb, value in zip(rows, large, small, prints(small), strict=True):
            look = Look(f"{name} {row}", int(split.labels[row]), size, f"{len(image)} channels")
            whole = pixels[row] if isinstance(pixels, np.ndarray) else image
            look.content, look.print, look.thumb = hash_of(whole), int(value), thumb.numpy()
            look.flat = bool(image.min() == image.max())
            yield look


def _single(split: Split, row: int, name: str) -> Look:
    look = Look(f"{name} {row}", int(split.labels[row]))
    try:
        image = split.images([row], (64, 64)).numpy()[0]
        small = split.images([row], PRINT)
        look.content, look.print, look.thumb = (
            hash_of(image),
            int(prints(small)[0]),
            small[0].numpy(),
        )
        look.flat = bool(image.min() == image.max())
    except InputError as error:
        look.damage = str(error)
    return look

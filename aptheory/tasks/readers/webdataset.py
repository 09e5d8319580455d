"""``webdataset:PATH``: tar shards whose members group by name: 000001.jpg, 000001.cls, ...

The split is the shard's folder or the start of its name: PATH/train-000000.tar, PATH/test/0.tar.
Tar is read by the standard library; the webdataset package is not needed.
"""

import json
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.base import Task
from aptheory.tasks.readers.files import SUFFIXES, FileSplit, file_stamp
from aptheory.tasks.readers.folder import ALIASES, complete

BLOCK = 512
LAYOUT = "PATH/train-*.tar and PATH/test-*.tar (or PATH/train/*.tar ...)"


class TarStore:
    """Members of several tar files, read at their offsets; a key is "shard/member"."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = str(root)
        self.spans: dict[str, tuple[str, int, int]] = {}

    def add(self, shard: str) -> list[str]:
        """Index one shard; the keys of its members, in order."""
        path = self.root / shard
        keys = []
        try:
            with tarfile.open(path, "r:") as archive:
                end = 0
                for member in archive:
                    if member.isfile():
                        key = f"{shard}/{member.name}"
                        self.spans[key] = (shard, member.offset_data, member.size)
                        keys.append(key)
                        end = member.offset_data + member.size
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{path} cannot be read as tar ({error}); fetch it again") from error
        if not keys or not _ends(path, end):
            raise InputError(f"{path} is empty or cut short; fetch it again")
        return keys

    def names(self) -> list[str]:
        return list(self.spans)

    def read(self, key: str) -> bytes:
        shard, start, length = self.spans[key]
        try:
            with (self.root / shard).open("rb") as file:
                file.seek(start)
                data = file.read(length)
        except OSError as error:
            raise InputError(f"{self.root / shard} cannot be read ({error.strerror})") from error
        if len(data) < length:
            raise InputError(f"{self.root / shard} ends within {key}; fetch it again")
        return data

    def stamp(self, keys: Sequence[str]) -> str:
        shards = sorted({self.spans[key][0] for key in keys})
        return "\n".join([*(f"{s} {file_stamp(self.root / s)}" for s in shards), *keys])


def _ends(path: Path, end: int) -> bool:
    """Whether the two empty blocks that close a tar file follow its last member, which ends at
    byte ``end``. The standard library takes a shard that was cut between two members for whole."""
    with path.open("rb") as file:
        file.seek(-(-end // BLOCK) * BLOCK)
        return file.read(2 * BLOCK) == bytes(2 * BLOCK)


def webdataset_task(path: str | Path, *, name: str | None = None, seed: int = 0) -> Task:
    """The task in a folder of shards. A sample's label is its .cls (a number as text), or the
    key "label" (or "cls") of its .json. A validation split that is not there is cut from train by
    ``seed``. Raises `InputError` naming the shard for a damaged one or a sample without
    image or label.
    """
    path = Path(path)
    shards = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.tar"))
    if not shards:
        raise InputError(f"{path} holds no tar shard; expected {LAYOUT}")
    store = TarStore(path)
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for shard in shards:
        split = _split_of(shard)
        if split is None:
            raise InputError(f"{path / shard}: its name tells no split; expected {LAYOUT}")
        found[split] += _samples(store, store.add(shard))

    def labels_of(files: list[tuple[str, str]]) -> np.ndarray:
        return np.array([int(label) for label, _ in files], dtype=np.int64)

    splits, provenance = complete(dict(found), labels_of, seed, str(path))
    total = max(int(labels_of(files).max()) for files in splits.values()) + 1
    made = {
        split: FileSplit(store, [key for _, key in files], labels_of(files))
        for split, files in splits.items()
    }
    return Task(
        name=name or path.name,
        classes=tuple(str(number) for number in range(total)),
        train=made["train"],
        val=made["val"],
        test=made["test"],
        provenance=provenance.replace("folder", "shard"),
    )


def _split_of(shard: str) -> str | None:
    words = shard.lower().replace("/", "-").replace("_", "-").split("-")
    return next((ALIASES[word] for word in words if word in ALIASES), None)


def _samples(store: TarStore, keys: list[str]) -> list[tuple[str, str]]:
    """[(label, key of the image), ...] in the order of the shard."""
    groups: dict[str, dict[str, str]] = {}
    for key in keys:
        folder, _, file = key.rpartition("/")
        stem, _, extension = file.partition(".")
        groups.setdefault(f"{folder}/{stem}", {})[f".{extension.lower()}"] = key
    samples = []
    for stem, members in groups.items():
        image = next((key for suffix, key in members.items() if suffix.endswith(SUFFIXES)), None)
        label = _label(store, members)
        if image is None or label is None:
            lacking = "image" if image is None else "label (.cls, or label in .json)"
            raise InputError(f"{store.root}: sample {stem} has no {lacking}; repair the shard")
        samples.append((label, image))
    return samples


def _label(store: TarStore, members: dict[str, str]) -> str | None:
    try:
        if ".cls" in members:
            return str(int(store.read(members[".cls"]).decode().strip()))
        if ".json" in members:
            record = json.loads(store.read(members[".json"]))
            value = record.get("label", record.get("cls"))
            return None if value is None else str(int(value))
    except (ValueError, AttributeError, TypeError) as error:
        key = next(iter(members.values()))
        raise InputError(f"{store.root}: the label beside {key} is not a number") from error
    return None

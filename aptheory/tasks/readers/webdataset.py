"""``webdataset:PATH``: tar shards whose members group by name: 000001.jpg, 000001.cls, ...

The split is the shard's folder or the start of its name: PATH/train-000000.tar, PATH/test/0.tar.
Tar is read by the standard library; the webdataset package is not needed.
"""

import json
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aptheory.checked import require_file
from aptheory.errors import InputError
from aptheory.tasks.base import Task
from aptheory.tasks.classes import number_classes, shown
from aptheory.tasks.completing import ALIASES, complete
from aptheory.tasks.copies import same_bytes
from aptheory.tasks.pictures import MAX_BYTES
from aptheory.tasks.readers.files import file_splits
from aptheory.tasks.readers.folder import pick
from aptheory.tasks.readers.stores import file_stamp, is_system
from aptheory.tasks.readers.suffixes import SUFFIXES

BLOCK = 512
LAYOUT = "PATH/train-*.tar and PATH/test-*.tar (or PATH/train/*.tar ...)"


class TarStore:
    """Members of several tar files, read at their offsets; a key is "shard/member"."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # the working directory may change before it is read
        self.place = str(root)
        self.spans: dict[str, tuple[str, int, int]] = {}

    def add(self, shard: str) -> list[str]:
        """Index one shard; the keys of its members, in order."""
        path = self.root / shard
        require_file(path)
        keys, end = [], 0
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    size = member.size if member.isfile() else 0
                    end = max(end, member.offset_data + size)
                    if member.isfile():
                        key = f"{shard}/{member.name}"
                        if key in self.spans:
                            raise InputError(f"{path} holds {member.name} twice; make it again.")
                        self.spans[key] = (shard, member.offset_data, size)
                        keys.append(key)
        except InputError:
            raise
        except Exception as error:  # damaged headers raise more than TarError
            reason = str(error) or type(error).__name__
            raise InputError(f"{path} cannot be read as tar ({reason}); fetch it again.") from error
        if not keys or not _ends(path, end):
            raise InputError(f"{path} is empty or cut short; fetch it again.")
        return keys

    def names(self) -> list[str]:
        return list(self.spans)

    def read(self, key: str) -> bytes:
        shard, start, length = self.spans[key]
        if length > MAX_BYTES:
            raise InputError(f"{self.root / shard}: {key} has {length >> 20} MB; take it out.")
        require_file(self.root / shard)
        try:
            with (self.root / shard).open("rb") as file:
                file.seek(start)
                data = file.read(length)
        except OSError as error:
            raise InputError(
                f"{self.root / shard} cannot be read ({error.strerror}); put it back."
            ) from error
        if len(data) < length:
            raise InputError(f"{self.root / shard} ends within {key}; fetch it again")
        return data

    def stamp(self, keys: Sequence[str]) -> str:
        shards = sorted({self.spans[key][0] for key in keys})
        of_shards = (f"{shard} {file_stamp(self.root / shard)}" for shard in shards)
        return "\n".join([f"{self.root}", *of_shards, *keys])


def _ends(path: Path, end: int) -> bool:
    """Whether the two empty blocks that close a tar file follow its last member, which ends at
    byte ``end``. The standard library takes a shard that was cut between two members for whole."""
    with path.open("rb") as file:
        file.seek(-(-end // BLOCK) * BLOCK)
        return file.read(2 * BLOCK) == bytes(2 * BLOCK)


def webdataset_task(
    path: str | Path,
    *,
    image: str | None = None,
    group: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Task:
    """The task in a folder of shards.

    A sample's label is its .cls, or the key "label" (or "cls") of its .json. Its picture is the
    one file of a picture's suffix, or that of the suffix ``image`` ("jpg", "photo.png"). A
    validation split that is not there is cut from train by ``seed``, and all three where no shard's
    name tells a split; samples of one value under the key ``group`` of the .json stay together.
    Raises `InputError` naming the shard for a damaged one or a sample without image or label.
    """
    path = Path(path)
    if path.is_file():
        raise InputError(f"{path} is a file; give the folder that its shard lies in: {LAYOUT}")
    shards = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.tar"))
    if not shards:
        raise InputError(f"{path} holds no tar shard; expected {LAYOUT}")
    store = TarStore(path)
    samples: dict[str, list[Sample]] = defaultdict(list)
    split_of = {shard: _split_of(shard) for shard in shards}
    for shard, split in split_of.items():
        if split is None and any(split_of.values()):
            raise InputError(f"{path / shard}: its name tells no split; expected {LAYOUT}.")
        samples[split or ""] += _samples(store, store.add(shard), image, group)
    keys = {split: [each.key for each in members] for split, members in samples.items()}
    labels, classes = number_classes(
        {split: [each.label for each in members] for split, members in samples.items()},
        str(path),
        by_value=True,
    )
    parts = complete(
        labels,
        seed=seed,
        where=str(path),
        word="split" if "" in samples else "shard",
        expected=LAYOUT,
        copies=lambda split: same_bytes(store, keys[split]),
        groups=lambda split: [each.group for each in samples[split]] if group else None,
        classes=classes,
    )
    made = file_splits(
        store,
        {split: pick(keys[origin], rows) for split, origin, rows in parts.items()},
        {split: labels[origin][rows] for split, origin, rows in parts.items()},
    )
    return Task(
        name=name or path.name,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        provenance=parts.note,
        notes=made["train"].notes,
    )


def _split_of(shard: str) -> str | None:
    words = shard.lower().replace("/", "-").replace("_", "-").split("-")
    return next((ALIASES[word] for word in words if word in ALIASES), None)


class Sample(NamedTuple):
    """What is read of a sample; ``key`` is that of its picture."""

    label: Any
    key: str
    group: str | None


def _samples(
    store: TarStore, keys: list[str], image: str | None, group: str | None
) -> list[Sample]:
    """The samples in the order of the shard."""
    groups: dict[str, dict[str, str]] = {}
    for key in keys:
        folder, _, file = key.rpartition("/")
        if is_system(file):
            continue
        stem, _, extension = file.partition(".")
        members = groups.setdefault(f"{folder}/{stem}", {})
        if f".{extension.lower()}" in members:
            raise InputError(
                f"{store.root}: sample {folder}/{stem} has several files .{extension.lower()}, "
                "which differ by case alone; repair the shard."
            )
        members[f".{extension.lower()}"] = key
    return [
        Sample(
            _label(store, members, stem),
            _picture(store, members, stem, image),
            None if group is None else _group(store, members, stem, group),
        )
        for stem, members in groups.items()
    ]


def _picture(store: TarStore, members: dict[str, str], stem: str, image: str | None) -> str:
    """The key of a sample's picture: of the suffix asked for, or the only one of a plain suffix."""
    if image is not None:
        chosen = [key for suffix, key in members.items() if suffix == f".{image.lower()}"]
    else:
        chosen = [key for suffix, key in members.items() if suffix in SUFFIXES]
        chosen = chosen or [key for suffix, key in members.items() if suffix.endswith(SUFFIXES)]
    if len(chosen) == 1:
        return chosen[0]
    suffixes = sorted(suffix for suffix, key in members.items() if key in chosen)
    what = f"several images ({shown(suffixes)})" if chosen else "no image"
    raise InputError(
        f"{store.root}: sample {stem} has {what}; repair the shard, or name the suffix: "
        "webdataset:PATH?image=SUFFIX."
    )


def _group(store: TarStore, members: dict[str, str], stem: str, name: str) -> str:
    try:
        return str(json.loads(store.read(members[".json"]))[name])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{store.root}: sample {stem} has no {name!r} in its .json, which is to group it."
        ) from error


def _label(store: TarStore, members: dict[str, str], stem: str) -> Any:
    try:
        if ".cls" in members:
            return store.read(members[".cls"]).decode("utf-8-sig").strip()
        if ".json" in members:
            record = json.loads(store.read(members[".json"]))
            value = record.get("label", record.get("cls"))
            if value is not None:
                return value
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(
            f"{store.root}: the label of sample {stem} cannot be read ({error}); repair the shard."
        ) from error
    raise InputError(
        f"{store.root}: sample {stem} has no label (.cls, or label in .json); repair the shard."
    )

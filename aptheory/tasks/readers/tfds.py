"""``tfds:PATH``: a prepared TensorFlow Datasets folder, read without TensorFlow.

    PATH = .../NAME[/CONFIG]/VERSION with dataset_info.json and
    NAME-SPLIT.tfrecord-00000-of-00004, ... or NAME-SPLIT.array_record-00000-of-00004, ...

The order is that of the record files, which is what tfds slices ("train[:800]") count in.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from aptheory.checked import require_file
from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks.base import Task
from aptheory.tasks.classes import number_classes
from aptheory.tasks.completing import complete
from aptheory.tasks.copies import same_bytes
from aptheory.tasks.readers import labels as rules
from aptheory.tasks.readers.files import file_splits
from aptheory.tasks.readers.folder import pick
from aptheory.tasks.readers.records import Value, parse_example, read_record, record_spans
from aptheory.tasks.readers.stores import file_stamp
from aptheory.tasks.registry import VTAB_NAMES

Example = Mapping[str, Value]
Rule = Callable[[Example], int]

_SLICE = re.compile(r"^(?P<split>[\w-]+)(\[(?P<from>\d+%?)?:(?P<to>\d+%?)?\])?$")
_SHARD = re.compile(r"-(?P<split>[^-.]+)\.(?P<format>tfrecord|array_record)-(\d+)-of-(?P<of>\d+)$")
DEFAULT_SLICES = {"train": "train", "val": "validation", "test": "test"}
LONGEST_NAME = 200  # letters of a set's name


def _number(example: Example, key: str) -> int:
    value = example.get(key)
    if value is None or len(value) != 1 or isinstance(value, list) or value.dtype.kind != "i":
        raise InputError(
            f"an example has no whole number {key!r} ({_what(value)}); it has "
            f"{', '.join(sorted(example))}."
        )
    return int(value[0])


def _what(value: Value | None) -> str:
    """What stands where one whole number should."""
    if value is None or not len(value):
        return "none"
    if isinstance(value, list):
        return "bytes"
    return "floats" if value.dtype.kind == "f" else f"{len(value)} numbers"


def _rows(example: Example, key: str, columns: int) -> np.ndarray:
    try:
        value = np.asarray(example.get(key, []), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{key!r} holds no numbers.") from error
    if value.size % columns:
        raise InputError(f"{key!r} has {value.size} numbers, not a multiple of {columns}")
    return value.reshape(-1, columns)


def _types(example: Example) -> np.ndarray:
    value = example.get("objects/type", [])
    if (isinstance(value, np.ndarray) and value.dtype.kind == "i") or not len(value):
        return np.asarray(value, dtype=np.int64)
    raise InputError("'objects/type' holds no whole numbers.")


#: What each task's label is, from the example's features.
RULES: dict[str, Rule] = {
    "label": lambda e: _number(e, "label"),
    "clevr_count": lambda e: rules.clevr_count(len(_rows(e, "objects/pixel_coords", 3))),
    "clevr_distance": lambda e: rules.clevr_distance(_rows(e, "objects/pixel_coords", 3)),
    "kitti_distance": lambda e: rules.kitti_distance(_types(e), _rows(e, "objects/location", 3)),
    "dsprites_location": lambda e: rules.dsprites_bin(_number(e, "label_x_position"), 32),
    "dsprites_orientation": lambda e: rules.dsprites_bin(_number(e, "label_orientation"), 40),
    "smallnorb_azimuth": lambda e: _number(e, "label_azimuth"),
    "smallnorb_elevation": lambda e: _number(e, "label_elevation"),
}
BINARY = ("dsprites_location", "dsprites_orientation")  # pictures of 0 and 1


class RecordStore:
    """The pictures ("image") of the examples in record shards; a key is "shard#record"."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # the working directory may change before it is read
        self.place = str(root)
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._readers: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def count(self, shard: str) -> int:
        """How many records a shard holds."""
        if ".array_record-" in shard:
            return int(self._reader(shard).num_records())
        return len(self.spans(shard))

    def spans(self, shard: str) -> list[tuple[int, int]]:
        """Where the records of a TFRecord shard lie in it."""
        if shard not in self._spans:
            self._spans[shard] = record_spans(self.root / shard)
        return self._spans[shard]

    def record(self, shard: str, number: int) -> bytes:
        """The bytes of one record."""
        if ".array_record-" in shard:
            try:
                return bytes(self._reader(shard).read([number])[0])
            except Exception as error:  # the library raises several kinds
                raise InputError(f"{self.root / shard}: record {number} is damaged") from error
        return read_record(self.root / shard, self.spans(shard)[number])[0]

    def example(self, key: str, *, skip: str | None = None) -> Example:
        """The parsed example of a key."""
        shard, _, number = key.rpartition("#")
        return parse_example(self.record(shard, int(number)), skip=skip)

    def label(self, key: str, rule: str) -> int:
        """The class that a rule gives to an example."""
        try:
            return RULES[rule](self.example(key, skip="image"))
        except InputError as error:
            raise InputError(f"{self.root}, {key}: {error}") from error

    def names(self) -> list[str]:
        shards = [file.name for file in sorted(self.root.iterdir()) if _SHARD.search(file.name)]
        return [f"{shard}#{number}" for shard in shards for number in range(self.count(shard))]

    def read(self, key: str) -> bytes:
        try:
            image = self.example(key).get("image")
        except InputError as error:
            raise InputError(f"{self.root}, {key}: {error}") from error
        if not isinstance(image, list) or len(image) != 1:
            raise InputError(f"{self.root}: {key} has no feature 'image'")
        return image[0]

    def stamp(self, keys: Sequence[str]) -> str:
        shards = sorted({key.rpartition("#")[0] for key in keys})
        of_shards = (f"{shard} {file_stamp(self.root / shard)}" for shard in shards)
        return "\n".join([f"{self.root}", *of_shards, *keys])

    def _reader(self, shard: str) -> Any:
        if shard not in self._readers:
            try:
                from array_record.python.array_record_module import ArrayRecordReader
            except ImportError as error:
                raise InputError(
                    f"{self.root / shard} needs the array_record package; pip install array_record"
                ) from error
            file_stamp(self.root / shard)
            require_file(self.root / shard)
            try:
                # Groups of one: any record can be read by itself.
                self._readers[shard] = ArrayRecordReader(str(self.root / shard))
            except Exception as error:
                raise InputError(f"{self.root / shard} is damaged ({error})") from error
        return self._readers[shard]


class TfdsFolder:
    """A prepared data set: its splits, their shards, and slices of them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.store = RecordStore(self.path)
        if not (self.path / "dataset_info.json").is_file():
            raise InputError(
                f"{self.path} has no dataset_info.json; expected a prepared TensorFlow Datasets "
                "folder, .../NAME/VERSION"
            )

    @cached_property
    def info(self) -> dict[str, Any]:
        try:
            info = json.loads((self.path / "dataset_info.json").read_text(encoding="utf-8-sig"))
            for stated in info.get("splits", []):
                if any(int(length) < 0 for length in stated.get("shardLengths", [])):
                    raise ValueError("a shard of fewer than 0 records")
            return info
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self.path / 'dataset_info.json'} cannot be read ({error}); prepare it again."
            ) from error

    @property
    def name(self) -> str:
        """What dataset_info.json calls the set, else the folder above the version."""
        name = self.info.get("name")
        usable = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME
        return str(name) if usable else self.path.parent.name

    def has(self, split: str) -> bool:
        """Whether the set has a split: there are files of it, or it says that there should be."""
        found = (_SHARD.search(file.name) for file in self.path.iterdir())
        stated = [each.get("name") for each in self.info.get("splits", [])]
        return split in stated or any(match["split"] == split for match in found if match)

    def shards(self, split: str) -> list[tuple[str, int]]:
        """(file name, number of records) of a split's shards, in order.

        The numbers are those that dataset_info.json states; they are counted where it does not.
        """
        files = {}
        for file in sorted(self.path.iterdir()):
            match = _SHARD.search(file.name)
            if match and match["split"] == split:
                files[file.name] = int(match["of"])
        if not files:
            raise InputError(f"{self.path} has no record file of split {split!r}; prepare it again")
        if len(files) != next(iter(files.values())):
            raise InputError(
                f"{self.path} holds {len(files)} of {next(iter(files.values()))} record files of "
                f"split {split!r}; prepare it again"
            )
        stated: dict[str, Any] = next(
            (s for s in self.info.get("splits", []) if s.get("name") == split), {}
        )
        lengths = [int(length) for length in stated.get("shardLengths", [])]
        if len(lengths) != len(files):
            lengths = [self.store.count(shard) for shard in files]
        return list(zip(files, lengths, strict=True))

    def keys(self, instruction: str) -> list[str]:
        """The keys of a slice such as "train", "train[:800]" or "test[50%:]"."""
        match = _SLICE.match(instruction)
        if not match:
            raise InputError(f"{instruction!r} is not a slice such as train[:800]")
        shards = self.shards(match["split"])
        total = sum(length for _, length in shards)
        start, stop = _bound(match["from"], 0, total), _bound(match["to"], total, total)
        if not 0 <= start < stop <= total:
            raise InputError(
                f"{self.path}: {instruction} asks for records {start} to {stop} of {total}"
            )
        keys, first = [], 0
        for shard, length in shards:
            inside = range(max(start - first, 0), min(stop - first, length))
            if inside and self.store.count(shard) != length:
                raise InputError(
                    f"{self.path / shard} holds {self.store.count(shard)} records, but "
                    f"dataset_info.json says {length}; prepare it again"
                )
            keys += [f"{shard}#{number}" for number in inside]
            first += length
        return keys


def _bound(text: str | None, default: int, total: int) -> int:
    if text is None:
        return default
    return round(total * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def tfds_task(
    path: str | Path,
    *,
    slices: Mapping[str, str] = DEFAULT_SLICES,
    rule: str = "label",
    classes: int | None = None,
    name: str | None = None,
    group: str = "user",
    seed: int = 0,
) -> Task:
    """The task in a prepared TensorFlow Datasets folder.

    ``slices`` gives the tfds slice of each split, ``rule`` the label (a name in `RULES`). Without
    them, a split that the set does not have is cut by ``seed``. Raises `InputError` naming the file
    for missing or damaged records, or features that the rule does not find.
    """
    folder = TfdsFolder(path)
    if slices == DEFAULT_SLICES:
        slices = {key: split for key, split in slices.items() if folder.has(split)} or slices
        slices = {"": slices["train"]} if [*slices] == ["train"] else slices
    wanted = {split: folder.keys(instruction) for split, instruction in slices.items()}
    columns = {
        split: [folder.store.label(key, rule) for key in keys] for split, keys in wanted.items()
    }
    labels, ids = number_classes(
        columns,
        str(folder.path),
        total=classes,
        train_may_lack=name in VTAB_NAMES or rule != "label",
    )
    gain = 255 if rule in BINARY else 1
    cut = None
    if set(wanted) != set(DEFAULT_SLICES):
        copies = partial(_copies, folder.store, wanted)
        cut = complete(labels, seed=seed, where=str(folder.path), copies=copies, classes=ids)
        wanted, labels = (
            {split: pick(wanted[origin], rows) for split, origin, rows in cut.items()},
            {split: labels[origin][rows] for split, origin, rows in cut.items()},
        )
    made = file_splits(folder.store, wanted, labels, gain=gain, resize="squash")
    names = _class_names(folder.path, ids) if rule == "label" else None
    stated = cut.note if cut else ", ".join(f"{split} = {slices[split]}" for split in made)
    return Task(
        name=name or folder.name,
        classes=names or ids,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        preprocessing="TensorFlow Datasets records"
        + (", 0/1 pictures times 255" if gain > 1 else "")
        + f"; grey repeated over 3 channels; {SQUASHED}",
        notes=made["train"].notes,
        provenance=f"tfds {folder.name} {str(folder.info.get('version', ''))[:40]}: {stated}",
    )


def _copies(store: RecordStore, keys: Mapping[str, list[str]], split: str) -> np.ndarray:
    return same_bytes(store, keys[split])


def _class_names(path: Path, ids: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names in label.labels.txt of the classes with these ids."""
    file = path / "label.labels.txt"
    if not file.is_file():
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); prepare it again.") from error
    names = [line for line in lines if line]
    return tuple(names[int(i)] for i in ids) if int(ids[-1]) < len(names) else None

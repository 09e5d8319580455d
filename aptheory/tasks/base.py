"""A task: what the classes are, and three splits of labelled images.

Everything that reads a disk layout or draws images ends in a `Task`, so that nothing above
this room knows where pictures come from. A split keeps pixels as bytes and hands out uint8 images
of the size that a network asks for; normalisation belongs to the network.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from aptheory.arguments import Seed, check_fields, checked_arguments
from aptheory.checked import spelt
from aptheory.errors import InputError
from aptheory.preprocessing import SQUASHED
from aptheory.tasks import describing
from aptheory.tasks.classes import as_column, check_names, number_classes
from aptheory.tasks.copies import kinds, same_images
from aptheory.tasks.guarding import checked_options, guarded
from aptheory.tasks.own import Own
from aptheory.tasks.resizing import transform_of
from aptheory.tasks.split import Split, Steady, digest_of
from aptheory.tasks.splits import balanced_indices, draw_by_class
from aptheory.tasks.splits import folds as cut_folds
from aptheory.tasks.views import ArraySplit, CentreCropped, Joined, Resized, Selection

POOL = 4
"""A subset's pool holds up to four times the images that are drawn from it at once."""
SPLITS = ("train", "val", "test")
_log = logging.getLogger("aptheory")


def as_labels(labels: Any, classes: int, where: str) -> np.ndarray:
    """``labels`` as int64, or an `InputError` naming ``where`` for what is no class, or no
    number of one of ``classes``."""
    array = as_column(labels, where)
    if array.dtype == object:
        raise InputError(
            f"{where}: labels are texts such as {array[0]!r}; number them by the classes, or make "
            "the task with Task.from_arrays, which does."
        )
    if len(array) and not classes:
        raise InputError(f"{where}: there are labels but no classes; name the classes.")
    if len(array) and array.max() >= classes:
        raise InputError(
            f"{where}: labels run from {array.min()} to {array.max()}, but there are {classes} "
            f"classes; expected 0 to {classes - 1}."
        )
    return array


@dataclass(frozen=True, repr=False)
class Task:
    """An image classification task with three splits.

    ``group`` is "natural", "specialized", "structured", "fine-grained" or "user";
    ``preprocessing`` says in words what happens to an image before the network's normalisation,
    where the splits are asked for a size alone (`preprocessing_for` says it for a network);
    ``provenance`` says where the splits come from, a seeded cut included; ``notes`` are sentences
    on how pictures and labels were read, and ``left_out`` counts, by kind, what was not.
    ``pool`` holds the images that training and validation images can be drawn from anew
    (`drawn_from`).
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    group: str = "user"
    preprocessing: str = SQUASHED
    provenance: str = ""
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict, hash=False)
    pool: Split | None = None

    def __post_init__(self) -> None:
        check_fields(self, "a task")
        check_names(self.classes, f"task {self.name[:80]!r}")
        for name in SPLITS:
            split = getattr(self, name)
            if not len(split):
                raise InputError(
                    f"task {self.name!r} has no image in its {name} split; expected at least one."
                )
            object.__setattr__(self, name, self._settled(split, name))
        object.__setattr__(self, "name", spelt(self.name))
        object.__setattr__(self, "classes", tuple(map(spelt, self.classes)))

    def _settled(self, split: Split, name: str) -> Split:
        """The split with numbers for labels, and what is not ours wrapped."""
        where = f"task {self.name!r}, {name} split"
        labels = as_column(split.labels, where)
        if labels.dtype == object and isinstance(split, ArraySplit):
            numbers, _ = number_classes({name: labels}, where, names=self.classes)
            return ArraySplit(split.pixels, numbers[name])
        as_labels(labels, len(self.classes), where)  # refuses texts
        if isinstance(split, Steady):
            return split
        return Own(split, labels, where)

    @staticmethod
    def from_arrays(images: Any, labels: Any, **options: Any) -> "Task":
        """The task of arrays (n, height, width, channels) and labels, or of {split: array} each.

        ``names`` are the classes that ids count in, ``value_range`` the range of floats that is not
        0 to 1, ``name`` and ``seed`` as in `aptheory.task`.
        """
        if not isinstance(images, Mapping):
            images, labels = {"": images}, {"": labels}
        if not isinstance(labels, Mapping):
            raise InputError("images are given by split and labels are not; give both by split.")
        from_splits = {_split_name(key): value for key, value in images.items()}
        columns = {_split_name(key): value for key, value in labels.items()}
        if set(from_splits) != set(columns):
            raise InputError(
                f"images are of the splits {', '.join(from_splits)} and labels of "
                f"{', '.join(columns)}; give both for each."
            )
        return _read("from_arrays", "readers.memory.array_task", from_splits, columns, **options)

    @staticmethod
    def from_dataset(data: Any, **options: Any) -> "Task":
        """The task of a torch data set, or of {split: data set}.

        ``image`` and ``label`` say where in a sample they are, ``together`` (a place, or a function
        of a sample) what is never torn apart by a cut.
        """
        return _read("from_dataset", "readers.memory.dataset_task", data, **options)

    @staticmethod
    def from_frame(table: Any, **options: Any) -> "Task":
        """The task of a DataFrame with a row a picture: ``path``, ``label``, ``split`` and
        ``group`` name its columns, ``root`` the folder of relative paths."""
        return _read("from_frame", "readers.table.frame_task", table, **options)

    @staticmethod
    def from_hub(data: Any, **options: Any) -> "Task":
        """The task of a Dataset or DatasetDict of Hugging Face: ``image``, ``label`` and ``group``
        name its columns."""
        return _read("from_hub", "readers.huggingface.hub_task", data, **options)

    def __repr__(self) -> str:
        return describing.text(self)

    def _repr_html_(self) -> str:
        return describing.page(self)

    @checked_arguments
    def folds(
        self, count: int, *, seed: Seed = 0, groups: Sequence[Any] | None = None
    ) -> "list[Task]":
        """``count`` tasks over all pictures of this one, each picture tested once.

        Fold i tests on part i, selects on the next and trains on the rest; parts hold each class
        in the same proportion. Copies of one picture stay in one part, and so do pictures of an
        equal value in ``groups``, one for each picture of train, val and test in that order.
        """
        everything = Joined(*(getattr(self, name) for name in SPLITS))
        if groups is not None and len(groups) != len(everything):
            raise InputError(
                f"there are {len(groups)} groups for {len(everything)} pictures of task "
                f"{self.name!r}; give one for each of train, val and test, in that order."
            )
        if not 3 <= count <= len(everything):
            raise InputError(
                f"{count} folds of {len(everything)} pictures were asked for; expected 3 or more, "
                "one to train on, and a picture each."
            )
        parts = cut_folds(
            everything.labels,
            count,
            seed=seed,
            where=f"task {self.name!r}",
            copies=None if everything.random else same_images(everything),
            groups=None if groups is None else kinds([str(value) for value in groups]),
        )
        return [self._fold(everything, parts, number, seed) for number in range(count)]

    def _fold(self, everything: Split, parts: list[np.ndarray], number: int, seed: int) -> "Task":
        test, val = parts[number], parts[(number + 1) % len(parts)]
        train = np.setdiff1d(np.arange(len(everything)), np.concatenate([test, val]))
        note = f"fold {number + 1} of {len(parts)}, seed {seed}"
        return replace(
            self,
            train=Selection(everything, train),
            val=Selection(everything, val),
            test=Selection(everything, test),
            pool=None,
            provenance=f"{self.provenance}; {note}" if self.provenance else note,
        )

    @checked_arguments
    def augmented(self, transform: Callable[..., Any]) -> "Task":
        """The task whose training pictures pass ``transform``, drawn anew at every look."""
        return _reader("augmenting.augmented")(self, transform)

    @cached_property
    def digest(self) -> str:
        """sha256 over the classes, the preprocessing and the data of the three splits. Computed
        when first asked for; the name and the place on disk are not part of it."""
        parts = [*self.classes, self.preprocessing, *(digest_of(getattr(self, n)) for n in SPLITS)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def preprocessing_for(self, net: Any) -> str:
        """What happens to an image on its way to ``net``, before its normalisation, in words."""
        transform = transform_of(self.train, net)
        if transform.plain or SQUASHED in self.preprocessing:
            return self.preprocessing.replace(SQUASHED, str(transform))
        return f"{self.preprocessing}; {transform}"

    @checked_arguments
    def resized(self, resize: str) -> "Task":
        """The same task with its pictures made images in another way than its own.

        ``resize`` is "network" (the network's own evaluation transform: what folders, lists and
        Hugging Face sets do), "squash" (the whole picture, bilinear, aspect ratio not kept: what
        arrays and VTAB do), "center" or "border" (see `aptheory.preprocessing.Transform`). A crop
        that belongs to the task, as FGVC's, gives way. Raises `InputError` for any other.
        """
        cropped = isinstance(self.train, CentreCropped)
        preprocessing = SQUASHED if cropped else self.preprocessing
        splits: dict[str, Any] = {name: Resized(getattr(self, name), resize) for name in SPLITS}
        if self.pool is not None:
            splits["pool"] = Resized(self.pool, resize)
        return replace(self, preprocessing=preprocessing, **splits)

    @property
    def train_and_val(self) -> Split:
        """Training images followed by validation images: what the VTAB protocol trains on after
        the selection."""
        return Joined(self.train, self.val)

    @cached_property
    def drawn_from(self) -> Split:
        """What a seed that redraws its images draws them from: ``pool``, or training and validation
        images together."""
        return self.train_and_val if self.pool is None else self.pool

    @checked_arguments
    def subset(
        self,
        *,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
        seed: Seed = 0,
    ) -> "Task":
        """The same task with fewer images: seeded, and as balanced over classes as the data allow.

        ``None`` keeps a split whole, as does a number that is not smaller than the split. With
        one seed the smaller subset lies inside the larger one. The subset's pool is drawn from
        this task's: of each class up to four times what the new training and validation splits
        have together, so that two draws share about a quarter of their images where there are
        enough. Raises `InputError` for a number below 1, and for fewer training images than there
        are classes among them.
        """
        chosen: dict[str, Split] = {}
        for number, (name, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
            split: Split = getattr(self, name)
            if count is None or count >= len(split):
                if count is not None and count > len(split):
                    have = f"{len(split)} {name} images of {self.name}"
                    _log.info("all %s are taken: %d were asked for", have, count)
                continue
            present = len(np.unique(split.labels))
            least = present if name == "train" else 1
            if count < least:
                raise InputError(
                    f"task {self.name!r}: {count} {name} images were asked for; "
                    f"expected at least {least}" + (", one a class." if name == "train" else ".")
                )
            indices = balanced_indices(split.labels, count, seed=(seed, number))
            chosen[name] = Selection(split, indices)
        if not chosen:
            return self
        sizes = ", ".join(f"{name} {len(split)}" for name, split in chosen.items())
        note = f"class-balanced subset ({sizes}), seed {seed}"
        provenance = f"{self.provenance}; {note}" if self.provenance else note
        changes: dict[str, Any] = {**chosen, "provenance": provenance}
        smaller = replace(self, **changes)
        if "train" not in chosen and "val" not in chosen:
            return smaller
        wanted = POOL * np.bincount(smaller.train_and_val.labels, minlength=len(self.classes))
        (rows,) = draw_by_class(self.drawn_from.labels, [wanted], seed=(seed, len(SPLITS)))
        return replace(smaller, pool=Selection(self.drawn_from, rows))


def _reader(path: str) -> Any:
    """A function of this room, by name: the readers stand above the task that they make."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"aptheory.tasks.{module}"), name)


def _read(maker: str, reader_path: str, /, *data: Any, **options: Any) -> Task:
    """The task that a reader makes of data in memory, or one sentence."""
    reader = _reader(reader_path)
    plain = checked_options(reader, f"Task.{maker}", len(data), options)
    return guarded(f"what Task.{maker} is given", lambda: reader(*data, **plain))


def _split_name(key: Any) -> str:
    from aptheory.tasks.completing import ALIASES

    if key != "" and str(key).lower() not in ALIASES:
        raise InputError(f"a split is called {key!r}; expected train, val or test.")
    return ALIASES.get(str(key).lower(), "")

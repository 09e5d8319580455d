"""What is held in memory: arrays, and anything whose ``[i]`` is a picture and its label.

That is a torch Dataset (torchvision's included), a Subset or a DataLoader of one, a list of pairs;
samples are tuples (the picture, the label, perhaps more) or dicts.
"""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aptheory.arguments import Seed
from aptheory.errors import InputError, reason_of
from aptheory.preprocessing import SQUASHED, Size, fit_pixels
from aptheory.tasks import pictures
from aptheory.tasks.arrays import Range, refuse_mask, shaped, to_pixels
from aptheory.tasks.base import Task
from aptheory.tasks.classes import as_column, number_classes, shown
from aptheory.tasks.completing import ALIASES, complete
from aptheory.tasks.copies import same_images, same_rows
from aptheory.tasks.guarding import users
from aptheory.tasks.own import Own, Unlabelled
from aptheory.tasks.readers.folder import require_every_class
from aptheory.tasks.split import Indices, Split
from aptheory.tasks.views import ArraySplit, Selection

IMAGES = ("image", "img", "picture", "photo", "pixel_values", "pixels", "x")
LABELS = ("label", "labels", "fine_label", "class", "target", "targets", "y")
Key = int | str
_log = logging.getLogger("aptheory")


def array_task(
    images: Mapping[str, Any],
    labels: Mapping[str, Any],
    *,
    where: str = "arrays",
    name: str = "arrays",
    names: Sequence[str] | None = None,
    group: str = "user",
    seed: Seed = 0,
    value_range: Range | None = None,
    together: Mapping[str, Sequence[Hashable]] | None = None,
    every_class: bool = False,
    source: str = "arrays",
    left_out: Mapping[str, int] | None = None,
) -> Task:
    """The task of arrays: ``images`` and ``labels`` are {split: array}; the one split "" is cut.

    ``names`` are the classes that ids count in; ``together`` gives a value for each picture of a
    split, and pictures of one value are never torn apart. Raises `InputError` naming ``where``.
    """
    columns, classes = number_classes(
        {split: _numbered(values, names, where, split) for split, values in labels.items()},
        where,
        names=names,
    )
    called = {split: f"x_{split}" if split else "x" for split in images}
    images = {split: shaped(images[split], f"{where}: {called[split]}") for split in images}
    for split, values in columns.items():
        if len(images[split]) != len(values):
            raise InputError(
                f"{where}: {split or 'it'} has {len(images[split])} images but {len(values)} "
                "labels."
            )
        if every_class:
            require_every_class(values, classes, f"{where}: the {split} split" if split else where)
    made, notes, scales = to_pixels(
        {called[split]: images[split] for split in images}, where, value_range=value_range
    )
    pixels = {split: made[called[split]] for split in images}
    for split, array in pixels.items():
        _warn_of_constants(array, f"{where}, {split or 'all'}")
    parts = complete(
        columns,
        seed=seed,
        where=where,
        name=name,
        copies=lambda split: same_rows(pixels[split]),
        groups=lambda split: list(together[split]) if together else None,
        classes=classes,
    )
    whole = {
        split: ArraySplit(pixels[split], columns[split], scale=scales.get(called[split]))
        for split in columns
    }
    splits = {split: whole[origin].rows(rows) for split, origin, rows in parts.items()}
    return Task(
        name=name,
        classes=classes,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        group=group,
        preprocessing="; ".join([*sorted(notes), SQUASHED]),
        provenance=f"{source}: {parts.note}",
        notes=tuple(f"{note[:1].upper()}{note[1:]}." for note in notes),
        left_out=dict(left_out or {}),
    )


def dataset_task(
    data: Any,
    *,
    name: str = "",
    image: Key | None = None,
    label: Key | None = None,
    names: Sequence[str] | None = None,
    group: str = "user",
    seed: Seed = 0,
    together: Callable[[Any], Hashable] | Key | None = None,
) -> Task:
    """The task of a data set in memory, or of a mapping {split: data set}.

    ``image`` and ``label`` are the places in a sample (a position or a key) where they are not
    plain to see; ``together`` is a place in a sample, or a function of the sample, whose equal
    values are never torn apart. Pictures are read when they are asked for; a data set that draws
    them anew stays random. Raises `InputError` for what is no sample, and for an unclear choice.
    """
    sets = data if isinstance(data, Mapping) else {"": data}
    splits: dict[str, Samples] = {}
    left_out: dict[str, int] = {}
    for key, part in sets.items():
        split = ALIASES.get(str(key).lower(), "")
        if split or not isinstance(data, Mapping):
            if split in splits:
                raise InputError(f"two of the data sets are {split}: {shown(list(sets))}.")
            splits[split] = Samples(_map_style(part), image, label, f"data set {key}".strip())
            dropped = _dropped(part, len(splits[split]))
            if dropped:
                left_out["sample that its DataLoader leaves out"] = dropped
        else:
            left_out[f"data set {key!r}, which is no split"] = (
                len(part) if hasattr(part, "__len__") else 1
            )
    if not splits:
        raise InputError(f"the data sets are called {shown(list(sets))}; expected one train.")
    where = f"data set {type(next(iter(sets.values()))).__name__}"
    first = next(iter(splits.values()))
    names = names or first.classes
    columns = {split: samples.read_labels() for split, samples in splits.items()}
    if names is not None and any(_too_few(column, names) for column in columns.values()):
        names = None
    labels, classes = number_classes(columns, where, names=names)
    whole = {split: Own(samples, labels[split], where) for split, samples in splits.items()}
    parts = complete(
        labels,
        seed=seed,
        where=where,
        copies=lambda split: None if whole[split].random else same_images(whole[split]),
        groups=lambda split: splits[split].groups(together),
        classes=classes,
    )
    made: dict[str, Split] = {
        split: whole[origin] if len(rows) == len(whole[origin]) else Selection(whole[origin], rows)
        for split, origin, rows in parts.items()
    }
    return Task(
        name=name or type(next(iter(sets.values()))).__name__.lower(),
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        group=group,
        provenance=f"{where}, {first.choice}; {parts.note}",
        left_out=left_out,
    )


def unlabelled(images: Any) -> Unlabelled:
    """Plain pictures, an array (n, height, width, channels) or a list of Pillow's, as a split."""
    if isinstance(images, np.ndarray):
        pixels, *_ = to_pixels({"images": images}, "the pictures")
        return Unlabelled(ArraySplit(pixels["images"], np.zeros(len(images), dtype=np.int64)))
    samples = Samples([(image, 0) for image in images], 0, 1, "pictures")
    return Unlabelled(Own(samples, np.zeros(len(samples), dtype=np.int64), "pictures"))


class Samples:
    """The pictures of a map-style data set. ``choice`` says what of a sample they are."""

    resize = "network"

    def __init__(self, data: Any, image: Key | None, label: Key | None, where: str) -> None:
        self.data = data
        self.where = where
        self.size = _length(data, where)
        if not self.size:
            raise InputError(f"{where} is empty; expected at least one picture.")
        self.image, self.label = places(self.sample(0), image, label, where)
        self.choice = f"picture {self.image!r}, label {self.label!r} of a sample"
        base, rows = _unwrapped(data)
        names = getattr(base, "classes", None)
        self.classes = tuple(map(str, names)) if isinstance(names, list | tuple) else None
        self._base, self._rows = base, rows
        self.labels = np.zeros(self.size, dtype=np.int64)  # until they are read and numbered

    def __len__(self) -> int:
        return self.size

    def sample(self, row: int) -> Any:
        """One sample, or an `InputError` naming it."""
        try:
            return self.data[row]
        except InputError:
            raise
        except Exception as error:
            reason = reason_of(error)
            raise InputError(
                f"{self.where}: sample {row} cannot be read ({reason}); repair it or take it out."
            ) from error

    def read_labels(self) -> np.ndarray:
        """The label of each sample: from the data set's own list where that agrees with its first
        and last samples, else from the samples."""
        for attribute in ("targets", "labels", "_labels", "y"):
            values = getattr(self._base, attribute, None)
            if values is None or isinstance(values, str) or not hasattr(values, "__len__"):
                continue
            values = values if self._rows is None else [values[i] for i in self._rows]
            if len(values) == self.size and self._agrees(values):
                return as_column(values, self.where)
        return as_column([self._label(self.sample(row)) for row in range(self.size)], self.where)

    def _agrees(self, values: Any) -> bool:
        return all(
            np.array_equal(np.asarray(values[row]), np.asarray(self._label(self.sample(row))))
            for row in {0, self.size // 2, self.size - 1}
        )

    def _label(self, sample: Any) -> Any:
        try:
            value = sample[self.label]
        except (KeyError, IndexError, TypeError):
            return None
        return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value

    def groups(self, together: Callable[[Any], Hashable] | Key | None) -> list[str] | None:
        """The value of ``together`` for each sample, as text."""
        if together is None:
            return None
        read = users(together, "together") if callable(together) else self._part(together)
        return [str(read(self.sample(row))) for row in range(self.size)]

    def _part(self, key: Key) -> Callable[[Any], Any]:
        if key not in (items := _items(self.sample(0), self.where)):
            raise InputError(f"{self.where}: a sample has no {key!r}; it has {shown(list(items))}.")
        return lambda sample: sample[key]

    def images(self, indices: Indices, size: Size) -> Tensor:
        """The pictures at ``indices``, resized; bytes, or floats as the data set gives them."""
        made = [
            fit_pixels(picture_tensor(self.sample(int(i))[self.image], f"{self.where}: {i}"), size)
            for i in indices
        ]
        if len({image.shape[1] for image in made}) > 1:  # grey among colours
            made = [image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image for image in made]
        if len({(image.shape[1], image.dtype) for image in made}) > 1:
            raise InputError(
                f"{self.where}: pictures have unlike channels or types; expected as many in each."
            )
        return torch.cat(made)


def places(sample: Any, image: Key | None, label: Key | None, where: str) -> tuple[Key, Key]:
    """Where in a sample the picture and the label are; `InputError` where that is unclear."""
    items = _items(sample, where)
    pictures_there = [key for key, value in items.items() if looks_like_picture(value)]
    if image is None:
        called = [key for key in pictures_there if str(key).lower() in IMAGES]
        candidates = called if len(called) == 1 else pictures_there
        if len(candidates) != 1:
            many = f"several pictures ({shown(candidates)})" if candidates else "no picture"
            raise InputError(
                f"{where}: a sample has {many} among {shown(list(items))}; say which is meant: "
                "Task.from_dataset(data, image=..., label=...)."
            )
        image = candidates[0]
    rest = [key for key in items if key != image and key not in pictures_there]
    if label is None:
        called = [key for name in LABELS for key in rest if str(key).lower() == name]
        keys = list(items)
        first, last = keys.index(image) > 0, keys.index(image) < len(keys) - 1
        if first and last and not isinstance(sample, Mapping) and keys[0] in rest:
            raise InputError(  # what stands first may be the number of the sample
                f"{where}: a sample has values on both sides of its picture, and which is the "
                "label is not plain; say so: Task.from_dataset(data, label=...)."
            )
        label = next(iter(called or rest), None)
    for what, key in (("picture", image), ("label", label)):
        if key is None or key not in items:
            raise InputError(
                f"{where}: a sample has no {what} {'' if key is None else repr(key)} among "
                f"{shown(list(items))}; say where it is: Task.from_dataset(data, image=..., "
                "label=...)."
            )
    return image, label  # type: ignore[return-value]  # neither is None: the loop refused it


def looks_like_picture(value: Any) -> bool:
    """Whether a value of a sample may be a picture: of Pillow, or an array of two or three axes."""
    if hasattr(value, "convert") and hasattr(value, "getbands"):
        return min(value.size) > 0
    return hasattr(value, "shape") and len(value.shape) in (2, 3) and min(value.shape) > 0


def picture_tensor(value: Any, where: str) -> Tensor:
    """(1, channels, height, width) of a picture: bytes, or floats as they are."""
    if not looks_like_picture(value):
        shape = getattr(value, "shape", getattr(value, "size", None))
        what = f"a {type(value).__name__}" if shape is None else f"of shape {tuple(shape)}"
        raise InputError(
            f"{where} is {what}; expected a picture: Pillow's, or an array of two or three axes."
        )
    refuse_mask(value, where)
    if hasattr(value, "getbands"):
        return torch.from_numpy(_pillow(value, where)).permute(2, 0, 1)[None]
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        tensor = tensor[None] if tensor.ndim == 2 else tensor
    else:
        array = np.asarray(value)
        array = array[..., None] if array.ndim == 2 else array
        last = array.shape[-1] <= 4 or array.shape[0] > array.shape[-1]  # height, width, channels
        tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1) if last else array))
    if tensor.dtype == torch.bool:
        tensor = tensor.to(torch.uint8) * 255
    elif not tensor.is_floating_point() and tensor.dtype != torch.uint8:
        if int(tensor.min()) < 0 or int(tensor.max()) > 255:
            raise InputError(
                f"{where} is {tensor.dtype} from {int(tensor.min())} to {int(tensor.max())}; give "
                "bytes, or arrays to Task.from_arrays, which brings them to 8 bits."
            )
        tensor = tensor.to(torch.uint8)
    return tensor[None]


def _pillow(image: Any, where: str) -> np.ndarray:
    try:
        image.load()
        if image.mode[0] in "IF":
            values = np.asarray(image)
            low, high, whole = pictures.range_of(values)
            if low < 0 or high > 255 or not whole:
                raise ValueError(f"values {low:g} to {high:g}; give arrays to Task.from_arrays")
            return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
        return np.array(pictures.on_ground(pictures.upright(image)), dtype=np.uint8)
    except Exception as error:
        raise InputError(f"{where} cannot be decoded ({error}); replace it.") from error


def _items(sample: Any, where: str) -> dict[Key, Any]:
    if isinstance(sample, Mapping):
        return dict(sample)
    if isinstance(sample, tuple | list):
        return dict(enumerate(sample))
    raise InputError(
        f"{where}: a sample is a {type(sample).__name__}; expected (picture, label) or a dict."
    )


def _length(data: Any, where: str) -> int:
    try:
        return len(data)
    except TypeError as error:
        raise InputError(f"{where} has no length; read it into a list first.") from error


def _unwrapped(data: Any) -> tuple[Any, Sequence[int] | None]:
    """The data set below torch Subsets, and the rows of it."""
    rows: Sequence[int] | None = None
    while hasattr(data, "dataset") and hasattr(data, "indices"):
        rows = list(data.indices) if rows is None else [data.indices[i] for i in rows]
        data = data.dataset
    return data, rows


def _map_style(data: Any) -> Any:
    """What can be indexed: itself, the data set of a plain DataLoader, else all that comes."""
    if hasattr(data, "batch_sampler") and hasattr(data, "dataset"):
        from torch.utils.data import RandomSampler, SequentialSampler, default_collate

        plain = isinstance(data.sampler, RandomSampler | SequentialSampler)
        every = hasattr(data.dataset, "__len__") and plain and not data.drop_last
        every = every and len(data.sampler) == len(data.dataset)
        if every and data.collate_fn is default_collate:
            return data.dataset
        return [sample for batch in data for sample in _unbatched(batch)]
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return data
    if hasattr(data, "__iter__"):
        _log.info("a %s is read into memory once", type(data).__name__)
        return list(data)
    raise InputError(
        f"a {type(data).__name__} is no task: give a name, a place such as folder:PATH, a data "
        "set, a table or arrays."
    )


def _dropped(data: Any, count: int) -> int:
    """How many samples a DataLoader leaves out: the last of them, or by its sampler."""
    below: Any = getattr(data, "dataset", None) if hasattr(data, "batch_sampler") else None
    return max(0, len(below) - count) if hasattr(below, "__len__") else 0


def _unbatched(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        count = len(next(iter(batch.values())))
        return [{key: values[row] for key, values in batch.items()} for row in range(count)]
    return [tuple(values[row] for values in batch) for row in range(len(batch[0]))]


def _numbered(values: Any, names: Sequence[str] | None, where: str, split: str) -> Any:
    return as_column(values, f"{where}: y_{split}" if split else f"{where}: y")


def _too_few(column: np.ndarray, names: Sequence[str]) -> bool:
    """Whether ids go beyond the names: then the names are of something else."""
    return column.dtype != object and len(column) > 0 and int(column.max()) >= len(names)


def _warn_of_constants(pixels: np.ndarray, where: str) -> None:
    flat = (pixels == pixels[:, :1, :1]).all(axis=(1, 2, 3))
    if flat.any():
        _log.warning(
            "%s: %d of %d pictures are of one colour throughout", where, flat.sum(), len(pixels)
        )

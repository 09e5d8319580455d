"""``torchvision:NAME``: torchvision's own data sets, where they have been downloaded."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError, reason_of
from aptheory.preprocessing import Size, fit_picture
from aptheory.tasks.base import Task
from aptheory.tasks.cache import data_folder
from aptheory.tasks.classes import as_column
from aptheory.tasks.completing import complete
from aptheory.tasks.copies import hash_of, kinds, same_bytes, same_rows
from aptheory.tasks.readers.stores import FolderStore
from aptheory.tasks.split import Split, Steady
from aptheory.tasks.views import ArraySplit, Selection

_FLAG = {"train": {"train": True}, "test": {"train": False}}
_TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_TWO, "val": {"split": "val"}}
_NONE: dict[str, dict[str, Any]] = {"": {}}
#: How each class says which split is meant; "" where there are no official splits.
BUILDERS: dict[str, dict[str, dict[str, Any]]] = {
    "CIFAR10": _FLAG,
    "CIFAR100": _FLAG,
    "MNIST": _FLAG,
    "FashionMNIST": _FLAG,
    "KMNIST": _FLAG,
    "SVHN": _TWO,
    "STL10": _TWO,
    "GTSRB": _TWO,
    "Food101": _TWO,
    "StanfordCars": _TWO,
    "DTD": _THREE,
    "Flowers102": _THREE,
    "PCAM": _THREE,
    "FGVCAircraft": _THREE,
    "RenderedSST2": _THREE,
    "Country211": {**_TWO, "val": {"split": "valid"}},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "EuroSAT": _NONE,
    "SUN397": _NONE,
    "Caltech101": _NONE,
}


class IndexedSplit(Steady):
    """Images of anything whose ``[i]`` is (a Pillow image, a label)."""

    resize = "network"

    def __init__(self, dataset: Any, labels: np.ndarray) -> None:
        self.dataset = dataset
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: int, size: Size | None) -> np.ndarray:
        """One image, uint8 (height, width, 3)."""
        try:
            image = self.dataset[index][0].convert("RGB")
            if size is not None:
                image = fit_picture(image, size)
            return np.asarray(image, dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            name = type(self.dataset).__name__
            raise InputError(
                f"image {index} of torchvision's {name} cannot be decoded ({error}); "
                "fetch the data set again"
            ) from error

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            made = list(pool.map(lambda index: self.pixels(index, size), indices.tolist()))
        return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256(b"indexed")
        for index, label in enumerate(self.labels):
            pixels = self.pixels(index, None)
            hasher.update(f"{pixels.shape} {label}".encode())
            hasher.update(np.ascontiguousarray(pixels).data)
        return hasher.hexdigest()


def torchvision_task(
    builder: str | Path,
    *,
    root: str | Path | None = None,
    name: str | None = None,
    group: str = "user",
    seed: int = 0,
) -> Task:
    """torchvision's data set of that class name, from ``root`` (see `data_folder`).

    Nothing is downloaded. Where there is no validation split, the published one is taken if the
    registry has one (``name``), else a fifth of train is held out by ``seed``; without any split
    60/20/20 are cut. Raises `InputError` for a name that is not known, and with the
    command that fetches the data if they are not there.
    """
    builder = str(builder)
    if builder not in BUILDERS:
        raise InputError(f"no torchvision set {builder!r}; known are {', '.join(BUILDERS)}")
    folder = data_folder(root)
    made = {split: _open(builder, folder, options) for split, options in BUILDERS[builder].items()}
    splits, provenance = _complete(made, name or builder.lower(), seed, f"torchvision {builder}")
    classes = _classes(next(iter(made.values())), splits)
    return Task(
        name=name or builder.lower(),
        classes=classes,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        group=group,
        provenance=provenance,
    )


def download_command(builder: str, root: Path) -> str:
    """The command that lets torchvision fetch the data set."""
    calls = "; ".join(
        f"datasets.{builder}({str(root)!r}, download=True"
        + "".join(f", {key}={value!r}" for key, value in options.items())
        + ")"
        for options in BUILDERS[builder].values()
    )
    return f'python -c "from torchvision import datasets; {calls}"'


def _open(builder: str, root: Path, options: dict[str, Any]) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, builder)(str(root), download=False, **options)
    except (RuntimeError, OSError) as error:
        reason = reason_of(error)
        raise InputError(
            f"torchvision's {builder} is not whole in {root} ({reason}); fetch it with: "
            f"{download_command(builder, root)}"
        ) from error
    except Exception as error:  # unpickling or parsing damaged files may raise anything
        raise InputError(
            f"torchvision's {builder} in {root} cannot be read ({type(error).__name__}: {error}); "
            "delete it and fetch it again"
        ) from error


def _split(dataset: Any) -> Split:
    labels = None
    for attribute in ("targets", "labels", "_labels", "y"):
        labels = getattr(dataset, attribute, None)
        if labels is not None:
            break
    if labels is None:
        pairs = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None)
        labels = [label for _, label in pairs] if pairs else [y for _, y in dataset]
    y = as_column(labels, f"torchvision's {type(dataset).__name__}")
    data = getattr(dataset, "data", None)
    if data is None:
        return IndexedSplit(dataset, y)
    pixels = np.asarray(data)
    if pixels.ndim == 3:  # grey
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    elif pixels.shape[1] == 3 and pixels.shape[3] != 3:  # channels first
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return ArraySplit(pixels, y)


def _classes(dataset: Any, splits: dict[str, Split]) -> tuple[str, ...]:
    total = int(max(split.labels.max() for split in splits.values())) + 1
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is not None and len(names) >= total:
        return tuple(str(value) for value in names)
    return tuple(str(value) for value in range(total))


def _complete(
    made: dict[str, Any], name: str, seed: int, where: str
) -> tuple[dict[str, Split], str]:
    whole = {split: _split(dataset) for split, dataset in made.items()}
    parts = complete(
        {split: part.labels for split, part in whole.items()},
        seed=seed,
        where=where,
        name=name,
        copies=lambda split: _copies(whole[split]),
    )
    splits = {
        split: whole[origin] if len(rows) == len(whole[origin]) else Selection(whole[origin], rows)
        for split, origin, rows in parts.items()
    }
    return splits, f"{where}; {parts.note}"


def _copies(split: Split) -> np.ndarray:
    if isinstance(split, ArraySplit):
        return same_rows(split.pixels)
    assert isinstance(split, IndexedSplit)
    pairs = getattr(split.dataset, "samples", None) or getattr(split.dataset, "_samples", None)
    paths = [path for path, _ in pairs or ()] or getattr(split.dataset, "_image_files", [])
    if len(paths) == len(split) and all(os.path.isfile(path) for path in paths):
        return same_bytes(FolderStore(Path()), [str(Path(path).absolute()) for path in paths])
    return kinds([hash_of(split.pixels(index, None)) for index in range(len(split))])

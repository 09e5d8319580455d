"""``hf:REPOSITORY`` or ``hf:FOLDER``: Hugging Face datasets (the package ``datasets``, an extra).

hf:REPOSITORY?config=NAME&image=COLUMN&label=COLUMN
hf:REPOSITORY?streaming=1&limit=2000     the first pictures of a shuffled stream, kept in memory
"""

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptheory.arguments import Seed
from aptheory.checked import expanded
from aptheory.errors import InputError, reason_of
from aptheory.hub import cache_alone_if_offline, hub_reachable
from aptheory.tasks.base import Task
from aptheory.tasks.classes import LARGEST, number_classes, shown
from aptheory.tasks.completing import ALIASES, complete
from aptheory.tasks.copies import same_bytes
from aptheory.tasks.readers.files import file_splits
from aptheory.tasks.readers.folder import pick
from aptheory.tasks.readers.parquet import refuse_swelling
from aptheory.tasks.readers.stores import FolderStore, file_stamp, refuse_pipes

BUFFER = 10_000  # samples that a stream is shuffled in
LIMIT = 10_000  # samples of a split that are taken of a stream
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
IMAGES = ("image", "img", "picture", "photo")
LABELS = ("label", "labels", "fine_label", "class", "target")
COMMIT = re.compile("[0-9a-f]{40}")
REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class ColumnStore:
    """Encoded pictures in a column of each split; a key is "split#row"."""

    def __init__(self, place: str, splits: Mapping[str, Any], image: str) -> None:
        self.place = place
        self.splits = dict(splits)
        self.image = image

    def names(self) -> list[str]:
        return [f"{name}#{row}" for name, rows in self.splits.items() for row in range(len(rows))]

    def read(self, key: str) -> bytes:
        split, _, row = key.rpartition("#")
        try:
            cells = self.splits[split][int(row)]
            if self.image not in cells:
                raise ValueError(f"its transform leaves no {self.image!r}: take it off")
            cell = cells[self.image]
            if isinstance(cell, Mapping):
                data, path = cell.get("bytes"), cell.get("path")
                if data is None and path is None:
                    raise ValueError("it has neither bytes nor a path")
                return data if data is not None else _file(Path(str(path)))
            return _encoded(cell)
        except InputError:
            raise
        except Exception as error:  # the package's own errors too
            raise InputError(
                f"{self.place}: picture {key} cannot be read ({reason_of(error)}); repair the data "
                "set."
            ) from error

    def stamp(self, keys: Sequence[str]) -> str:
        files = {
            Path(entry["filename"])
            for rows in self.splits.values()
            for entry in getattr(rows, "cache_files", [])
        }
        if not files:  # in memory: only the bytes tell
            return ""
        return "\n".join([*(f"{file} {file_stamp(file)}" for file in sorted(files)), *keys])


def huggingface_task(
    path: str | Path,
    *,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    streaming: bool | str = False,
    limit: int | str | None = None,
    name: str | None = None,
    seed: Seed = 0,
) -> Task:
    """The task in a data set of the ``datasets`` package: a repository, a folder that
    ``save_to_disk`` wrote, or a folder of parquet files or images.

    Splits are recognised by name (train, validation or val, test); what is missing is cut by
    ``seed``, and ``provenance`` says so. With ``streaming`` at most ``limit`` pictures a split
    (default 10,000) are taken from a stream shuffled by ``seed``, and nothing is written to disk.
    The columns are found by type and name if they are not given. Raises `InputError` if the
    package, the data set or a column is not there.
    """
    if str(streaming).lower() not in (*_YES, *_NO):
        raise InputError(f"streaming is {streaming!r}; give 1 or 0.")
    stream = str(streaming).lower() in _YES
    if limit is not None and not stream:
        raise InputError(
            "limit= counts the pictures of a stream; give streaming=1 with it, or take a part of "
            "the task (--subset, Task.subset)."
        )
    return hub_task(
        _open(str(path), config, stream),
        image=image,
        label=label,
        limit=_whole(LIMIT if limit is None else limit) if stream else None,
        name=name or Path(path).name,
        seed=seed,
        group=group,
        where=str(path),
        source=f"Hugging Face {path}" + (f", {config}" if config else ""),
    )


def hub_task(
    data: Any,
    *,
    image: str | None = None,
    label: str | None = None,
    limit: int | None = None,
    name: str = "dataset",
    seed: Seed = 0,
    group: str | None = None,
    where: str = "the data set",
    source: str = "Hugging Face data set",
) -> Task:
    """The task in a Dataset or DatasetDict of the ``datasets`` package. ``limit`` takes so many
    pictures of each split of a stream; rows of one value in column ``group`` stay together."""
    opened = dict(data) if isinstance(data, Mapping) else {"train": data}
    for rows in opened.values():
        if not hasattr(rows, "features"):
            raise InputError(
                f"{where} is a {type(rows).__name__}; expected a Dataset or DatasetDict of the "
                "datasets package, or for a name or folder hf:NAME as a task."
            )
    single = len(opened) == 1
    left_out: dict[str, int] = {}
    chosen: dict[str, Any] = {}
    for key, rows in opened.items():
        split = "" if single else ALIASES.get(str(key).lower(), "")
        if not single and not split:
            left_out[f"split {key!r}, which is not used"] = _count(rows)
        elif split in chosen:
            raise InputError(f"{where} has two splits that are {split}; keep one.")
        else:
            chosen[split] = rows
    if not single and "train" not in chosen:
        raise InputError(f"{where} has splits {shown(list(opened))}; expected one called train.")
    first = next(iter(chosen.values()))
    image, label = _columns(first, image, label, where)
    if group is not None and group not in first.features:
        raise InputError(f"{where} has no column {group!r}; it has {', '.join(first.features)}.")
    kept = {key: _rows(rows, image, limit, seed, where) for key, rows in chosen.items()}
    names_of = {
        key: getattr(_single(rows.features.get(label)), "names", None)
        for key, rows in chosen.items()
    }
    columns = {
        key: _named(_column(rows, label), names_of[key], names_of, where, label)
        for key, rows in kept.items()
    }
    labels, classes = number_classes(
        columns, f"{where}, column {label!r}", names=next(iter(names_of.values()))
    )
    store = ColumnStore(where, kept, image)
    keys = {key: [f"{key}#{row}" for row in range(len(labels[key]))] for key in kept}
    parts = complete(
        labels,
        seed=seed,
        where=where,
        copies=lambda key: same_bytes(store, keys[key]),
        groups=lambda key: (
            None if group is None else [str(value) for value in _column(kept[key], group)]
        ),
        classes=classes,
    )
    made = file_splits(
        store,
        {split: pick(keys[origin], rows) for split, origin, rows in parts.items()},
        {split: labels[origin][rows] for split, origin, rows in parts.items()},
    )
    how = f", streamed (at most {limit} a split, shuffled by seed {seed})" if limit else ""
    if single and isinstance(data, Mapping):
        how += f", the one split {next(iter(opened))!r}"
    return Task(
        name=name,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        provenance=f"{source}, columns {image!r} and {label!r}{how}; {parts.note}",
        notes=made["train"].notes,
        left_out=left_out,
    )


def _single(feature: Any) -> Any:
    """The feature of a class, also where each picture has a list of one."""
    return getattr(feature, "feature", feature)


def _named(
    values: list[Any],
    names: Sequence[str] | None,
    names_of: Mapping[str, Sequence[str] | None],
    where: str,
    label: str,
) -> list[Any]:
    """The labels, by name where the splits number their classes differently."""
    if all(names == other for other in names_of.values()):
        return values
    values = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]
    if not all(names_of.values()) or not all(
        isinstance(value, int) and 0 <= value < len(names or ()) for value in values
    ):
        raise InputError(
            f"{where}: column {label!r} is not of one kind in the splits {shown(list(names_of))}; "
            "cast it alike in each."
        )
    return [(names or ())[value] for value in values]


def _whole(limit: int | str) -> int:
    if str(limit).isdecimal() and 0 < int(limit) < LARGEST:
        return int(limit)
    raise InputError(f"limit is {limit!r}; expected a number of pictures, 1 or more.")


def _count(rows: Any) -> int:
    return len(rows) if hasattr(rows, "__len__") else 1


def _encoded(cell: Any) -> bytes:
    """A picture of pixels, as lists or an array, as PNG."""
    from PIL import Image

    if isinstance(cell, bytes):
        return cell
    if cell is None:
        raise ValueError("the cell is empty")
    if isinstance(cell, str):
        raise ValueError(
            f"its cell is the text {cell[:80]!r}; if that is a path, make a picture of it first: "
            "data.cast_column(COLUMN, datasets.Image())"
        )
    array = np.asarray(cell)
    if array.ndim == 3 and array.shape[2] > 4 >= array.shape[0]:  # channels first, as of Array3D
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or array.min() < 0 or array.max() > 255 or array.dtype.kind == "f":
        raise ValueError(
            f"an array of shape {array.shape} and type {array.dtype}; expected whole numbers from "
            "0 to 255, (height, width) or (height, width, 3)"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _file(path: Path) -> bytes:
    return FolderStore(path.parent).read(path.name)


def _refuse_stranger(path: str, splits: Mapping[str, Any]) -> None:
    """Refuse what the package found in its cache for want of a folder and of the hub: another
    folder of that name. What came from the hub lies there in a folder called by its commit."""
    for rows in splits.values():
        for entry in getattr(rows, "cache_files", []):
            if not COMMIT.fullmatch(Path(entry["filename"]).parent.name):
                raise InputError(
                    f"hf:{path}: there is no such folder and no such data set of the hub at hand; "
                    "the cache holds one that was read from another folder of this name. Name that "
                    "folder by its path."
                )


def _open(path: str, config: str | None, stream: bool) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"hf:{path} needs the datasets package; pip install 'aptheory[datasets]'"
        ) from error
    folder = expanded(path)
    if not folder.exists() and not REPOSITORY.fullmatch(path):
        raise InputError(
            f"hf:{path}: there is no such folder, and a repository of the hub is called NAME or "
            "OWNER/NAME; name one of the two."
        )
    if folder.is_file():
        raise InputError(
            f"hf:{path}: {folder.name} is a file; name the folder that it lies in, or a repository "
            "of the hub."
        )
    if folder.is_dir():
        refuse_pipes(folder)
    try:
        for file in folder.rglob("*.parquet"):
            if not file.is_dir():  # other programs write a table as a folder of that name
                refuse_swelling(file)
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            if config is not None:
                raise InputError(f"hf:{path} was saved as one data set; give no config.")
            loaded: Any = datasets.load_from_disk(str(folder))
            if stream:
                whole = loaded if isinstance(loaded, Mapping) else {"train": loaded}
                loaded = {key: rows.to_iterable_dataset() for key, rows in whole.items()}
        else:
            with cache_alone_if_offline():
                loaded = datasets.load_dataset(path, name=config, streaming=stream)
    except InputError:
        raise
    except Exception as error:  # the package raises many kinds, some of its dependencies
        if not folder.exists() and not hub_reachable() and isinstance(error, OSError):
            raise InputError(
                f"hf:{path}: there is no such folder, no data set of this name in the cache, and "
                "no connection to the hub; name a folder, or fetch the data set where there is one."
            ) from error
        # "An error occurred while generating the dataset": what it was stands in its cause.
        reason = reason_of(error.__cause__ or error)
        if isinstance(error, IndexError):  # the package takes the first of a split's tables
            reason = "a split of it holds no pictures"
        advice = "give a repository's name, or a folder that the datasets package reads"
        if (stopped := _file_elsewhere(error, folder)) is not None:
            reason = f"{stopped.strerror}: {stopped.filename}"
            advice = "name a folder of yours for its cache in HF_HOME"
        elif folder.exists():
            advice = "fetch or write it again, as the datasets package does"
        raise InputError(f"the data set {path!r} cannot be opened ({reason}); {advice}.") from error
    splits = dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}
    if not folder.exists():
        _refuse_stranger(path, splits)
    return splits


def _file_elsewhere(error: BaseException | None, folder: Path) -> OSError | None:
    """That a file outside of ``folder`` stopped the package, as one of its cache does, where that
    stands behind an error."""
    while error is not None:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            place = os.path.realpath(error.filename)
            if not place.startswith(os.path.join(os.path.realpath(folder), "")):
                return error
        error = error.__cause__ or error.__context__
    return None


def _columns(split: Any, image: str | None, label: str | None, path: str) -> tuple[str, str]:
    from datasets import ClassLabel, Image

    features = split.features or {}
    for column in (image, label):
        if column is not None and column not in features:
            raise InputError(f"{path} has no column {column!r}; it has {', '.join(features)}")
    images = [key for key, kind in features.items() if isinstance(kind, Image)]
    images = images or [key for key in features if key.lower() in IMAGES]
    if image is None:
        called = [key for key in images if key.lower() in IMAGES]
        images = called if len(called) == 1 else images
        image = images[0] if len(images) == 1 else None
    labels = [key for key, kind in features.items() if isinstance(kind, ClassLabel)]
    label = label or next((k for k in LABELS if k in features), None)
    label = label or (labels[0] if len(labels) == 1 else None)
    if image is None or label is None:
        lacking, found = ("image", images) if image is None else ("label", labels)
        many = f"several {lacking} columns ({shown(found)})" if found else ""
        raise InputError(
            f"{path} has {many or f'no {lacking} column that we recognise'} among "
            f"{', '.join(features)}; name it: hf:NAME?{lacking}=COLUMN, or "
            f"Task.from_hub(data, {lacking}=...)."
        )
    return image, label


def _rows(rows: Any, image: str, limit: int | None, seed: int, where: str) -> Any:
    """Rows with undecoded pictures: of a stream a list, and a cell of another kind as bytes."""
    from datasets import Image

    try:
        if isinstance(rows.features[image], Image):
            rows = rows.cast_column(image, Image(decode=False))
        if hasattr(rows, "__len__"):
            return rows
        if limit is None:
            raise InputError(
                f"{where} is a stream; say how many pictures to keep: "
                f"hf:{where}?streaming=1&limit=N."
            )
        return list(rows.shuffle(seed=seed, buffer_size=BUFFER).take(limit))
    except InputError:
        raise
    except Exception as error:  # the package raises many kinds
        reason = reason_of(error)
        raise InputError(f"{where} cannot be read ({reason}); fetch it again.") from error


def _column(rows: Any, name: str) -> list[Any]:
    try:
        return [row[name] for row in rows] if isinstance(rows, list) else list(rows[name])
    except KeyError:
        raise InputError(f"the data set's transform leaves no {name!r}: take it off.") from None

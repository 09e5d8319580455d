"""``hf:REPOSITORY`` or ``hf:FOLDER``: Hugging Face datasets (the package ``datasets``, an extra).

hf:REPOSITORY?config=NAME&image=COLUMN&label=COLUMN
hf:REPOSITORY?streaming=1&limit=2000     the first pictures of a shuffled stream, kept in memory
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptheory.errors import InputError
from aptheory.tasks.base import Task, as_labels
from aptheory.tasks.readers.files import FileSplit, file_stamp
from aptheory.tasks.readers.folder import ALIASES, complete

BUFFER = 10_000  # samples that a stream is shuffled in
IMAGES = ("image", "img", "picture", "photo")
LABELS = ("label", "labels", "fine_label", "class", "target")


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
            cell = self.splits[split][int(row)][self.image]
            return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        except (OSError, TypeError, KeyError, ValueError) as error:
            raise InputError(f"{self.place}: picture {key} cannot be read ({error})") from error

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
    streaming: bool | str = False,
    limit: int | str = 10_000,
    name: str | None = None,
    seed: int = 0,
) -> Task:
    """The task in a data set of the ``datasets`` package: a repository, a folder that
    ``save_to_disk`` wrote, or a folder of parquet files or images.

    Splits are recognised by name (train, validation or val, test); what is missing is cut by
    ``seed``, and ``provenance`` says so. With ``streaming`` at most ``limit`` pictures a split are
    taken from a stream shuffled by ``seed``, and nothing is written to disk. The columns are
    found by type and name if they are not given. Raises `InputError` if the package, the
    data set or a column is not there.
    """
    stream = str(streaming).lower() in ("1", "true", "yes")
    opened = _open(str(path), config, stream)
    first = next(iter(opened.values()))
    image, label = _columns(first, image, label, str(path))
    splits = {key: _rows(split, image, stream, int(limit), seed) for key, split in opened.items()}
    labels, classes = _labels(splits, first.features, label, str(path))
    found: dict[str, list[tuple[str, str]]] = {}
    for key, values in labels.items():
        split = ALIASES.get(key.lower(), "")
        if split or len(labels) == 1:
            found[split if len(labels) > 1 else ""] = [
                (str(value), f"{key}#{row}") for row, value in enumerate(values)
            ]
    if "train" not in found and "" not in found:
        raise InputError(f"{path} has splits {', '.join(labels)}; expected one called train")

    def labels_of(files: list[tuple[str, str]]) -> np.ndarray:
        return np.array([int(value) for value, _ in files], dtype=np.int64)

    complete_splits, note = complete(found, labels_of, seed, str(path))
    store = ColumnStore(str(path), splits, image)
    made = {
        split: FileSplit(
            store,
            [key for _, key in files],
            as_labels(labels_of(files), len(classes), f"{path}, {split}"),
        )
        for split, files in complete_splits.items()
    }
    source = f"Hugging Face {path}" + (f", {config}" if config else "")
    how = f", streamed (at most {limit} a split, shuffled by seed {seed})" if stream else ""
    return Task(
        name=name or Path(path).name,
        classes=classes,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        provenance=f"{source}{how}; {note.replace(' folders', 's').replace(' folder', '')}",
    )


def _open(path: str, config: str | None, stream: bool) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"hf:{path} needs the datasets package; pip install 'aptheory[datasets]'"
        ) from error
    try:
        folder = Path(path).expanduser()
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded: Any = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(path, name=config, streaming=stream)
    except Exception as error:  # the package raises many kinds, some of its dependencies
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(
            f"the data set {path!r} cannot be opened ({reason}); expected a repository name or a "
            "folder of the datasets package"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _columns(split: Any, image: str | None, label: str | None, path: str) -> tuple[str, str]:
    from datasets import ClassLabel, Image

    features = split.features or {}
    for given in (image, label):
        if given is not None and given not in features:
            raise InputError(f"{path} has no column {given!r}; it has {', '.join(features)}")
    images = [key for key, kind in features.items() if isinstance(kind, Image)]
    image = image or next(iter(images), None) or next((k for k in IMAGES if k in features), None)
    labels = [key for key, kind in features.items() if isinstance(kind, ClassLabel)]
    label = label or next((k for k in LABELS if k in features), None) or next(iter(labels), None)
    if image is None or label is None:
        lacking = "image" if image is None else "label"
        raise InputError(
            f"{path} has no {lacking} column that we recognise among {', '.join(features)}; name "
            f"it: hf:{path}?{lacking}=COLUMN"
        )
    return image, label


def _rows(split: Any, image: str, stream: bool, limit: int, seed: int) -> Any:
    from datasets import Image

    undecoded = split.cast_column(image, Image(decode=False))
    if not stream:
        return undecoded
    return list(undecoded.shuffle(seed=seed, buffer_size=BUFFER).take(limit))


def _labels(
    splits: Mapping[str, Any], features: Any, label: str, path: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Numbers for every split, and the names they stand for."""
    raw = {
        key: [row[label] for row in rows] if isinstance(rows, list) else list(rows[label])
        for key, rows in splits.items()
    }
    names = getattr(features[label], "names", None)
    values = {value for column in raw.values() for value in column}
    if None in values:
        raise InputError(f"{path}: column {label!r} has empty cells; expected a class in each")
    if any(isinstance(value, str) for value in values):
        names = sorted(str(value) for value in values)
        number = {value: position for position, value in enumerate(names)}
        raw = {key: [number[str(value)] for value in column] for key, column in raw.items()}
    elif names is None:
        names = [str(value) for value in range(int(max(values)) + 1)]
    made = {key: np.array(column, dtype=np.int64) for key, column in raw.items()}
    return made, tuple(str(value) for value in names)

"""Every reader of pictures, and how to lay the same small set out for it.

A layout is written from ``{split: [(label, encoded picture), ...]}``. A reader that is added to the
catalogue is held to all kinds of pictures and labels by being listed here.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.tasks import tasks_fixtures as make

Set = dict[str, list[tuple[Any, bytes]]]


@dataclass(frozen=True)
class Reader:
    """How a set is laid out. ``encoded``: pictures stay files; ``named``: labels are names of
    folders; ``lists``: a label can be several values."""

    lay: Callable[[Path, Set], Any]
    encoded: bool = True
    named: bool = False
    lists: bool = False
    texts: bool = True


def folder(root: Path, pictures: Set) -> str:
    for split, samples in pictures.items():
        for number, (label, data) in enumerate(samples):
            place = root / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(data)
    return f"folder:{root}"


def zipped(root: Path, pictures: Set) -> str:
    folder(root, pictures)
    return f"zip:{make.zipped(root, root.with_suffix('.zip'))}"


def files(root: Path, pictures: Set) -> dict[str, list[tuple[str, Any]]]:
    listed: dict[str, list[tuple[str, Any]]] = {}
    for split, samples in pictures.items():
        for number, (label, data) in enumerate(samples):
            (root / "images").mkdir(parents=True, exist_ok=True)
            (root / "images" / f"{split}{number}.png").write_bytes(data)
            listed.setdefault(split, []).append((f"images/{split}{number}.png", label))
    return listed


def table(root: Path, pictures: Set) -> list[tuple[str, Any, str]]:
    listed = files(root, pictures)
    return [(key, label, split) for split, pairs in listed.items() for key, label in pairs]


def comma_separated(root: Path, pictures: Set) -> str:
    with (root / "set.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows(table(root, pictures))
    return f"csv:{root / 'set.csv'}"


def frame(root: Path, pictures: Set) -> Any:
    import pandas as pd

    made = pd.DataFrame(table(root, pictures), columns=["path", "label", "split"])
    made["path"] = [str(root / key) for key in made["path"]]
    return made


def parquet(root: Path, pictures: Set) -> str:
    import pandas as pd

    made = pd.DataFrame(table(root, pictures), columns=["path", "label", "split"])
    made.to_parquet(root / "set.parquet")
    return f"parquet:{root / 'set.parquet'}"


def vtab(root: Path, pictures: Set) -> str:
    for split, pairs in files(root, pictures).items():
        name = {"train": "train800", "val": "val200", "test": "test"}[split]
        lines = [f"{key} {'' if label is None else label}" for key, label in pairs]
        (root / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    return f"vtab:{root}"


def fgvc(root: Path, pictures: Set) -> str:
    for split, pairs in files(root, pictures).items():
        (root / f"{split}.json").write_text(json.dumps(dict(pairs)), encoding="utf-8-sig")
    return f"fgvc:{root}"


def webdataset(root: Path, pictures: Set) -> str:
    for split, samples in pictures.items():
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for number, (label, data) in enumerate(samples):
                for suffix, content in (
                    ("png", data),
                    ("json", json.dumps({"label": label}).encode()),
                ):
                    info = tarfile.TarInfo(f"{number}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
            archive.addfile(_directory("last/"))
    return f"webdataset:{root}"


def _directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def records(root: Path, pictures: Set) -> str:
    shards = {
        {"val": "validation"}.get(split, split): [
            [
                make.example(image=data, **({} if label is None else {"label": label}))
                for label, data in samples
            ]
        ]
        for split, samples in pictures.items()
    }
    return f"tfds:{make.tfds_folder(root / 'toy/1.0.0', 'toy', shards)}"


def hub(root: Path, pictures: Set) -> Any:
    import datasets

    made = {}
    for split, samples in pictures.items():
        column = {
            "image": [{"bytes": data, "path": None} for _, data in samples],
            "label": [label for label, _ in samples],
        }
        made[split] = datasets.Dataset.from_dict(column).cast_column("image", datasets.Image())
    return datasets.DatasetDict(made)


def saved_hub(root: Path, pictures: Set) -> str:
    hub(root, pictures).save_to_disk(str(root / "hub"))
    return f"hf:{root / 'hub'}"


class Samples:
    """A torch-like data set of dicts; what cannot be opened breaks when it is read."""

    def __init__(self, samples: list[tuple[Any, bytes]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> dict[str, Any]:
        label, data = self.samples[row]
        return {"image": Image.open(io.BytesIO(data)), "label": label, "name": f"sample {row}"}


def dataset(root: Path, pictures: Set) -> Any:
    return {split: Samples(samples) for split, samples in pictures.items()}


def decoded(samples: list[tuple[Any, bytes]]) -> tuple[np.ndarray, list[Any]]:
    images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in samples]
    return np.stack(images), [label for label, _ in samples]


def arrays(root: Path, pictures: Set) -> Any:
    return {split: decoded(samples) for split, samples in pictures.items()}


def npz(root: Path, pictures: Set) -> str:
    made = {}
    for split, samples in pictures.items():
        made[f"x_{split}"], labels = decoded(samples)
        made[f"y_{split}"] = np.array(labels)
    np.savez(root / "set.npz", **made)
    return f"npz:{root / 'set.npz'}"


READERS = {
    "folder": Reader(folder, named=True),
    "zip": Reader(zipped, named=True),
    "npz": Reader(npz, encoded=False, lists=True),
    "csv": Reader(comma_separated),
    "parquet": Reader(parquet, lists=True),
    "vtab": Reader(vtab, texts=False),
    "fgvc": Reader(fgvc, lists=True),
    "tfds": Reader(records, lists=True, texts=False),
    "webdataset": Reader(webdataset, lists=True),
    "hf": Reader(saved_hub, lists=True),
    # in memory
    "arrays": Reader(arrays, encoded=False, lists=True),
    "frame": Reader(frame, lists=True),
    "dataset": Reader(dataset, encoded=False, lists=True),
    "hub": Reader(hub, lists=True),
}
#: Readers of the catalogue that are given no files of a user's.
NAMED_SETS = {"torchvision"}

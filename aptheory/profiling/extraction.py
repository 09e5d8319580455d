"""Features to files: every layer asked for, written a batch at a time.

For people who want nothing else. `extract` gives the same as tensors in memory.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from aptheory.checked import json_table, json_text, read_text
from aptheory.errors import InputError
from aptheory.networks.network import Network, Places
from aptheory.profiling.profile import batches
from aptheory.tasks.resizing import transform_of
from aptheory.writing import beside

if TYPE_CHECKING:
    from aptheory.tasks import Task

FORMATS = ("npz", "parquet")
SPLITS = ("train", "val", "test")


def extract_to(
    net: Network,
    task: Task,
    folder: str | Path,
    *,
    layers: Places = "all",
    splits: Sequence[str] = SPLITS,
    pooled: str | None = "mean",
    form: str = "npz",
    batch_size: int = 64,
    progress: bool = False,
) -> list[Path]:
    """Write the activations entering ``layers`` for each split of a task; the files written.

    Args:
        folder: comes to hold ``train.npz`` (or ``.parquet``) and so on: an array (n, ...) a layer
            under its place's name, in the images' order, and ``label``; and ``features.json``,
            which says what they are. In Parquet a layer is a column of flat lists.
        pooled: "mean", "class" or "all" as `Layer.pooled`; None keeps activations whole.
        form: "npz", which NumPy reads, or "parquet" (``pip install 'aptheory[parquet]'``).
        batch_size: images at once; memory is one batch, whatever the number of images.

    Raises:
        InputError: an unknown layer, split, pooling or form; a folder that cannot be written.
    """
    from tqdm.auto import tqdm

    chosen = net.places(layers)
    for name, value, known in (
        *(("split", split, SPLITS) for split in splits),
        ("pooled", pooled, ("mean", "class", "all", None)),
        ("form", form, FORMATS),
    ):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(map(str, known))}.")
    how: Any = pooled
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name another.") from error
    about = {
        "network": net.name,
        "digest": net.digest,
        "task": task.name,
        "classes": list(task.classes),
        "pooled": pooled,
        "images": _preparation(net, task),
        "precision": _precision(net),
    }
    told = {**about, "layers": [layer.name for layer in chosen]}
    _check_beside(folder, [f"{split}.{form}" for split in splits], told)
    written = []
    shapes: dict[str, list[int]] = {}
    for split in splits:
        count = len(getattr(task, split))
        path = folder / f"{split}.{form}"
        with (
            torch.inference_mode(),
            beside(path) as part,
            tqdm(total=count, desc=split, unit="image", disable=not progress) as bar,
        ):
            writer: Writer = Npz(part, count) if form == "npz" else Parquet(part)
            for x, labels in batches(net, task, batch_size=batch_size, split=split):
                assert labels is not None
                rows = {"label": labels.cpu().numpy()}
                for layer, z in net.walk(x, stops=chosen):
                    features = (z if pooled is None else layer.pooled(z, how)).float()
                    rows[layer.name] = features.cpu().numpy()
                    shapes[layer.name] = list(features.shape[1:])
                writer.add(rows)
                bar.update(len(x))
            writer.finish()
        written.append(path)
    shaped = {layer.name: {"index": layer.index, "shape": shapes[layer.name]} for layer in chosen}
    if gone := [path for path in written if not path.is_file()]:
        raise InputError(f"{gone[0]} was removed while the others were written; extract again.")
    with beside(folder / "features.json") as part:
        part.write_text(json_text({**about, "layers": shaped}, indent=2) + "\n", encoding="utf-8")
    return [*written, folder / "features.json"]


def _preparation(net: Network, task: Task) -> Any:
    """How pictures become images: the settings of all splits, or of each where they differ."""
    settings = [transform_of(getattr(task, split), net).settings for split in SPLITS]
    return settings[0] if settings.count(settings[0]) == len(settings) else settings


def _precision(net: Network) -> str:
    """What the network computes in, autocast around it included."""
    kind = net.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else net.dtype
    return str(dtype).removeprefix("torch.")


def _check_beside(folder: Path, files: Sequence[str], about: Mapping[str, Any]) -> None:
    """Refuse a folder in which files of other features would stay beside the ones to be written.

    Raises:
        InputError: it has such files, and says that they are of something else.
    """
    try:
        known = json_table(read_text(folder / "features.json"), name="features.json")
    except (FileNotFoundError, InputError):
        return
    own = [f"{split}.{form}" for split in SPLITS for form in FORMATS]
    others = [name for name in own if name not in files and (folder / name).exists()]
    known["layers"] = list(known.get("layers", ()))
    differ = next((word for word in about if known.get(word) != about[word]), None)
    if others and differ is not None:
        raise InputError(
            f"{folder} holds {' and '.join(others)} of other features (of {_DIFFERENT[differ]}); "
            "name another folder, or remove them."
        )


_DIFFERENT = {
    **{word: f"another {word}" for word in ("network", "digest", "task", "pooled", "precision")},
    **{word: f"other {word}" for word in ("classes", "layers")},
    "images": "pictures that became images in another way",
}


class Writer(Protocol):
    """Takes a batch of columns at a time; `finish` writes what is still in its hands."""

    def add(self, rows: dict[str, np.ndarray]) -> None: ...

    def finish(self) -> None: ...


class Npz:
    """A column a growing .npy file without a name; together they are the .npz, which is a zip."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self.columns: dict[str, IO[bytes]] = {}

    def add(self, rows: dict[str, np.ndarray]) -> None:
        for name, values in rows.items():
            if name not in self.columns:
                self.columns[name] = TemporaryFile(dir=self.path.parent)  # noqa: SIM115 (until `finish`)
                shape = (self.count, *values.shape[1:])
                kind = np.lib.format.dtype_to_descr(values.dtype)
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(self.columns[name], header)
            self.columns[name].write(np.ascontiguousarray(values).data)

    def finish(self) -> None:
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, column in self.columns.items():
                column.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(column, member)
                column.close()


class Parquet:
    """A row an image, a row group a batch; a layer is a list column, flattened."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise InputError(
                "Parquet needs pyarrow; install it with: pip install 'aptheory[parquet]'"
            ) from None
        self.arrow, self.path = pyarrow, path
        self.writer: Any = None

    def add(self, rows: dict[str, np.ndarray]) -> None:
        table = self.arrow.table({name: self._column(values) for name, values in rows.items()})
        if self.writer is None:
            self.writer = self.arrow.parquet.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)

    def _column(self, values: np.ndarray) -> Any:
        if values.ndim == 1:
            return self.arrow.array(values)
        flat = self.arrow.array(np.ascontiguousarray(values).reshape(-1))
        return self.arrow.FixedSizeListArray.from_arrays(flat, values[0].size)

    def finish(self) -> None:
        if self.writer is not None:
            self.writer.close()

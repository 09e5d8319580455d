"""Images that lie in files: a folder, a zip or tar shards, decoded when they are asked for."""

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError
from aptheory.preprocessing import Size, fit_picture, height_and_width
from aptheory.tasks.cache import remember_digest, remembered_digest
from aptheory.tasks.resizing import checked_resize

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@runtime_checkable
class Store(Protocol):
    """Bytes by name. ``place`` says in messages where they are."""

    place: str

    def names(self) -> list[str]: ...

    def read(self, key: str) -> bytes: ...

    def stamp(self, keys: Sequence[str]) -> str:
        """Changes when the bytes of one of ``keys`` may have changed (sizes and times), or "" if
        that cannot be told without reading them."""
        ...


class FolderStore:
    """The files below a folder; a key is a path relative to it, with forward slashes."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.place = str(root)

    def names(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self.root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            inside = Path(folder).relative_to(self.root)
            found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(found)

    def read(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except OSError as error:
            raise InputError(
                f"{self.root / key} cannot be read ({error.strerror or error}); put it back"
            ) from error

    def stamp(self, keys: Sequence[str]) -> str:
        return "\n".join(f"{key} {file_stamp(self.root / key)}" for key in keys)


class ZipStore:
    """The members of a zip file. Each thread and each process opens it for itself."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.place = str(path)
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "place": self.place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _open(self) -> zipfile.ZipFile:
        if not hasattr(self._local, "archive"):
            try:
                self._local.archive = zipfile.ZipFile(self.path)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(
                    f"{self.path} cannot be read as a zip file ({error}); fetch it again"
                ) from error
        return self._local.archive

    def names(self) -> list[str]:
        names = [info.filename for info in self._open().infolist() if not info.is_dir()]
        hidden = [n for n in names if any(p.startswith((".", "__MACOSX")) for p in n.split("/"))]
        return sorted(set(names) - set(hidden))

    def read(self, key: str) -> bytes:
        try:
            return self._open().read(key)
        except (OSError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path}: {key} cannot be read ({error}); fetch the file again"
            ) from error

    def stamp(self, keys: Sequence[str]) -> str:
        return "\n".join([f"{self.path.resolve()} {file_stamp(self.path)}", *keys])


def file_stamp(path: Path) -> str:
    """Size and time of change of a file."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it back") from error
    return f"{status.st_size} {status.st_mtime_ns}"


def decode_image(data: bytes, where: str, size: Size | None = None, *, gain: int = 1) -> np.ndarray:
    """uint8 (height, width, 3) from the bytes of an image file, made ``size`` if given.

    16-bit grey keeps its high byte;
    transparency is dropped; ``gain`` multiplies the pixels first (255 for 0/1 pictures). Raises
    `InputError` naming ``where`` for bytes that are not a whole image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image: Image.Image = opened
            if image.mode.startswith("I"):
                high = np.asarray(image).astype(np.int64) >> 8
                image = Image.fromarray(high.clip(0, 255).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("floating-point pixels")
            if image.mode != "RGB":
                # Pillow wants a palette's transparency spelled out before it is dropped.
                image = image.convert("RGBA") if "transparency" in image.info else image
                image = image.convert("RGB")
            if gain != 1:
                image = image.point([min(value * gain, 255) for value in range(256)] * 3)
            if size is not None:
                image = fit_picture(image, size)
            return np.asarray(image, dtype=np.uint8)
    except Exception as error:  # Pillow raises nearly anything on bytes that are not an image
        reason = str(error).split("\n")[0] or type(error).__name__
        if "cannot identify" in reason:
            reason = "not an image format that Pillow knows"
        raise InputError(
            f"{where} cannot be decoded ({reason}); replace it or take it out"
        ) from error


class FileSplit:
    """Images as encoded bytes in a store, one key an image, decoded on demand in ``workers``
    threads (Pillow decodes and resizes outside Python's global lock). Pictures that come in sizes
    of their own are made images as the network's configuration says, unless ``resize`` says
    otherwise."""

    def __init__(
        self,
        store: Store,
        keys: Iterable[str],
        labels: np.ndarray | Sequence[int],
        *,
        workers: int | None = None,
        gain: int = 1,
        resize: str = "network",
    ) -> None:
        self.gain = gain
        self.resize = checked_resize(resize)
        self.store = store
        self.keys = list(keys)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.workers = workers
        if len(self.keys) != len(self.labels):
            raise InputError(
                f"{store.place}: {len(self.keys)} images but {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, index: int) -> str:
        """The image's name for a message."""
        return f"{self.store.place}: {self.keys[index]}"

    def images(
        self, indices: Sequence[int | np.integer] | np.ndarray, size: Size
    ) -> UInt8[Tensor, "n 3 height width"]:
        wanted = np.asarray(indices, dtype=np.int64)
        out = np.empty((len(wanted), *height_and_width(size), 3), dtype=np.uint8)

        def fill(row: int) -> None:
            index = int(wanted[row])
            data = self.store.read(self.keys[index])
            out[row] = decode_image(data, self.where(index), size, gain=self.gain)

        workers = min(self.workers or os.cpu_count() or 1, len(wanted), 16)
        if workers > 1:
            with ThreadPoolExecutor(workers, thread_name_prefix="aptheory-decode") as pool:
                list(pool.map(fill, range(len(wanted))))
        else:
            for row in range(len(wanted)):
                fill(row)
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()

    @cached_property
    def digest(self) -> str:
        """sha256 of the files' bytes and the labels. Kept in the cache folder by the files' names,
        sizes and times, so that a large folder is read once and not at every start."""
        remembered = remembered_digest(self._stamp())
        if remembered is None:
            remembered = self.content_digest()
            remember_digest(self._stamp(), remembered)
        return remembered

    def _stamp(self) -> str:
        stamp = self.store.stamp(self.keys)
        labels = hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()
        return f"{Path(self.store.place).resolve()}\n{self.gain} {labels}\n{stamp}" if stamp else ""

    def content_digest(self) -> str:
        """The digest from the bytes themselves, whatever is remembered."""
        hasher = hashlib.sha256(f"files {self.gain}".encode())
        for key, label in zip(self.keys, self.labels, strict=True):
            hasher.update(hashlib.sha256(self.store.read(key)).digest())
            hasher.update(int(label).to_bytes(8, "little", signed=True))
        return hasher.hexdigest()

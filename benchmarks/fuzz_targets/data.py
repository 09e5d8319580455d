"""Data sets: every reader, and the names of tasks."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_targets.registry import Case, file_case, target
from benchmarks.mutations import (
    HOSTILE,
    either,
    encoded,
    harm_bytes,
    harm_text,
    harm_value,
)


def _picture(shade: int, form: str = "PNG") -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (9, 8), (shade % 256, 40, 90)).save(data, form)
    return data.getvalue()


def _read_task(uri: str) -> Any:
    """Open a task and look at a picture of each split."""
    import aptheory as ap

    task = ap.task(uri)
    return [getattr(task, split).images([0], (8, 8)) for split in ("train", "val", "test")]


def _arrays() -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(40) % 4
    return {
        "x_train": pixels,
        "y_train": labels,
        "x_test": pixels[:12],
        "y_test": labels[:12],
        "class_names": np.array(["ant", "bee", "cow", "dog"]),
    }


@target
def npz(folder: Path) -> Case:
    path = folder / "a.npz"
    np.savez(path, **_arrays())  # type: ignore[arg-type]
    whole = path.read_bytes()
    odd: list[Any] = [
        np.zeros(()), np.zeros((0, 0)), np.array("x"), np.array([1e300]), np.array([2**62]),
        np.array([b"\xff"]), np.array([np.nan]), np.zeros((3, 2), bool), np.array(["a", "a"]),
        np.zeros((40, 6, 6, 3), np.float16), np.arange(40) * 10**8, np.array([1j]),
    ]  # fmt: skip

    def structured(draw: random.Random) -> bytes:
        arrays: dict[str, Any] = _arrays()
        key = draw.choice(list(arrays))
        match draw.randrange(3):
            case 0:
                del arrays[key]
            case 1:
                arrays[key] = draw.choice(odd)
            case 2:
                arrays[draw.choice(("x_val", "y_val", "", "a/b"))] = draw.choice(odd)
        data = io.BytesIO()
        np.savez(data, **arrays)
        if draw.random() < 0.3:
            with zipfile.ZipFile(data, "a") as archive:
                archive.writestr(draw.choice(("x_val.npy", "note.txt", "y_test.npy")), b"no array")
        return data.getvalue()

    return file_case(path, either(structured, whole), lambda: _read_task(f"npz:{path}"))


def _picture_tree(root: Path) -> list[str]:
    names = [
        f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("ant", "bee") for i in range(6)
    ]
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_picture(9 * number))
    return names


@target
def pictures(folder: Path) -> Case:
    _picture_tree(folder)
    path = folder / "train/ant/0.png"
    forms = [_picture(5, form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]

    def harmed(draw: random.Random) -> bytes:
        return harm_bytes(draw.choice(forms), draw)

    return file_case(path, harmed, lambda: _read_task(f"folder:{folder}"))


@target
def folder_names(folder: Path) -> Case:
    def case(draw: random.Random) -> Any:
        import shutil

        root = folder / "data"
        shutil.rmtree(root, ignore_errors=True)
        names = _picture_tree(root)
        for name in draw.sample(names, 3):
            match draw.randrange(4):
                case 0:
                    (root / name).unlink(missing_ok=True)
                case 1:
                    with contextlib.suppress(OSError, ValueError):
                        other = root / name
                        other.replace(other.with_name(str(draw.choice(HOSTILE))[:60]))
                case 2:
                    with contextlib.suppress(OSError):
                        (root / "train" / f"loop{draw.randrange(9)}").symlink_to(root)
                case 3:
                    shutil.rmtree((root / name).parent, ignore_errors=True)
        return _read_task(f"folder:{root}")

    return case


@target
def zipped(folder: Path) -> Case:
    names = _picture_tree(folder / "data")

    def archive(changed: dict[str, str]) -> bytes:
        data = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(data, "w") as file:
            warnings.simplefilter("ignore")
            for name in names:
                file.writestr(changed.get(name, name), (folder / "data" / name).read_bytes())
        return data.getvalue()

    def structured(draw: random.Random) -> bytes:
        odd = ("../x.png", "/etc/x.png", "a\\b.png", "x" * 300, "train/é/1.png", "train//.png")
        return archive({draw.choice(names): draw.choice(odd) for _ in range(3)})

    path = folder / "a.zip"
    return file_case(path, either(structured, archive({})), lambda: _read_task(f"folder:{path}"))


@target
def webdataset(folder: Path) -> Case:
    def shard(harm: Callable[[str], tuple[str, bytes]] | None = None) -> bytes:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as file:
            for number in range(20):
                parts = ((f"{number:04d}.png", _picture(number)), (f"{number:04d}.cls", b"%d"))
                for name, body in parts:
                    body = b"%d" % (number % 2) if name.endswith("cls") else body
                    if harm is not None and number == 3:
                        name, body = harm(name)
                    info = tarfile.TarInfo(name)
                    info.size = len(body)
                    file.addfile(info, io.BytesIO(body))
        return data.getvalue()

    def structured(draw: random.Random) -> bytes:
        odd = ("9" * 400, "-1", "1e9", "Infinity", "²", "", "[1]", "null", str(2**70))
        forms = ("cls", "json", "txt", "png", "label", "__x")
        return shard(lambda _: (f"0003.{draw.choice(forms)}", draw.choice(odd).encode()))

    path = folder / "train-000000.tar"
    (folder / "test-000000.tar").write_bytes(shard())
    return file_case(path, either(structured, shard()), lambda: _read_task(f"webdataset:{folder}"))


@target
def fgvc(folder: Path) -> Case:
    entries = {f"images/{number}.png": number % 3 for number in range(30)}
    for name in entries:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(_picture(7 * len(name) + int(Path(name).stem)))
    (folder / "test.json").write_text(json.dumps(entries))
    whole = json.dumps(entries).encode()

    def structured(draw: random.Random) -> bytes:
        return encoded(harm_value(entries, draw)).encode("utf-8", "surrogatepass")

    path = folder / "train.json"
    return file_case(path, either(structured, whole), lambda: _read_task(f"fgvc:{folder}"))


@target
def vtab(folder: Path) -> Case:
    (folder / "images").mkdir()
    for number in range(10):
        (folder / f"images/{number}.png").write_bytes(_picture(number))
    lists = {"train800": 800, "val200": 200, "test": 30}
    for name, count in lists.items():
        lines = [f"images/{index % 10}.png {index % 5}" for index in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    path = folder / "val200.txt"
    whole = path.read_text()

    def structured(draw: random.Random) -> bytes:
        lines = whole.splitlines()
        for _ in range(3):
            at = draw.randrange(len(lines))
            lines[at] = harm_text(lines[at], draw)
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    read = lambda: _read_task(f"vtab:{folder}")  # noqa: E731
    return file_case(path, either(structured, whole.encode()), read)


def _crc(data: bytes) -> bytes:
    """TFRecord's masked CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    crc ^= 0xFFFFFFFF
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _record(body: bytes) -> bytes:
    length = len(body).to_bytes(8, "little")
    return length + _crc(length) + body + _crc(body)


def _example(picture: bytes, label: int) -> bytes:
    """A tf.train.Example with the features ``image`` and ``label``, in protocol buffers."""

    def field(number: int, payload: bytes) -> bytes:
        size, length = len(payload), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    features = {b"image": field(1, field(1, picture)), b"label": field(3, field(1, bytes([label])))}
    return field(1, b"".join(field(1, field(1, k) + field(2, v)) for k, v in features.items()))


@target
def tfds(folder: Path) -> Case:
    info = {
        "name": "x", "version": "1.0.0", "fileFormat": "tfrecord",
        "splits": [
            {"name": name, "shardLengths": [count], "numBytes": "100",
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}
            for name, count in (("train", "12"), ("validation", "4"), ("test", "4"))
        ],
    }  # fmt: skip
    (folder / "features.json").write_text(json.dumps({"pythonClassName": "FeaturesDict"}))
    record = folder / "x-train.tfrecord-00000-of-00001"
    train = b"".join(_record(_example(_picture(40 * n), n % 2)) for n in range(12))
    test = b"".join(_record(_example(_picture(40 * n + 9), n % 2)) for n in range(4))
    for name in ("validation", "test"):
        (folder / f"x-{name}.tfrecord-00000-of-00001").write_bytes(test)

    def case(draw: random.Random) -> Any:
        of_list = draw.random() < 0.5
        value = harm_value(info, draw) if of_list else info
        text = encoded(value).encode("utf-8", "surrogatepass")
        (folder / "dataset_info.json").write_bytes(text)
        if draw.random() < 0.5:  # with checksums that fit: what somebody would write who knows them
            harmed = harm_bytes(_example(_picture(3), 1), draw)
            record.write_bytes(_record(harmed) * 6 + train[len(train) // 2 :])
        else:
            record.write_bytes(train if of_list else harm_bytes(train, draw))
        return _read_task(f"tfds:{folder}")

    return case


@target
def task_names(folder: Path) -> Case:
    names = (
        "digits", "folder:nowhere", "npz:a.npz", "hf:a/b?config=x&limit=3", "torchvision:CIFAR10",
        "cub200", "vtab:x", "tfds:x/1.0.0", "webdataset:x", "fgvc:",
    )  # fmt: skip

    def case(draw: random.Random) -> Any:
        import aptheory as ap

        name = harm_text(draw.choice(names), draw)
        if name.startswith(("hf:", "torchvision:")):
            return None  # these ask the network
        return ap.task(name, root=folder)

    return case

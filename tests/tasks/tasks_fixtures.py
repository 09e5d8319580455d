"""Small data sets written to disk in exactly the layouts that the readers expect."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(shade: int, size: tuple[int, int] = (12, 9), seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3) around one shade, so that a JPEG keeps its identity."""
    noise = np.random.default_rng((seed, shade)).integers(-5, 6, (*size, 3))
    return (shade + noise).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def folder(root: Path, counts: dict[str, dict[str, int]], form: str = "JPEG") -> Path:
    """``counts`` is {split: {class: number}}; the split "" stands for no split folders."""
    shade = 0
    for split, classes in counts.items():
        for label, number in classes.items():
            place = root / split / label
            place.mkdir(parents=True, exist_ok=True)
            for index in range(number):
                shade = (shade + 7) % 256
                suffix = "jpg" if form == "JPEG" else form.lower()
                (place / f"{index:03d}.{suffix}").write_bytes(encoded(picture(shade), form))
    return root


def zipped(root: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root))
    return file


def arrays(seed: int = 0, train: int = 40, test: int = 12, side: int = 6) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "x_train": generator.integers(0, 256, (train, side, side, 3), dtype=np.uint8),
        "y_train": np.arange(train, dtype=np.int64) % 4,
        "x_test": generator.integers(0, 256, (test, side, side, 3), dtype=np.uint8),
        "y_test": np.arange(test, dtype=np.int64) % 4,
        "class_names": np.array(["ant", "bee", "cow", "dog"]),
    }


def vtab_folder(root: Path, classes: int = 10, test: int = 30, form: str = "PNG") -> Path:
    """800 + 200 + test entries; the pictures repeat, the names do not."""
    data = [encoded(picture(20 * number), form) for number in range(10)]
    suffix = "jpg" if form == "JPEG" else "png"
    lists: dict[str, list[str]] = {}
    for name, split, count in (
        ("train800", "train", 800),
        ("val200", "val", 200),
        ("test", "test", test),
    ):
        place = root / "images" / split
        place.mkdir(parents=True)
        lines = []
        for index in range(count):
            file = place / f"{index:06d}.{suffix}"
            file.write_bytes(data[index % 10])
            lines.append(f"images/{split}/{file.name} {index % classes}")
        lists[name] = lines
    lists["train800val200"] = lists["train800"] + lists["val200"]
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


# TFRecord and tf.train.Example, written by the book (independently of the reader).


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        if not number:
            return out + bytes([low])
        out += bytes([low | 0x80])


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def example(**features: object) -> bytes:
    """bytes -> bytes_list; ints -> int64_list (packed); floats -> float_list (packed)."""
    entries = b""
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        if all(isinstance(item, bytes) for item in values) and values:
            kind = _field(1, b"".join(_field(1, item) for item in values))
        elif all(isinstance(item, int) for item in values):
            kind = _field(3, _field(1, b"".join(_varint(item) for item in values)))
        else:
            kind = _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
        key = name.replace("__", "/").encode()
        entries += _field(1, _field(1, key) + _field(2, kind))
    return _field(1, entries)


def crc_bitwise(data: bytes) -> int:
    """CRC-32C a bit at a time: slow, and not the reader's table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc_bitwise(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def tfrecord(path: Path, records: list[bytes]) -> Path:
    body = b""
    for record in records:
        length = struct.pack("<Q", len(record))
        body += length + masked(length) + record + masked(record)
    path.write_bytes(body)
    return path


def tfds_folder(
    root: Path,
    name: str,
    splits: dict[str, list[list[bytes]]],
    *,
    form: str = "tfrecord",
    version: str = "3.0.2",
) -> Path:
    """``splits`` is {split: [[record, ...] of a shard, ...]}."""
    root.mkdir(parents=True, exist_ok=True)
    info = []
    for split, shards in splits.items():
        for number, records in enumerate(shards):
            file = root / f"{name}-{split}.{form}-{number:05d}-of-{len(shards):05d}"
            if form == "tfrecord":
                tfrecord(file, records)
            else:
                from array_record.python.array_record_module import ArrayRecordWriter

                writer = ArrayRecordWriter(str(file), "group_size:1")
                for record in records:
                    writer.write(record)
                writer.close()
        info.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "0",
                "shardLengths": [str(len(records)) for records in shards],
            }
        )
    document = {"fileFormat": form, "name": name, "splits": info, "version": version}
    (root / "dataset_info.json").write_text(json.dumps(document))
    return root

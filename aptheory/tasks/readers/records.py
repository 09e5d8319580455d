"""TFRecord files and the tf.train.Example in them, read without TensorFlow.

A TFRecord file is a row of records: length (uint64), a checksum of it, the bytes, a checksum of
them (both masked CRC-32C, little-endian). An Example is a protocol buffer: a map from a name to a
list of bytes, of floats or of int64.

References: the TFRecord and Protocol Buffers wire formats; CRC-32C as in RFC 3720, appendix B.4.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from aptheory.checked import require_file
from aptheory.errors import InputError

Value = list[bytes] | np.ndarray
HEAD = struct.Struct("<QI")
FOOT = struct.Struct("<I")
LARGEST = 1 << 31  # bytes in a record; a larger length is a damaged one


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli). About 10 MB/s: for lengths, and for records that are checked.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in bytes(data):
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def crc32c_many(records: Sequence[bytes]) -> list[int]:
    """CRC-32C of many records, a byte of all of them at a time: ten times as fast."""
    order = sorted(range(len(records)), key=lambda index: -len(records[index]))
    lengths = np.array([len(records[index]) for index in order])
    columns = np.zeros((int(lengths[0]) if len(order) else 0, len(order)), dtype=np.uint8)
    for place, index in enumerate(order):
        columns[: lengths[place], place] = np.frombuffer(records[index], dtype=np.uint8)
    table = np.array(_TABLE, dtype=np.uint32)
    crc = np.full(len(order), 0xFFFFFFFF, dtype=np.uint32)
    # Longest first, so that the records that still have a byte are always the leading ones.
    active = np.searchsorted(-lengths, -np.arange(len(columns)), side="left")
    for column, count in zip(columns, active, strict=True):
        part = crc[:count]
        crc[:count] = (part >> 8) ^ table[(part ^ column[:count]) & 0xFF]
    out = [0] * len(order)
    for place, index in enumerate(order):
        out[index] = int(crc[place]) ^ 0xFFFFFFFF
    return out


def mask(crc: int) -> int:
    """The checksum as TFRecord stores it: rotated, plus a constant."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def verify_records(path: str | Path, spans: Sequence[tuple[int, int]]) -> None:
    """Compute the checksum of every record's bytes; `InputError` names a damaged one."""
    for first in range(0, len(spans), 256):
        batch = spans[first : first + 256]
        records = [read_record(path, span) for span in batch]
        for span, (data, stored), crc in zip(
            batch, records, crc32c_many([data for data, _ in records]), strict=True
        ):
            if mask(crc) != stored:
                raise InputError(
                    f"{path} is damaged in the record at byte {span[0]} ({len(data)} bytes); "
                    "fetch it again"
                )


def record_spans(path: str | Path) -> list[tuple[int, int]]:
    """(start, length) of every record's bytes; the length's checksum is verified.

    Raises `InputError` naming the file and the record for a damaged or truncated file.
    """
    path = Path(path)
    spans: list[tuple[int, int]] = []
    require_file(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            position = 0
            while position < size:
                head = file.read(HEAD.size)
                if len(head) < HEAD.size:
                    raise InputError(f"{path} ends within record {len(spans)}; fetch it again")
                length, expected = HEAD.unpack(head)
                if length > LARGEST or mask(crc32c(head[:8])) != expected:
                    raise InputError(f"{path} is damaged at record {len(spans)}; fetch it again")
                start = position + HEAD.size
                position = start + length + FOOT.size
                if position > size:
                    raise InputError(f"{path} ends within record {len(spans)}; fetch it again")
                spans.append((start, length))
                file.seek(position)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it back") from error
    return spans


def read_record(path: str | Path, span: tuple[int, int]) -> tuple[bytes, int]:
    """The bytes of one record, and the checksum that is stored with them (not verified)."""
    start, length = span
    require_file(path)
    try:
        with Path(path).open("rb") as file:
            file.seek(start)
            data = file.read(length + FOOT.size)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); put it back") from error
    if len(data) < length + FOOT.size:
        raise InputError(f"{path} ends within the record at byte {start}; fetch it again")
    return data[:length], FOOT.unpack(data[length:])[0]


def parse_example(data: bytes, *, skip: str | None = None) -> dict[str, Value]:
    """The features of a tf.train.Example: lists of bytes, float32 arrays or int64 arrays.

    The feature called ``skip`` is left out, and not copied: a label is had without its picture.
    Raises `InputError` for bytes that are not one.
    """
    features: dict[str, Value] = {}
    try:
        for field, content in _fields(memoryview(data)):
            if field != 1:  # Example.features
                continue
            for inner, entry in _fields(_block(content)):
                if inner != 1:  # Features.feature, a map entry: 1 key, 2 value
                    continue
                pair = dict(_fields(_block(entry)))
                name = bytes(_block(pair[1])).decode("utf-8")
                if name != skip:
                    features[name] = _value(_block(pair[2])) if 2 in pair else []
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"the record is not a tf.train.Example ({error})") from error
    return features


def _block(content: memoryview | int) -> memoryview:
    if isinstance(content, int):
        raise ValueError("a number where a message was expected")
    return content


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, content) of a message: an int, or the bytes of a longer field."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        field, kind = key >> 3, key & 7
        if kind == 0:
            number, position = _varint(data, position)
            yield field, number
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > len(data):
            raise ValueError("a field that ends beyond its message")
        yield field, data[position : position + length]
        position += length


def _value(feature: memoryview) -> Value:
    """Feature: one of bytes_list (1), float_list (2), int64_list (3), each a repeated field 1."""
    for kind, content in _fields(feature):
        values = [item for field, item in _fields(_block(content)) if field == 1]
        if kind == 1:
            return [bytes(_block(item)) for item in values]
        if kind == 2:  # packed, or one 32-bit field each: the bytes are the same
            joined = b"".join(bytes(_block(item)) for item in values)
            return np.frombuffer(joined, dtype="<f4").copy()
        if kind == 3:
            return np.array(list(_integers(values)), dtype=np.int64)
    return []


def _integers(values: list[memoryview | int]) -> Iterator[int]:
    for item in values:
        if isinstance(item, int):
            yield item - (1 << 64) if item >> 63 else item
            continue
        position = 0
        while position < len(item):
            number, position = _varint(item, position)
            yield number - (1 << 64) if number >> 63 else number

"""Ways to harm an input: of its bytes, and of its structure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, -(2**70), 10**9, 0.5, -0.0, 1e308),
    *("", "x", "²", "٣", "nan", "inf", "../../etc", "/etc/passwd", "a\0b", "\ud800", "=1+1", "💥"),
    *([], {}, [[]], [None], {"": None}, ["x"] * 50, "9" * 5000, "x" * 20_000, "all", "((((("),
)
"""Values that no field expects."""


def deep(levels: int = 2000) -> list[Any]:
    """Lists within lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def harm_bytes(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, cut, put in, repeated, or exchanged for a hostile run of them."""
    body = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not body:
            return bytes(draw.randbytes(draw.randrange(64)))
        at = draw.randrange(len(body))
        stop = min(len(body), at + draw.choice((1, 2, 4, 8, 64, 1024)))
        match draw.randrange(7):
            case 0:
                body[at] = draw.randrange(256)
            case 1:
                body[at] ^= 1 << draw.randrange(8)
            case 2:
                del body[at:stop]
            case 3:
                body[at:at] = draw.randbytes(draw.choice((1, 4, 64)))
            case 4:
                del body[at:]
            case 5:
                body[at:stop] = draw.choice((b"\xff", b"\x00", b"\x80", b"9", b"[")) * (stop - at)
            case 6:
                body[at:at] = body[at:stop] * draw.choice((1, 2, 50))
    return bytes(body)


def harm_value(value: Any, draw: random.Random) -> Any:
    """A plain value with one of its parts changed, taken out, renamed or put in."""
    value = json.loads(json.dumps(value))
    parts = list(_parts(value))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if not parts:
            break
        holder, key = draw.choice(parts)
        hostile = deep() if draw.random() < 0.03 else draw.choice(HOSTILE)
        try:
            match draw.randrange(4):
                case 0 | 1:
                    holder[key] = hostile
                case 2:
                    del holder[key]
                case 3:
                    if isinstance(holder, dict):
                        holder[str(draw.choice(("", "x", "name", key, "é")))] = hostile
                    else:
                        holder.insert(draw.randrange(len(holder) + 1), hostile)
        except (KeyError, IndexError):
            continue  # an earlier change took it out
    return value


def encoded(value: Any) -> str:
    """The value as JSON; nested more deeply than can be written, as deep a list instead."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 2000 + "]" * 2000


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """(what holds it, key) of every part of a plain value."""
    parts: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        parts.append((value, key))
        if isinstance(item, dict | list):
            parts += _parts(item)
    return parts


def harm_text(text: str, draw: random.Random) -> str:
    """A word, a number or a sign of a text exchanged, doubled or taken out."""
    pieces = re.findall(r"\w+|\s+|[^\w\s]", text)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if not pieces:
            break
        at = draw.randrange(len(pieces))
        match draw.randrange(4):
            case 0:
                pieces[at] = str(draw.choice(HOSTILE))
            case 1:
                del pieces[at]
            case 2:
                pieces[at] *= draw.choice((2, 40))
            case 3:
                pieces.insert(at, draw.choice(("=", ":", ",", "+", "(", "-", "[", "'", "\0", "e9")))
    return "".join(pieces)


def harm_cells(text: str, draw: random.Random) -> str:
    """A CSV text with a cell, a row or a column's name changed."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(draw.choice((1, 1, 2, 5))):
        row = draw.choice(rows if draw.random() < 0.7 else rows[:1])
        if row:
            at = draw.randrange(len(row))
            match draw.randrange(4):
                case 0 | 1:
                    row[at] = str(draw.choice(HOSTILE)).replace(",", ";")
                case 2:
                    del row[at]
                case 3:
                    row.insert(at, "1")
    return "\n".join(",".join(row) for row in rows)


def either(
    structured: Callable[[random.Random], bytes], plain: bytes
) -> Callable[[random.Random], bytes]:
    """Half the time the structure is harmed, half the time the bytes."""
    return lambda draw: structured(draw) if draw.random() < 0.5 else harm_bytes(plain, draw)

"""Where data lie, and what is kept of them between runs."""

import contextlib
import hashlib
import os
from pathlib import Path

from aptheory.checked import expanded
from aptheory.errors import InputError
from aptheory.writing import beside


def data_folder(root: str | Path | None = None) -> Path:
    """The folder of data sets: ``root``, or the variable APTHEORY_DATA, or
    ``~/.cache/aptheory/data``."""
    path = root if root is not None else os.environ.get("APTHEORY_DATA")
    return expanded(path) if path else cache_folder() / "data"


def cache_folder() -> Path:
    """The variable APTHEORY_CACHE, or ``~/.cache/aptheory``. Whatever is in it can be deleted.

    Raises:
        InputError: neither the variable nor a home folder is known.
    """
    path = os.environ.get("APTHEORY_CACHE")
    folder = expanded(path or "~/.cache/aptheory")
    if str(folder).startswith("~"):
        raise InputError(f"the home folder of {folder} is not known; name one in APTHEORY_CACHE.")
    return folder


def _file(kind: str, stamp: str) -> Path:
    key = hashlib.sha256(stamp.encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / kind / key


def remembered(kind: str, stamp: str) -> str | None:
    """The text that is kept for files with this stamp (their names, sizes and times), if any."""
    if not stamp:
        return None
    try:
        return _file(kind, stamp).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def remember(kind: str, stamp: str, text: str) -> None:
    """Keep a text. A cache folder that cannot be written to costs time, not the result."""
    if not stamp:
        return
    with contextlib.suppress(OSError):
        write_whole(_file(kind, stamp), text + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write a file, in a folder that is made if need be, so that nobody sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with beside(file) as part:
        part.write_text(text, encoding="utf-8")

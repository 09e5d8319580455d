"""Where data lie, and what is kept of them between runs."""

import hashlib
import os
from pathlib import Path


def data_folder(root: str | Path | None = None) -> Path:
    """The folder of data sets: ``root``, or the variable APTHEORY_DATA, or
    ``~/.cache/aptheory/data``."""
    given = root if root is not None else os.environ.get("APTHEORY_DATA")
    return Path(given).expanduser() if given else cache_folder() / "data"


def cache_folder() -> Path:
    """The variable APTHEORY_CACHE, or ``~/.cache/aptheory``. Whatever is in it can be deleted."""
    given = os.environ.get("APTHEORY_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "aptheory"


def _digest_file(stamp: str) -> Path:
    return cache_folder() / "digests" / hashlib.sha256(stamp.encode()).hexdigest()


def remembered_digest(stamp: str) -> str | None:
    """The digest kept for files with this stamp (their names, sizes and times), if any."""
    if not stamp:
        return None
    try:
        text = _digest_file(stamp).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None


def remember_digest(stamp: str, digest: str) -> None:
    """Keep a digest. A cache folder that cannot be written to costs time, not the result."""
    if not stamp:
        return
    file = _digest_file(stamp)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(digest + "\n", encoding="ascii")
        unfinished.replace(file)
    except OSError:
        return

"""Which files are pictures: by suffix, and where a suffix says nothing by their first bytes."""

import logging
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

_log = logging.getLogger("aptheory")

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
#: Pictures that a plugin of Pillow reads: suffix -> its module, in the extra "pictures".
PLUGINS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pillow_heif"),
    ".jxl": "pillow_jxl",
}
#: Pictures that are not read at all.
UNREAD = (
    *(".svg", ".psd", ".xcf", ".eps", ".ai", ".dcm", ".nii", ".exr", ".hdr"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)
#: Files that are no pictures, whose contents need not be looked at.
OTHER = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md"),
    *(".rst", ".html", ".htm", ".pdf", ".py", ".ipynb", ".npy", ".npz", ".mat", ".pkl", ".pt"),
    *(".pth", ".h5", ".hdf5", ".db", ".ini", ".cfg", ".log", ".zip", ".tar", ".gz", ".tgz"),
    *(".7z", ".rar", ".mp4", ".avi", ".mov", ".mkv", ".wav", ".mp3", ".sh", ".doc", ".docx"),
    *(".xls", ".xlsx", ".parquet", ".arrow", ".tfrecord", ".lnk", ".url"),
)
_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*"),
    b"\x00\x00\x00\x0cjP  ",
)


def suffix_of(key: str) -> str:
    """The suffix in lower case, with its dot; "" without one."""
    dot = key.rfind(".")
    return key[dot:].lower() if dot > key.rfind("/") + 1 else ""


def plugin(suffix: str) -> bool:
    """Whether files of this suffix can be read with the plugins that are installed."""
    module: Any
    try:
        module = import_module(PLUGINS[suffix])  # pillow_jxl registers itself
    except ImportError:
        return False
    if hasattr(module, "register_heif_opener"):
        module.register_heif_opener()
    return True


def looks_like_picture(head: bytes) -> bool:
    """Whether these are the first bytes of a picture."""
    if head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    return head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis")


def pictures_among(store: Any, keys: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """The keys of pictures, in order, and what else there is: {kind of file: number}.

    Pictures that cannot be read are warned of: they would be missed without a word.
    """
    kept, other = [], Counter[str]()
    readable: dict[str, bool] = {}
    for key in keys:
        suffix = suffix_of(key)
        if suffix in SUFFIXES:
            kept.append(key)
            continue
        if suffix in PLUGINS:
            if suffix not in readable:
                readable[suffix] = plugin(suffix)
            if readable[suffix]:
                kept.append(key)
            else:
                other[f"picture {suffix}, which needs pip install 'aptheory[pictures]'"] += 1
        elif suffix in UNREAD:
            other[f"picture {suffix}, which is not read"] += 1
        elif suffix not in OTHER and looks_like_picture(store.head(key)):
            kept.append(key)
        else:
            other[f"file {suffix}" if suffix else "file without a suffix"] += 1
    for kind, number in other.items():
        if kind.startswith("picture"):
            _log.warning("%s: left out %d × %s", store.place, number, kind)
    return kept, other

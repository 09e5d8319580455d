"""The files of a results folder: whole or absent, and a full disk is a sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path

from aptheory.errors import InputError
from aptheory.writing import beside


class StorageError(InputError):
    """The results folder cannot be written: full, read-only, or gone. Nothing finished is lost."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` as `aptheory.writing.beside` does: whole or not at all.

    Raises:
        InputError: something that is no ordinary file has that name.
        StorageError: the disk is full, the folder around it cannot be written or is gone.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """The same for files that belong together: none takes its place before all are written.

    Raises:
        InputError: something that is no ordinary file has one of the names.
        StorageError: the disk is full, a folder around them cannot be written or is gone.
    """
    folder = next(iter(contents)).parent
    try:
        with contextlib.ExitStack() as stack:
            for path, content in contents.items():
                folder = path.parent
                # A name that is no UTF-8, in a command or a path, is spelt out.
                if isinstance(content, str):
                    content = content.encode(errors="backslashreplace")
                with open(stack.enter_context(beside(path)), "wb") as file:
                    file.write(content)
    except OSError as error:
        raise storage_error(folder, error) from error


def storage_error(folder: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space and run the same command again"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        advice = "choose a folder that you may write to"
    else:
        advice = "check the folder and run the same command again"
    return StorageError(f"cannot write to {folder}: {error.strerror or error}; {advice}.")

"""Files that are whole or absent: written beside their place, forced to the disk, renamed."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from pathlib import Path

from aptheory.errors import InputError
from aptheory.locks import HAS_LOCKS


class StorageError(InputError):
    """The results folder cannot be written: full, read-only, or gone. Nothing finished is lost."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` beside ``path``, force it to the disk, rename it into place.

    A reader sees the old file or the new one, never a part; so does the next boot after a power
    cut. On failure the part is removed.

    Raises:
        StorageError: a folder has that name, the disk is full, the folder around it cannot be
            written or is gone.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder; name a file.")
    part = path.with_name(f".{path.name}.{part_owner()}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if HAS_LOCKS:  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise storage_error(path.parent, error) from error


def part_owner() -> str:
    """Who writes a part: this machine and process, so that no two names are alike."""
    host = "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())[:32]
    return f"{host or 'host'}.{os.getpid()}"


def writer_lives(part: Path) -> bool | None:
    """Whether the process that a part is named after is alive; None if that cannot be known."""
    host, _, pid = ".".join(part.name.split(".")[-4:-2]).partition(".")
    if not pid.isdigit() or f"{host}." != part_owner().rpartition(".")[0] + ".":
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def storage_error(folder: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space and run the same command again"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        advice = "choose a folder that you may write to"
    else:
        advice = "check the folder and run the same command again"
    return StorageError(
        f"cannot write to {folder}: {error.strerror or error}; {advice} "
        "(what is finished stays finished)"
    )

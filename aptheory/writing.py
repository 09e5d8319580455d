"""Files that are whole or absent, and one writer of them at a time.

A file is written beside its place, forced to the disk and renamed into it. The name of such a part
says whose it is, so the next writer in the folder removes what a killed process left. Locks are
the kernel's, which drops them when a process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from aptheory.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system; everything but sweeps works
    fcntl = None  # type: ignore[assignment]


_LOCK = ".aptheory-lock"
"""How the name of a lock ends, which lies hidden beside its file."""
LONGEST_NAME = 190
"""Bytes of a file's name: its part's has some sixty more, and systems end at 255."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# ------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """The name of a part beside ``path`` that is to be written; at the end it takes that place.

    A reader sees the old file or the new one, never a part; so does the next boot after a power
    cut. On failure the part is removed.

    Raises:
        InputError: something that is no ordinary file has that name.
        OSError: the disk is full, the folder cannot be written or is gone.
    """
    refuse_no_file(path)
    _sweep_up_once(path.parent)
    part = path.with_name(f".{path.name}.{part_owner()}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = part.stat().st_mode
        yield part
        os.chmod(part, mode)  # a library may have made the file anew, for its owner alone
        _force(part)
        os.replace(part, path)
    except BaseException as error:
        named = Path(getattr(error, "filename", None) or path)
        if isinstance(error, OSError) and named.absolute().parent == path.absolute().parent:
            error.filename = str(path)  # the name that a user knows, not a part's
        remove_if_possible(part)
        told = not isinstance(error, Exception) or isinstance(error, OSError | InputError)
        fault = None if told else _full_disk_behind(error)
        if fault is not None:
            raise OSError(fault.errno, fault.strerror, str(path)) from error
        raise
    if fcntl is not None:  # elsewhere a folder cannot be opened
        _force(path.parent)


def _full_disk_behind(error: BaseException | None) -> OSError | None:
    """That the disk is full, where it stands behind an error: a library that closes its file may
    stumble once more over what it could not write."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def remove_if_possible(path: Path) -> None:
    """Remove what only the work needed: a part, a lock. Where that fails, the folder is gone or
    cannot be written, and what went wrong before is what is told; the next writer sweeps up."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def refuse_no_file(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a device or a pipe.

    Raises:
        InputError: one has that name, or no file can have it.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} is no name of a file: it holds a zero byte.")
    try:
        size = len(os.fsencode(str(path)).rpartition(b"/")[2])
    except UnicodeEncodeError:
        raise InputError(
            f"{str(path)!a} has letters that names of files cannot have here; name another."
        ) from None
    if size > LONGEST_NAME:
        raise InputError(
            f"the name {path.name[:40]}... has {size:,} letters (bytes); give the file one of "
            f"{LONGEST_NAME} at most."
        )
    if path.is_dir():
        raise InputError(
            f"{path} is a folder where a file is to be written; remove it, or name a file such as "
            f"{path}/{path.name or 'file'}."
        )
    # The standard output may be a file, but to take its place would remove the system's name of it.
    system = str(path.absolute()).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    if system or (path.exists() and not path.is_file()):
        raise InputError(f"{path} is a device or a pipe, not a file; name another.")


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def sweep_up(folder: Path, *, older_than: float | None = None) -> None:
    """Remove the parts in a folder whose writers are dead.

    A process of this machine is asked for. A part of another machine stays, unless it was last
    written before ``older_than``, a time by the clock of the folder's file system.
    """
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            lives = writer_lives(part)
            if lives is None:
                lives = older_than is None or part.stat().st_mtime >= older_than
            if not lives:
                part.unlink()


@functools.cache
def _sweep_up_once(folder: Path) -> None:
    sweep_up(folder)
    for place in folder.glob(f".*{_LOCK}"):
        with contextlib.suppress(OSError, NoLocksError):
            file = lock_file(place)
            if file is not None:  # its holder was killed
                place.unlink()
                file.close()


# ------------------------------------------------------------------------------------- locks


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Let no other command write to ``path`` as long as this lasts.

    Raises:
        InputError: one does already.
        OSError: the folder cannot be written.
    """
    place = path.with_name(f".{path.name}{_LOCK}")
    with contextlib.ExitStack() as stack:
        try:
            _sweep_up_once(path.parent)
            file = lock_file(place)
        except NoLocksError:  # each file still appears whole
            remove_if_possible(place)
        else:
            if file is None:
                raise InputError(
                    f"another command is writing {path} at this moment; wait for it, or name "
                    "another place with --out."
                )
            stack.callback(file.close)
            stack.callback(remove_if_possible, place)
        yield


def being_written(path: Path) -> bool:
    """Whether a command holds ``path`` as `only_writer` does, as far as can be told."""
    try:
        with open(path.with_name(f".{path.name}{_LOCK}"), "rb") as file:
            return not lock(file, shared=True)
    except (OSError, NoLocksError):
        return False


class NoLocksError(InputError):
    """This system, or the file system of a folder, has no locks."""


def lock_file(path: Path) -> IO[str] | None:
    """The open file ``path`` with its lock, or None while another process holds it.

    Whoever is through with it removes the file while it is still locked, then closes it: who had
    opened it meanwhile sees that it is gone.

    Raises:
        NoLocksError: files cannot be locked here.
        OSError: the file cannot be made.
    """
    while True:
        file = open(path, "a+")  # noqa: SIM115 (the lock lives as long as the file)
        try:
            if not lock(file):
                file.close()
                return None
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Take the lock of an open file until it is closed; whether that succeeded.

    Raises:
        NoLocksError: files cannot be locked here.
    """
    if fcntl is None:
        raise NoLocksError(
            "sweeps need the file locks of a POSIX system (Linux, macOS); fit, profile and the "
            "other functions work without."
        )
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        folder = Path(file.name).parent
        raise NoLocksError(
            f"the file system of {folder} cannot lock files ({error.strerror}); choose a folder "
            "on another file system."
        ) from error
    return True

"""Locks on open files, which the kernel drops when a process dies, however it dies."""

from __future__ import annotations

from typing import IO, Any

from aptheory.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system; everything but sweeps works
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


def lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Take the lock of an open file until it is closed; whether that succeeded.

    Raises:
        InputError: this system has no such locks.
        OSError: the file system has none.
    """
    if fcntl is None:
        raise InputError(
            "sweeps need the file locks of a POSIX system (Linux, macOS); fit, profile and the "
            "other functions work without."
        )
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

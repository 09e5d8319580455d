"""Which sweeps of a folder live: one study at a time, any number of processes.

A sweep keeps ``claims/sweep.TOKEN`` and holds its lock while it lives; the file says which runs it
is about. The kernel drops the lock when the process dies, so what a killed sweep left is told from
what lives without any clock, and the next sweep removes it. Two sweeps of one study share the
work; a sweep of another study is refused before it spends anything, because both would write their
tables into the same files.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from aptheory.errors import InputError
from aptheory.studies.files import storage_error
from aptheory.studies.plan import Plan
from aptheory.studies.store import Store
from aptheory.writing import lock, remove_if_possible


@contextlib.contextmanager
def presence(store: Store, plan: Plan) -> Iterator[str]:
    """Hold a folder for the runs of a plan; yields the sweep's token.

    Raises:
        InputError: a sweep of other runs lives there.
        StorageError: the folder cannot be written or locked.
    """
    about = plan.identity
    token = secrets.token_hex(8)
    path = store.claims / f"sweep.{token}"
    with _door(store):
        for other in store.claims.glob("sweep.*"):
            _pass_over(other, about, store.folder)
        try:
            file = open(path, "w+")  # noqa: SIM115 (its lock is the sweep's life)
            lock(file)
            file.write(about)
            file.flush()
        except OSError as error:
            raise storage_error(store.claims, error) from error
    try:
        yield token
    finally:
        remove_if_possible(path)
        file.close()


@contextlib.contextmanager
def _door(store: Store) -> Iterator[None]:
    """One sweep at a time looks around and comes in."""
    while True:
        with store.claim("sweeps") as mine:
            if mine:
                yield
                return
        time.sleep(0.02)


def _pass_over(other: Path, about: str, folder: Path) -> None:
    """Remove what a killed sweep left; refuse to go on beside a living one of another study."""
    try:
        with open(other, "r+") as file:
            if lock(file):
                other.unlink(missing_ok=True)
                return
            owner = file.read()
    except OSError:
        return
    if owner and owner != about:
        raise InputError(
            f"another study is running in {folder}; wait for it, or give this one a folder of its "
            "own with --out."
        )

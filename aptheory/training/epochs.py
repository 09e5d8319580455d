"""Who is told that an epoch is over: whoever listens in this process, and nobody else.

Training knows nothing of folders and bars; a worker of a study listens while it trains a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int, int], None]
"""Called with the epochs that are done, all epochs, and how many runs were in the stack."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """While this lasts, ``listener`` is called after every epoch."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def epoch_done(done: int, of: int, runs: int) -> None:
    """Tell whoever listens that a stack of ``runs`` runs has trained ``done`` epochs of ``of``."""
    listener = _listener.get()
    if listener is not None:
        listener(done, of, runs)

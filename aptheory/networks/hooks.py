"""Hooks that see what their own thread runs: another may run the same network beside it."""

import functools
import threading
from collections.abc import Callable
from typing import Any


def of_this_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """``hook``, which is passed over where another thread than this one runs the module."""
    own = threading.get_ident()

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> None:
        if threading.get_ident() == own:
            hook(*args, **kwargs)

    return call

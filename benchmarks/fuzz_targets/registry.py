"""The targets by name, and what a target and a case are."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = Callable[[random.Random], Any]
Target = Callable[[Path], Case]
TARGETS: dict[str, Target] = {}


def target(make: Target) -> Target:
    """Register a target under its function's name."""
    TARGETS[make.__name__] = make
    return make


def file_case(
    path: Path, harmed: Callable[[random.Random], bytes], read: Callable[[], Any]
) -> Case:
    """Write harmed bytes to a file and read it."""

    def case(draw: random.Random) -> Any:
        path.write_bytes(harmed(draw))
        return read()

    return case

"""What of the machine a study fixes, because it decides the last bits of every result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aptheory.checked import shown
from aptheory.errors import InputError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What decides how results are rounded, and so is part of a study that must give the same bits.

    Attributes:
        together: how many runs train as one batch at most.
        layers_together: how many neighbouring layers one worker walks through, keeping activations.
        threads: of each worker.
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    """

    together: int = 4
    layers_together: int = 4
    threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        check_runtime(vars(self))


def check_runtime(values: Mapping[str, Any]) -> None:
    """Refuse what `Runtime` cannot hold, of the words that are there."""
    for word in ("together", "layers_together", "threads"):
        value = values.get(word, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
            raise InputError(
                f"{word} is {shown(value)}; expected a whole number from 1 up to 4096."
            )
    device = values.get("device", "auto")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise InputError(
            f"device is {shown(device)}; expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        )

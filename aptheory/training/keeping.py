"""How activations are kept: what is asked for, and where a split was put and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from aptheory.devices import DTYPES
from aptheory.errors import InputError


class Where(Enum):
    """Where the rows of a split are; the values of three of them can be asked for by name."""

    IMAGES = "images"
    DEVICE = "memory"
    HOST = "host memory"
    DISK = "disk"
    AGAIN = "recompute"

    @property
    def stored(self) -> bool:
        """Whether activations are written there, instead of made again from the images."""
        return self in (Where.DEVICE, Where.HOST, Where.DISK)


@dataclass(frozen=True)
class Decision:
    """Where a split is kept at one place, and why; its text is for the log."""

    where: Where
    why: str

    def __str__(self) -> str:
        return f"{self.where.value} ({self.why})"


CHOICES = ("auto", Where.DEVICE.value, Where.DISK.value, Where.AGAIN.value)


@dataclass(frozen=True, kw_only=True)
class KeepPolicy:
    """What is asked of kept activations.

    Attributes:
        keep: "memory", "disk" or "recompute" forces the choice that "auto" makes by itself; each
            choice is logged (logger "aptheory") and listed by `Kept.describe`.
        keep_dtype: "float32" keeps the values exactly; "bfloat16" and "float16" halve the room.
        precision: autocast of the frozen pieces.
        augment, views, seed: random augmentation of the training images (see `Recipe`). With
            views = 0 fresh ones are drawn for every batch, and the training split is recomputed.
        mix: whether training images are blended, "none", "mixup" or "cutmix"; recomputed as well.
        passes: how often each split will be read; a split read once is not kept.
        memory_limit, scratch: bytes that may be kept in memory (default: half of what is free),
            and the folder for what does not fit (default: the system's temporary one).
        channels_last: memory format of maps.
    """

    keep: str = "auto"
    keep_dtype: str = "float32"
    precision: str = "float32"
    augment: str = "none"
    views: int = 0
    mix: str = "none"
    seed: int = 0
    passes: Mapping[str, float] = field(default_factory=dict)
    memory_limit: float | None = None
    scratch: str | Path | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.keep not in CHOICES:
            raise InputError(f"keep must be one of {', '.join(CHOICES)}; got {self.keep!r}.")
        for name in (self.keep_dtype, self.precision):
            if name not in DTYPES:
                raise InputError(f"the type must be one of {', '.join(DTYPES)}; got {name!r}.")

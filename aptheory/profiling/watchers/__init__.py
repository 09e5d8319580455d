"""One watcher a family of measures; a profile shows them every layer's activation in turn."""

from collections.abc import Iterable

from aptheory.errors import InputError
from aptheory.profiling.watchers.attention import AttentionWatcher
from aptheory.profiling.watchers.base import Settings, Sight, UndefinedWarning, Watcher
from aptheory.profiling.watchers.gradient import ReceptiveFieldWatcher
from aptheory.profiling.watchers.keeping import KeepingWatcher
from aptheory.profiling.watchers.moments import (
    ShiftWatcher,
    norms_with_moments,
    reference_moments,
)
from aptheory.profiling.watchers.perturbation import TokenSurvivalWatcher
from aptheory.profiling.watchers.streaming import (
    CKAWatcher,
    ClassDistanceWatcher,
    FrequencyWatcher,
    GlobalityWatcher,
    RankWatcher,
)

__all__ = [
    "AttentionWatcher",
    "ReceptiveFieldWatcher",
    "Settings",
    "ShiftWatcher",
    "Sight",
    "TokenSurvivalWatcher",
    "UndefinedWarning",
    "Watcher",
    "check_measures",
    "known_measures",
    "norms_with_moments",
    "reference_moments",
    "start",
]

WATCHERS: tuple[type[Watcher], ...] = (
    AttentionWatcher,
    CKAWatcher,
    RankWatcher,
    GlobalityWatcher,
    FrequencyWatcher,
    ClassDistanceWatcher,
    KeepingWatcher,
    ReceptiveFieldWatcher,
    TokenSurvivalWatcher,
    ShiftWatcher,
)


def known_measures() -> tuple[str, ...]:
    """Every measure that a profile can compute."""
    return tuple(name for watcher in WATCHERS for name in watcher.known())


def check_measures(names: Iterable[str]) -> None:
    """Refuse names that are no measure's."""
    unknown = [name for name in names if name not in known_measures()]
    if unknown:
        raise InputError(
            f"Unknown measure {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(known_measures())}."
        )


def start(settings: Settings) -> list[Watcher]:
    """The watchers that the wanted measures need."""
    check_measures(settings.measures)
    return [
        watcher(settings) for watcher in WATCHERS if set(watcher.known()) & set(settings.measures)
    ]

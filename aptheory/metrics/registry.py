"""Every measure with what it claims: its range, what leaves it unchanged, which way it points.

A function under `measure` stands in `MEASURES`; the tests loop over that table and hold each
measure to its claims.
"""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

INFINITE = float("inf")
TURNED = frozenset({"rotation", "scaling", "channel order", "image order"})
"""What changes nothing about a measure of directions in feature space."""
FREE = TURNED | {"translation"}
"""The same of a measure that subtracts the mean first."""

Takes = Literal[
    "attention",
    "gradient",
    "pair",
    "features",
    "maps",
    "tokens",
    "versions",
    "reference",
    "labelled",
]


@dataclass(frozen=True)
class Measure:
    """A measure and its properties.

    ``takes`` says what the function is given: "features" (images, ...); "pair", two of those;
    "reference", features and those of other images;
    "labelled", features and labels; "tokens" (images, positions, channels); "maps" (images,
    channels, height, width); "attention", probabilities; "gradient", one with respect to images;
    "versions", the activation of an image and of two changed ones (images, 3, ...).
    ``unchanged_by`` names operations on the features (or on one of a pair) that change nothing:
    "rotation" and "translation" of feature space, "scaling", "channel order", "image order" (of
    both of a pair and of the labels alike). ``greater_means`` says how to read it.
    ``streams``: there is an accumulator whose memory does not grow with the images.
    """

    name: str
    function: Callable[..., Any]
    takes: Takes
    low: float
    high: float  # infinite where only the data bound it
    unchanged_by: frozenset[str]
    greater_means: str
    source: str
    symmetric: bool = False
    streams: bool = True
    unit: str = ""


MEASURES: dict[str, Measure] = {}
F = TypeVar("F", bound=Callable[..., Any])


def measure(
    takes: Takes,
    low: float,
    high: float,
    *,
    unchanged_by: Set[str],
    greater_means: str,
    source: str,
    symmetric: bool = False,
    streams: bool = True,
    unit: str = "",
    name: str = "",
) -> Callable[[F], F]:
    """Register a function as a measure, under its own name or ``name``; `Measure` says the rest."""

    def register(function: F) -> F:
        called = name or function.__name__
        MEASURES[called] = Measure(
            called,
            function,
            takes,
            low,
            high,
            frozenset(unchanged_by),
            greater_means,
            source,
            symmetric,
            streams,
            unit,
        )
        return function

    return register


def in_order(names: Iterable[str]) -> list[str]:
    """Names by what their measures are given, attention first; unregistered ones at the end."""
    kinds, registered = get_args(Takes), list(MEASURES)

    def place(name: str) -> tuple[int, int]:
        if name not in MEASURES:
            return len(kinds), 0
        return kinds.index(MEASURES[name].takes), registered.index(name)

    return sorted(names, key=place)

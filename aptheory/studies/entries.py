"""The entries of a study, looked at one by one: what a network, a task or a search may say.

A study may come from a file that anybody wrote, so every value's type and size is looked at here,
before anything is loaded or any memory is taken.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aptheory.arguments import LARGEST_OPTION, LARGEST_SEED, LARGEST_SIDE, is_number
from aptheory.checked import expanded, shown
from aptheory.errors import InputError

SEARCHED = ("lr", "weight_decay")
MOST_SEEDS = 10_000
MOST_ENTRIES = 4096

Check = tuple[Callable[[Any], bool], str]


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any, least: float = -math.inf) -> bool:
    return is_number(value) and abs(value) < 1e300 and value >= least


def _several(value: Any, check: Callable[[Any], bool], counts: Sequence[int]) -> bool:
    return isinstance(value, list | tuple) and len(value) in counts and all(map(check, value))


_TEXT: Check = (lambda v: isinstance(v, str) and 0 < len(v) <= 4096, "text")
_SEED: Check = (lambda v: _whole(v, 0, LARGEST_SEED), f"a whole number from 0 to {LARGEST_SEED}")
_SIZE: Check = (lambda v: _whole(v, 1, 2**40), "a whole number from 1 up")
NETWORK: dict[str, Check] = {
    "name": _TEXT,
    "label": _TEXT,
    "factory": (lambda v: isinstance(v, str) and ":" in v, "'module:function'"),
    "weights": (
        lambda v: isinstance(v, str | Path) and bool(str(v)),
        "'pretrained', 'random' or a file",
    ),
    "seed": _SEED,
    "granularity": (lambda v: v in ("block", "stage"), "'block' or 'stage'"),
    "input_shape": (
        lambda v: _several(v, lambda n: _whole(n, 1, LARGEST_SIDE), (3,)),
        f"[channels, height, width], none above {LARGEST_SIDE:,}",
    ),
    "mean": (lambda v: _several(v, _number, range(1, 5)), "a list of one number a channel"),
    "std": (
        lambda v: _several(v, lambda n: _number(n) and n > 0, range(1, 5)),
        "a list of one number above 0 a channel",
    ),
    "crop": (lambda v: _number(v, 0.1) and v <= 10, "a number from 0.1 to 10"),
    "resize": _TEXT,
    "interpolation": (
        lambda v: v in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
        "'bilinear', 'bicubic' or another of Pillow's filters",
    ),
    "classifier": _TEXT,
    "blocks": (
        lambda v: isinstance(v, str) or _several(v, _TEXT[0], range(1, 1000)),
        "the name of a list of blocks, or a list of names",
    ),
    "prefix": (
        lambda v: _whole(v, -1000, 1000),
        "how many tokens in front are no positions; a negative number where they stand behind",
    ),
    "layout": (lambda v: v in ("map", "map_last", "tokens"), "'map', 'map_last' or 'tokens'"),
    "output": (
        lambda v: _TEXT[0](v) or _whole(v, 0, 1000),
        "the name or the index of what the network returns",
    ),
    "options": (
        lambda v: (
            isinstance(v, Mapping)
            and all(isinstance(k, str) for k in v)
            and all(abs(n) <= LARGEST_OPTION for n in v.values() if isinstance(n, int))
        ),
        f"a table of the model's own options, whole numbers up to {LARGEST_OPTION}",
    ),
}
"""What a network's table may hold: word -> (check, what is expected)."""
TASK: dict[str, Check] = {
    "name": _TEXT,
    "label": _TEXT,
    "seed": _SEED,
    "subset_seed": _SEED,
    "resize": _TEXT,
    "group": _TEXT,
    "train": _SIZE,
    "val": _SIZE,
    "test": _SIZE,
}


def source(item: Any, kind: str, checks: Mapping[str, Check]) -> Any:
    """A table of plain values for a name or a table; objects (networks, tasks) stay themselves.

    Raises:
        InputError: a word that such a table does not have, a value of another type, no name.
    """
    if isinstance(item, str):
        item = {"name": item}
    if not isinstance(item, Mapping):
        if hasattr(item, "name") and hasattr(item, "digest"):
            return item
        raise InputError(f"a {kind} is {shown(item)}; expected a name or a table with a name.")
    for word, value in item.items():
        if word not in checks:
            raise InputError(f"a {kind} has no {shown(word)}; {near(word, list(checks))}")
        check, expected = checks[word]
        if not check(value):
            raise InputError(f"the {word} of a {kind} is {shown(value)}; expected {expected}.")
    if not any(word in item for word in ("name", "factory")):
        raise InputError(f"a {kind} has no name: {shown(dict(item))}; add name = '...'.")
    return dict(item)


def method(item: Any) -> Any:
    """An entry of a study's methods: text, a table with a name, a `Method`, or a class of them."""
    if isinstance(item, type):
        from aptheory.methods.registry import factory_of, register

        kind: Any = register(item)
        built_in = kind.__module__.startswith("aptheory.")
        return kind.name if built_in else {"name": kind.name, "factory": factory_of(kind)}
    if isinstance(item, Mapping):
        if not isinstance(item.get("name", item.get("method")), str):
            raise InputError(f"a method has no name: {shown(dict(item))}; add name = 'ap'.")
        return dict(item)
    if not (isinstance(item, str) and item) and not hasattr(item, "settings"):
        raise InputError(f"a method is {shown(item)}; expected text such as 'vpt:tokens=5'.")
    return item


def recipe(item: Any) -> Any:
    """An entry of a study's recipes: a name, a table, or a `Recipe`."""
    if isinstance(item, str) or hasattr(item, "settings"):
        return item
    if not isinstance(item, Mapping) or not isinstance(item.get("name", ""), str):
        raise InputError(f"a recipe is {shown(item)}; expected a name or a table with a name.")
    return dict(item)


def seeds(values: Sequence[Any]) -> tuple[int, ...]:
    """Different whole numbers, not too many; their number is looked at before they are."""
    if len(values) > MOST_SEEDS:
        raise InputError(f"there are {len(values)} seeds; expected {MOST_SEEDS} at most.")
    for value in values:
        if not _SEED[0](value):
            raise InputError(
                f"a seed is {shown(value)}; expected whole numbers from 0 up to 2**62."
            )
    if len(set(values)) != len(values):
        raise InputError(f"seeds {shown(list(values))} name one twice; expected different ones.")
    return tuple(values)


def layers(value: Any) -> Any:
    """Text, or a tuple of what may name a place; which network has it is seen in the plan."""
    if isinstance(value, str):
        return value
    chosen = tuple(value) if isinstance(value, Sequence) else (value,)
    for layer in chosen:
        if isinstance(layer, bool) or not isinstance(layer, int | float | str):
            raise InputError(
                f"layers has {shown(layer)}; expected 'all', 'blocks', or places: indices, names, "
                "fractions of the depth from 0.0 to 1.0."
            )
    if not chosen:
        raise InputError("layers is empty; give 'all', 'blocks', or some places.")
    if len(chosen) > MOST_ENTRIES:
        raise InputError(f"layers has {len(chosen)} entries; expected {MOST_ENTRIES} at most.")
    return chosen


def search(value: Any) -> dict[str, tuple[float, ...]]:
    """Hyperparameters and the values to try: ``{"lr": (0.1, 0.01)}``."""
    if not isinstance(value, Mapping):
        raise InputError(
            f"search is {shown(value)}; expected a table such as {{ lr = [0.1, 0.01] }}."
        )
    grid = {}
    for word, values in value.items():
        if word not in SEARCHED:
            raise InputError(f"search has no {shown(word)}; {near(word, SEARCHED)}")
        numbers = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not 0 < len(numbers) <= 256 or not all(_number(number, 0) for number in numbers):
            raise InputError(
                f"search.{word} is {shown(values)}; expected a list of numbers from 0 up."
            )
        grid[word] = tuple(float(number) for number in numbers)
    return grid


def near(word: Any, known: Sequence[str]) -> str:
    """What was perhaps meant, as the end of a sentence."""
    close = difflib.get_close_matches(str(word)[:64], known, n=3, cutoff=0.75)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}."


def rebased(item: Any, word: str, base: Path) -> Any:
    """The same entry of ``networks`` or ``tasks`` (``word``) with its file names made relative to
    ``base`` instead of to nothing."""
    if word == "tasks":
        from aptheory.tasks.catalogue import rebased as task_rebased

        if isinstance(item, str):
            return task_rebased(item, base)
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            return {**item, "name": task_rebased(item["name"], base)}
        return item
    weights = item.get("weights") if isinstance(item, Mapping) else None
    if isinstance(weights, str) and weights not in ("", "pretrained", "random"):
        return {**item, "weights": str(base / expanded(weights))}
    return item

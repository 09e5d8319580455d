"""What a call gives, held against the types that its function declares, before anything runs.

    @checked_arguments
    def profile(net: Network, images: Any, *, batch_size: Count = 64, seed: Seed = 0): ...

The declaration is the one place that says what an argument may be: a bool is no whole number, NaN
is no number, a text is no list, and a generator, which can be read once, is none either.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set, Sized
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from aptheory.checked import shown
from aptheory.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Between:
    """The numbers from ``low`` to ``high``, as a mark of an annotated type."""

    low: float
    high: float = math.inf
    open: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number lies there."""
        inside = self.low <= value <= self.high
        return bool(inside and not (self.open and value in (self.low, self.high)))

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low}" if self.open else f"from {self.low} up"
        return f"{'between' if self.open else 'from'} {self.low} " + (
            f"and {self.high}" if self.open else f"to {self.high}"
        )


class Columns(tuple[str, ...]):
    """The columns that a table must have, as a mark of its annotated type."""

    def __new__(cls, *names: str) -> Columns:
        return super().__new__(cls, names)

    def holds(self, table: Any) -> bool:
        """Whether a table has them, and in each what belongs there."""
        if not all(name in table for name in self):
            return False
        return not len(table) or all(
            _COLUMN_HOLDS.get(name, holds_labels)(table[name]) for name in self
        )

    def __str__(self) -> str:
        whole = [name for name in ("layer", "seed", "read") if name in self]
        held = [f"{' and '.join(whole)} whole numbers"] if whole else []
        held += ["value holds numbers"] if "value" in self else []
        return f"with the columns {', '.join(self)}" + "".join(f"; {words}" for words in held)


def _numbers(column: Any) -> bool:
    """Numbers, nan where there is none."""
    plain = getattr(column.dtype, "kind", "O") in "fiub"
    return plain and not bool(np.isinf(column.to_numpy(float, na_value=np.nan)).any())


def _whole_numbers(column: Any) -> bool:
    if not _numbers(column):
        return False
    values = column.to_numpy(float, na_value=np.nan)
    return bool((values == np.floor(values)).all())


def holds_labels(column: Any) -> bool:
    """Whether rows can be told apart and gathered by its values."""
    return getattr(column.dtype, "kind", "O") != "O" or all(isinstance(v, Hashable) for v in column)


_COLUMN_HOLDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("value", "low", "high"), _numbers),
    **dict.fromkeys(("layer", "seed", "read"), _whole_numbers),
}


class Among(tuple[str, ...]):
    """The texts that an argument may be, as a mark of its annotated type."""

    def __new__(cls, *texts: str) -> Among:
        return super().__new__(cls, texts)

    def holds(self, value: Any) -> bool:
        """Whether a text is one of them."""
        return value in self

    def __str__(self) -> str:
        return f"among {', '.join(map(repr, self))}"


PROFILE = Columns("network", "task", "layer", "measure", "value")
"""The columns of every table of metrics by layer."""
RESULTS = Columns("network", "task", "method", "layer", "seed", "measure", "value")
"""The columns of every table of accuracies."""
Count = Annotated[int, Between(1)]
"""How many: at least one."""
Whole = Annotated[int, Between(0)]
Amount = Annotated[float, Between(0)]
"""A number that is not negative."""
Positive = Annotated[float, Between(0, open=True)]
Share = Annotated[float, Between(0, 1)]
Level = Annotated[float, Between(0, 1, open=True)]
"""The coverage of an interval."""
LARGEST_INTEGER = 2**64 - 1
"""In size, of any whole number."""
LARGEST_SEED = 2**62
Seed = Annotated[int, Between(0, LARGEST_SEED)]
"""Seeds are drawn from with 64 bits and counted up from."""
LARGEST_SIDE = 2**14
"""Of a picture, in pixels."""
LARGEST_COUNT = 10**9
"""Of epochs, images in a batch, and their like: more is a mistake."""
LARGEST_OPTION = 10**6
"""Of a model's classes or width: more would only fill the memory."""

LONGEST_RANGE = 10**7
"""Of a range, which costs nothing until it is made a list."""

Precision = Annotated[str, Among("float32", "bfloat16", "float16")]
"""Of the arithmetic of a forward pass."""

_SOURCES = {
    "Network": "aptheory.load",
    "Task": "aptheory.task",
    "Adapted": "method.attach(net, classes=...)",
    "DataFrame": "pandas",
}
_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    NoneType: "None",
    Any: "anything",
}


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, in which a second thread waits until the first is through."""
    alone = threading.RLock()

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        with alone:
            return function(*args, **options)

    return call


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments that are not of the types in the function's signature.

    numpy's scalars are taken as the Python numbers that they are.

    Raises:
        InputError: in a call, an argument of another type or outside its range. An argument that
            is missing or unknown is Python's own TypeError.
    """
    signature = inspect.signature(function)
    # CKA.add as it is, the constructor by its class, a function inside another by its own name.
    called = function.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        hints = declared(function)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            bound.arguments[name] = _checked(name, value, hints.get(name, Any), called)
        return function(*bound.args, **bound.kwargs)

    return call


def check_fields(instance: Any, called: str) -> None:
    """The same for the fields of a dataclass, in its ``__post_init__``.

    Raises:
        InputError: as above; the sentence calls the instance ``called``.
    """
    values = {item.name: getattr(instance, item.name) for item in fields(instance)}
    for name, plain in checked_values(type(instance), values, called).items():
        if plain is not values[name]:
            object.__setattr__(instance, name, plain)


def checked_values(kind: Any, values: Mapping[str, Any], called: str) -> dict[str, Any]:
    """The same for values that are to become fields of a dataclass ``kind``."""
    hints = declared(kind)
    return {n: _checked(n, value, hints.get(n, Any), called) for n, value in values.items()}


def _checked(name: str, value: Any, hint: Any, of: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if not fits(value, hint):
        columns = getattr(value, "columns", None)
        given = shown(value) if columns is None else f"a table with the columns {shown([*columns])}"
        size = ""
        if isinstance(value, Integral) and abs(int(value)) > LARGEST_INTEGER:
            size = f", and none beyond {LARGEST_INTEGER:.2g}"
        if isinstance(value, range) and not _is_list(value):
            size = f" and no more than {LONGEST_RANGE:,} of them"
        raise InputError(f"{name} of {of} is {given}; expected {words(hint)}{size}.")
    return value


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has a declared type; what is not understood of a type is not asked for."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        marks = (mark for mark in hint.__metadata__ if isinstance(mark, Between | Columns | Among))
        return fits(value, inner[0]) and all(mark.holds(value) for mark in marks)
    if kind in (Union, UnionType):
        return any(fits(value, option) for option in inner)
    if kind is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if kind in (tuple, Sequence):
        return _is_list(value) and _items_fit(value, inner, whole=kind is tuple)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and (
            not inner or all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
        )
    if kind is Callable:
        return callable(value)
    if kind in (int, float):
        return is_number(value, whole=kind is int)
    if kind is Path:
        return isinstance(value, os.PathLike)
    return value is None if kind in (None, NoneType) else _is_one(value, kind)


def is_number(value: Any, *, whole: bool = False) -> bool:
    """Whether it is a finite number that 64 bits can hold; True and False are none."""
    if not isinstance(value, Integral if whole else Real) or isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, Integral):
        return abs(int(value)) <= LARGEST_INTEGER
    try:
        return math.isfinite(value)
    except OverflowError:  # a fraction
        return False


def _is_list(value: Any) -> bool:
    if isinstance(value, range):  # whose length may be beyond what len() can say
        return len(value[: LONGEST_RANGE + 1]) <= LONGEST_RANGE
    listed = isinstance(value, Sized) and isinstance(value, Iterable)
    return (
        listed
        and not isinstance(value, str | bytes | Mapping | Set)
        and getattr(value, "ndim", 1) > 0
    )


def _items_fit(items: Any, inner: tuple[Any, ...], *, whole: bool) -> bool:
    """``whole``: of a tuple, whose types say its length unless they end in "..."."""
    # Of a range only its ends are asked: what lies between them fits, or will be looked at.
    items = [*items[:1], *items[-1:]] if isinstance(items, range) and not whole else list(items)
    if whole and inner[-1:] != (...,):
        return len(items) == len(inner) and all(map(fits, items, inner))
    return not inner or all(fits(item, inner[0]) for item in items)


def _is_one(value: Any, kind: Any) -> bool:
    if isinstance(getattr(kind, "dim_str", None), str):  # jaxtyping's, which binds dimensions
        return isinstance(value, kind.array_type)
    try:
        return isinstance(value, kind)
    except TypeError:  # a type variable, a protocol that cannot be asked, Any
        return True


def words(hint: Any) -> str:
    """A declared type as a sentence says it."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return " ".join([words(inner[0]), *map(str, hint.__metadata__)])
    if kind in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(words, inner)))
    if kind is Literal:
        return " or ".join(map(repr, inner))
    if kind in (tuple, Sequence):
        named = list(dict.fromkeys(words(item) for item in inner if item is not ...))
        return f"a list, each {' and '.join(named)}" if named else "a list"
    if kind in (dict, Mapping):
        return "a table (dict)"
    if kind is Callable:
        return "a function"
    name = getattr(kind, "__name__", str(kind))
    made = f" ({_SOURCES[name]})" if name in _SOURCES else ""
    return _KINDS.get(kind) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}{made}"


# ------------------------------------------------- names that only type checkers import


class _ByName(type):
    """A class known by its name alone: its instances are those of any class of that name."""

    def __instancecheck__(cls, value: object) -> bool:
        return any(kind.__name__ == cls.__name__ for kind in type(value).__mro__)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ByName(name, (), {})  # pd.DataFrame, where pd is such a name


@functools.cache
def declared(of: Any) -> dict[str, Any]:
    """The types that a function or a class declares, by the names of arguments or fields."""
    known: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(of, localns=known, include_extras=True)
        except NameError as error:
            name = str(error.name)
            known[name] = _ByName(name, (), {})

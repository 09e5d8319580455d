"""What comes from outside is read as it is meant, or refused in one sentence."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from functools import wraps
from typing import Any, TypeVar

from aptheory.arguments import checked_values
from aptheory.checked import shown
from aptheory.errors import InputError, reason_of

Result = TypeVar("Result")
OWN = ("where", "source", "left_out", "every_class")
"""Options by which one reader calls another; no caller of `aptheory` gives them."""


def guarded(where: str, read: Callable[[], Result]) -> Result:
    """What is read, or one sentence: damaged data may raise anything in whoever parses them."""
    try:
        return read()
    except InputError:
        raise
    except Exception as error:
        reason = reason_of(error, kind=True)
        raise InputError(
            f"{where} cannot be read ({reason}); is it whole, and of that layout?"
        ) from error


def checked_options(
    reader: Callable[..., Any], called: str, data: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Options for a reader whose first ``data`` parameters are the data, as a user calls it.

    Raises:
        InputError: one that it does not have, or of another type than it declares.
    """
    names = [name for name in [*inspect.signature(reader).parameters][data:] if name not in OWN]
    for name in given:
        if name not in names:
            raise InputError(f"{called} has no option {name!r}; it has {', '.join(names)}.")
    return checked_values(reader, given, called)


def users(function: Callable[..., Result], called: str) -> Callable[..., Result]:
    """A user's function, whose fault is told as its own and not as one of the data.

    Raises:
        InputError: in a call, whatever the function raises.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> Result:
        try:
            return function(*args, **options)
        except InputError:
            raise
        except Exception as error:
            reason = reason_of(error, kind=True)
            raise InputError(
                f"the function that is given as {called} raised {reason}; mend it, or leave it out."
            ) from error

    return call


def grouping(function: Callable[..., Any]) -> Callable[..., Hashable]:
    """A user's function that says which pictures belong together.

    Raises:
        InputError: in a call, whatever the function raises, or a value that cannot be compared.
    """
    read = users(function, "group")

    def call(*args: Any, **options: Any) -> Hashable:
        value = read(*args, **options)
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"the function that is given as group returned {shown(value)}; expected a text or "
                "a number, equal for pictures that belong together."
            ) from None
        return value

    return call

"""What comes from outside is read as it is meant, or refused in one sentence."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from aptheory.arguments import checked_values
from aptheory.errors import InputError

Result = TypeVar("Result")
OWN = ("where", "source", "left_out", "every_class")
"""Options by which one reader calls another; no caller of `aptheory` gives them."""


def reason_of(error: BaseException) -> str:
    """The kind of an error, and its first line."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0].rstrip('.')}" if lines else "")


def guarded(where: str, read: Callable[[], Result]) -> Result:
    """What is read, or one sentence: damaged data may raise anything in whoever parses them."""
    try:
        return read()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{where} cannot be read ({reason_of(error)}); is it whole, and of that layout?"
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
            raise InputError(
                f"the function that is given as {called} raised {reason_of(error)}; mend it, or "
                "leave it out."
            ) from error

    return call

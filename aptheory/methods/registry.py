"""The methods by name: `register` adds one, `parse` and `from_settings` make one.

A method says of itself what others need to know: its ``name``, ``label``, ``role``, ``size`` and
``control``. A class of the user's own is known once it is registered, or where a study or a command
names it as ``module:Class``; its settings carry that name, so worker processes find it too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aptheory.arguments import checked_arguments, checked_values
from aptheory.checked import imported, shown
from aptheory.errors import InputError
from aptheory.methods.base import ROLES, Method

if TYPE_CHECKING:
    from aptheory.networks.network import Network

METHODS: dict[str, type[Method]] = {}
"""Name -> method, in the order in which they were registered."""

M = TypeVar("M", bound=type[Method])
_NAME = re.compile(r"[A-Za-z_]\w*")


def register(method: M) -> M:
    """Make a method known by its ``name``: to `parse`, to studies and to the command line.

    A decorator of a frozen dataclass that derives from `Method`. A class that is defined again,
    as a notebook does, takes the place of its earlier self.

    Raises:
        InputError: no frozen dataclass, a name that cannot be written in a study or is another
            method's, an unknown role, or a ``size`` that is none of its settings.
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(f"{shown(method)} is no method; derive a class from aptheory.Method.")
    called = method.__qualname__
    parameters: Any = getattr(method, "__dataclass_params__", None)  # of no public name
    if not (is_dataclass(method) and parameters.frozen):
        raise InputError(f"{called} must be a frozen dataclass; add @dataclass(frozen=True).")
    if not (isinstance(method.name, str) and _NAME.fullmatch(method.name)):
        raise InputError(
            f"the name of {called} is {method.name!r}; give letters, digits and underscores."
        )
    if method.role not in ROLES:
        raise InputError(
            f"the role of {called} is {method.role!r}; expected one of {', '.join(ROLES)}."
        )
    if method.size is not None and method.size not in [field.name for field in fields(method)]:
        raise InputError(f"the size of {called} is {method.size!r}, which is no setting of it.")
    known = METHODS.get(method.name)
    if known is not None and factory_of(known) != factory_of(method):
        raise InputError(
            f"{method.name!r} is the name of {factory_of(known)} already; give {called} another."
        )
    for word in ("label", "short"):  # a subclass that has its own name is not called as its parent
        if word not in vars(method):
            setattr(method, word, method.name.replace("_", " "))
    METHODS[method.name] = method
    return method


def factory_of(method: type[Method]) -> str:
    """``"module:Class"``, by which a process that has not seen a class finds it."""
    return f"{method.__module__}:{method.__qualname__}"


def class_of(
    settings: Mapping[str, Any], *, beside: Sequence[str | Path] = (), code: bool = True
) -> type[Method]:
    """The class that settings name; see `from_settings`.

    Raises:
        InputError: an unknown name, or a factory that names no method.
    """
    name, factory = settings.get("method"), settings.get("factory")
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if factory is None and isinstance(name, str) and ":" in name:
        factory = name
    if not isinstance(factory, str):
        raise InputError(
            f"there is no method {shown(name)}; choose one of {', '.join(METHODS)}, or give one "
            "of your own as module:Class."
        )
    if not code:
        raise InputError(
            f"the method {shown(name)} of {factory} is not loaded, and a file of data never "
            "imports code; if you trust that code, import its module first (on the command line "
            "--method module:Class)."
        )
    found = imported(factory, beside=beside)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"{factory} is not a method; derive a class from aptheory.Method.")
    register(found)
    if name not in (factory, found.name):
        raise InputError(f"{factory} is called {found.name!r}, not {shown(name)}; name it alike.")
    return found


def role_of(label: str) -> str:
    """The role of what a table calls ``label``, for tables that do not say it: "ap:shape=channel"
    is a prompt, a name that is not known a baseline."""
    known = METHODS.get(re.split(r"[:( ]", str(label), maxsplit=1)[0])
    return known.role if known else "baseline"


@checked_arguments
def from_settings(
    settings: Mapping[str, Any], *, beside: Sequence[str | Path] = (), code: bool = True
) -> Method:
    """The method that ``Method.settings`` describes: {"method": name, field: value, ...}.

    Args:
        settings: plain values. "method" may also be "module:Class"; "factory" names the class of
            a method that is not known yet.
        beside: folders in which that module may lie.
        code: whether it may be imported; False for settings that come with data.

    Raises:
        InputError: an unknown method or setting, or a value of another type.
    """
    values = dict(settings)
    chosen = class_of(values, beside=beside, code=code)
    values.pop("method"), values.pop("factory", None)
    name = chosen.name
    known = [field.name for field in fields(chosen)]
    unknown = [key for key in values if key not in known]
    if unknown:
        has = f"its settings are {', '.join(known)}" if known else "it has no settings"
        raise InputError(f"{name} has no setting {unknown[0]!r}; {has}.")
    plain: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
    }
    plain = checked_values(chosen, plain, name)
    try:
        return chosen(**plain)
    except (TypeError, OverflowError) as error:
        raise InputError(f"{name} cannot be made from {values}: {error}.") from None


@checked_arguments
def parse(text: str, *, beside: Sequence[str | Path] = ()) -> Method:
    """A method from text, "name" or "name:setting=value,...".

    >>> parse("ap:layer=5,shape=channel")
    ActivationPrompt(read=None, pooling='mean', layer=5, shape='channel', rank=None, std=0.0)

    Several values of one setting are joined by "+": "ap:layer=2+5". A class of one's own is
    "module:Class" or "module:Class:setting=value". Raises InputError.
    """
    return from_settings(settings_of(text), beside=beside)


def settings_of(text: str) -> dict[str, Any]:
    """The settings that such a text spells out, unchecked: {"method": name, setting: value}."""
    name, rest = head_of(text)
    settings: dict[str, Any] = {"method": name}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{item!r} in {shown(text)} is not setting=value.")
        if key.strip() in settings:
            raise InputError(
                f"{shown(text)} sets {key.strip()!r} twice; several values are joined by +."
            )
        values = [_value(part) for part in value.split("+")]
        settings[key.strip()] = values[0] if len(values) == 1 else values
    return settings


def head_of(text: str) -> tuple[str, str]:
    """(a method's name or "module:Class", the settings behind it) of such a text."""
    name, _, rest = text.strip().partition(":")
    second, _, further = rest.partition(":")
    if name.strip() not in METHODS and second and "=" not in second:
        return f"{name.strip()}:{second.strip()}", further
    return name.strip(), rest


def _value(text: str) -> Any:
    """A number, True, False or None where the text is one, else the text."""
    text = text.strip()
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text) if len(text) < 64 else text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


@checked_arguments
def applicable(net: Network) -> list[Method]:
    """One sensible instance of every method that fits this network, in the registry's order."""
    found = []
    for method in METHODS.values():
        try:
            found.append(method.default(net))
        except InputError:
            continue
    return found

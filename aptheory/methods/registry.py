"""The methods by name: `register` adds one, `parse` and `from_settings` make one."""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from aptheory.errors import InputError
from aptheory.methods.base import Method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aptheory.networks.network import Network

METHODS: dict[str, type[Method]] = {}
"""Name -> method, in the order in which they were registered."""


def register(method: type[Method]) -> type[Method]:
    """Make a method known by its ``name``: to `parse`, to studies and to the command line."""
    METHODS[method.name] = method
    return method


def from_settings(settings: Mapping[str, Any]) -> Method:
    """The method that ``Method.settings`` describes: {"method": name, field: value, ...}.

    Raises InputError for an unknown method or setting.
    """
    values = dict(settings)
    name = values.pop("method", None)
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    known = [field.name for field in fields(METHODS[name])]
    unknown = [key for key in values if key not in known]
    if unknown:
        has = f"its settings are {', '.join(known)}" if known else "it has no settings"
        raise InputError(f"{name} has no setting {unknown[0]!r}; {has}")
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    hints = get_type_hints(METHODS[name])
    for key, value in plain.items():
        if not _is(value, hints[key]):
            wanted = str(getattr(hints[key], "__name__", hints[key]))
            raise InputError(f"{name} takes {key} of type {wanted}, got {value!r}")
    try:
        return METHODS[name](**plain)
    except TypeError as error:
        raise InputError(f"{name} cannot be made from {values}: {error}") from None


def _is(value: Any, hint: Any) -> bool:
    """Does a plain value have the type of a setting? An integer is also a number."""
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is(v, get_args(hint)[0]) for v in value)
    if get_args(hint):
        return any(_is(value, option) for option in get_args(hint))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def parse(text: str) -> Method:
    """A method from text, "name" or "name:setting=value,...".

    >>> parse("ap:layer=5,shape=channel")
    ActivationPrompt(read=None, pooling='mean', layer=5, shape='channel', rank=None, std=0.0)

    Several values of one setting are joined by "+": "ap:layer=2+5". Raises InputError.
    """
    return from_settings(settings_of(text))


def settings_of(text: str) -> dict[str, Any]:
    """The settings that text such as "ap:layer=5,shape=channel" gives; see `parse`."""
    name, _, rest = text.strip().partition(":")
    settings: dict[str, Any] = {"method": name.strip()}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{item!r} in {text!r} is not setting=value")
        values = [_value(part) for part in value.split("+")]
        settings[key.strip()] = values[0] if len(values) == 1 else values
    return settings


def _value(text: str) -> Any:
    """A number, True, False or None where the text is one, else the text."""
    text = text.strip()
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def applicable(net: Network) -> list[Method]:
    """One sensible instance of every method that fits this network, in the registry's order."""
    found = []
    for method in METHODS.values():
        try:
            found.append(method.default(net))
        except InputError:
            continue
    return found

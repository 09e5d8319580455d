"""The one tensor in what a network returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, fx

from aptheory.networks.tracer import SplitError

KNOWN = ("logits", "image_embeds", "last_hidden_state")
"""Fields that are the output wherever they are: Hugging Face's names, in the order of choice."""


@dataclass(frozen=True)
class Pick:
    """Takes one tensor out of what a forward returns: the field ``which``, or the known one."""

    which: str | int | None = None

    def __call__(self, returned: Any) -> Any:
        """The tensor, or while tracing the proxy of it.

        Raises:
            SplitError: there is none, or several and none is known; names them.
        """
        traced = isinstance(returned, fx.Proxy)
        value = returned.tracer.values[returned.node] if traced else returned
        if isinstance(value, Tensor) and self.which is None:
            return returned
        key = self.key(value)
        by_attribute = is_dataclass(value) and not isinstance(value, Mapping)
        if hasattr(value, "_fields") or by_attribute:
            return getattr(returned, str(key))
        return returned[key]

    def key(self, value: Any) -> str | int:
        """The name or index of the field that is taken."""
        fields = tensors_of(value)
        names = ", ".join(str(key) for key in fields) or f"a {type(value).__name__}"
        if self.which is not None:
            for key in fields:
                if str(key) == str(self.which):
                    return key
            raise SplitError(
                f"its forward returns {names}, and no {self.which!r}: give another output="
            )
        if not fields:
            raise SplitError(
                f"its forward returns no tensor, but {names}: wrap it in a module that returns one"
            )
        if len(fields) == 1:
            return next(iter(fields))
        for known in KNOWN:
            if known in fields:
                return known
        raise SplitError(
            f"its forward returns several tensors ({names}), and which of them is its output is "
            f"not known: give output={next(iter(fields))!r} or another"
        )


def tensors_of(value: Any) -> dict[str | int, Any]:
    """The tensors of a dict, a dataclass, a named or plain tuple, or a list, by name or index."""
    items: dict[Any, Any] = {}
    if isinstance(value, Mapping):
        items = dict(value)
    elif hasattr(value, "_fields"):
        items = dict(zip(value._fields, value, strict=True))
    elif is_dataclass(value) and not isinstance(value, type):
        items = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, (tuple, list)):
        items = dict(enumerate(value))
    return {k: v for k, v in items.items() if isinstance(v, (Tensor, fx.Proxy))}

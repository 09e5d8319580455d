"""Sizes at which two methods train about as many parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aptheory.errors import InputError

if TYPE_CHECKING:
    from aptheory.methods.base import Method
    from aptheory.networks.network import Network


def sized(method: Method, net: Network, *, classes: int, parameters: int) -> Method:
    """The same method with the size that trains most nearly so many parameters (no head).

    A method that has no size, or does not fit the network, comes back as it is.
    """
    word = method.size
    if word is None:
        return method

    def of_size(size: int) -> Method:
        setting: dict[str, Any] = {word: size}
        return replace(method, **setting)

    def count(size: int) -> int:
        return of_size(size).attach(net, classes=classes).count(head=False)

    try:
        one, two = count(1), count(2)
    except InputError:
        return method
    guess = 1 + (parameters - one) // max(1, two - one)
    sizes = {max(1, size) for size in (guess, guess + 1)}
    best = min(sorted(sizes), key=lambda size: abs(count(size) - parameters))
    return of_size(best)

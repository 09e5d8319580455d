"""Which part of a network a method changes: all of it, or what runs at some places.

``layer=None`` means everything before the head; a place means what runs between it and the next;
"3..7" what runs from place 3 up to place 7, "3.." from place 3 on, "..7" up to place 7; a tuple
means each of its entries. Places are named as `Network.place` takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aptheory.errors import InputError

if TYPE_CHECKING:
    from aptheory.networks.network import Network

Span = int | float | str | tuple[int | float | str, ...] | None


def spans(net: Network, layer: Span) -> Iterator[tuple[int, int]]:
    """(start, stop) places of each part, within what runs before the head."""
    last = len(net.layers) - 1
    if layer is None:
        yield 0, last
        return
    for part in layer if isinstance(layer, tuple) else (layer,):
        text = str(part)
        if ".." in text:
            low, _, high = text.partition("..")
            start = net.place(low).index if low else 0
            stop = net.place(high).index if high else last
        else:
            start = net.place(part).index
            stop = start + 1
        if not start < stop <= last:
            raise InputError(
                f"nothing of {net.name} runs before the head at layer {part!r}: give a place from "
                f"0 to {last - 1}, or a range such as '2..{last}'."
            )
        yield start, stop


def blocks_before(net: Network, method: str) -> tuple[int, ...]:
    """The places that enter a block, in front of the head of a method.

    Raises:
        InputError: there is none: the head reads in front of the first block.
    """
    if not net.block_layers:
        last = net.layers[-1]
        raise InputError(
            f"{method} changes blocks, and none of {net.name} runs before place {last.index} "
            f"({last.name}), which its head reads; read at a later place."
        )
    return net.block_layers


def modules_at(net: Network, layer: Span) -> list[str]:
    """Names of the modules that run there, in order: see `Network.modules_between`."""
    return [name for start, stop in spans(net, layer) for name in net.modules_between(start, stop)]


def parameters_at(net: Network, layer: Span) -> list[str]:
    """Names of the parameters that are used there."""
    names = [n for start, stop in spans(net, layer) for n in net.parameters_between(start, stop)]
    return list(dict.fromkeys(names))


def nearest(net: Network, layer: Span, able: list[str]) -> str:
    """Words about which of the modules ``able`` lie next to a part that has none of them."""
    if layer is None or not able:
        return ""
    start, stop = next(spans(net, layer))
    places = sorted(
        {net.layer_of(name) for name in able}, key=lambda p: min(abs(p - start), abs(p - stop))
    )
    names = ", ".join(f"{place} ({net.layers[place].name})" for place in sorted(places[:2]))
    return f"; the nearest places that have one are {names}"

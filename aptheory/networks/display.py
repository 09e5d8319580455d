"""How a network is shown: its layers as a table, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aptheory.networks.layer import Layer

Rows = Sequence[tuple[str, ...]]


def as_text(name: str, rows: Rows, remarks: Sequence[str]) -> str:
    """Name, table (its titles first) and remarks, for a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    title = f"{name}: {len(rows) - 1} layers"
    return "\n".join([title, *(line.rstrip() for line in lines), *remarks])


def as_html(name: str, rows: Rows, remarks: Sequence[str]) -> str:
    """The same for a notebook."""
    head, *rows = rows
    top = "".join(f"<th>{escape(c)}</th>" for c in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<b>{escape(name)}</b><table><tr>{top}</tr>{body}</table>" + "".join(
        f"<p>{escape(note)}</p>" for note in remarks
    )


def table(layers: Sequence[Layer], parameters: Sequence[int]) -> list[tuple[str, ...]]:
    """One row a layer, with how many parameters run there, below a row of titles."""
    rows = [
        (
            str(layer.index),
            layer.name,
            " x ".join(map(str, layer.shape)),
            layer.layout,
            _prefix_of(layer),
            " x ".join(map(str, layer.grid)) if layer.grid else _no_grid(layer),
            f"{count:,}",
        )
        for layer, count in zip(layers, parameters, strict=True)
    ]
    return [("layer", "name", "shape", "layout", "prefix", "grid", "parameters"), *rows]


def _prefix_of(layer: Layer) -> str:
    """Tokens in front, and behind where there are any, as a table shows them."""
    if layer.layout != "tokens":
        return ""
    return f"{layer.prefix}+{layer.suffix}" if layer.suffix else str(layer.prefix)


def _no_grid(layer: Layer) -> str:
    return "" if layer.layout == "vector" else "unknown"

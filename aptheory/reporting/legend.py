"""Colours, lines and markers of methods, wherever they are shown; their names are their own.

Colours are Okabe and Ito's, told apart by every common kind of colour vision; line styles repeat
the distinction for print.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from aptheory.findings.labels import measure_label, method_label, method_name
from aptheory.studies.tables import with_roles

__all__ = ["COLORS", "Style", "measure_label", "method_label", "method_name", "styles"]

COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "yellow": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "grey": "#7F7F7F",
}


@dataclass(frozen=True)
class Style:
    """How one method is drawn; ``line`` and ``marker`` are matplotlib's."""

    color: str
    line: str
    marker: str


_KNOWN = {
    "ap": Style(COLORS["blue"], "-", "o"),
    "layer_probe": Style(COLORS["green"], "--", "s"),
    "random_perturbation": Style(COLORS["yellow"], ":", "^"),
    "linear_probe": Style(COLORS["grey"], "-.", ""),
}
"""Of a sweep over layers, in the order in which they are drawn."""

_OTHERS = {
    "prompt": (("orange", "sky", "purple"), "-", "D"),
    "control": (("orange", "sky", "purple"), ":", "v"),
    "probe": (("green", "grey"), "--", "P"),
}
"""By role, of every other method: colours in turn, line and marker. A control follows its prompt,
whose colour it has."""


def styles(rows: pd.DataFrame) -> Mapping[str, Style]:
    """What a sweep's chart draws by layer: the prompts, controls and probes of a table."""
    if rows.empty:
        return {}
    found = {name: style for name, style in _KNOWN.items() if (rows["method"] == name).any()}
    roles = with_roles(rows).drop_duplicates("method").set_index("method")["role"]
    for role, (colors, line, marker) in _OTHERS.items():
        others = [str(name) for name in roles.index[roles == role] if name not in _KNOWN]
        for number, name in enumerate(others):
            found[name] = Style(COLORS[colors[number % len(colors)]], line, marker)
    return found

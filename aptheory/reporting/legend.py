"""What methods and measures are called, with their colours and lines, wherever they are shown.

Colours are Okabe and Ito's, told apart by every common kind of colour vision; line styles repeat
the distinction for print.
"""

from collections.abc import Mapping

import pandas as pd

from aptheory.methods import METHODS as CLASSES
from aptheory.studies.tables import with_roles

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

METHODS = {
    "ap": ("activation prompt", "blue", "-", "o"),
    "layer_probe": ("probe of this layer", "green", "--", "s"),
    "random_perturbation": ("random perturbation, same norm", "yellow", ":", "^"),
    "linear_probe": ("linear probe", "grey", "-.", ""),
}
"""Of a sweep over layers: label, colour, line and marker."""

SHORT = {
    "ap": "prompt",
    "layer_probe": "probe here",
    "random_perturbation": "random",
    "linear_probe": "linear probe",
}
"""The same where there is little room."""

NAMES = {name: method.short for name, method in CLASSES.items()} | {"vpt_deep": "VPT-deep"}
"""Methods as the field writes them; every other name is read as words."""

_OTHERS = {
    "prompt": (("orange", "sky", "purple", "black"), "-", "D"),
    "control": (("yellow", "grey"), ":", "v"),
    "probe": (("green", "grey"), "--", "P"),
}
"""By role, of methods that `METHODS` does not name: colours in turn, line and marker."""


def drawn(rows: pd.DataFrame) -> Mapping[str, tuple[str, str, str, str]]:
    """What a sweep's chart draws by layer: method -> label, colour, line, marker.

    The four of `METHODS` that are there, then every other prompt, control and probe.
    """
    if rows.empty:
        return {}
    styles = {name: METHODS[name] for name in METHODS if (rows["method"] == name).any()}
    roles = with_roles(rows).drop_duplicates("method").set_index("method")["role"]
    for role, (colors, line, marker) in _OTHERS.items():
        others = [str(name) for name in roles.index[roles == role] if name not in METHODS]
        for number, name in enumerate(others):
            color = colors[number % len(colors)]
            styles[name] = (method_name(name), color, line, marker)
    return styles


MEASURES = {
    "attention_distance": "attention distance (pixels)",
    "effective_rank": "effective rank",
    "cka": "linear CKA",
    "receptive_field": "effective receptive field (pixels)",
    "globality": "globality (share of variance)",
    "token_survival": "survival of a single token (1 at the image)",
    "test_accuracy": "test accuracy (%)",
    "val_accuracy": "validation accuracy (%)",
}


def method_name(method: str) -> str:
    """A method's name as a reader writes it: ``vpt (10 tokens)`` becomes ``VPT (10 tokens)``."""
    head, _, rest = str(method).partition(" ")
    known = CLASSES.get(head)
    said = known.short if known else NAMES.get(head, head.replace("_", " "))
    return f"{said} {rest}" if rest else said


def measure_name(measure: str) -> str:
    """A measure's name with its unit, for an axis."""
    return MEASURES.get(measure, str(measure).replace("_", " "))

"""What methods and measures are called where people read: from their own registries."""

from __future__ import annotations

from aptheory.methods import METHODS
from aptheory.metrics.registry import MEASURES

SHORT = {name: method.short for name, method in METHODS.items()} | {"vpt_deep": "VPT-deep"}
"""Methods as the field writes them; every other name is read as words."""

_ACCURACIES = {"test_accuracy": "%", "val_accuracy": "%", "train_accuracy": "%"}


def method_name(method: str) -> str:
    """A method's short name: ``vpt (10 tokens)`` becomes ``VPT (10 tokens)``.

    What stands behind a colon are settings: ``ap:read=best`` becomes ``AP (read=best)``.
    """
    head, _, rest = str(method).partition(" ")
    head, _, settings = head.partition(":")
    name = SHORT.get(head, head.replace("_", " "))
    name = f"{name} ({settings})" if settings else name
    return f"{name} {rest}" if rest else name


def method_label(method: str) -> str:
    """A method's name in full, as its class says it; else its short one."""
    known = METHODS.get(str(method))
    return known.label if known else method_name(method)


def measure_label(measure: str) -> str:
    """A measure's name with its unit, for an axis."""
    name = str(measure).replace("val_", "validation_").replace("_", " ")
    known = MEASURES.get(str(measure))
    unit = _ACCURACIES.get(str(measure), known.unit if known else "")
    return f"{name} ({unit})" if unit else name

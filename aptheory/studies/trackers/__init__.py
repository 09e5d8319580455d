"""Telling finished runs to a user's own experiment tracker.

A tracker is any callable that takes one finished run as plain values (the fields of
`aptheory.studies.store.Record`): ``sweep(study, out, tracker=named("mlflow"))``. It is called in
the process that started the sweep, once a run; what it raises becomes a warning. On the command
line it is ``--tracker tensorboard``, ``--tracker tensorboard:FOLDER``, ``--tracker mlflow:NAME``
or ``--tracker wandb:NAME``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from aptheory.errors import InputError, reason_of

Tracker = Callable[[dict[str, Any]], None]
NAMES = ("tensorboard", "mlflow", "wandb")


def named(text: str) -> Tracker:
    """The tracker that ``text`` names, "NAME" or "NAME:PLACE".

    The place is TensorBoard's folder (default ``runs/tensorboard``), MLflow's experiment or the
    project of Weights & Biases (default "aptheory").

    Raises:
        InputError: there is no such tracker, its package is not installed, or it refuses.
    """
    name, _, place = text.partition(":")
    if name not in NAMES:
        raise InputError(f"There is no tracker {name!r}; choose one of {', '.join(NAMES)}.")
    module = import_module(f"aptheory.studies.trackers.{name}")
    try:
        tracker: Tracker = module.tracker(place) if place else module.tracker()
    except ImportError:
        raise InputError(
            f"The tracker {name} needs a package that is not installed: pip install "
            f"'aptheory[{name}]'."
        ) from None
    except Exception as error:  # each package raises kinds of its own
        advice = getattr(module, "ADVICE", "leave it out, or give it another place")
        raise InputError(
            f"The tracker {text} cannot be used ({reason_of(error)}); {advice}."
        ) from error
    return tracker


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decided a run's result, as one level of names and values."""
    identity, outcome = record["identity"], record["outcome"]
    values = {
        "network": identity["network"]["name"],
        "task": identity["task"]["name"],
        "seed": identity["seed"],
        **{f"layer_{word}": value for word, value in identity["layer"].items()},
        **identity["method"],
        **{f"recipe_{word}": value for word, value in identity.get("recipe", {}).items()},
    }
    values |= {word: outcome[word] for word in ("lr", "weight_decay") if word in outcome}
    return values


_SCORES = (
    *("train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss"),
    *("parameters", "prompt_norm", "seconds", "peak_memory"),
)


def scores(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a run ended with."""
    numbers = {**record["made_by"], **record["outcome"]}
    return {
        name: float(numbers[name]) for name in _SCORES if isinstance(numbers.get(name), int | float)
    }


def curve(record: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """(epoch, numbers) of each epoch of a run."""
    for point in record["outcome"].get("curve", ()):
        numbers = {
            f"epoch_{name}": float(value)
            for name, value in point.items()
            if name != "epoch" and isinstance(value, int | float)
        }
        yield int(point["epoch"]), numbers


def name_of(record: Mapping[str, Any]) -> str:
    """A run in few words, the same at each look: network-task-method-layer-seed and its key."""
    values = settings(record)
    words = [values["network"], values["task"], values["method"]]
    layer = values.get("layer_index", values.get("layer"))
    words += [] if layer is None else [f"layer{layer}"]
    return "-".join(map(str, [*words, f"seed{values['seed']}", record["key"][:8]]))

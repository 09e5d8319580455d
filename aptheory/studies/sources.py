"""The networks and tasks that a study names: loading them, and what of them decides a result."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.checked import expanded, importable, imported
from aptheory.errors import InputError, reason_of
from aptheory.studies import entries

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.tasks import Task


def load_network(spec: Any, *, beside: Sequence[str | Path] = ()) -> Network:
    """The network that an entry of ``Study.networks`` describes, in evaluation mode.

    ``beside`` are folders in which the module of a ``factory`` may lie.

    Raises:
        InputError: an entry that says what no network has, or what `load` refuses.
    """
    import torch

    from aptheory.networks.doors import check_evaluating
    from aptheory.networks.loading import load
    from aptheory.networks.network import Network

    if isinstance(spec, Network):
        check_evaluating(spec.module, spec.name)
        return spec
    values = entries.source(spec, "network", entries.NETWORK)
    source = _located(values)
    options = dict(values.pop("options", {}))
    label = values.pop("label", None)
    factory = values.pop("factory", None)
    name = values.pop("name", None)
    taken = sorted(options.keys() & inspect.signature(load).parameters.keys())
    if taken and factory is None:
        raise InputError(
            f"{taken[0]!r} is no option of the network itself but of its loading; give it by its "
            "own name, not among the options."
        )
    if "input_shape" in values:
        values["input_shape"] = tuple(values["input_shape"])
    # Random weights must be the same in every process that loads them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(values.pop("seed", 0))
        if factory is None:
            net = load(name, name=label or name, **values, **options)
        else:
            called = label or name or factory.partition(":")[2]
            net = load(_call(factory, options, beside), name=called, **values)
    net.source = source
    return net


def maker(name: str) -> dict[str, str]:
    """The entry of a network's name, or of the ``module:function`` that makes it."""
    from aptheory.networks.sources import has_source

    return {"factory" if ":" in name and not has_source(name) else "name": name}


def _located(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with its file of weights by its whole path, to be found from other folders too."""
    weights = values.get("weights")
    if isinstance(weights, str | Path) and weights not in ("pretrained", "random"):
        return {**values, "weights": str(expanded(weights).absolute())}
    return dict(values)


def _call(factory: str, options: Mapping[str, Any], beside: Sequence[str | Path]) -> Any:
    """The torch module that the user's function makes.

    Raises:
        InputError: no such function, one that fails, or one that returns something else.
    """
    from torch import nn

    function = imported(factory, beside=beside)
    if isinstance(function, nn.Module) or not callable(function):
        raise InputError(
            f"{factory!r} is a {type(function).__name__}; name a function that returns the torch "
            "module."
        )
    try:
        with importable(*beside):  # it may import only when it is called
            made = function(**options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever code of the user's may raise
        reason = reason_of(error, kind=True)
        raise InputError(
            f"factory {factory!r} failed ({reason}); call it by itself with {dict(options)} to see "
            "where."
        ) from error
    if not isinstance(made, nn.Module):
        raise InputError(
            f"factory {factory!r} returned a {type(made).__name__}; expected a torch module."
        )
    return made


def load_task(spec: Any) -> Task:
    """The task that an entry of ``Study.tasks`` describes."""
    from aptheory.tasks import task

    if not isinstance(spec, Mapping) or "name" not in spec:
        return task(spec)
    values = dict(spec)
    sizes = {split: values.pop(split, None) for split in ("train", "val", "test")}
    options = {word: values.get(word) for word in ("resize", "group")}
    made = task(values["name"], seed=values.get("seed", 0), **options)
    if any(size is not None for size in sizes.values()):
        made = made.subset(**sizes, seed=values.get("subset_seed", 0))
    return replace(made, name=values["label"]) if "label" in values else made


def network_identity(net: Network) -> dict[str, Any]:
    """What of a network decides a result: its weights, where it is cut, what images it expects."""
    return {
        "name": net.name,
        "digest": net.digest,
        "places": [layer.name for layer in net.layers],
        "input_shape": list(net.input_shape),
        "mean": list(net.mean),
        "std": list(net.std),
        "interpolation": net.interpolation,
    }


def view_identity(net: Network, task: Task) -> dict[str, Any]:
    """How pictures become images, where that is not the plain way, which has no entry."""
    from aptheory.tasks.resizing import transform_of

    views = [transform_of(getattr(task, split), net) for split in ("train", "val", "test")]
    if all(view.plain for view in views):
        return {}
    settings = [view.settings for view in views]
    return {"view": settings[0] if settings.count(settings[0]) == 3 else settings}


def task_identity(task: Task) -> dict[str, Any]:
    return {"name": task.name, "digest": task.digest, "group": task.group}

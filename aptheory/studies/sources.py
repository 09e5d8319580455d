"""The networks and tasks that a study names: loading them, and what of them decides a result."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.errors import InputError

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.tasks import Task


def load_network(spec: Any) -> Network:
    """The network that an entry of ``Study.networks`` describes, in evaluation mode."""
    import torch

    from aptheory.networks.loading import load
    from aptheory.networks.network import Network

    if isinstance(spec, Network):
        return spec
    values = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    source = _located(values)
    options = dict(values.pop("options", {}))
    label = values.pop("label", None)
    factory = values.pop("factory", None)
    name = values.pop("name", None)
    if values.get("weights") == "random":
        values["weights"] = None
    if "input_shape" in values:
        values["input_shape"] = tuple(values["input_shape"])
    # Random weights must be the same in every process that loads them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(values.pop("seed", 0))
        if factory is None:
            net = load(name, name=label or name, **values, **options)
        else:
            called = label or name or factory.partition(":")[2]
            net = load(_call(factory, options), name=called, **values)
    net.source = source
    return net


def _located(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with its file of weights by its whole path, to be found from other folders too."""
    weights = values.get("weights")
    if isinstance(weights, str | Path) and weights not in ("pretrained", "random"):
        return {**values, "weights": str(Path(weights).expanduser().absolute())}
    return dict(values)


def _call(factory: str, options: Mapping[str, Any]) -> Any:
    module, colon, function = factory.partition(":")
    if not colon:
        raise InputError(f"factory is {factory!r}; expected 'module:function'")
    try:
        made = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"factory {factory!r} cannot be imported: {error}") from None
    return made(**options)


def load_task(spec: Any) -> Task:
    """The task that an entry of ``Study.tasks`` describes."""
    from aptheory.tasks import task

    if not isinstance(spec, Mapping) or "name" not in spec:
        return task(spec)
    values = dict(spec)
    sizes = {split: values.pop(split, None) for split in ("train", "val", "test")}
    made = task(values["name"], seed=values.get("seed", 0), resize=values.get("resize"))
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

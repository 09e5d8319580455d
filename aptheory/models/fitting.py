"""From a network and a task to a model: one method, at one layer, trained once.

`fit_model` is what a practitioner wants of all this: it finds the layer if that is left to it,
trains with early stopping, keeps what was best on the validation images, and hands back a `Model`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from aptheory.arguments import Seed, checked_arguments
from aptheory.choosing.places import recommend_places
from aptheory.choosing.recommend import layer_by_rule
from aptheory.errors import InputError
from aptheory.methods import from_settings
from aptheory.methods.registry import class_of, settings_of
from aptheory.models.card import Card, deep_range, preprocessing_of
from aptheory.models.model import Model
from aptheory.tasks.catalogue import task as open_task
from aptheory.training.fit import fit
from aptheory.training.halving import halving
from aptheory.training.outcome import UntestedError
from aptheory.training.recipe import Recipe, Run

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted, Method
    from aptheory.networks.network import Network
    from aptheory.tasks import Task
    from aptheory.training.outcome import Outcome

_log = logging.getLogger("aptheory")
PATIENCE = 10
"""Epochs without a better validation after which `fit_model` stops, unless its recipe says."""


@checked_arguments
def fit_model(
    net: Network,
    task: Task,
    *,
    method: str | Mapping[str, Any] | Method = "ap",
    layer: int | float | str | None = None,
    read: int | str | None = None,
    recipe: Recipe | None = None,
    seed: Seed = 0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    **options: Any,
) -> Model:
    """Train one method on one task and return it as a `Model`, the best on validation images.

    Args:
        net, task: what is adapted, to what (a task, or what `aptheory.task` makes one of).
        method: "ap", "vpt:tokens=5", its settings, or a `Method`.
        layer: of a method that has one and does not say it: a place, "recommend" (no training;
            the default) or "best" (successive halving over all places, judged on validation).
        read: place at which the head reads, for methods that can; None is the network's end, and
            "best" chooses it with the prompt's place (`aptheory.recommend_places`), which may come
            to the probe of a layer without a prompt.
        recipe: by default ``quick`` with early stopping.
        seed: of the start, the order of the images, and the search for the layer.
        on_epoch: called after each epoch with its numbers (epoch, lr, train_loss, ...).
        options: for `fit`: lr, weight_decay, loss, log.

    Returns:
        The model. Where the test images cannot be read once it is trained, a warning (logger
        "aptheory") says so, and ``card.scores`` has none of theirs.

    Raises:
        InputError: anything that does not fit together; training that came to no usable model.
    """
    task = open_task(task)
    recipe = recipe or Recipe(patience=PATIENCE, validate_every=1)
    chosen, how = choose_method(net, task, method, layer, read=read, recipe=recipe, seed=seed)
    adapted = chosen.attach(net, classes=len(task.classes), seed=seed).to(net.device)
    _ = task.digest  # remembered: of the pictures as they are before the training
    try:
        outcome = fit(adapted, task, recipe=recipe, seed=seed, on_epoch=on_epoch, **options)
    except UntestedError as error:
        _log.warning("the model is trained, but not tested: %s", error)
        outcome = error.outcomes[0]
    if outcome.failed:
        raise InputError(
            f"{outcome.method['method']} came to no usable model ({outcome.stopped_reason}); try "
            "a smaller learning rate, or gentler settings of the method."
        )
    return Model(adapted, card_of(adapted, task, outcome, how=how), precision=recipe.precision)


def choose_method(
    net: Network,
    task: Task,
    method: str | Mapping[str, Any] | Method,
    layer: int | float | str | None,
    *,
    read: int | str | None,
    recipe: Recipe,
    seed: int,
) -> tuple[Method, str]:
    """The method with its layer, and in words how that was chosen.

    Raises:
        InputError: a layer for a method that has none or says its own, or an unknown place.
    """
    if not isinstance(method, str | Mapping):
        if layer is not None or read is not None:
            raise InputError(f"{method!r} says its own places; leave layer and read out.")
        return method, "given"
    settings = dict(settings_of(method) if isinstance(method, str) else method)
    if read == "best":
        return _best_places(net, task, settings, layer, recipe, seed)
    if read is not None:
        settings["read"] = net.place(read).index
    name = settings.get("method")
    known = [field.name for field in fields(class_of(settings))]
    if "layer" not in known or "layer" in settings:
        if layer is not None:
            has = "says its layer already" if "layer" in settings else "has no layer"
            raise InputError(f"{name} {has}; leave out layer={layer!r}.")
        return from_settings(settings), "given" if "layer" in settings else "the method has none"
    from_settings({**settings, "layer": 0})  # wrong settings are told before a search
    if layer is None or layer == "recommend":
        index = layer_by_rule(net, task, seed=seed)
        how = "recommended without training"
    elif layer == "best":
        index = _best_layer(net, task, settings, recipe, seed)
        how = "the best on validation images of a search by successive halving over all layers"
    else:
        index, how = net.place(layer).index, "given"
    if how != "given":
        _log.info("layer %d (%s): %s", index, net.layers[index].name, how)
    return from_settings({**settings, "layer": index}), how


def _best_places(
    net: Network,
    task: Task,
    settings: Mapping[str, Any],
    layer: int | float | str | None,
    recipe: Recipe,
    seed: int,
) -> tuple[Method, str]:
    """The prompt and its reading place, or the probe, that validation images choose."""
    if settings != {"method": "ap"} or layer not in (None, "best"):
        raise InputError(
            "read='best' chooses the prompt's place as well: give method='ap' without settings, "
            "and leave layer out."
        )
    short = recipe.but(patience=None, validate_every=0)
    choice = recommend_places(net, task, recipe=short, seed=seed)
    _log.info("%s", choice)
    return choice.cell.method(net), "with its reading place, the best on validation images"


def _best_layer(
    net: Network, task: Task, settings: Mapping[str, Any], recipe: Recipe, seed: int
) -> int:
    """The layer that successive halving over all of them comes to; test images are not read."""
    methods = []
    for place in net.layers:
        each = from_settings({**settings, "layer": place.index})
        try:
            each.attach(net, classes=2)
        except InputError:  # it does not fit there
            continue
        methods.append(each)
    blind = replace(task, test=task.val)
    short = recipe.but(patience=None, validate_every=0)
    search = halving(methods, net, blind, runs=[Run(seed=seed)], recipe=short)
    return int(search.best[0].settings()["layer"])


def card_of(adapted: Adapted, task: Task, outcome: Outcome, *, how: str) -> Card:
    """What a file should say about a trained method."""
    return make_card(
        adapted.source,
        task,
        method=adapted.method.settings(),
        training={
            "recipe": outcome.recipe,
            "lr": outcome.lr,
            "weight_decay": outcome.weight_decay,
            "seed": outcome.seed,
            "epochs": outcome.epochs,
            "seconds": outcome.seconds,
            "stopped": outcome.stopped_reason,
            "layer_chosen": how,
            "parameters": outcome.parameters,
        },
        scores={
            name: getattr(outcome, name)
            for name in ("train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss")
            if math.isfinite(getattr(outcome, name))
        },
    )


def make_card(
    net: Network,
    task: Task,
    *,
    method: dict[str, Any],
    training: dict[str, Any],
    scores: dict[str, float],
) -> Card:
    """The card of a method on a network and task."""
    import timm
    import torch

    from aptheory.version import __version__

    source = dict(net.source) or ({"name": net.name} if timm.is_model(net.name) else {})
    return Card(
        network=source,
        name=net.name,
        digest=net.digest,
        method=method,
        classes=tuple(task.classes),
        transform={
            "input_shape": list(net.input_shape),
            "mean": list(net.mean),
            "std": list(net.std),
            **preprocessing_of(net, task),
        },
        task={
            "name": task.name,
            "digest": task.digest,
            **{split: len(getattr(task, split)) for split in ("train", "val", "test")},
            **deep_range(task),
        },
        training=training,
        scores=scores,
        versions={"aptheory": __version__, "torch": torch.__version__, "timm": timm.__version__},
    )

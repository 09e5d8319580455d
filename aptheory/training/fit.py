"""Fit a method on a task, from the activations that enter the first trained place.

    adapted = ActivationPrompt(layer=5).attach(net, classes=len(task.classes))
    outcome = fit(adapted, task, recipe=Recipe(epochs=30), seed=0)

`fit_many` is the general form: K runs that differ in seed, learning rate and weight decay train
together. Nothing here knows a method by name: a method says what it trains and where the network
first feels it, and the rest follows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aptheory.arguments import Amount, Seed, checked_arguments
from aptheory.devices import own_precision
from aptheory.errors import InputError
from aptheory.tasks.catalogue import task as open_task
from aptheory.training.kept import Kept
from aptheory.training.losses import Loss
from aptheory.training.outcome import Outcome, note_equal_seeds
from aptheory.training.recipe import Recipe, Run, grid
from aptheory.training.stack import Stack

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted, Method
    from aptheory.networks.network import Network
    from aptheory.tasks.base import Task

__all__ = ["Kept", "Outcome", "Recipe", "Run", "fit", "fit_many", "grid", "kept_for"]

_log = logging.getLogger("aptheory")


@checked_arguments
@own_precision
def fit(
    adapted: Adapted,
    task: Task,
    *,
    recipe: Recipe | None = None,
    seed: Seed = 0,
    lr: Amount | None = None,
    weight_decay: Amount | None = None,
    kept: Kept | None = None,
    fresh: bool = True,
    predictions: bool = False,
    loss: Loss | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Outcome:
    """Train ``adapted`` (runs == 1) in place and say how well it does.

    ``task`` is a task, or whatever `aptheory.task` makes one of.
    ``seed`` decides the start of what is learned and the order of the images. ``fresh=False``
    goes on from where ``adapted`` stands, its head's standardisation included. ``kept`` are
    activations to start from (moved to the method's place); by default they are made. ``loss`` is
    what is minimised instead of cross entropy: logits (images, classes) and labels (images,) to
    the loss of each image. ``on_epoch`` is called after each epoch with its entry of
    `Outcome.curve`.

    Raises InputError for a stack of several runs, classes that are not the task's, or where no
    gradient reaches what the method learns.
    """
    recipe = recipe or Recipe()
    task = open_task(task)
    if adapted.runs != 1:
        raise InputError(f"fit trains one run, but {adapted.runs} are attached: use fit_many.")
    if adapted.classes != len(task.classes):
        raise InputError(
            f"The head has {adapted.classes} classes, but task {task.name!r} has "
            f"{len(task.classes)}; attach the method with classes={len(task.classes)}."
        )
    if fresh:
        adapted.reset([seed])
    net = adapted._source[0]
    kept = _ready(kept, net, task, recipe, adapted.first_layer, stacks=1, log=log)
    run = Run(seed=seed, lr=lr, weight_decay=weight_decay)
    trainer = Stack(
        adapted,
        [run],
        kept,
        recipe,
        predictions=predictions,
        fresh=fresh,
        loss=loss,
        on_epoch=on_epoch and (lambda _, point: on_epoch(point)),
        log=log,
    )
    outcome = trainer.outcomes()[0]
    adapted.eval()
    if trainer.loop.unreached is not None:
        raise InputError(trainer.loop.unreached)
    return outcome


@checked_arguments
@own_precision
def fit_many(
    methods: Method | Sequence[Method],
    net: Network,
    task: Task,
    *,
    runs: Sequence[Run],
    recipe: Recipe | None = None,
    kept: Kept | None = None,
    predictions: bool = False,
    keep_models: bool = False,
    log: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Train one method for every run, as many at once as pays; outcomes in the order of ``runs``.

    ``methods`` is one method, or one for each run. Runs of an equal method train as a stack
    through the shared frozen rest (`Recipe.together` forces how many); a method that cannot be
    stacked trains run by run. Seeds that change nothing are noted in their outcomes. ``kept`` is
    moved forward to each method's first place, methods being taken in the order of their places.
    ``keep_models=True`` leaves each trained `Adapted`
    in its outcome.
    """
    recipe = recipe or Recipe()
    task = open_task(task)
    each = list(methods) if isinstance(methods, Iterable) else [methods] * len(runs)
    if len(each) != len(runs):
        raise InputError(f"There are {len(each)} methods for {len(runs)} runs; give one a run.")
    trained: list[Outcome | None] = [None] * len(runs)
    groups = sorted(_groups(each), key=lambda g: first_layer(g[0], net))
    for method, members in groups:
        place = first_layer(method, net)
        size = stack_size(method, net, recipe, len(members), place)
        stacks = [members[i : i + size] for i in range(0, len(members), size)]
        ready = _ready(kept, net, task, recipe, place, stacks=len(stacks), log=log)
        for stack in stacks:
            adapted = method.attach(
                net,
                classes=len(task.classes),
                runs=len(stack),
                seed=[runs[i].seed for i in stack],
            ).to(ready.device)
            trainer = Stack(
                adapted,
                [runs[i] for i in stack],
                ready,
                recipe,
                predictions=predictions,
                keep_models=keep_models,
                log=log,
            )
            for i, outcome in zip(stack, trainer.outcomes(), strict=True):
                trained[i] = outcome
        if ready is not kept:
            ready.close()
    outcomes = [outcome for outcome in trained if outcome is not None]
    for note in note_equal_seeds(outcomes):
        (log or _log.info)(note)
    return outcomes


def _groups(each: Sequence[Method]) -> list[tuple[Method, list[int]]]:
    groups: list[tuple[Method, list[int]]] = []
    for i, method in enumerate(each):
        for known, members in groups:
            if known == method and type(known) is type(method):
                members.append(i)
                break
        else:
            groups.append((method, [i]))
    return groups


def first_layer(method: Method, net: Network) -> int:
    """The first place that feels ``method`` in ``net``."""
    return method.first_layer(net)


def stack_size(method: Method, net: Network, recipe: Recipe, runs: int, place: int) -> int:
    """How many of ``runs`` train as one batch: the recipe's wish, or what pays on this device.

    Stacking pays while one run leaves the device idle: four runs of batch 64 at once take 0.81 of
    the time of one by one on the packaged ResNet, 0.91 on the packaged ViT (one CPU core), and a
    head alone far less. So the largest activation of the stack is filled up to 2^21 numbers on a
    CPU, 2^25 on a GPU. It depends on shapes alone, never on a measurement, so that the same study
    gives the same bits.
    """
    if runs == 1 or not method.stackable or method.attach(net, classes=1).common_parts():
        return 1
    if recipe.together is not None:
        return min(runs, recipe.together)
    device = net.device
    largest = max(math.prod(layer.shape) for layer in net.layers[place:])
    room = (2**25 if device.type == "cuda" else 2**21) / (largest * recipe.batch_size)
    return max(1, min(runs, int(room)))


def kept_for(net: Network, task: Task, recipe: Recipe, *, layer: int = 0, **options: Any) -> Kept:
    """Kept activations as a recipe asks for them; ``options`` go to `Kept.start`."""
    values: dict[str, Any] = {
        "keep": recipe.keep,
        "keep_dtype": recipe.keep_dtype,
        "precision": recipe.precision,
        "augment": recipe.augment,
        "views": recipe.views,
        "mix": recipe.mix,
        "channels_last": use_channels_last(net, recipe),
    }
    return Kept.start(net, task, layer=layer, **{**values, **options})


def use_channels_last(net: Network, recipe: Recipe) -> bool:
    """Whether maps travel channels last: as the recipe says, else where it was seen to pay.

    That is in half precision and on a GPU; in float32 on a CPU it costs a reordering of every
    weight (ResNet-50: 25 % slower).
    """
    if recipe.channels_last is not None:
        return recipe.channels_last
    pays = recipe.precision != "float32" or net.device.type == "cuda"
    return pays and any(layer.layout == "map" for layer in net.layers[1:])


def _ready(
    kept: Kept | None,
    net: Network,
    task: Task,
    recipe: Recipe,
    place: int,
    *,
    stacks: int,
    log: Callable[[str], None] | None,
) -> Kept:
    """The caller's kept activations moved to ``place``, or new ones."""
    if kept is None:
        validations = (recipe.epochs // recipe.validate_every) if recipe.validate_every else 1
        if recipe.patience is not None:
            validations = max(validations, recipe.epochs)
        passes = {
            "train": float(stacks * recipe.epochs),
            "val": float(stacks * validations),
            "test": float(stacks),
        }
        return kept_for(net, task, recipe, layer=place, passes=passes, log=log)
    if kept.net is not net or kept.task is not task:
        same = (kept.net.name, kept.task.name) == (net.name, task.name)
        raise InputError(
            f"The kept activations are of {kept.net.name} on {kept.task.name}; they cannot serve "
            f"{'others of the same names' if same else f'{net.name} on {task.name}'}: make them "
            "from the network and the task that are trained on, the very objects."
        )
    wanted = (recipe.augment, recipe.views, recipe.precision)
    made = (kept.policy.augment, kept.policy.views, kept.policy.precision)
    if wanted != made:
        raise InputError(
            f"The kept activations were made with augmentation, views and precision "
            f"{', '.join(map(str, made))}; the recipe asks for "
            f"{', '.join(map(str, wanted))}. Make them with kept_for(net, task, recipe)."
        )
    return kept.advance(place)

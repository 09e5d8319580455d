"""The optimiser of K runs: one group of parameters for each run, decay and unit.

A prompt is trained in units of the activation that it is added to, so that one learning rate means
the same at every place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from aptheory.training.drawing import POOL
from aptheory.training.kept import Kept
from aptheory.training.recipe import Recipe, Run

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted


def _prompts(adapted: Adapted, place: int) -> list[Any]:
    return [edit for edit in adapted.edits_at(place) if hasattr(edit, "set_unit")]


@torch.no_grad()
def prompt_units(adapted: Adapted, kept: Kept, recipe: Recipe) -> dict[int, float]:
    """Place -> root mean square of the clean activation there, for every place with a prompt.

    Over 64 images or fewer, the same ones for all runs: each has thousands of entries.
    """
    places = [place for place in adapted.places if _prompts(adapted, place)]
    if not places:
        return {}
    # Without random augmentation, and whichever images a run draws.
    split = POOL if recipe.redraw else "val" if kept.fresh else "train"
    rows = torch.arange(0, kept.number(split), -(-kept.number(split) // 64))
    walk = kept.net.walk(kept.batch(split, rows), start=kept.layer, stops=places)
    return {layer.index: float(z.double().square().mean().sqrt()) or 1.0 for layer, z in walk}


def optimizer_of(
    adapted: Adapted, runs: Sequence[Run], recipe: Recipe, units: Mapping[int, float]
) -> torch.optim.Optimizer:
    """The recipe's optimiser over what the runs learn, prompts in ``units`` (of `prompt_units`).

    A group's learning rate is 0 until it is set; its highest stands in ``group["peak"]``.
    """
    for place, unit in units.items():
        for prompt in _prompts(adapted, place):
            prompt.set_unit(unit)
    groups = _groups(adapted, runs, recipe)
    options: dict[str, Any] = {"lr": 0.0}
    if adapted.like.device.type in ("cpu", "cuda"):
        options["fused"] = True
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, **options)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.optimizer]
    return kind(groups, **options)


def _groups(adapted: Adapted, runs: Sequence[Run], recipe: Recipe) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    stepped: set[nn.Parameter] = set()  # what several runs share is stepped once
    for k, run in enumerate(runs):
        decay = recipe.weight_decay if run.weight_decay is None else run.weight_decay
        # Parameters by what they are decayed by and what their learning rate is measured in.
        alike: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in adapted.run_parameters(k):
            if parameter in stepped:
                continue
            stepped.add(parameter)
            plain = name == "head.bias" and not recipe.decay_head_bias
            key = (0.0 if plain else decay, adapted.unit_of(name))
            alike.setdefault(key, []).append(parameter)
        for (weight_decay, unit), parameters in alike.items():
            rate, share = _in_units(recipe.optimizer, unit)
            groups.append(
                {
                    "params": parameters,
                    "lr": 0.0,
                    "peak": recipe.peak_lr(run.lr) * rate,
                    "weight_decay": weight_decay * share,
                }
            )
    return groups


def _in_units(optimizer: str, unit: float) -> tuple[float, float]:
    """Factors of learning rate and weight decay that train p as if it were ``unit * q``.

    With q trained at rate lr and decay wd: dp = unit * dq, and the gradient by q is ``unit`` times
    the gradient by p. SGD's step is proportional to the gradient, Adam's is not; decay moves p
    towards 0 by the same share either way.
    """
    if optimizer == "sgd":
        return unit**2, unit**-2
    return unit, unit**-1 if optimizer == "adamw" else unit**-2

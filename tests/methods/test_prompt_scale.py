"""A prompt's learning rate counts in the scale of its layer: a rescaled layer is no other."""

import numpy as np
import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory.tasks import ArraySplit, Task
from aptheory.training.fit import Recipe, Run, fit_many
from aptheory.training.optimizer import _in_units


def split(number, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    pixels = rng.normal(90 + 30 * labels[:, None, None, None], 30, (number, 8, 8, 3))
    return ArraySplit(np.clip(pixels, 0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def task():
    return Task("levels", ("a", "b", "c"), split(60, 0), split(30, 1), split(30, 2))


def network(factor):
    """Two convolutions; what passes between them is ``factor`` times larger, the function same."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3)
    with torch.no_grad():
        first.weight *= factor
        first.bias *= factor
        second.weight /= factor
    module = nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )
    return ap.load(module, weights=None, input_shape=(3, 8, 8), name=f"scaled{factor}")


def losses(factor, task, *, rank=None, **changes):
    net = network(factor)
    layer = next(place.index for place in net.layers if place.shape == (4, 8, 8))
    method = ap.ActivationPrompt(layer=layer, rank=rank)
    recipe = Recipe(epochs=4, batch_size=20, lr=0.05, **changes)
    outcomes = fit_many(method, net, task, runs=[Run(seed=0), Run(seed=1, lr=0.01)], recipe=recipe)
    return [step["train_loss"] for outcome in outcomes for step in outcome.curve]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_rescaled_layer_trains_alike(task, optimizer):
    settings = {"optimizer": optimizer, "weight_decay": 0.1}
    found = [losses(factor, task, **settings) for factor in (1.0, 64.0)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    plain = [losses(factor, task, scale_prompts=False, **settings) for factor in (1.0, 64.0)]
    assert plain[0] != pytest.approx(plain[1], rel=1e-3)


def test_a_rescaled_layer_trains_alike_at_low_rank(task):
    found = [losses(factor, task, rank=2) for factor in (1.0, 64.0)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("unit", [0.25, 8.0])
def test_training_in_units_is_training_the_quotient(optimizer, unit):
    """p with the factors of `_in_units` stays ``unit`` times q, which is trained as asked."""
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    rate, share = _in_units(optimizer, unit)
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)
    q, p = nn.Parameter(start.clone()), nn.Parameter(unit * start)
    options = {} if optimizer != "sgd" else {"momentum": 0.9}
    direct = kinds[optimizer]([q], lr=0.01, weight_decay=0.1, **options)
    scaled = kinds[optimizer]([p], lr=0.01 * rate, weight_decay=0.1 * share, **options)
    target = torch.arange(5, dtype=torch.float64)
    for _ in range(20):
        for optimiser, value in ((direct, unit * q), (scaled, p)):
            optimiser.zero_grad()
            (value - target).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(p, unit * q, rtol=1e-5, atol=1e-7)

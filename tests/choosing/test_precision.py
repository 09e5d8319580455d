"""A network of half or double precision is priced, ranked and mapped as one of float32 is."""

import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory.choosing.recommend import layer_by_rule
from aptheory.methods import ActivationPrompt
from aptheory.training.recipe import Recipe


def network(kind: torch.dtype) -> ap.Network:
    torch.manual_seed(0)
    maps = [nn.Conv2d(3, 4, 3, 2, 1), *(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(3))]
    blocks = [part for conv in maps for part in (conv, nn.ReLU())]
    module = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    return ap.load(module.to(kind), None, input_shape=(3, 16, 16), name="m")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_is_brought_through(kind):
    net, recipe = network(kind), Recipe(epochs=1)
    task = ap.task("digits").subset(train=20, val=20, test=20)
    table = ap.cost(net, ActivationPrompt(layer=2), classes=3, batch_size=2, repeats=1)
    plain = ap.cost(network(torch.float32), ActivationPrompt(layer=2), classes=3, measure=False)
    assert table["step_gflop"].tolist() == plain["step_gflop"].tolist()
    assert table["step_ms"].gt(0).all()
    assert ap.recommend_layer(net, task, images=20).layer == layer_by_rule(net, task)
    assert ap.recommend_places(net, task, layers=[2, 3], recipe=recipe).layer in (2, 3, 9)
    mapped = ap.layer_map(net, task, layers=[2, 3], recipe=recipe, seeds=[0])
    assert mapped.table["val_accuracy"].notna().all()

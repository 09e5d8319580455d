"""A network whose forward stops gradients: what cannot learn is refused or said."""

import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.training.fit import fit
from tests.quarters import RECIPE


class Detaching(torch.nn.Module):
    """Its second half sends no gradient back to its first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = (torch.nn.Conv2d(c, 8, 3, 2, 1) for c in (3, 8))
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.second(self.first(x).relu().detach()).relu().mean((2, 3)))


def test_what_no_gradient_reaches_is_refused(task):
    """It would train the head alone, and look like a method without gain."""
    net = ap.load(Detaching(), None, input_shape=(3, 16, 16))
    method = ap.ActivationPrompt(layer=0)
    with pytest.raises(
        InputError, match=r"no gradient reaches what ap learns at layer 0 \(image\)"
    ):
        fit(method.attach(net, classes=4), task, recipe=RECIPE)
    later = ap.ActivationPrompt(layer=len(net.layers) - 1)
    assert not fit(later.attach(net, classes=4), task, recipe=RECIPE).failed
    some = fit(ap.methods.FullFineTuning().attach(net, classes=4), task, recipe=RECIPE)
    first = sum(parameter.numel() for parameter in net.module.first.parameters())
    assert f"no gradient reaches {first} of the parameters" in " ".join(some.notes)


def test_where_no_gradient_comes_from_a_prompt_promises_nothing(task):
    net = ap.load(Detaching(), None, input_shape=(3, 16, 16))
    scores = ap.recommend_layer(net, task, images=40).table.set_index("layer")
    assert scores.loc[0, "tangent_explained"] == pytest.approx(0, abs=1e-9)
    assert scores.loc[1, "tangent_explained"] > 0.001


def test_a_search_leaves_out_the_place_that_no_gradient_reaches(task, caplog):
    """It is no reason to refuse the others."""
    net = ap.load(Detaching(), None, input_shape=(3, 16, 16))
    with caplog.at_level("INFO", logger="aptheory"):
        model = ap.fit_model(net, task, layer="best", recipe=RECIPE)
    assert model.card.method["layer"] > 0
    assert "stops: no gradient reaches what ap learns at layer 0" in caplog.text
    found = ap.recommend_places(net, task, layers=[0], reads=[1], recipe=RECIPE)
    assert found.rival is None
    assert "no prompt before it came to a usable model" in str(found)
    tried = ap.layer_map(net, task, layers=[0, 1], recipe=RECIPE, seeds=(0,)).table
    usable = tried[tried["method"] == "ap"].dropna(subset="val_accuracy")
    assert set(usable["layer"]) == {1}

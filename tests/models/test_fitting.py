"""How a model's places are chosen where its user does not name them."""

import pytest

import aptheory as ap
from aptheory.choosing.places import recommend_places
from aptheory.errors import InputError
from aptheory.models.fitting import choose_method

RECIPE = ap.Recipe(epochs=1)


@pytest.fixture(scope="module")
def pair():
    return ap.load("aptheory_resnet_mini"), ap.task("digits").subset(train=40, val=20, test=20)


@pytest.mark.slow
def test_both_places_are_those_that_validation_chooses(pair):
    net, task = pair
    options = {"read": "best", "recipe": RECIPE, "seed": 0}
    method, how = choose_method(net, task, "ap", None, **options)
    assert method == recommend_places(net, task, recipe=RECIPE).cell.method(net)
    assert "validation" in how
    with pytest.raises(InputError, match="give method='ap' without settings"):
        choose_method(net, task, "ap:shape=channel", None, **options)
    with pytest.raises(InputError, match="leave layer out"):
        choose_method(net, task, "ap", 3, **options)

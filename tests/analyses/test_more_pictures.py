"""More pictures and pixels than the campaign's: what is chosen, and what it has over the probes."""

import pandas as pd
import pytest

from analyses.campaign_plan import TRAIN
from analyses.more_pictures import MANY, PROBES, SETTING, SETTINGS, THIRDS, gains, growth, methods


def table(network, train, linear, every, prompts):
    """Rows of (validation, test) accuracy: one a rate of each probe, one a place of the prompt."""
    epochs = 30 if train == TRAIN else 20
    rows = [("linear_probe", -1, *each) for each in linear]
    rows += [("all_layers_probe", -1, *each) for each in every]
    rows += [("ap", 5 + place, *each) for place, each in enumerate(prompts)]
    found = pd.DataFrame(rows, columns=["method", "layer", "val_accuracy", "test_accuracy"])
    return found.assign(network=network, side=32, train=train, epochs=epochs, lr=0.01,
                        accuracy_flat=True)  # fmt: skip


FEW = table(
    "resnet56",
    TRAIN,
    [(0.4, 0.30), (0.3, 0.9)],
    [(0.4, 0.35)],
    [(0.45, 0.36), (0.44, 0.7)],
)
MORE = table("resnet56", MANY, [(0.4, 0.50)], [(0.4, 0.40)], [(0.4, 0.9), (0.5, 0.60)])


def test_rate_and_place_are_chosen_by_validation_pictures_alone():
    few, more = gains(pd.concat([FEW, MORE])).sort_values("train").to_dict("records")
    assert (few["layer"], few["over_linear_probe"]) == (5, pytest.approx(6))
    assert few["over_all_layers_probe"] == pytest.approx(1)
    assert (more["layer"], more["over_linear_probe"]) == (6, pytest.approx(10))


def test_growth_has_networks_as_units_and_only_those_that_have_both():
    other = [each.assign(network="resnet32") for each in (FEW, MORE)]
    other[1].loc[other[1]["method"] == "ap", "test_accuracy"] += 0.02
    half = FEW.assign(network="cifar_vit128")
    found = growth(gains(pd.concat([FEW, MORE, *other, half])))
    assert set(found) == set(PROBES)
    assert found["linear_probe"].n == 2
    assert found["linear_probe"].value == pytest.approx((4 + 6) / 2)
    assert found["all_layers_probe"].value == pytest.approx((19 + 21) / 2)


def test_every_setting_prompts_where_it_says():
    assert len({tuple(getattr(each, name) for name in SETTING) for each in SETTINGS}) == len(
        SETTINGS
    )
    assert {each.network for each in SETTINGS if each.train == MANY} == set(THIRDS)
    for setting in SETTINGS:
        places = [place for name, place in methods(setting) if name == "ap"]
        assert tuple(places) == setting.places

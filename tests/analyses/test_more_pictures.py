"""More pictures and pixels than the campaign's: what is chosen, and what it has over the probes."""

import pandas as pd
import pytest

from analyses.campaign_plan import TRAIN
from analyses.more_pictures import SETTINGS, TASKS, THIRDS, epochs_of, gains, growth, methods


def table(train, epochs, linear, every, prompts, network="resnet56", task="gtsrb32"):
    """Rows of (validation, test) accuracy: one a rate of each probe, one a place of the prompt."""
    rows = [("linear_probe", -1, *each) for each in linear]
    rows += [("all_layers_probe", -1, *each) for each in every]
    rows += [("ap", 5 + place, *each) for place, each in enumerate(prompts)]
    found = pd.DataFrame(rows, columns=["method", "layer", "val_accuracy", "test_accuracy"])
    about = {"network": network, "task": task, "side": 32, "train": train, "epochs": epochs}
    return found.assign(**about, lr=0.01, accuracy_flat=True)


FEW = table(TRAIN, 30, [(0.4, 0.3), (0.3, 0.9)], [(0.4, 0.35)], [(0.45, 0.36), (0.44, 0.7)])
AS_LONG = table(TRAIN, epochs_of(TRAIN), [(0.4, 0.3)], [(0.4, 0.35)], [(0.45, 0.38)])
MANY = table(1500, epochs_of(1500), [(0.4, 0.5)], [(0.4, 0.4)], [(0.4, 0.9), (0.5, 0.6)])


def test_rate_and_place_are_chosen_by_validation_pictures_alone():
    few, more = gains(pd.concat([FEW, MANY])).sort_values("train").to_dict("records")
    assert (few["layer"], few["over_linear_probe"]) == (5, pytest.approx(6))
    assert few["over_all_layers_probe"] == pytest.approx(1)
    assert (more["layer"], more["over_linear_probe"]) == (6, pytest.approx(10))


def test_growth_has_networks_as_units_and_only_pairs_that_have_both():
    parts = [FEW, AS_LONG, MANY]
    other = [each.assign(network="resnet32") for each in parts]
    other[2].loc[other[2]["method"] == "ap", "test_accuracy"] += 0.02
    half = FEW.assign(network="cifar_vit128")
    found = growth(gains(pd.concat([*parts, *other, half])))
    assert set(found["task"]) == {"gtsrb32"}
    assert set(found["networks"]) == {2}
    more = found.set_index(["equal_steps", "probe"])["more"]
    assert more[False, "linear_probe"] == pytest.approx((4 + 6) / 2)
    assert more[True, "linear_probe"] == pytest.approx((2 + 4) / 2)
    assert more[False, "all_layers_probe"] == pytest.approx((19 + 21) / 2)


def test_the_sets_are_compared_at_about_equal_steps():
    assert [epochs_of(pictures) for pictures in (400, 1120, 1500)] == [69, 27, 20]


def test_every_setting_prompts_where_it_says():
    assert len(set(SETTINGS)) == len(SETTINGS) == 3 * len(TASKS) * len(THIRDS) + 3
    for setting in SETTINGS:
        places = [place for name, place in methods(setting) if name == "ap"]
        assert tuple(places) == setting.places

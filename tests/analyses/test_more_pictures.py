"""More pictures and pixels than the campaign's: the better rate of each, against its own probe."""

import pandas as pd
import pytest

from analyses.more_pictures import SETTINGS, gains, methods

COLUMNS = ["network", "side", "train", "method", "layer", "epochs", "lr", "val_accuracy",
           "test_accuracy", "accuracy_flat"]  # fmt: skip


def test_a_gain_is_the_better_rates_over_the_probe_of_the_same_setting():
    rows = [
        ("resnet56", 32, 400, "linear_probe", 29, 30, 3e-2, 0.40, 0.30, True),
        ("resnet56", 32, 400, "linear_probe", 29, 30, 1e-2, 0.30, 0.90, True),
        ("resnet56", 32, 400, "ap", 10, 30, 3e-2, 0.45, 0.36, False),
        ("resnet56", 32, 400, "ap", 10, 30, 1e-2, 0.44, 0.70, True),
        ("resnet56", 32, 1500, "linear_probe", 29, 20, 3e-2, 0.40, 0.50, True),
        ("resnet56", 32, 1500, "ap", 10, 20, 3e-2, 0.45, 0.48, True),
    ]
    found = gains(pd.DataFrame(rows, columns=COLUMNS))
    assert found["gain"].tolist() == pytest.approx([6.0, -2.0])
    assert found["lr"].tolist() == [3e-2, 3e-2]
    assert found["accuracy_flat"].tolist() == [False, True]


def test_every_setting_prompts_where_it_says():
    for setting in SETTINGS:
        probe, *prompts = methods(setting)
        assert probe.name == "linear_probe"
        assert tuple(prompt.layer for prompt in prompts) == setting.places

"""The comparison of methods: what validation chooses, gains, ranks, what the prompt has more."""

import pandas as pd
import pytest

from analyses.campaign_methods import judged, methods


def runs(network, method, read, rates, layer=1):
    for lr, (val, test) in rates.items():
        yield {
            "question": "methods", "network": network, "kind": "cnn", "task": "t", "near": False,
            "seed": 0, "method": method, "layer": layer, "read": read, "places": 5, "lr": lr,
            "parameters": 5, "converged": True, "val_accuracy": val, "val_loss": 1.0,
            "test_accuracy": test,
        }  # fmt: skip


@pytest.fixture
def table():
    rows = []
    for number, network in enumerate(("a", "b")):
        rows += runs(network, "linear_probe", 4, {1e-2: (0.5, 0.5), 1e-3: (0.4, 0.9)})
        best = 0.6 + number / 10
        rows += runs(network, "ap", 4, {3e-2: (0.1, 0.9), 1e-2: (0.7, best), 3e-3: (0.2, 0.9)})
        rows += runs(network, "ap", 4, {1e-2: (0.6, 0.58), 3e-3: (0.5, 0.7)}, layer=2)
        rows += runs(network, "ap", 4, {1e-2: (0.1, 0.9)}, layer=3)
        rows += runs(network, "ap", 2, {1e-2: (0.8, 0.8)})
        rows += runs(network, "bitfit", 4, {1e-2: (0.5, 0.55)})
    return methods(pd.DataFrame(rows))


def test_what_validation_chooses_counts_and_not_the_best_test_accuracy(table):
    of_a = table[table["network"] == "a"].set_index("method")
    assert of_a["test_accuracy"].to_dict() == {
        "linear_probe": 0.5, "ap": 0.6, "ap, read early": 0.8, "bitfit": 0.55, "ap, middle": 0.58
    }  # fmt: skip
    assert of_a["gain"].round(6).to_dict()["ap"] == 10
    assert of_a["rank"].dropna().to_dict() == {
        "linear_probe": 4, "ap": 2, "ap, read early": 1, "bitfit": 3
    }  # fmt: skip
    assert of_a["best_rate_inside"].to_dict()["ap"]
    assert not of_a["best_rate_inside"].to_dict()["linear_probe"]


def test_random_patterns_come_from_the_sweeps_of_the_same_pairs():
    rows = [
        *runs("a", "linear_probe", 4, {1e-2: (0.5, 0.5)}),
        *runs("a", "ap", 4, {1e-2: (0.7, 0.6)}, layer=2),
    ]
    swept = [
        *runs("a", "random", 4, {1e-2: (0.6, 0.52), 1e-3: (0.5, 0.9)}, layer=1),
        *runs("a", "random", 4, {1e-2: (0.4, 0.45)}, layer=2),
        *runs("a", "random", 2, {1e-2: (0.9, 0.99)}),  # read earlier
        *runs("b", "random", 4, {1e-2: (0.9, 0.99)}),  # of a pair that has no comparison
    ]
    rows += [{**row, "question": "sweep"} for row in swept]
    found = methods(pd.DataFrame(rows)).set_index("method")
    assert set(found["network"]) == {"a"}
    assert found.loc["random pattern", "test_accuracy"] == 0.52
    assert found.loc["random pattern, middle", "test_accuracy"] == 0.45
    assert found.loc["random pattern, middle", "middle_has_more"] == pytest.approx(15)
    assert found["rank"].dropna().to_dict() == {"ap": 1, "linear_probe": 2}


def test_small_methods_are_ranked_among_themselves():
    rows = [
        *runs("a", "linear_probe", 4, {1e-2: (0.5, 0.5)}),
        *runs("a", "ap", 4, {1e-2: (0.7, 0.6)}, layer=2),
        *({**row, "parameters": 6} for row in runs("a", "lora", 4, {1e-2: (0.9, 0.9)})),
    ]
    table = methods(pd.DataFrame(rows))
    found = table.set_index("method")
    assert found["rank"].dropna().to_dict() == {"lora": 1, "ap": 2, "linear_probe": 3}
    assert found["rank_small"].dropna().to_dict() == {"ap": 1, "linear_probe": 2}
    assert judged(table).set_index("method").loc["lora", "pairs_small"] == 0


def test_networks_are_the_units(table):
    said = judged(table).set_index("method")
    assert said.loc["ap", "gain"] == pytest.approx(15)
    half = 12.706204736 * 5  # t of one degree of freedom times the standard error of 10 and 20
    assert said.loc["ap", "gain_high"] == pytest.approx(15 + half)
    assert said.loc["bitfit", "ap_has_more"] == pytest.approx(10)
    assert said.loc["bitfit", "middle_has_more"] == pytest.approx(3)
    assert said.loc["ap", "middle_has_more"] == pytest.approx(-7)
    assert said.loc["bitfit", "networks"] == 2

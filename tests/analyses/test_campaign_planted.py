"""The positive control's table and count, on made-up journals."""

import pandas as pd
import pytest

from analyses.campaign_planted import _cost, planted, planted_judged
from aptheory.findings.pictures import wilson


def journal(best: dict[float, int], at: int = 2) -> pd.DataFrame:
    """One network whose sweep is best at ``best[size]`` by validation, planted at ``at``."""
    rows = []
    for size, place in best.items():
        about = {"question": "planted", "network": "a", "kind": "cnn", "task": "t", "seed": 0}
        about["converged"] = None
        about |= {"planted_at": at, "planted_size": size, "places": 9, "read": 8, "val_loss": 1.0}
        probe = {"method": "linear_probe", "layer": 8, "lr": 0.01, "val_accuracy": 0.5}
        rows.append({**about, **probe, "test_accuracy": 0.4})
        for layer in (0, 2, 5, 7):
            for lr in (0.01, 0.03):
                accuracy = 0.9 if (layer, lr) == (place, 0.03) else 0.6
                scores = {"val_accuracy": accuracy, "test_accuracy": accuracy - 0.1}
                rows.append({**about, "method": "ap", "layer": layer, "lr": lr, **scores})
    return pd.DataFrame(rows)


def test_a_case_says_where_the_sweep_went_and_what_it_gained():
    table = planted(journal({0.5: 7, 1.0: 2})).set_index("planted_size")
    missed, hit = table.loc[0.5], table.loc[1.0]
    assert (missed["chosen"], missed["found"], missed["off"]) == (7, False, 2)
    assert (hit["chosen"], hit["found"], hit["off"]) == (2, True, 0)
    assert hit["gain"] == hit["gain_planted"] == pytest.approx(40)  # 80 against 40 %
    assert missed["gain_planted"] == pytest.approx(10)
    assert hit["next_best"] == pytest.approx(10)


def test_the_share_is_counted_by_size_with_wilsons_interval():
    other = journal({0.5: 5, 1.0: 0}, at=5).assign(network="b")
    said = planted_judged(planted(pd.concat([journal({0.5: 7, 1.0: 2}), other])))
    said = said.set_index("statistic")
    small = said.loc["place of a random tensor found, size 0.5"]
    assert (small["found"], small["cases"], small["networks"]) == (1, 2, 2)
    assert (small["low"], small["high"]) == wilson(0.5, 2)
    assert small["chance"] == 0.25
    assert said.loc["place of a random tensor found, size 1", "within_one"] == 1


def test_trained_tensors_are_counted_apart():
    trained = journal({1.0: 2}).assign(question="planted_trained")
    table = planted(pd.concat([journal({1.0: 7}), trained]))
    assert table.set_index("plant")["found"].to_dict() == {"random": False, "trained": True}
    said = planted_judged(table).set_index("statistic")
    assert said.loc["place of a trained tensor found, size 1", "found"] == 1
    assert said.loc["place of a random tensor found, size 1", "found"] == 0


def test_a_flaw_that_costs_nothing_is_no_control():
    cases = planted(journal({0.5: 7, 1.0: 2}))
    assert "no test of the sweep's power" in _cost(cases, "random")
    hurt = cases.assign(linear_probe=[40.0, 30.0])
    assert "reads 40.0 % at size 0.5, 30.0 % at size 1." in _cost(hurt, "random")
    assert "no test" not in _cost(hurt, "random")

"""The campaign's tables: draws of one pair are one pair."""

import pandas as pd
import pytest

from analyses.campaign_tables import mean_over_draws, number_of_pairs

TABLE = pd.DataFrame(
    {"network": ["a", "a", "b"], "kind": "cnn", "task": "t", "near": [True, True, True]}
    | {"seed": [0, 1, 0], "ap_end": [0.2, 0.4, 0.9], "moving": [1, 2, 3]}
)


def test_draws_are_averaged_and_counted_once():
    assert number_of_pairs(TABLE) == 2
    found = mean_over_draws(TABLE).set_index("network")
    assert found["ap_end"].to_dict() == pytest.approx({"a": 0.3, "b": 0.9})
    assert found["near"].tolist() == [True, True]
    assert "seed" not in found


def test_a_table_without_draws_is_counted_by_its_rows():
    assert number_of_pairs(TABLE.drop(columns="seed")) == 3

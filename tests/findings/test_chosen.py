"""The choice of a layer: on validation, ties by the loss, then drawn; the test set never speaks."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aptheory.choosing.ranking import ranking
from aptheory.errors import InputError
from aptheory.findings.chosen import best_layers, chosen_layer, last_place


def table(**curves):
    """Tidy rows of one method from measure = (seeds, layers) values."""
    return pd.DataFrame(
        [
            ("net", "task", "ap", layer, seed, measure, value)
            for measure, values in curves.items()
            for seed, curve in enumerate(values)
            for layer, value in enumerate(curve)
        ],
        columns=["network", "task", "method", "layer", "seed", "measure", "value"],
    )


def test_best_layer_is_chosen_on_validation_and_reported_on_test():
    rows = table(
        val_accuracy=[[0.1, 0.2, 0.3, 0.0], [0.1, 0.2, 0.4, 0.0]],
        test_accuracy=[[0.9, 0.2, 0.3, 0.0], [0.9, 0.2, 0.4, 0.0]],
    )
    row = best_layers(rows).iloc[0]
    assert (row["layer"], row["value"]) == (2, pytest.approx(0.35))
    assert row["regret"] == pytest.approx(0.55)
    assert row["low"] < 0.35 < row["high"]


def test_a_depth_that_no_place_has_tells_no_last_place():
    assert last_place(pd.DataFrame({"method": ["ap"], "layer": [3], "depth": [1e-320]})) is None
    assert last_place(pd.DataFrame({"method": ["ap"], "layer": [3], "depth": [0.5]})) == 6


def test_ties_go_to_the_smaller_loss():
    rows = table(val_accuracy=[[0.5, 0.75, 0.75]], val_loss=[[0.1, 0.3, 0.2]])
    assert {chosen_layer(rows, seed=seed) for seed in range(5)} == {2}
    unknown = table(val_accuracy=[[0.5, 0.75, 0.75]], val_loss=[[0.1, float("nan"), 0.9]])
    assert {chosen_layer(unknown, seed=seed) for seed in range(5)} == {2}


def test_what_is_still_tied_is_drawn_and_the_draw_is_the_same_again():
    rows = table(val_accuracy=[[0.5, 0.75, 0.75, 0.75]])
    drawn = [chosen_layer(rows, seed=seed) for seed in range(60)]
    assert set(drawn) == {1, 2, 3}
    assert drawn == [chosen_layer(rows, seed=seed) for seed in range(60)]
    others = [chosen_layer(rows.assign(task=f"task {k}")) for k in range(60)]
    assert set(others) == {1, 2, 3}  # one seed, other tasks: not the same luck for all


def test_with_a_flat_truth_each_layer_is_chosen_equally_often():
    """8 layers, 60 validation images, 3 seeds: ties are common, and none is favoured."""
    generator = np.random.default_rng(0)
    counts = np.zeros(8)
    for _ in range(2000):
        right = generator.binomial(60, 0.8, size=(3, 8)).mean(0)
        counts[ranking(right / 60)[0]] += 1
    assert stats.chisquare(counts).pvalue > 0.001
    first = np.zeros(8)  # what taking the first does to the same tables
    for _ in range(2000):
        first[int((generator.binomial(20, 0.95, size=(1, 8)).mean(0)).argmax())] += 1
    assert first[0] / 2000 > 2 / 8


def test_a_ranking_is_an_order_of_all():
    assert ranking([0.1, float("nan"), 0.3]).tolist() == [2, 0, 1]
    assert sorted(ranking(np.zeros(9)).tolist()) == list(range(9))
    with pytest.raises(InputError, match="at least one"):
        ranking([])
    with pytest.raises(InputError, match="one each"):
        ranking([0.1, 0.2], [1.0])


def test_a_choice_needs_validation_unless_there_is_none_to_make():
    with pytest.raises(InputError, match="no validation accuracy"):
        chosen_layer(table(test_accuracy=[[0.1, 0.2]]))
    assert chosen_layer(table(test_accuracy=[[0.1]])) == 0

"""The statistics of relate.py against scipy, closed forms and planted truths."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aptheory.errors import InputError
from aptheory.relate import (
    across,
    best_layers,
    block_bootstrap,
    circular_shift_p,
    mean_interval,
    partial_spearman,
    relate,
    spearman,
)


def tables(metric, accuracy, *, network="net", task="task", probe=None):
    """A profile and an accuracy table; accuracy is (seeds, layers)."""
    layers = range(len(metric))
    profile = pd.DataFrame(
        {
            "network": network,
            "task": task,
            "layer": layers,
            "measure": "globality",
            "value": metric,
        }
    )
    rows = [
        {
            "network": network,
            "task": task,
            "layer": layer,
            "method": "ap",
            "seed": seed,
            "measure": split,
            "value": value,
        }
        for seed, curve in enumerate(accuracy)
        for layer, value in enumerate(curve)
        for split in ("val_accuracy", "test_accuracy")
    ]
    if probe is not None:
        rows += [
            {**rows[0], "method": "linear_probe", "layer": 9, "seed": seed, "value": value}
            | {"measure": "test_accuracy"}
            for seed, value in enumerate(probe)
        ]
    return profile, pd.DataFrame(rows)


@given(st.integers(0, 10_000), st.integers(4, 30))
def test_spearman_is_scipys(seed, n):
    generator = np.random.default_rng(seed)
    x, y = generator.integers(0, 6, n).astype(float), generator.normal(size=n)
    if len(set(x)) > 1:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_partial_spearman_is_the_correlation_of_rank_residuals():
    generator = np.random.default_rng(0)
    d = generator.normal(size=40)
    x, y = d + generator.normal(size=40), d + generator.normal(size=40)
    ranks = [stats.rankdata(v) for v in (x, y, d)]
    residuals = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert partial_spearman(x, y, d) == pytest.approx(np.corrcoef(residuals)[0, 1], abs=1e-10)


def test_a_metric_that_is_only_depth_has_no_partial_correlation():
    depth = np.arange(10.0)
    assert np.isnan(partial_spearman(depth**3, np.sin(depth), depth))


def test_circular_shift_p_is_never_below_one_over_n():
    x = np.arange(12.0)
    assert circular_shift_p(x, x, spearman) == pytest.approx(1 / 12)


def test_circular_shift_p_keeps_its_level_on_smooth_curves():
    """Random walks: the textbook test rejects far too often, the rotation test does not."""
    generator = np.random.default_rng(0)
    ours, textbook = [], []
    for _ in range(400):
        # Circular smooth noise: the null that the rotation test is exact for.
        spectrum = generator.normal(size=(2, 3, 2)) @ np.array([1, 1j])
        phase = np.exp(2j * np.pi * np.outer([1, 2, 3], np.arange(24)) / 24)
        x, y = (spectrum @ phase).real
        ours.append(circular_shift_p(x, y, spearman) <= 0.05)
        textbook.append(stats.spearmanr(x, y).pvalue <= 0.05)
    assert np.mean(ours) < 0.09
    assert np.mean(textbook) > 0.2


def test_a_planted_relation_is_found_and_an_absent_one_is_not():
    generator = np.random.default_rng(1)
    metric = np.sin(np.arange(16) / 2.5)
    planted = metric + 0.05 * generator.normal(size=(5, 16))
    found = relate(*tables(metric, planted), draws=200)
    row = found[found["statistic"] == "spearman"].iloc[0]
    assert row["value"] > 0.9
    assert row["low"] > 0.5
    assert row["p"] <= 2 / 16  # half a period away the anti-phase is as strong
    assert row["looks"] == 2
    absent = relate(*tables(metric, generator.normal(size=(5, 16))), draws=200)
    assert (absent["q"] > 0.05).all()


def test_gain_over_the_probe_subtracts_the_same_seed():
    metric = np.arange(6.0)[[0, 2, 1, 3, 5, 4]]
    accuracy = np.stack([metric + seed for seed in range(3)])
    profile, table = tables(metric, accuracy, probe=[0.0, 1.0, 2.0])
    found = relate(profile, table, target="ap - linear_probe", draws=50)
    assert found["value"].iloc[0] == pytest.approx(1.0)
    assert found["target"].unique().tolist() == ["ap - linear_probe"]


def test_too_few_layers_are_refused():
    with pytest.raises(InputError, match="at least four layers"):
        relate(*tables(np.arange(3.0), np.ones((2, 3))))
    with pytest.raises(InputError, match="no measure 'glob'"):
        relate(*tables(np.arange(5.0), np.ones((2, 5))), measures=["glob"])


def test_a_constant_curve_is_a_note_and_not_a_number():
    found = relate(*tables(np.ones(6), np.random.default_rng(0).normal(size=(2, 6))), draws=20)
    assert found["value"].isna().all()
    assert "constant over layers" in set(found["note"])


def test_block_bootstrap_covers_a_strong_relation():
    x = np.arange(20.0)
    low, high = block_bootstrap(x, np.stack([x, x]), spearman, draws=100)
    assert low <= 1.0 <= high + 1e-9
    assert low > 0.8


def test_across_networks_averages_networks_and_not_rows():
    relation = pd.DataFrame(
        {
            "network": ["a", "a", "a", "b"],
            "task": ["s", "t", "u", "s"],
            "target": "ap",
            "measure": "globality",
            "statistic": "spearman",
            "value": [1.0, 1.0, 1.0, 0.0],
        }
    )
    row = across(relation, draws=200).iloc[0]
    assert row["value"] == pytest.approx(0.5)
    assert (row["low"], row["high"]) == (0.0, 1.0)
    assert (row["without_network_low"], row["without_network_high"]) == (0.0, 1.0)


def test_best_layer_is_chosen_on_validation_and_reported_on_test():
    _, table = tables(np.arange(4.0), np.array([[1.0, 2, 3, 0], [1, 2, 3, 0]]))
    at = (table["measure"] == "test_accuracy") & (table["layer"] == 0)
    table.loc[at, "value"] = 9.0
    row = best_layers(table).iloc[0]
    assert (row["layer"], row["value"], row["regret"]) == (2, 3.0, 6.0)


def test_mean_interval_is_students():
    values = np.array([1.0, 2.0, 4.0])
    low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert np.isnan(mean_interval(np.array([1.0]))).all()

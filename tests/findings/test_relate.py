"""The statistics of relate.py against scipy, closed forms and planted truths."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aptheory.errors import InputError
from aptheory.findings.relate import across, partial_spearman, relate, spearman
from aptheory.findings.statistics import circular_shift_p, correlation_over, ranks


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


def test_what_is_equal_but_for_rounding_is_a_tie():
    accuracies = np.array([[0.7, 0.8, 0.9], [0.8, 0.8, 0.8], [0.9, 0.8, 0.7], [0.3, 0.9, 0.7]])
    means, probe = accuracies.mean(1), np.array([0.7, 0.1, 0.4])
    gains = (accuracies - probe).mean(1)
    assert len(set(means)) > 2  # rounding tells the equal ones apart
    metric = np.array([1.0, 2.0, 3.0, 4.0])
    expected = stats.spearmanr(metric, [2, 2, 2, 1]).statistic
    assert spearman(metric, means) == pytest.approx(expected, abs=1e-12)
    assert spearman(metric, gains) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(spearman(metric, means[[0, 1, 2, 0]]))
    assert correlation_over(metric, means, unit="units").value == pytest.approx(expected)


@given(st.lists(st.floats(-1e6, 1e6), max_size=12))
def test_ranks_are_scipys_where_values_differ(values):
    rounded = np.round(np.array(values), 3)
    assert ranks(rounded).tolist() == stats.rankdata(rounded).tolist()


def test_ranks_of_what_is_no_number():
    assert np.isnan(ranks(np.array([1.0, np.nan, 2.0]))).all()
    assert ranks(np.array([np.inf, 1.0, -np.inf])).tolist() == [3, 2, 1]


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


def against(y):
    """The rank correlation of a curve with y, as a function of the curve that is shifted."""
    return lambda x: spearman(x, y)


def smooth_curves(kind, n, generator):
    """Two independent smooth curves that do not end where they began."""
    noise = generator.normal(size=(2, n))
    if kind == "walk":
        return noise.cumsum(1)
    at = np.arange(n)
    covariance = np.exp(-0.5 * ((at[:, None] - at) / float(kind)) ** 2) + 1e-6 * np.eye(n)
    return noise @ np.linalg.cholesky(covariance).T


@pytest.mark.parametrize(
    "kind", ["3", *(pytest.param(k, marks=pytest.mark.slow) for k in ("1.5", "6", "walk"))]
)
def test_the_shift_test_keeps_its_level_on_smooth_curves(kind):
    """Nominal 2/16: the textbook rejects most of the time, plain rotation up to four times."""
    generator = np.random.default_rng(0)
    n, draws = 16, 150
    ours, textbook = [], []
    for _ in range(draws):
        x, y = smooth_curves(kind, n, generator)
        ours.append(circular_shift_p(x, against(y)) <= 2 / n)
        textbook.append(stats.spearmanr(x, y).pvalue <= 2 / n)
    # Three standard errors of the share above the level.
    assert np.mean(ours) < 2 / n + 3 * np.sqrt(2 / n * (1 - 2 / n) / draws)
    assert np.mean(textbook) > np.mean(ours)


@pytest.mark.slow
def test_the_mean_over_networks_keeps_its_level_and_its_coverage():
    """Networks of smooth curves without a relation: p of `across` is near nominal."""
    generator = np.random.default_rng(1)
    rejected, covered = [], []
    for _ in range(100):
        rows = []
        for network in range(6):
            x, common = smooth_curves("3", 12, generator)
            for task in range(3):
                y = common + 0.3 * generator.normal(size=12)  # tasks share their network's curve
                rows.append((f"n{network}", f"t{task}", "ap", "m", "spearman", spearman(x, y)))
        columns = ["network", "task", "target", "measure", "statistic", "value"]
        found = across(pd.DataFrame(rows, columns=columns)).iloc[0]
        rejected.append(found["p"] <= 0.1)
        covered.append(found["low"] <= 0 <= found["high"])
    assert np.mean(rejected) < 0.19
    assert np.mean(covered) > 0.88


def test_a_planted_relation_is_found_and_an_absent_one_is_not():
    generator = np.random.default_rng(1)
    metric = np.sin(np.arange(16) / 2.5)
    planted = metric + 0.05 * generator.normal(size=(5, 16))
    found = relate(*tables(metric, planted))
    row = found[found["statistic"] == "spearman"].iloc[0]
    assert row["value"] > 0.9
    assert 0 < row["low"] < row["value"] <= row["high"] <= 1
    assert row["p"] <= 3 / 32  # half a period away the anti-phase is nearly as strong
    absent = relate(*tables(metric, generator.normal(size=(5, 16))))
    assert (absent["p"] > 0.05).all()


def test_a_test_that_cannot_become_significant_is_no_look():
    generator = np.random.default_rng(0)
    short = relate(*tables(np.sin(np.arange(16) / 2.5), generator.normal(size=(3, 16))))
    assert (short["looks"] == 0).all()  # two tests whose p is at least 1/32
    assert short["q"].isna().all()
    assert set(short["note"]) == {"not tested: the smallest p here is 1/32"}
    long = relate(*tables(np.sin(np.arange(24) / 2.5), generator.normal(size=(3, 24))))
    assert (long["looks"] == 2).all()  # 1/48 < 0.05 / 2
    assert long["q"].notna().all()


def test_gain_over_the_probe_subtracts_the_same_seed():
    metric = np.arange(6.0)[[0, 2, 1, 3, 5, 4]]
    accuracy = np.stack([metric + seed for seed in range(3)])
    profile, table = tables(metric, accuracy, probe=[0.0, 1.0, 2.0])
    found = relate(profile, table, target="ap - linear_probe")
    assert found["value"].iloc[0] == pytest.approx(1.0)
    assert found["target"].unique().tolist() == ["ap - linear_probe"]


def test_too_few_layers_are_refused():
    with pytest.raises(InputError, match="at least four layers"):
        relate(*tables(np.arange(3.0), np.ones((2, 3))))
    with pytest.raises(InputError, match="no measure 'glob'"):
        relate(*tables(np.arange(5.0), np.ones((2, 5))), measures=["glob"])


def test_a_constant_curve_is_a_note_and_not_a_number():
    found = relate(*tables(np.ones(6), np.random.default_rng(0).normal(size=(2, 6))))
    assert found["value"].isna().all()
    assert "constant over layers" in set(found["note"])


def relation_of(values):
    """network -> correlations, one a task, as `relate` writes them."""
    rows = [
        (network, f"t{i}", "ap", "globality", "spearman", value)
        for network, each in values.items()
        for i, value in enumerate(each)
    ]
    columns = ["network", "task", "target", "measure", "statistic", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_across_networks_averages_networks_and_not_rows():
    row = across(relation_of({"a": [0.8, 0.8, 0.8], "b": [0.0]})).iloc[0]
    assert row["value"] == pytest.approx(np.tanh(np.arctanh(0.8) / 2))
    assert row["low"] < -0.99  # two networks say little of a third
    assert row["high"] > 0.99
    assert row["without_network_low"] == pytest.approx(0)
    assert row["without_network_high"] == pytest.approx(0.8)
    assert row["verdict"] == "no relation shown"


def test_across_is_students_t_over_networks_corrected_over_all_rows():
    z = np.array([0.5, 0.7, 0.6, 0.9])
    values = {f"n{i}": np.tanh([mean - 0.1, mean + 0.1]) for i, mean in enumerate(z)}
    table = relation_of(values)
    null = table.assign(measure="noise", value=[0.3, 0.1, -0.2, -0.4, 0.5, 0.1, -0.3, -0.1])
    found = across(pd.concat([table, null])).set_index("measure")
    row = found.loc["globality"]
    low, high = stats.t.interval(0.95, 3, z.mean(), stats.sem(z))
    assert (row["low"], row["high"]) == pytest.approx((np.tanh(low), np.tanh(high)))
    assert row["p"] == pytest.approx(stats.ttest_1samp(z, 0).pvalue)
    assert row["q"] == pytest.approx(2 * row["p"])
    assert (found["looks"] == 2).all()
    assert row["verdict"] == "rises with accuracy"
    assert found.loc["noise", "verdict"] == "no relation shown"


def test_one_network_gives_no_interval_over_networks():
    row = across(relation_of({"a": [0.9, 0.8, 0.95]})).iloc[0]
    assert np.isnan([row["low"], row["high"], row["p"]]).all()
    assert row["verdict"] == "cannot be told"
    assert "one network" in row["note"]


def test_a_row_twice_and_no_measure_are_refused():
    profile, accuracy = tables(np.arange(8.0), np.ones((2, 8)))
    for odd in ((pd.concat([profile, profile]), accuracy), (profile, pd.concat([accuracy] * 2))):
        with pytest.raises(InputError, match="twice"):
            relate(*odd)
    with pytest.raises(InputError, match="measures is empty"):
        relate(profile, accuracy, measures=[])


@pytest.mark.parametrize("on", ["nothing", "\ud800"])
def test_an_accuracy_that_was_not_measured_is_named(on):
    profile, accuracy = tables(np.arange(6.0), np.arange(6.0)[None])
    with pytest.raises(InputError, match="the accuracies have no measure"):
        relate(profile, accuracy, on=on)

"""Intervals and p-values against closed forms, scipy and slow definitions of their own."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aptheory.errors import InputError
from aptheory.findings.statistics import (
    Interval,
    can_show,
    circular_shift_p,
    clustered_mean,
    corrected,
    correlation_interval,
    equal_runs,
    mcnemar,
    mean_correlation,
    mean_interval,
    mean_over,
    mean_p,
    paired_pictures,
    shifted,
    two_source_interval,
    wilson,
)


def product_with(y):
    return lambda x: float(np.corrcoef(x, y)[0, 1])


# ------------------------------------------------------------------------------ the value


def test_an_interval_prints_itself():
    gain = Interval(0.067, 0.012, 0.122, n=3, unit="seeds")
    assert f"{gain.times(100):+.1f points}" == "+6.7 points [+1.2, +12.2]"
    assert str(gain) == "0.067 [0.012, 0.122]"
    assert tuple(gain) == (0.067, 0.012, 0.122, 3)
    assert tuple(gain.times(-100))[1:3] == pytest.approx((-12.2, -1.2))


def test_no_spread_is_said_and_is_no_interval():
    same = mean_over([0.717, 0.717, 0.717])
    assert f"{same.times(100):.1f %}" == "71.7 % (no spread: the 3 seeds agree)"
    assert not same.known
    assert np.isnan(mean_interval([0.1 + 0.2, 0.3])).all()  # equal but for rounding
    assert "one of seeds" in mean_over([0.5]).note
    assert mean_over([]).note == "no seeds"


# ------------------------------------------------------------------------------ means


def test_a_mean_has_students_interval():
    values = np.array([1.0, 2.0, 4.0])
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    assert mean_interval([*values, float("nan")]) == pytest.approx(expected)
    assert mean_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert np.isnan(mean_p([1.0]))
    assert np.isnan(mean_p([1.0, 1.0]))


def test_networks_are_the_units_and_their_tasks_are_averaged_first():
    networks, tasks = zip(*product("abcd", "xyz"), strict=True)
    values = np.random.default_rng(0).normal(size=12)
    interval = clustered_mean(values, networks, tasks)
    means = values.reshape(4, 3).mean(1)
    assert (interval.low, interval.high) == pytest.approx(mean_interval(means))
    assert (interval.n, interval.unit) == (4, "networks")
    # Seeds of one task are not tasks: a task that was run twice does not weigh twice.
    twice = clustered_mean([0, 0, 3, 9], list("aaab"), list("xxyx"))
    assert twice.value == pytest.approx((1.5 + 9) / 2)


def test_one_network_speaks_of_its_tasks_alone():
    interval = clustered_mean([1.0, 2.0, 4.0], ["a"] * 3, list("xyz"))
    assert (interval.low, interval.high) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))
    assert interval.unit == "tasks"
    assert "nothing is said of others" in interval.note


def test_correlations_are_averaged_by_fishers_z():
    rs = np.array([0.9, 0.5, -0.2, 0.7])
    z = np.arctanh(rs)
    low, high = np.tanh(mean_interval(z))
    assert tuple(mean_correlation(rs)) == pytest.approx((np.tanh(z.mean()), low, high, 4))
    assert mean_correlation([1.0, 1.0, 0.9]).high < 1
    flipped = mean_correlation(-rs)
    assert (flipped.low, flipped.high) == pytest.approx((-high, -low))
    with pytest.raises(InputError, match="beyond"):
        mean_correlation([1.2, 0.1])


# ------------------------------------------------------------------------------ test pictures


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_is_scipys(right, count):
    right = min(right, count)
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high))


def test_seeds_that_are_one_run_have_the_interval_of_the_pictures():
    """43 of 60 right, three times the same: [59, 81], and not [71.7, 71.7]."""
    run = np.arange(60) < 43
    interval = two_source_interval(np.stack([run, run, run]))
    assert f"{interval.times(100):.0f %}".startswith("72 % [59, 81] (no spread over seeds")
    assert tuple(interval)[1:3] == pytest.approx(wilson(43 / 60, 60))
    assert tuple(two_source_interval(run))[1:3] == pytest.approx(wilson(43 / 60, 60))
    assert "one seed" in two_source_interval(run).note
    assert equal_runs(np.stack([run, ~run, run])) == [(0, 2)]
    mixed = two_source_interval(np.stack([run, np.roll(run, 7), run]))
    assert mixed.note == "the same predictions from runs 0 and 2"


def test_each_source_is_what_an_analysis_of_variance_says():
    """Against expected mean squares of the crossed table, written out."""
    generator = np.random.default_rng(0)
    table = (
        generator.random((4, 50)) < generator.random(50)[None] + generator.normal(size=(4, 1)) / 9
    )
    y = table.astype(float)
    cells = [(y[i, j] - y[i].mean() - y[:, j].mean() + y.mean()) ** 2 for i, j in np.ndindex(4, 50)]
    ms_rest = sum(cells) / (3 * 49)
    ms_pictures = 4 * y.mean(0).var(ddof=1)
    ms_runs = 50 * y.mean(1).var(ddof=1)
    interval = two_source_interval(table)
    assert interval.errors["test pictures"] ** 2 == pytest.approx((ms_pictures - ms_rest) / 200)
    assert interval.errors["training"] ** 2 == pytest.approx(ms_runs / 200)
    assert "test pictures" in interval.sources
    # Neither the order of pictures nor that of runs matters.
    again = two_source_interval(table[::-1, generator.permutation(50)])
    assert tuple(again) == pytest.approx(tuple(interval))


def test_runs_that_scatter_widen_the_interval_and_an_accuracy_of_1_has_one():
    steady = np.tile(np.arange(400) % 5 > 0, (3, 1))
    scattered = np.stack([np.arange(400) % 5 > k for k in (-1, 0, 1)])
    wide, narrow = two_source_interval(scattered), two_source_interval(steady)
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    perfect = two_source_interval(np.ones((3, 30), dtype=bool))
    assert (perfect.low, perfect.high) == pytest.approx(wilson(1.0, 30))
    with pytest.raises(InputError, match="at least one picture"):
        two_source_interval(np.ones((2, 0), dtype=bool))


def test_two_methods_on_the_same_pictures():
    generator = np.random.default_rng(1)
    easy = generator.random((3, 200))
    first, second = easy < 0.8, easy < 0.7  # the second knows no picture that the first does not
    apart = paired_pictures(first, second)
    assert apart.value == pytest.approx(first.mean() - second.mean())
    assert 0 < apart.low < apart.value < apart.high
    lone = paired_pictures(first[0], second[0])
    gained, count = int((first[0] & ~second[0]).sum()), 200
    p = np.array([gained + 1, 1]) / (count + 2)  # Bonett and Price 2012
    half = stats.t.ppf(0.975, count + 1) * np.sqrt((p.sum() - (p[0] - p[1]) ** 2) / (count + 1))
    assert (lone.low, lone.high) == pytest.approx((p[0] - p[1] - half, p[0] - p[1] + half))
    equal = paired_pictures(first, first)
    assert (equal.value, equal.low < 0 < equal.high) == (0, True)
    back = paired_pictures(second, first)
    assert (back.low, back.high) == pytest.approx((-apart.high, -apart.low))
    with pytest.raises(InputError, match="the same test pictures"):
        paired_pictures(first, second[:, :100])


def test_mcnemar_counts_the_pictures_that_differ():
    first = np.array([True] * 9 + [False] * 1 + [True] * 30)
    second = np.array([False] * 9 + [True] * 1 + [True] * 30)
    # 10 differ, 9 one way: twice P(X <= 1), less P(X = 1), of ten fair coins
    assert mcnemar(first, second) == pytest.approx((2 * (1 + 10) - 10) / 2**10)
    assert mcnemar(first, first) == 1
    assert mcnemar(first, second) == mcnemar(second, first)
    with pytest.raises(InputError, match="two vectors"):
        mcnemar(first, second[:3])


# ------------------------------------------------------------------------------ curves


def test_all_shifts_of_the_reflected_curve_count():
    x = np.array([0.0, 3, 1, 2, 5, 4, 6, 9, 7, 8])
    # The curve itself and no other shift: its mirror image correlates less.
    assert circular_shift_p(x, product_with(x)) == pytest.approx(1 / 20)
    rising = np.arange(12.0)  # the mirror image of a rising curve is as strong
    assert circular_shift_p(rising, product_with(rising)) == pytest.approx(2 / 24)
    assert np.isnan(circular_shift_p(x, lambda curve: float("nan")))
    sums = shifted(np.array([1.0, 2.0]), lambda curve: float(curve @ [10, 1]))
    assert sums.tolist() == [12, 11, 21, 22]  # of the ring 1 2 2 1, turned back a step each time


def test_bounds_of_a_correlation_are_wider_for_smooth_curves_and_turn_with_its_sign():
    generator = np.random.default_rng(0)
    rough, smooth = generator.normal(size=(2, 12)), generator.normal(size=(2, 12)).cumsum(1)
    width = {}
    for name, (x, y) in {"rough": rough, "smooth": smooth}.items():
        low, high = correlation_interval(x, product_with(y))
        assert -1 < low < product_with(y)(x) < high < 1
        width[name] = np.arctanh(high) - np.arctanh(low)
        turned = correlation_interval(x, product_with(-y))
        assert turned == pytest.approx((-high, -low))
    assert width["smooth"] > width["rough"]
    assert np.isnan(correlation_interval(rough[0], lambda curve: float("nan"))).all()


# ------------------------------------------------------------------------------ many looks


def test_correction_counts_every_look_of_tables_read_together():
    table = pd.DataFrame({"p": [0.01, 0.04, np.nan]})
    both = corrected(pd.concat([corrected(table), corrected(table)], ignore_index=True))
    assert (corrected(table)["looks"] == 2).all()
    assert (both["looks"] == 4).all()
    assert both["q"].isna().sum() == 2
    assert both["q"].iloc[0] == pytest.approx(0.02)


def test_looks_that_can_show_nothing_are_not_counted():
    assert can_show(np.array([1 / 24])).tolist() == [True]
    assert not can_show(np.full(12, 1 / 24)).any()
    assert can_show(np.array([1 / 24, 1 / 24, 1e-4])).tolist() == [False, False, True]
    assert can_show(np.array([np.nan, 1e-3])).tolist() == [False, True]
    table = pd.DataFrame({"p": [1 / 24, 0.003], "smallest_p": [1 / 24, 1e-4], "note": ["", ""]})
    found = corrected(table)
    assert (found["looks"] == 1).all()
    assert found["q"].iloc[1] == pytest.approx(0.003)
    assert found["note"].tolist() == ["not tested: the smallest p here is 1/24", ""]

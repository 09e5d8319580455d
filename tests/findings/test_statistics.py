"""Intervals and p-values against closed forms, scipy and slow definitions of their own."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aptheory.errors import InputError
from aptheory.findings.statistics import (
    Interval,
    can_show,
    circular_shift_p,
    clustered_mean,
    corrected,
    correlation_interval,
    correlation_over,
    mean_correlation,
    mean_interval,
    mean_over,
    mean_p,
    shifted,
)


def product_with(y):
    return lambda x: float(np.corrcoef(x, y)[0, 1])


# ------------------------------------------------------------------------------ the value


def test_an_interval_prints_itself():
    gain = Interval(0.067, 0.012, 0.122, n=3, unit="seeds")
    assert f"{gain.times(100):+.1f points}" == "+6.7 points [+1.2, +12.2]"
    touches = Interval(-0.001, -0.004, 0.34, n=4, unit="networks")
    assert f"{touches:+z.2f}" == "+0.00 [-0.00, +0.34]"  # it holds zero
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


def test_a_correlation_over_units_has_bonett_and_wrights_bounds_and_none_below_four():
    x, y = np.arange(8.0), np.array([0, 2, 1, 3, 5, 4, 7, 6.0])
    r = 1 - 6 * ((x - y) ** 2).sum() / (8 * 63)
    half = 1.959964 * np.sqrt((1 + r**2 / 2) / 5)
    low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    assert tuple(correlation_over(x, y)) == pytest.approx((r, low, high, 8))
    assert not correlation_over(x[:3], y[:3]).known
    assert not correlation_over(x, np.ones(8)).known


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

"""Intervals that hold the test pictures, against closed forms, scipy and slow definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aptheory.errors import InputError
from aptheory.findings.pictures import (
    equal_runs,
    mcnemar,
    paired_pictures,
    two_source_interval,
    wilson,
)


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


def test_one_picture_and_several_runs_have_an_interval():
    low, high = tuple(two_source_interval(np.array([[True], [False]])))[1:3]
    assert (low, high) == pytest.approx((0, 1), abs=0.06)

"""Floor and rate against curves whose floor and rate are known."""

import numpy as np
import pytest

from aptheory.errors import InputError
from aptheory.theory.learning_curve import LearningCurve, zero_error_bound

SIZES = np.array([4.0, 8, 16, 32, 64, 128, 1e6])


def planted(floor, scale, exponent, spread=0.0, repetitions=12):
    draw = np.random.default_rng(0)
    clean = floor + scale * SIZES**-exponent
    return LearningCurve(
        SIZES, clean * np.exp(spread * draw.normal(size=(repetitions, len(SIZES))))
    )


@pytest.mark.parametrize(("floor", "exponent"), [(0.0, 1.0), (0.1, 1.0), (0.05, 0.5)])
def test_a_planted_floor_and_rate_come_back(floor, exponent):
    curve = planted(floor, 1.0, exponent)
    assert curve.floor()[0] == pytest.approx(floor, abs=1.1e-3)  # at N = 10^6
    assert curve.fitted_floor()[0] == pytest.approx(floor, abs=5e-3)
    assert curve.rate()[0] == pytest.approx(-exponent, abs=0.02)
    value, low, high = planted(floor, 1.0, exponent, spread=0.1).floor()
    assert low <= value <= high
    assert low - 1e-3 <= floor <= high


def test_samples_are_counted_from_the_curves_own_floor():
    low, high = planted(0.0, 1.0, 1.0), planted(0.3, 1.0, 1.0)
    assert (low.samples_within(0.07) == 16).all()
    assert (high.samples_within(0.07) == 16).all()
    assert (low.samples_within(0.001) == 256).all()  # twice the largest finite size: a bound


def test_a_flat_curve_has_a_floor_and_no_rate():
    flat = LearningCurve(SIZES, np.full((3, len(SIZES)), 0.2))
    assert flat.floor() == pytest.approx((0.2, 0.2, 0.2))
    assert np.isnan(flat.rate()[0])
    assert (flat.samples_within() == 4).all()


def test_no_error_is_a_bound_and_bad_curves_are_refused():
    assert zero_error_bound(300) == 0.01
    with pytest.raises(InputError):
        zero_error_bound(0)
    with pytest.raises(InputError, match="growing"):
        LearningCurve(np.array([4.0, 2.0, 8.0]), np.zeros((2, 3)))

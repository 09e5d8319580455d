"""The rank family: known spectra, one name a formula, streams equal to the whole."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.metrics import rank as family


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def known(spectrum, rows, columns, seed=0):
    """A matrix with this spectrum and a mean row of zero (its left vectors are orthogonal to 1)."""
    count = len(spectrum)
    left = noise(rows, count, seed=seed)
    left = torch.linalg.qr(left - left.mean(0))[0]
    right = torch.linalg.qr(noise(columns, count, seed=seed + 1))[0]
    return left * torch.tensor(spectrum, dtype=torch.float64) @ right.T


SPECTRUM = [4.0, 2.0, 1.0, 1.0]
EXPECTED = {
    "effective_rank": math.exp(-sum(s / 8 * math.log(s / 8) for s in SPECTRUM)),
    "effective_rank_centred": math.exp(-sum(s / 8 * math.log(s / 8) for s in SPECTRUM)),
    "stable_rank": 22 / 16,
    "stable_rank_centred": 22 / 16,
    "participation_ratio": 22**2 / (256 + 16 + 1 + 1),
    "numerical_rank": 4,
}


@pytest.mark.parametrize("shape", [(30, 9), (12, 50)])
@pytest.mark.parametrize("name", EXPECTED)
def test_matrices_of_known_spectrum(name, shape):
    matrix = known(SPECTRUM, *shape)
    assert getattr(metrics, name)(matrix) == pytest.approx(EXPECTED[name], rel=1e-5)


@pytest.mark.parametrize(
    "name", [n for n in EXPECTED if "centred" not in n and n != "participation_ratio"]
)
def test_identity_and_rank_one(name):
    assert getattr(metrics, name)(torch.eye(7)) == pytest.approx(7)
    line = torch.outer(torch.arange(1.0, 6), torch.arange(1.0, 4))
    assert getattr(metrics, name)(line) == pytest.approx(1)


def test_equal_to_numpy_svd():
    matrix = noise(40, 25) + 3
    for centred in (False, True):
        given = matrix - matrix.mean(0) if centred else matrix
        expected = np.linalg.svd(given.numpy(), compute_uv=False)
        found = metrics.singular_values(matrix, centred=centred).numpy()
        np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-8, atol=1e-6)


def test_fault_four_formulas_under_one_name():
    """On one matrix the formulas differ widely; each of our names has exactly one."""
    matrix = noise(200, 64) * torch.arange(1, 65) ** -0.7 + 2
    values = {name: getattr(metrics, name)(matrix) for name in family.FORMULAS}
    assert len({round(value, 2) for value in values.values()}) == len(values)
    s = np.linalg.svd(matrix.numpy(), compute_uv=False)
    p = s / s.sum()
    assert values["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    q = s**2 / (s**2).sum()
    squares = np.exp(-(q * np.log(q)).sum())
    assert abs(values["effective_rank"] - squares) > 5


@given(
    rows=st.integers(2, 40),
    columns=st.integers(1, 30),
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-100, 100),
    seed=st.integers(0, 100),
)
@settings(max_examples=25, deadline=None)
def test_bounds_and_streams_on_any_shape(rows, columns, scale, shift, seed):
    matrix = scale * (noise(rows, columns, seed=seed) + shift)
    stream, other = metrics.Rank(groups=3), metrics.Rank(groups=3)
    for number, start in enumerate(range(0, rows, 7)):
        (stream if number % 2 else other).update(matrix[start : start + 7])
    stream.merge(other)
    for name, estimate in stream.compute().items():
        value = float(estimate.value)
        assert value == pytest.approx(float(getattr(metrics, name)(matrix)), rel=1e-3), name
        assert 0 <= value <= min(rows, columns) * (1 + 1e-9)
        assert estimate.images == rows


def test_wide_features_use_the_small_product_and_say_when_they_do_not_fit():
    wide = noise(6, 1_000_000, dtype=torch.float32)
    assert metrics.effective_rank(wide) == pytest.approx(6, rel=1e-3)
    stream = metrics.Rank()
    stream.update(wide[:3])
    stream.update(wide[3:])
    assert float(stream.compute(("effective_rank",))["effective_rank"].value) == pytest.approx(
        metrics.effective_rank(wide), rel=1e-9
    )
    small = metrics.Rank(budget=10_000_000)
    with pytest.raises(InputError, match="pool the features, or raise budget"):
        small.update(wide)


def test_the_interval_holds_the_value_of_many_more_images():
    basis = torch.arange(1, 21, dtype=torch.float64) ** -0.5
    many = metrics.participation_ratio(noise(100_000, 20, seed=9) * basis)
    inside = 0
    for seed in range(20):
        stream = metrics.Rank(groups=8)
        sample = noise(1600, 20, seed=100 + seed) * basis
        for start in range(0, 1600, 100):
            stream.update(sample[start : start + 100])
        estimate = stream.compute(("participation_ratio",))["participation_ratio"]
        inside += bool(estimate.low <= many <= estimate.high)
    assert inside >= 16


def test_degenerate_features():
    for constant in (torch.zeros(8, 3), torch.full((8, 3), 0.1), torch.full((8, 3), 1e8)):
        assert metrics.participation_ratio(constant) == 0
        assert metrics.effective_rank_centred(constant) == 0
        stream = metrics.Rank()
        for start in range(0, 8, 3):
            stream.update(constant[start : start + 3])
        found = stream.compute()
        assert float(found["participation_ratio"].value) == 0
        assert float(found["stable_rank"].value) == metrics.stable_rank(constant)
    assert metrics.stable_rank(torch.zeros(8, 3)) == 0
    assert metrics.stable_rank(torch.full((8, 3), 0.1)) == pytest.approx(1)
    assert metrics.effective_rank(noise(5, 4).repeat(3, 1)) == pytest.approx(
        metrics.effective_rank(noise(5, 4))
    )  # duplicated images
    assert metrics.effective_rank(noise(1, 9)) == pytest.approx(1)
    with pytest.raises(InputError, match="at least two"):
        metrics.participation_ratio(noise(1, 9))
    with pytest.raises(InputError, match="NaN"):
        metrics.stable_rank(torch.tensor([[1.0, float("nan")]]))
    bad = metrics.Rank()
    bad.update(torch.tensor([[1.0, float("inf")], [0.0, 1.0]]))
    with pytest.raises(InputError, match="NaN"):
        bad.compute()
    with pytest.raises(InputError, match="update before"):
        metrics.Rank().compute()
    with pytest.raises(InputError, match="tolerance"):
        metrics.numerical_rank(noise(3, 3), tolerance=1e-12)
    with pytest.raises(InputError, match="Unknown rank"):
        stream.compute(("rank",))
    with pytest.raises(InputError, match="width 4"):
        stream.update(noise(2, 4))


def test_precision_and_tokens():
    matrix = noise(64, 40)
    half = matrix.to(torch.bfloat16)
    assert metrics.effective_rank(half) == pytest.approx(metrics.effective_rank(half.double()))
    tokens = noise(16, 200, 12, dtype=torch.float32) + 50
    stream = metrics.Rank()
    for start in range(0, 16, 8):
        stream.update_tokens(tokens[start : start + 8])
    found = stream.compute()
    flat = tokens.flatten(0, 1).double()
    for name, estimate in found.items():
        assert float(estimate.value) == pytest.approx(getattr(metrics, name)(flat), rel=1e-4)
    assert found["stable_rank"].images == 16


def test_what_is_kept_does_not_grow_and_groups_do_not_follow_the_batches():
    matrix = noise(96, 6)
    found = []
    for batch in (96, 32, 5):
        stream = metrics.Rank(groups=8)
        sizes = []
        for start in range(0, 96, batch):
            stream.update(matrix[start : start + batch])
            sizes.append(len(stream.moments))
        if batch > 8:
            assert set(sizes) == {8}
        found.append(stream.compute(("effective_rank",))["effective_rank"])
    for other in found[1:]:
        assert torch.allclose(torch.stack(found[0][:3]), torch.stack(other[:3]))


def test_accumulators_may_be_updated_in_and_out_of_inference_mode():
    x = noise(16, 5)
    rank, similarity = metrics.Rank(), metrics.CKA(1)
    with torch.inference_mode():
        rank.update(x[:8] + 0)
        similarity.update([x[:8] + 0])
    rank.update(x[8:])
    similarity.update([x[8:]])
    found = rank.compute(("stable_rank",))["stable_rank"].value
    assert float(found) == pytest.approx(metrics.stable_rank(x))
    assert similarity.compute().images == 16


def test_small_variation_in_half_precision_is_not_taken_for_rounding():
    small = (100 + 0.5 * noise(64, 5).sign()).to(torch.bfloat16)
    assert metrics.participation_ratio(small) > 3
    stream = metrics.Rank()
    stream.update(small)
    value = stream.compute(("participation_ratio",))["participation_ratio"].value
    assert float(value) == pytest.approx(metrics.participation_ratio(small))
    assert metrics.cka(small, small) == pytest.approx(1)

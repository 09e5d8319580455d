"""CKA and its second opinions: independent definitions, unbiasedness, invariances, known faults."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.metrics.gram import u_centre


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(width, seed=0):
    return torch.linalg.qr(noise(width, width, seed=seed + 77))[0]


def slow_unbiased(x, y):
    """Song et al. 2012, the three traces as printed, in numpy."""
    k, l = (np.asarray(a) @ np.asarray(a).T for a in (x, y))
    n = len(k)
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)

    def hsic(a, b):
        return (
            np.trace(a @ b)
            + one @ a @ one * (one @ b @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ a @ b @ one)
        ) / (n * (n - 3))

    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def slow_biased(x, y):
    """‖YᵀX‖² / ‖XᵀX‖ ‖YᵀY‖ of column-centred features: the feature-space form, no Gram matrix."""
    x, y = (np.asarray(a) - np.asarray(a).mean(0) for a in (x, y))
    top = np.linalg.norm(y.T @ x) ** 2
    return top / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def test_both_estimators_equal_independent_definitions():
    x = noise(40, 7)
    y = x[:, :3] @ noise(3, 9, seed=1) + noise(40, 9, seed=2)
    assert metrics.cka(x, y) == pytest.approx(slow_unbiased(x, y), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.ChanceWarning)
        biased = metrics.cka(x, y, estimator="biased")
    assert biased == pytest.approx(slow_biased(x, y), abs=1e-12)


def test_rbf_equals_its_definition():
    x, y = noise(20, 4), noise(20, 6, seed=1)
    grams = []
    for each in (x, y):
        squared = torch.cdist(each, each) ** 2
        pairs = squared[torch.triu_indices(20, 20, 1).unbind()]
        grams.append(torch.exp(-squared / (2 * 0.4**2 * float(np.median(pairs.sqrt())) ** 2)))
    k, l = (u_centre(g) for g in grams)
    expected = (k * l).sum() / (k.norm() * l.norm())
    assert metrics.cka(x, y, kernel="rbf") == pytest.approx(float(expected), abs=1e-9)


def test_orthogonal_features_closed_form():
    # Two one-dimensional features, centred and orthogonal: biased CKA is their squared correlation.
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64).repeat(20, 1)
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64).repeat(20, 1)
    assert metrics.cka(x, y, estimator="biased") == pytest.approx(0, abs=1e-12)
    assert metrics.cka(x, x + y, estimator="biased") == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("n", [8, 16, 64, 256, 512])
def test_unbiased_cka_of_independent_inputs_is_within_three_errors_of_zero(n):
    draws = max(8, 2048 // n)
    each = torch.tensor(
        [metrics.cka(noise(n, 64, seed=i), noise(n, 96, seed=10_000 + i)) for i in range(draws)]
    )
    error = each.std() / draws**0.5
    assert abs(each.mean()) < 3 * error


@pytest.mark.parametrize("batch", [8, 32, 128])
def test_the_batch_size_moves_the_estimate_by_no_more_than_its_error(batch):
    x = noise(512, 20)
    y = x[:, :8] @ noise(8, 30, seed=1) + 2 * noise(512, 30, seed=2)
    whole = metrics.cka(x, y)
    stream = metrics.CKA(2)
    for start in range(0, 512, batch):
        stream.update([x[start : start + batch], y[start : start + batch]])
    estimate = stream.compute()
    half = float(estimate.high[0, 1] - estimate.low[0, 1]) / 2
    assert abs(float(estimate.value[0, 1]) - whole) < half
    assert estimate.images == 512


def test_one_batch_of_the_stream_is_the_exact_unbiased_estimator():
    features = [noise(30, 5), noise(30, 4, 6, seed=1), noise(30, 2, 3, 3, seed=2)]
    stream = metrics.CKA(3)
    stream.update(features)
    assert torch.allclose(stream.compute().value, metrics.cka_map(features), atol=1e-12)


def test_hsic_is_summed_over_batches_and_divided_once():
    x, y = noise(24, 3), noise(24, 4, seed=1)
    stream = metrics.CKA(2)
    total = torch.zeros(2, 2, dtype=torch.float64)
    for part in range(3):
        piece = [x[part * 8 : part * 8 + 8], y[part * 8 : part * 8 + 8]]
        stream.update(piece)
        vectors = torch.stack([u_centre(metrics.linear_gram(p)).flatten() for p in piece])
        total += vectors @ vectors.T
    expected = total[0, 1] / (total[0, 0] * total[1, 1]).sqrt()
    assert torch.allclose(stream.compute().value[0, 1], expected)
    ratio_of_each_batch = [metrics.cka(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
    assert abs(float(expected) - sum(ratio_of_each_batch) / 3) > 1e-4  # the other way differs


def test_shards_merge_to_the_numbers_of_the_whole():
    features = [noise(48, 5), noise(48, 7, seed=1)]
    whole, first, second = (metrics.CKA(2) for _ in range(3))
    for i in range(6):
        piece = [f[i * 8 : i * 8 + 8] for f in features]
        whole.update(piece)
        (first if i < 3 else second).update(piece)
    first.merge(second)
    assert torch.allclose(first.compute().value, whole.compute().value)
    assert first.count == whole.count == 48
    with pytest.raises(InputError, match="different settings"):
        first.merge(metrics.CKA(3))


def test_fault_biased_minibatches():
    """Averaging biased batches never falls to 0 for unrelated features; the sum of ours does."""
    x, y = noise(4096, 256), noise(4096, 256, seed=1)
    stream = metrics.CKA(2)
    for start in range(0, 4096, 64):
        stream.update([x[start : start + 64], y[start : start + 64]])
    assert abs(float(stream.compute().value[0, 1])) < 0.01
    with pytest.warns(metrics.ChanceWarning):
        assert metrics.cka(x[:64], y[:64], estimator="biased") > 0.5


def test_fault_only_the_last_batch_is_kept():
    stream = metrics.CKA(2)
    first = noise(32, 5)
    stream.update([first, first])
    stream.update([noise(32, 5, seed=1), noise(32, 5, seed=2)])
    assert 0.3 < float(stream.compute().value[0, 1]) < 0.7


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-6, 1e6, 1e18])
def test_fault_a_fixed_epsilon_in_the_denominator(scale):
    x = noise(32, 50, dtype=torch.float32)
    assert metrics.cka(x * scale, x) == pytest.approx(1, abs=1e-5)
    assert metrics.cka(x * scale, x * scale, kernel="rbf") == pytest.approx(1, abs=1e-9)


def test_fault_three_dimensional_features_compare_images_and_not_tokens():
    x = noise(24, 10, 6)
    y = x[:, torch.randperm(10, generator=torch.Generator().manual_seed(0))]
    assert metrics.cka(x, y) == pytest.approx(1)  # the order of tokens is a rotation of features
    assert metrics.cka(x, noise(24, 10, 6, seed=5)) < 0.3


def test_fault_absolute_bandwidth():
    x, y = 100 * noise(128, 300), 100 * noise(128, 300, seed=1)
    assert abs(metrics.cka(x, y, kernel="rbf")) < 0.1
    assert metrics.cka(x, 1e-4 * x, kernel="rbf") == pytest.approx(1)


def test_fault_a_width_by_width_matrix():
    x = noise(8, 200_704, dtype=torch.float32)
    assert metrics.grams([x]).shape == (1, 8, 8)
    assert metrics.cka(x, x) == pytest.approx(1)


def test_fault_diagonal_and_rest_by_different_formulas():
    x = noise(16, 500)
    with pytest.warns(metrics.ChanceWarning):
        biased = metrics.cka_map([x, x], estimator="biased")
    unbiased = metrics.cka_map([x, x])
    for each in (biased, unbiased):
        assert torch.allclose(each, torch.ones(2, 2, dtype=torch.float64))


def test_fault_a_layer_that_never_runs_gives_an_error_and_not_nan():
    stream = metrics.CKA(2)
    stream.add(noise(8, 3))
    with pytest.raises(InputError, match="1 of 2 layers"):
        stream.end_batch()


def test_chance_level_is_the_mean_over_permutations():
    x, y = noise(24, 200), noise(24, 300, seed=1)
    k, l = metrics.grams([x, y])
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(300):
        order = torch.randperm(24, generator=generator)
        values.append(slow_biased(x, y[order]))
    assert metrics.chance_level(k, l) == pytest.approx(np.mean(values), abs=0.003)
    with pytest.warns(metrics.ChanceWarning, match="24 images are few"):
        metrics.cka(x, y, estimator="biased")


@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-3, 1e3),
    kernel=st.sampled_from(["linear", "rbf"]),
)
@settings(max_examples=20, deadline=None)
def test_invariant_to_rotation_scaling_and_shift(seed, scale, kernel):
    x, y = noise(20, 6, seed=seed), noise(20, 5, seed=seed + 1)
    y[:, :3] += x[:, :3]
    moved = scale * x @ rotation(6, seed) + noise(6, seed=seed + 2)
    assert metrics.cka(moved, y, kernel=kernel) == pytest.approx(
        metrics.cka(x, y, kernel=kernel), abs=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precision_of_the_input(dtype):
    x, y = noise(64, 300).to(dtype), noise(64, 400, seed=1).to(dtype)
    exact = metrics.cka(x.double(), y.double())
    assert metrics.cka(x, y) == pytest.approx(exact, abs=1e-6)


def test_a_large_mean_does_not_eat_the_digits():
    x, y = noise(64, 30, dtype=torch.float32), noise(64, 30, seed=1, dtype=torch.float32)
    y[:, :10] += x[:, :10]
    near = metrics.cka(x, y)
    far = metrics.cka(x + 1000, y)
    assert far == pytest.approx(near, abs=1e-4)


def test_degenerate_inputs_are_refused():
    x = noise(16, 5)
    for constant in (torch.zeros(16, 4), torch.full((16, 4), 0.1), torch.full((16, 4), 1e8)):
        for estimator in ("unbiased", "biased"):
            with pytest.raises(InputError, match="constant"):
                metrics.cka(x, constant, estimator=estimator)
    with pytest.raises(InputError, match="at least 4"):
        metrics.cka(x[:3], x[:3])
    with pytest.raises(InputError, match="same images"):
        metrics.cka(x, x[:8])
    with pytest.raises(InputError, match="not finite"):
        metrics.cka(x, x.clone().fill_(float("nan")))
    with pytest.raises(InputError, match="half of the pairs"):
        metrics.cka(torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0]]), noise(5, 2), kernel="rbf")
    with pytest.raises(InputError, match="one row an image"):
        metrics.cka(noise(5), noise(5))


def test_duplicated_images_give_a_number():
    x = noise(8, 5).repeat(2, 1)
    assert metrics.cka(x, x) == pytest.approx(1)


def test_a_batch_too_small_is_left_out_and_counted():
    stream = metrics.CKA(1)
    stream.update([noise(16, 3)])
    stream.update([noise(3, 3)])
    assert (stream.count, stream.left_out) == (16, 3)
    empty = metrics.CKA(1)
    empty.update([noise(1, 3)])
    with pytest.raises(InputError, match="no batch of 4 images or more"):
        empty.compute()


# ------------------------------------------------------------------------------ second opinions


def test_biased_procrustes_equals_scipy():
    from scipy.spatial import procrustes as reference

    x, y = noise(30, 4).numpy(), noise(30, 4, seed=1).numpy()
    disparity = reference(x, y)[2]  # 1 - (nuclear norm)² of the normalised features
    found = metrics.procrustes(torch.tensor(x), torch.tensor(y), estimator="biased")
    assert found == pytest.approx((1 - disparity) ** 0.5, abs=1e-9)


def test_split_procrustes_is_the_fit_and_score_of_a_rotation():
    """With n > d the rotation exists in feature space: fit it there with scipy, score it there."""
    from scipy.linalg import orthogonal_procrustes

    x, y = noise(40, 5).numpy(), noise(40, 5, seed=1).numpy()
    y = y + x @ rotation(5).numpy()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3)).numpy()
    scores = []
    for fit, held in ((order[:20], order[20:]), (order[20:], order[:20])):
        a, b = (each[fit] - each[fit].mean(0) for each in (x, y))
        turn, _ = orthogonal_procrustes(a, b)
        c, d = (each[held] - each[held].mean(0) for each in (x, y))
        scores.append(((c @ turn) * d).sum() / np.linalg.norm(c) / np.linalg.norm(d))
    found = metrics.procrustes(torch.tensor(x), torch.tensor(y), splits=1, seed=3)
    assert found == pytest.approx(np.mean(scores), abs=1e-9)


def test_split_procrustes_removes_the_bias_of_wide_features():
    x, y = noise(64, 500), noise(64, 500, seed=1)
    assert metrics.procrustes(x, y, estimator="biased") > 0.8
    values = [
        metrics.procrustes(noise(64, 500, seed=i), noise(64, 500, seed=100 + i), splits=1)
        for i in range(10)
    ]
    spread = float(np.std(values)) / 10**0.5
    assert abs(np.mean(values)) < 3 * spread + 1e-3
    assert metrics.procrustes(noise(64, 5), noise(64, 5) @ rotation(5)) == pytest.approx(1)


def test_mutual_neighbours_equals_a_search():
    from sklearn.neighbors import NearestNeighbors

    x, y = noise(40, 3), noise(40, 3, seed=1)
    y[:, 0] = x[:, 0]
    near = [
        NearestNeighbors(n_neighbors=6).fit(a.numpy()).kneighbors(a.numpy(), return_distance=False)
        for a in (x, y)
    ]
    shared = [len(set(a[1:]) & set(b[1:])) / 5 for a, b in zip(*near, strict=True)]
    assert metrics.mutual_neighbours(x, y, neighbours=5) == pytest.approx(np.mean(shared))
    assert metrics.mutual_neighbours(x, 2 * x + 1, neighbours=5) == 1


def test_second_opinions_refuse_what_they_cannot_do():
    x = noise(12, 3)
    with pytest.raises(InputError, match="neighbours among"):
        metrics.mutual_neighbours(x, x, neighbours=12)
    with pytest.raises(InputError, match="same images"):
        metrics.procrustes(x, x[:8])
    with pytest.raises(InputError, match="constant"):
        metrics.procrustes(x, torch.ones(12, 3))
    with pytest.raises(InputError, match="at least 4"):
        metrics.procrustes(x[:3], x[:3])

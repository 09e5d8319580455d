"""Values that were once wrong, each against what it must be."""

import math

import numpy as np
import pytest
import torch

import aptheory as ap
from aptheory import metrics


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------ half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_have_the_amplitude_of_their_numbers(dtype):
    smooth = torch.linspace(0, 3, 16, dtype=torch.float64).sin()
    maps = (smooth[:, None] + smooth)[None, None].repeat(2, 3, 1, 1).to(dtype)
    half = metrics.relative_log_amplitude(maps)[:, :-1]  # the last is zero but for rounding
    exact = metrics.relative_log_amplitude(maps.double())[:, :-1]
    assert torch.allclose(half, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_half_precision_is_within_a_percent_on_real_weights(assets):
    """Every measure of bfloat16 activations of ViT-Tiny against float64 of the same activations."""
    net = ap.load("vit_tiny_patch16_224", weights=str(assets / "vit_tiny_patch16_224.safetensors"))
    net.module.to(torch.bfloat16)
    images = noise(12, 3, 224, 224).to(torch.bfloat16)
    images = images.float().cumsum(2).cumsum(3).div(60).to(torch.bfloat16)  # smooth, as pictures
    labels = torch.arange(12) % 3
    with torch.inference_mode():
        for layer, z in net.walk(images, stops=(0, 1, 9, 12)):
            pooled = layer.pooled(z)
            maps = z
            if layer.layout == "tokens":
                maps = layer.positions(z).mT.unflatten(2, layer.grid)
            pairs = {
                "amplitude": (lambda x: metrics.relative_log_amplitude(x)[:, -1].mean(), maps),
                "globality": (metrics.globality, layer.positions(z)),
                "rank": (metrics.effective_rank, pooled),
                "cka": (lambda x, other=pooled: metrics.cka(x, other.double() ** 2), pooled),
                "procrustes": (
                    lambda x, other=pooled: metrics.procrustes(
                        x, other.double() ** 2, estimator="biased"
                    ),
                    pooled,
                ),
                "distance": (lambda x: metrics.class_distance_ratio(x, labels), pooled),
            }
            for name, (measure, values) in pairs.items():
                half, exact = float(measure(values)), float(measure(values.double()))
                assert half == pytest.approx(exact, rel=0.01, abs=1e-3), (layer.name, name)


# ------------------------------------------------------------------------------ ties


def test_neighbours_under_ties_score_chance_and_not_the_order_of_images():
    """Unrelated features of 3 values, and layers that have collapsed."""
    generator = np.random.default_rng(0)
    scores = [
        metrics.mutual_neighbours(
            generator.integers(0, 3, (60, 1)).astype(float),
            generator.integers(0, 3, (60, 1)).astype(float),
        )
        for _ in range(30)
    ]
    assert np.mean(scores) == pytest.approx(10 / 59, abs=0.01)
    collapsed = np.ones((60, 4))
    assert metrics.mutual_neighbours(collapsed, 2 * collapsed) == pytest.approx(10 / 59)
    features = generator.normal(size=(60, 4))
    assert metrics.mutual_neighbours(features, features) == pytest.approx(1)


def test_the_overlap_under_ties_is_the_mean_over_all_ways_to_break_them():
    generator = np.random.default_rng(1)
    x, y = (generator.integers(0, 3, (12, 1)).astype(float) for _ in range(2))
    overlaps = []
    for _ in range(3000):  # a jitter far below the gaps breaks ties by lot
        near = []
        for values in (x, y):
            gaps = np.abs(values - values.T) + 1e-6 * generator.random((12, 12))
            np.fill_diagonal(gaps, np.inf)
            near.append(gaps.argsort(1)[:, :4])
        overlaps.append(np.mean([len(set(a) & set(b)) / 4 for a, b in zip(*near, strict=True)]))
    value = metrics.mutual_neighbours(x, y, neighbours=4)
    assert value == pytest.approx(np.mean(overlaps), abs=4 * np.std(overlaps) / 3000**0.5)


# ------------------------------------------------------------------------------ separability


def test_meaningless_labels_score_zero_when_classes_differ_in_size_and_spread():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [4, 20, 60])
    spread = np.array([4.0, 2.0, 1.0])[labels]
    values = [
        metrics.class_distance_ratio(spread[:, None] * generator.normal(size=(84, 8)), labels)
        for _ in range(400)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


# ------------------------------------------------------------------------------ merging


def accumulators(x, labels):
    cka = metrics.CKA(2, groups=4)
    rank, classes = metrics.Rank(groups=8), metrics.ClassDistanceRatio()
    tokens = metrics.Globality()
    for start in range(0, len(x), 10):
        batch = x[start : start + 10]
        cka.update([batch, batch**2])
        rank.update(batch)
        classes.update(batch, labels[start : start + 10])
        tokens.update(batch[:, None] + torch.arange(3)[:, None])
    return [cka, rank, classes, tokens]


def test_shards_have_the_interval_of_the_whole_and_not_its_value_alone():
    x, labels = noise(70, 5), torch.arange(70) % 3
    whole = accumulators(x, labels)
    parts = [accumulators(x[a:b], labels[a:b]) for a, b in ((0, 30), (30, 50), (50, 70))]
    for index, expected in enumerate(whole):
        total = parts[0][index]
        total.merge(parts[1][index])
        total.merge(parts[2][index])
        ours, theirs = total.compute(), expected.compute()
        if index == 1:
            ours, theirs = ours["effective_rank"], theirs["effective_rank"]
        for name in ("value", "low", "high"):
            assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-10), index


# ------------------------------------------------------------------------------ ranks


def test_the_jackknife_brings_a_rank_nearer_to_the_populations():
    """128 images of 24 directions: the plain rank is for 128 images, and below the population's."""
    scale = torch.arange(24, 0, -1, dtype=torch.float64)
    population = float(metrics.effective_rank(torch.diag(scale)))  # of E xxᵀ
    plain, corrected = [], []
    for seed in range(20):
        rank = metrics.Rank(groups=8)
        rank.update(noise(128, 24, seed=seed) * scale)
        plain.append(float(rank.compute(("effective_rank",))["effective_rank"].value))
        estimate = rank.compute(("effective_rank",), unbiased=True)["effective_rank"]
        assert estimate.low < estimate.value < estimate.high
        corrected.append(float(estimate.value))
    assert np.mean(plain) < population
    assert abs(np.mean(corrected) - population) < 0.3 * abs(np.mean(plain) - population)


# ------------------------------------------------------------------------------ Gram matrices


@pytest.mark.parametrize("count", [4, 5])
def test_the_rbf_bandwidth_is_the_median_distance(count):
    x = noise(count, 3)
    distances = torch.cdist(x, x)
    upper = distances[tuple(torch.triu_indices(count, count, 1))]
    sigma = 0.4 * float(np.median(upper.numpy()))
    expected = torch.exp(-distances.square() / (2 * sigma**2))
    assert torch.allclose(metrics.rbf_gram(x), expected, rtol=1e-9)


def test_procrustes_keeps_small_directions_of_float64():
    x = noise(40, 3) * torch.tensor([1.0, 1e-5, 1e-5], dtype=torch.float64)
    turned = x @ torch.linalg.qr(noise(3, 3, seed=1))[0]
    assert metrics.procrustes(x, turned, estimator="biased") == pytest.approx(1, abs=1e-12)
    small = torch.zeros(40, 2, dtype=torch.float64)
    small[:, 0], small[:, 1] = noise(40), 1e-5 * noise(40, seed=1)
    alone = small[:, 1:].clone()  # what a threshold of 1e-7 of the variance throws away
    cosine = metrics.procrustes(small, alone, estimator="biased")
    a, b = small - small.mean(0), alone - alone.mean(0)
    expected = torch.linalg.svdvals(a.T @ b).sum() / a.norm() / b.norm()
    assert cosine == pytest.approx(float(expected), rel=1e-9)


def test_the_scale_of_a_gram_matrix_is_that_of_all_images():
    """A first image of ordinary size, and others whose squares overflow float32."""
    x = noise(6, 4).float()
    x[1:] *= 1e25
    gram = metrics.linear_gram(x)
    centred = x.double() - x.double().mean(0)
    assert torch.allclose(gram, centred @ centred.T, rtol=1e-5)
    tiny = noise(6, 4).float() * 1e-25
    tiny[0] = 0
    centred = tiny.double() - tiny.double().mean(0)
    assert torch.allclose(metrics.linear_gram(tiny), centred @ centred.T, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [1e-44, 1e-40, 1e38])
def test_a_gram_matrix_at_the_ends_of_float32(size):
    x = (torch.arange(12.0).reshape(4, 3).sin() * size).float()
    centred = x.double() - x.double().mean(0)
    # Numbers that small have few digits left themselves, but the products keep them.
    assert torch.allclose(metrics.linear_gram(x), centred @ centred.T, rtol=1e-4, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_a_gram_matrix_of_what_is_no_number_is_refused(value):
    x = noise(6, 4)
    x[2, 1] = value
    with pytest.raises(ap.InputError, match="not finite, or beyond 1e"):
        metrics.linear_gram(x)

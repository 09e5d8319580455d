"""Attention distance, entropy and prefix share: closed forms, slow definitions, invariances."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from aptheory import metrics
from aptheory.errors import InputError


def probabilities(*shape: int, seed: int = 0, prefix_mass: float | None = None, prefix: int = 1):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(*shape, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    if prefix_mass is not None:
        patches = p[..., prefix:] / p[..., prefix:].sum(-1, keepdim=True) * (1 - prefix_mass)
        first = p[..., :prefix] / p[..., :prefix].sum(-1, keepdim=True) * prefix_mass
        p = torch.cat([first, patches], -1)
    return p


def slow_distance(p, grid, pixels, prefix, include=False):
    """Loops over everything, straight from the definition."""
    images, heads, tokens, _ = p.shape
    places = [
        ((r + 0.5) * pixels[0], (c + 0.5) * pixels[1])
        for r in range(grid[0])
        for c in range(grid[1])
    ]
    result = torch.zeros(images, heads, dtype=torch.float64)
    for b in range(images):
        for h in range(heads):
            each = []
            for q in range(prefix, tokens):
                total = mass = 0.0
                for k in range(prefix, tokens):
                    weight = float(p[b, h, q, k])
                    total += weight * math.dist(places[q - prefix], places[k - prefix])
                    mass += weight
                each.append(total if include else total / mass)
            result[b, h] = sum(each) / len(each)
    return result


def test_uniform_attention_is_116_5_pixels_on_the_usual_grid():
    uniform = torch.full((2, 3, 196, 196), 1 / 196)
    distance = metrics.attention_distance(uniform, metrics.grid_distances((14, 14), (16, 16)))
    assert distance.shape == (2, 3)
    assert torch.allclose(distance, torch.full_like(distance, 116.49), atol=0.01)


def test_identity_attention_is_at_distance_zero():
    identity = torch.eye(196).expand(1, 2, 196, 196)
    distance = metrics.attention_distance(identity, metrics.grid_distances((14, 14), (16, 16)))
    assert torch.equal(distance, torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("prefix", [1, 2, 5])
@pytest.mark.parametrize("mass", [0.0, 0.1, 0.55, 0.999])
def test_distance_does_not_change_with_the_mass_on_prefix_tokens(prefix, mass):
    grid, pixels = (4, 5), (8.0, 8.0)
    tokens = prefix + 20
    p = probabilities(2, 2, tokens, tokens, prefix_mass=mass, prefix=prefix)
    plain = p[:, :, prefix:, prefix:] / p[:, :, prefix:, prefix:].sum(-1, keepdim=True)
    distances = metrics.grid_distances(grid, pixels)
    expected = metrics.attention_distance(plain, distances)
    assert torch.allclose(metrics.attention_distance(p, distances, prefix=prefix), expected)
    counted = metrics.attention_distance(p, distances, prefix=prefix, prefix_mass="include")
    assert torch.allclose(counted, expected * (1 - mass))  # the classic mistake, by choice only


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("include", [False, True])
def test_distance_equals_the_slow_definition_on_rectangles(prefix, include):
    grid, pixels = (2, 5), (16.0, 7.0)
    p = probabilities(2, 2, 10 + prefix, 10 + prefix)
    found = metrics.attention_distance(
        p,
        metrics.grid_distances(grid, pixels),
        prefix=prefix,
        prefix_mass="include" if include else "exclude",
    )
    assert torch.allclose(found, slow_distance(p, grid, pixels, prefix, include))


def test_windows_are_measured_in_global_coordinates():
    # A 4 x 4 grid in 2 x 2 windows rolled by one: the last window joins the four corners.
    grid = torch.arange(16).reshape(4, 4).roll((-1, -1), (0, 1))
    windows = grid.reshape(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)
    centres = metrics.grid_centres((4, 4), (10, 10))[windows]
    distances = metrics.window_distances(centres)
    assert distances[3].max() == pytest.approx(30 * 2**0.5)  # opposite corners of the image
    assert distances[0].max() == pytest.approx(10 * 2**0.5)
    p = probabilities(3 * 4, 2, 4, 4)
    found = metrics.attention_distance(p, distances)
    expected = (p.reshape(3, 4, 2, 4, 4) * distances[:, None]).sum(-1).mean(-1).mean(1)
    assert torch.allclose(found, expected)


def test_windows_of_half_an_image_are_refused():
    distances = metrics.window_distances(metrics.grid_centres((2, 2), (1, 1)).expand(4, 4, 2))
    with pytest.raises(InputError, match="multiple of the 4 windows"):
        metrics.attention_distance(probabilities(6, 1, 4, 4), distances)


@given(seed=st.integers(0, 1000), batch=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_distance_follows_a_permutation_of_the_images(seed, batch):
    p = probabilities(batch, 2, 7, 7, seed=seed)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    distances = metrics.grid_distances((2, 3), (4, 4))
    found = metrics.attention_distance(p, distances, prefix=1)
    assert torch.allclose(metrics.attention_distance(p[order], distances, prefix=1), found[order])


def test_entropy_closed_forms():
    uniform, one_hot = torch.full((1, 1, 9, 9), 1 / 9), torch.eye(9).expand(1, 1, 9, 9)
    assert metrics.attention_entropy(uniform).item() == pytest.approx(math.log(9))
    assert metrics.attention_entropy(one_hot).item() == 0
    shared = probabilities(1, 1, 10, 10)
    shared[..., 0], shared[..., 1:] = 0.4, 0.6 / 9
    assert metrics.attention_entropy(shared, prefix=1).item() == pytest.approx(math.log(9))
    every = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6 / 9))
    found = metrics.attention_entropy(shared, prefix=1, prefix_mass="include")
    assert found.item() == pytest.approx(every)
    assert metrics.prefix_share(shared, prefix=1).item() == pytest.approx(0.4)


def test_attention_on_prefix_tokens_alone_is_refused_and_not_nan():
    p = torch.zeros(1, 1, 5, 5)
    p[..., 0] = 1
    distances = metrics.grid_distances((2, 2), (1, 1))
    for call in (
        lambda: metrics.attention_distance(p, distances, prefix=1),
        lambda: metrics.attention_entropy(p, prefix=1),
    ):
        with pytest.raises(InputError, match="all its attention on prefix"):
            call()
    included = metrics.attention_distance(p, distances, prefix=1, prefix_mass="include")
    assert included.item() == 0
    accumulator = metrics.AttentionDistance(distances, prefix=1)
    accumulator.update(p)
    with pytest.raises(InputError, match="all its attention on prefix"):
        accumulator.compute()


def test_bad_shapes_are_named():
    distances = metrics.grid_distances((2, 2), (1, 1))
    with pytest.raises(InputError, match="prefix; expected"):
        metrics.attention_distance(probabilities(1, 1, 6, 6), distances, prefix=1)
    with pytest.raises(InputError, match="leave none"):
        metrics.prefix_share(probabilities(1, 1, 4, 4), prefix=4)
    with pytest.raises(InputError, match="from 1 to"):
        metrics.grid_distances((0, 3), (1, 1))


def accumulators():
    distances = metrics.grid_distances((2, 3), (4, 4))
    return {
        "distance": lambda: metrics.AttentionDistance(distances, prefix=1),
        "entropy": lambda: metrics.AttentionEntropy(prefix=1),
        "share": lambda: metrics.PrefixShare(prefix=1),
    }


@pytest.mark.parametrize("name", ["distance", "entropy", "share"])
def test_streams_and_shards_give_the_numbers_of_the_whole(name):
    p = probabilities(11, 2, 7, 7)
    make = accumulators()[name]
    whole = make()
    whole.update(p)
    shards = [make(), make()]
    for start in (0, 3, 6, 9):
        shards[start % 2].update(p[start : start + 3])
    shards[0].merge(shards[1])
    for attribute in ("compute", "compute_mean"):
        a, b = getattr(whole, attribute)(), getattr(shards[0], attribute)()
        assert a.images == b.images == 11
        for left, right in zip(a[:3], b[:3], strict=True):
            assert torch.allclose(left, right)
    assert whole.compute().value.shape == (2,)
    per_image = whole.per_image(p)
    assert torch.allclose(whole.compute().value, per_image.mean(0))
    low, high = metrics.bootstrap(lambda i: float(per_image[i].mean()), 11)
    assert low < float(whole.compute_mean().value) < high


def test_half_precision_is_read_and_not_rounded_further():
    p = probabilities(2, 2, 10, 10).to(torch.bfloat16)
    distances = metrics.grid_distances((3, 3), (16, 16))
    exact = metrics.attention_distance(p.double(), distances, prefix=1)
    assert torch.allclose(metrics.attention_distance(p, distances, prefix=1), exact, rtol=1e-5)

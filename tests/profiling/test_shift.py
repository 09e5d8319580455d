"""The shift of a task from the pretraining: closed forms, running moments, a reference."""

import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory import metrics
from aptheory.errors import InputError
from tests.quarters import small_cnn, small_vit


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("delta", "factor"), [(0.0, 1.0), (1.5, 1.0), (0.0, 3.0), (-2.0, 0.5)])
def test_a_moved_and_stretched_normal_has_its_closed_form(delta, factor):
    """√(δ² + (a − 1)²) in each channel's own units, whatever its mean and scale."""
    x = normal(4000, 5) * torch.tensor([0.1, 1.0, 2.0, 9.0, 1.0]) + torch.arange(5)
    spread, middle = x.std(0, correction=0), x.mean(0)
    moved = middle + factor * (x - middle) + delta * spread
    expected = (delta**2 + (factor - 1) ** 2) ** 0.5
    assert metrics.moment_shift(moved, x) == pytest.approx(expected, abs=2e-3)


def test_shards_and_batches_give_the_moments_of_the_whole():
    x = normal(23, 4, 3) + 100
    whole, parts, other = (metrics.ChannelMoments() for _ in range(3))
    whole.update(x)
    for batch in (x[:7], x[7:10]):
        parts.update(batch)
    other.update(x[10:])
    parts.merge(other)
    for found, expected in zip(parts.compute(), whole.compute(), strict=True):
        torch.testing.assert_close(found, expected)
    mean, variance = whole.compute()
    torch.testing.assert_close(mean, x.flatten(0, 1).mean(0))
    torch.testing.assert_close(variance, x.flatten(0, 1).var(0, correction=0))
    interval = metrics.shift_from(parts, mean, variance)
    assert interval.value == pytest.approx(0, abs=1e-9)
    assert interval.images == 23


def test_running_moments_are_what_a_batchnorm_is_compared_with():
    """Each norm is told moments that lie two standard deviations below those of its input."""
    net = small_cnn()
    images = normal(40, *net.input_shape, seed=1).float()

    def lower(norm, inputs):  # in the order in which they run: each changes what comes after it
        x = inputs[0].double()
        variance = x.var((0, 2, 3), correction=0)
        norm.running_var.copy_(variance - norm.eps)
        norm.running_mean.copy_(x.mean((0, 2, 3)) - 2 * variance.sqrt())

    norms = [m for m in net.module.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(lower) for norm in norms]
    with torch.no_grad():
        net.run(images)
    for hook in hooks:
        hook.remove()
    table = ap.profile(net, images, measures=("moment_shift",))
    assert 1 <= len(table) < len(net.layers)  # the classifier's input has no norm behind it
    assert table["value"].to_numpy() == pytest.approx(2.0, abs=1e-3)
    assert not norms[0]._forward_pre_hooks


def test_a_reference_is_compared_place_by_place_and_is_no_distance_from_itself():
    net = small_vit()
    images = normal(24, *net.input_shape, seed=2).float()
    same = ap.profile(net, images, measures=("moment_shift",), reference=images)
    assert len(same) == len(net.layers)
    assert same["value"].to_numpy() == pytest.approx(0, abs=1e-3)
    other = ap.profile(net, 2 * images + 1, measures=("moment_shift",), reference=images)
    at_the_image = other.set_index("layer").loc[0, "value"]
    assert at_the_image == pytest.approx((1**2 + 1**2) ** 0.5, rel=0.1)


def test_without_batchnorm_and_without_a_reference_it_is_refused_or_left_out():
    net = small_vit()
    images = normal(8, *net.input_shape).float()
    with pytest.raises(InputError, match="has no BatchNorm.*as reference"):
        ap.profile(net, images, measures=("moment_shift",))
    table = ap.profile(net, images, measures=("moment_shift", "globality"))
    assert set(table["measure"]) == {"globality"}


def test_a_reference_that_never_varies_is_refused():
    with pytest.raises(InputError, match="never varies"):
        metrics.moment_shift(normal(5, 2), torch.ones(6, 2))
    moments = metrics.ChannelMoments()
    moments.update(normal(5, 1, 2))
    with pytest.raises(InputError, match="3 channels and the features 2"):
        metrics.shift_from(moments, torch.zeros(3), torch.ones(3))

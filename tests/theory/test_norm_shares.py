"""Shares of a prompt that a norm expresses: derivations against brute force and real norms."""

import pytest
import torch
from torch import nn

from aptheory.errors import InputError
from aptheory.theory.norm_shares import (
    NormRegression,
    common_share,
    explained,
    prompt_shares,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_norm(channels=5):
    norm = nn.BatchNorm2d(channels).double().eval()
    with torch.no_grad():
        norm.running_mean.copy_(normal(channels, seed=1))
        norm.running_var.copy_(normal(channels, seed=2).square() + 0.1)
        norm.weight.copy_(normal(channels, seed=3))
        norm.bias.copy_(normal(channels, seed=4))
    return norm


def positions(maps):
    return maps.flatten(2).transpose(1, 2)


@torch.no_grad()
def change_by(norm, z, delta):
    """(u, d) as (images, positions, channels)."""
    u, moved = norm(z), norm(z + delta)
    if z.dim() == 4:
        u, moved = positions(u), positions(moved)
    return u, moved - u


def test_beta_of_a_batchnorm_reproduces_the_exact_part_and_no_beta_any_of_the_rest():
    norm, delta = batch_norm(), normal(5, 4, 4, seed=5)
    shares = prompt_shares(delta.flatten(1).T, "batch")
    mean = delta.mean((1, 2), keepdim=True)
    assert shares.beta == pytest.approx(float(16 * mean.square().sum() / delta.square().sum()))
    assert shares.beta + shares.rest == pytest.approx(1)
    z = normal(7, 5, 4, 4, seed=6)
    tuned = batch_norm()
    with torch.no_grad():
        tuned.bias += tuned.weight * mean.flatten() / (tuned.running_var + tuned.eps).sqrt()
        torch.testing.assert_close(tuned(z), norm(z + mean), rtol=0, atol=1e-10)
        rest = norm(z + delta - mean) - norm(z)
        assert rest.mean((0, 2, 3)).abs().max() < 1e-10  # the best beta for it is none


def test_what_is_equal_in_all_channels_passes_a_layernorm_unseen():
    delta = normal(6, 5, seed=7)
    shares = prompt_shares(delta, "layer")
    norm, z = nn.LayerNorm(5).double(), normal(3, 6, 5, seed=8)
    mean = delta.mean(1, keepdim=True)
    with torch.no_grad():
        norm.weight.copy_(normal(5, seed=9))
        torch.testing.assert_close(norm(z + mean), norm(z), rtol=0, atol=1e-10)
        torch.testing.assert_close(norm(z + delta), norm(z + delta - mean), rtol=0, atol=1e-10)
    assert shares.nothing == pytest.approx(float(5 * mean.square().sum() / delta.square().sum()))
    assert shares.beta == 0.0
    assert shares.nothing + shares.rest == pytest.approx(1)


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_the_best_scale_and_shift_are_those_of_least_squares(kind):
    """Against `torch.linalg.lstsq` channel by channel, seen in batches."""
    if kind == "batch":
        u, d = change_by(batch_norm(), normal(9, 5, 4, 3, seed=1), normal(5, 4, 3, seed=2))
    else:
        u, d = change_by(nn.LayerNorm(5).double(), normal(9, 12, 5, seed=1), normal(12, 5, seed=2))
    u = u + 3.0  # a mean far from 0 must cost no digits
    regression = NormRegression()
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        regression.update(u[part], d[part])
    found = regression.fit()
    whole = d.square().sum()
    left = left_of_beta = 0.0
    for channel in range(5):
        x, y = u[..., channel].flatten(), d[..., channel].flatten()
        design = torch.stack([x, torch.ones_like(x)], 1)
        best = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
        assert float(found.scale[channel]) == pytest.approx(float(best[0]), abs=1e-6)
        assert float(found.shift[channel]) == pytest.approx(float(best[1]), abs=1e-6)
        assert float(found.shift_alone[channel]) == pytest.approx(float(y.mean()), abs=1e-6)
        left += float((y - design @ best).square().sum())
        left_of_beta += float((y - y.mean()).square().sum())
    assert found.left == pytest.approx(left / float(whole), abs=1e-6)
    assert found.beta == pytest.approx(1 - left_of_beta / float(whole), abs=1e-6)
    assert found.beta + found.gamma + found.left == pytest.approx(1, abs=1e-9)


def test_a_prompt_with_one_number_a_channel_before_a_batchnorm_is_all_beta():
    regression = NormRegression()
    regression.update(*change_by(batch_norm(), normal(6, 5, 4, 4), normal(5, 1, 1, seed=1)))
    found = regression.fit()
    assert found.beta == pytest.approx(1, abs=1e-6)
    assert found.left == pytest.approx(0, abs=1e-6)


def test_a_tuned_norm_is_read_back_as_its_own_scale_and_shift():
    """Where d is made by a changed gamma and beta, nothing is left."""
    norm, tuned, z = batch_norm(), batch_norm(), normal(6, 5, 4, 4, seed=3)
    with torch.no_grad():
        tuned.weight *= 1.3
        tuned.bias += 0.7
        u = positions(norm(z))
        d = positions(tuned(z)) - u
    regression = NormRegression()
    regression.update(u, d)
    found = regression.fit()
    torch.testing.assert_close(found.scale, torch.full((5,), 0.3).double(), rtol=0, atol=1e-6)
    assert found.left == pytest.approx(0, abs=1e-9)
    assert found.gamma > 0


def test_a_channel_that_never_varies_has_no_slope():
    regression = NormRegression()
    u, d = torch.ones(4, 3, 2).double(), normal(4, 3, 2)
    regression.update(u, d)
    assert regression.fit().scale.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="update before fit"):
        NormRegression().fit()


def test_the_share_that_inputs_have_in_common():
    prompt = normal(1, 6, 3, seed=1).expand(8, 6, 3)
    assert common_share(prompt).full == pytest.approx(1)
    flat = normal(1, 1, 3, seed=1).expand(8, 6, 3)
    assert common_share(flat).channel == pytest.approx(1)
    noise = [common_share(normal(20, 6, 3, seed=seed)).full for seed in range(40)]
    assert sum(noise) / len(noise) == pytest.approx(0, abs=0.01)  # unbiased
    half = prompt / prompt.square().mean().sqrt()
    mixed = [common_share(half + normal(8, 6, 3, seed=seed)).full for seed in range(40)]
    assert sum(mixed) / len(mixed) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(InputError, match="two or more"):
        common_share(normal(1, 2, 2))


def test_what_of_a_change_a_part_explains():
    change = normal(5, 3)
    assert explained(change, change) == pytest.approx(1)
    assert explained(change, 0 * change) == pytest.approx(0)
    assert explained(change, -change) == pytest.approx(-3)
    assert explained(change, 0.5 * change) == pytest.approx(0.75)

"""Receptive field, frequency and globality: closed forms and independent definitions."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from aptheory import metrics
from aptheory.errors import InputError


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ------------------------------------------------------------------------------ receptive field


def test_a_convolution_sees_its_kernel():
    conv = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)
    nn.init.constant_(conv.weight, 1.0)
    images = noise(2, 3, 9, 9)
    field = metrics.receptive_field(lambda x: conv(x).flatten(2).mT, images, grid=(9, 9))
    assert field.extent() == 3
    # Uniform over a 3 × 3 box: four neighbours at 1, four at √2, one at 0.
    assert float(field.compute().value) == pytest.approx((4 + 4 * math.sqrt(2)) / 9)


def test_radius_equals_the_slow_definition_on_rectangles():
    gradient = noise(3, 2, 5, 8)
    centre = (1.5, 6.0)
    found = metrics.receptive_radius(gradient, centre)
    for b in range(3):
        top = bottom = 0.0
        for r in range(5):
            for c in range(8):
                weight = float(gradient[b, :, r, c].norm())
                top += weight * math.dist((r + 0.5, c + 0.5), centre)
                bottom += weight
        assert float(found[b]) == pytest.approx(top / bottom)


def test_gradient_equals_finite_differences():
    layer = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, dtype=torch.float64), nn.GELU())
    image = noise(1, 1, 4, 4).requires_grad_()
    output = layer(image).flatten(2).mT
    found = metrics.position_gradient(output, image, position=5, seed=3)
    signs = torch.randint(0, 2, (1, 2), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
    for r, c in ((0, 0), (1, 1), (2, 2)):
        moved = []
        for step in (1e-5, -1e-5):
            other = image.detach().clone()
            other[0, 0, r, c] += step
            moved.append((layer(other).flatten(2).mT[:, 5] * signs).sum().detach())
        assert float(found[0, 0, r, c]) == pytest.approx(
            float(moved[0] - moved[1]) / 2e-5, abs=1e-7
        )


def test_a_layer_norm_does_not_cancel():
    norm = nn.LayerNorm(6, dtype=torch.float64)
    conv = nn.Conv2d(3, 6, 3, padding=1, dtype=torch.float64)
    field = metrics.receptive_field(
        lambda x: norm(conv(x).flatten(2).mT), noise(4, 3, 7, 7), grid=(7, 7)
    )
    assert float(field.map().max()) > 1e-3  # a plain sum over channels has gradient 0 here


def test_receptive_fields_merge_and_refuse():
    gradients = noise(6, 3, 8, 8)
    whole, first, second = (metrics.ReceptiveField((4.0, 4.0)) for _ in range(3))
    whole.update(gradients)
    first.update(gradients[:2])
    second.update(gradients[2:])
    first.merge(second)
    assert torch.allclose(first.compute().value, whole.compute().value)
    assert torch.allclose(first.map(), whole.map())
    with pytest.raises(InputError, match="cannot be merged"):
        first.merge(metrics.ReceptiveField((1.0, 1.0)))
    dead = metrics.ReceptiveField((4.0, 4.0))
    dead.update(torch.zeros(2, 3, 8, 8))
    assert dead.left_out == 2
    with pytest.raises(InputError, match="depends on no pixel"):
        dead.compute()
    with pytest.raises(InputError, match="zero or not finite"):
        metrics.receptive_radius(torch.zeros(1, 3, 8, 8), (4.0, 4.0))
    with pytest.raises(InputError, match="not among"):
        metrics.position_gradient(noise(1, 4, 2), noise(1, 3, 2, 2), position=4)


# ------------------------------------------------------------------------------------ frequency


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (6, 10), (9, 4)])
def test_relative_log_amplitude_equals_a_slow_transform(shape):
    maps = noise(2, 3, *shape)
    found = metrics.relative_log_amplitude(maps)
    side = min(shape)
    for b in range(2):
        logs = []
        for k in range(side // 2 + 1):
            rows, columns = round(k / side * shape[0]), round(k / side * shape[1])
            amplitude = 0.0
            for channel in maps[b].numpy():
                r, c = np.indices(shape)
                wave = np.exp(-2j * np.pi * (rows * r / shape[0] + columns * c / shape[1]))
                amplitude += abs((channel * wave).sum()) / 3
            logs.append(math.log(amplitude))
        expected = torch.tensor(logs, dtype=torch.float64) - logs[0]
        assert torch.allclose(found[b], expected, atol=1e-9)


def test_known_waves():
    r, c = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checks = 1 + 0.5 * (-1.0) ** (r + c)  # frequency π along the diagonal
    found = metrics.relative_log_amplitude(checks[None, None].double())[0]
    assert float(found[-1]) == pytest.approx(math.log(0.5))
    assert float(found[1]) < -30
    frequencies = metrics.diagonal_frequencies((8, 8))
    assert frequencies.tolist() == [0, 0.25, 0.5, 0.75, 1.0]


def test_frequency_degenerate_maps():
    constant = torch.full((1, 2, 6, 6), 3.0)
    assert -20 < float(metrics.relative_log_amplitude(constant)[0, -1]) < -10
    dead_channel = torch.cat([noise(1, 1, 6, 6), torch.zeros(1, 1, 6, 6)], 1)
    plain = metrics.relative_log_amplitude(dead_channel[:, :1])
    assert torch.allclose(metrics.relative_log_amplitude(dead_channel), plain)
    with pytest.raises(InputError, match="all zeros"):
        metrics.relative_log_amplitude(torch.zeros(1, 2, 6, 6))
    with pytest.raises(InputError, match="at least 2 rows"):
        metrics.relative_log_amplitude(torch.ones(1, 2, 1, 6))
    stream = metrics.RelativeLogAmplitude()
    stream.update(torch.zeros(2, 2, 6, 6))
    with pytest.raises(InputError, match="all zeros"):
        stream.compute()
    stream.update(noise(3, 2, 6, 6))
    assert (stream.left_out, stream.compute().images) == (2, 3)


def test_frequency_merges():
    maps = noise(9, 2, 6, 6)
    whole, first, second = (metrics.RelativeLogAmplitude() for _ in range(3))
    whole.update(maps)
    first.update(maps[:4])
    second.update(maps[4:])
    first.merge(second)
    assert torch.allclose(first.compute().value, whole.compute().value)
    expected = metrics.relative_log_amplitude(maps).mean(0)
    assert torch.allclose(whole.compute().value, expected)


# ------------------------------------------------------------------------------------ globality


def test_globality_equals_the_analysis_of_variance():
    x = noise(12, 9, 4) + 2 * noise(12, 1, 4, seed=1) + 100
    flat = x.flatten(0, 1)
    total = ((flat - flat.mean(0)) ** 2).sum()
    between = 9 * ((x.mean(1) - flat.mean(0)) ** 2).sum()
    assert metrics.globality(x) == pytest.approx(float(between / total), rel=1e-9)


def test_globality_closed_forms():
    images = noise(50, 1, 3).expand(50, 16, 3)
    assert metrics.globality(images) == 1
    positions = noise(1, 16, 3).expand(50, 16, 3)
    assert metrics.globality(positions) == pytest.approx(0, abs=1e-20)
    assert metrics.globality(noise(4000, 16, 3)) == pytest.approx(1 / 16, rel=0.05)


def test_globality_streams_merges_and_refuses():
    x = noise(24, 9, 4, dtype=torch.float32) + noise(24, 1, 4, seed=1, dtype=torch.float32)
    whole = metrics.globality(x)
    first, second = metrics.Globality(groups=4), metrics.Globality(groups=4)
    for number, start in enumerate(range(0, 24, 4)):
        (first if number % 2 else second).update(x[start : start + 4])
    first.merge(second)
    estimate = first.compute()
    assert float(estimate.value) == pytest.approx(whole, rel=1e-5)
    assert estimate.low < estimate.value < estimate.high
    assert metrics.globality(x + 1000) == pytest.approx(whole, rel=1e-3)
    assert metrics.globality(x.bfloat16()) == pytest.approx(
        metrics.globality(x.bfloat16().double()), rel=1e-5
    )
    with pytest.raises(InputError, match="needs two"):
        metrics.globality(x[:1])
    for constant in (torch.zeros(4, 5, 2), torch.full((4, 5, 2), 0.1)):
        with pytest.raises(InputError, match="never vary"):
            metrics.globality(constant)
    with pytest.raises(InputError, match="positions after"):
        first.update(x[:, :5])

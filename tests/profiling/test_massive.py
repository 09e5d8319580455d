"""Massive activations: found where they were planted, and nowhere else."""

import torch

from aptheory.profiling.massive import largest_and_median, massive_activations, massive_words
from tests.small_networks import small_vit


def test_the_largest_and_the_median_magnitude_leave_zeros_out():
    z = torch.tensor([[[0.0, -4.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert largest_and_median(z).tolist() == [[4.0, 2.0], [0.0, 0.0]]


def test_a_planted_bias_is_found_and_named():
    net = small_vit()
    images = torch.rand(6, *net.input_shape, generator=torch.Generator().manual_seed(0))
    assert massive_activations(net, images).empty
    assert massive_words(massive_activations(net, images), 6) == ""
    with torch.no_grad():
        net.module.pos_embed[..., 0] = 1e5
    found = massive_activations(net, images)
    assert found["layer"].min() == 1
    words = massive_words(found, 6)
    assert words.startswith("massive activations at layers 1, ")
    assert "median of 6 training images" in words

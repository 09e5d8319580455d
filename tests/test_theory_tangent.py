"""The tangent kernel against jacobians by hand, finite prompts and closed forms."""

import pytest
import torch
from torch import nn

from aptheory.errors import InputError
from aptheory.theory.tangent import (
    CountSketch,
    alignment,
    effective_dimension,
    gradient,
    prompt_regression,
    tangent_features,
    tangent_kernel,
)


@pytest.fixture
def chain():
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.GELU(), nn.Flatten()),
        nn.Linear(6 * 9, 5),
    ]
    return [stage.double().eval() for stage in stages]


def test_features_are_the_jacobians_rows(chain):
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    features = tangent_features(chain, [images[:3], images[3:]], width=10_000)
    for layer in range(3):
        z = images
        for stage in chain[:layer]:
            z = stage(z)

        def rest(one, layer=layer):
            for stage in chain[layer:]:
                one = stage(one)
            return one

        for i in range(4):
            expected = torch.autograd.functional.jacobian(rest, z[i : i + 1]).reshape(5, -1)
            torch.testing.assert_close(features[layer][i].double(), expected, rtol=1e-4, atol=1e-6)


def test_the_kernel_predicts_what_a_small_prompt_does(chain):
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    features = tangent_features(chain, [images], width=10_000)
    delta = 1e-5 * torch.randn(4, 8, 8, dtype=torch.float64)
    z = chain[0](images)
    moved = chain[2](chain[1](z + delta)) - chain[2](chain[1](z))
    predicted = features[1].double() @ delta.flatten()
    torch.testing.assert_close(predicted, moved, rtol=1e-3, atol=1e-9)


def test_sketch_keeps_inner_products():
    torch.manual_seed(0)
    u = torch.randn(20, 3000)
    exact = u @ u.T
    error = torch.stack(
        [
            CountSketch(3000, 512, seed=s)(u) @ CountSketch(3000, 512, seed=s)(u).T - exact
            for s in range(30)
        ]
    )
    norms = u.norm(dim=1)
    bound = (2 / 512) ** 0.5 * norms[:, None] * norms[None]
    assert (error.std(0) < 1.5 * bound).all()
    assert error.mean(0).abs().max() < 4 * bound.max() / 30**0.5


def test_sketch_of_a_small_vector_is_itself():
    u = torch.randn(3, 7)
    torch.testing.assert_close(CountSketch(7, 512)(u), u)


def test_effective_dimension_in_closed_form():
    # Four orthogonal rows of equal length: four equal moments, each 1 / (1 + λ).
    features = torch.eye(4).reshape(2, 2, 4)
    assert effective_dimension(features, ridge=0.25) == pytest.approx(4 / 1.25)
    assert effective_dimension(10 * features, ridge=0.25) == pytest.approx(4 / 1.25)
    assert effective_dimension(torch.zeros(2, 2, 4)) == 0.0


def test_alignment_is_one_on_the_only_direction_and_zero_across_it():
    features = torch.zeros(3, 2, 4)
    features[:, 0, 0] = 1.0  # the prompt moves the first logit of every image alike
    along, across = torch.zeros(3, 2), torch.zeros(3, 2)
    along[:, 0], across[:, 1] = 1.0, 1.0
    assert alignment(features, along) == pytest.approx(1.0)
    assert alignment(features, across) == 0.0


def test_gradient_agreement_of_equal_and_of_opposed_images():
    features = torch.ones(4, 1, 3)
    residual = torch.ones(4, 1)
    found = gradient(features, residual, scale=2.0)
    assert found.agreement == pytest.approx(1.0)
    assert found.norm == pytest.approx(3**0.5)
    assert found.gain == pytest.approx(2 * 3**0.5)
    residual[2:] = -1
    assert gradient(features, residual).norm == pytest.approx(0.0)


def test_regression_finds_a_planted_prompt_and_not_noise():
    torch.manual_seed(0)
    features = torch.randn(120, 4, 16)
    labels = torch.randint(4, (120,))
    logits = torch.zeros(120, 4)
    planted = features @ torch.randn(16)
    found = prompt_regression(features, planted, planted * 0, planted.argmax(1))
    assert found.explained > 0.99
    assert found.accuracy > 0.97
    noise = prompt_regression(features, torch.randn(120, 4), logits, labels)
    assert noise.explained < 0.05


def test_kernel_is_symmetric_and_positive(chain):
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    for features in tangent_features(chain, [images], width=64):
        kernel = tangent_kernel(features)
        torch.testing.assert_close(kernel, kernel.T)
        assert torch.linalg.eigvalsh(kernel).min() > -1e-9 * kernel.trace()


def test_bad_chains_are_refused(chain):
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(InputError, match="expected logits"):
        tangent_features(chain[:1], [images])
    with pytest.raises(InputError, match="no images"):
        tangent_features(chain, [])
    with pytest.raises(InputError, match="folds"):
        prompt_regression(
            torch.zeros(3, 2, 4), torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3).long()
        )

"""The tangent kernel against jacobians by hand, finite prompts and closed forms."""

import pytest
import torch
from torch import nn

from aptheory.errors import InputError
from aptheory.theory.tangent import (
    CountSketch,
    alignment,
    centred,
    change_along,
    class_directions,
    effective_dimension,
    gradient,
    prompt_regression,
    reach,
    tangent_features,
    tangent_kernel,
    variation,
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


def test_the_change_along_a_prompt_is_the_jacobian_times_it(chain):
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    rows = tangent_features(chain, [images], width=10_000)
    z = images
    for layer in range(3):
        prompt = torch.randn(z.shape[1:], dtype=torch.float64)
        expected = torch.einsum("icw,w->ic", rows[layer].double(), prompt.flatten())
        torch.testing.assert_close(
            change_along(chain[layer:], z, prompt), expected, rtol=1e-4, atol=1e-5
        )
        z = chain[layer](z).detach()


def test_a_sketch_and_its_transpose_are_adjoint():
    for width in (8, 40):
        sketch = CountSketch(30, width, seed=1)
        u, v = torch.randn(1, 30), torch.randn(sketch.width)
        torch.testing.assert_close(sketch(u) @ v, u @ sketch.transposed(v))


def full_jacobians(chain, images, layer):
    """(images, classes, coordinates) of ∂f/∂δ by PyTorch's own jacobian, from δ itself."""
    z = images
    for stage in chain[:layer]:
        z = stage(z)

    def moved(delta):
        y = z + delta
        for stage in chain[layer:]:
            y = stage(y)
        return y

    zero = torch.zeros(z.shape[1:], dtype=z.dtype)
    return torch.autograd.functional.jacobian(moved, zero).flatten(2)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_everything_that_is_said_of_the_kernel_agrees_with_the_kernel_itself(chain, layer):
    """K = J Jᵀ over (image, class) pairs, written out; the module never forms it."""
    torch.manual_seed(3)
    images, residual = torch.randn(10, 3, 8, 8).double(), torch.randn(10, 5).double()
    j = full_jacobians(chain, images, layer)
    features = tangent_features(chain, [images[:4], images[4:]], width=10_000)[layer]
    flat = j.flatten(0, 1)
    kernel, target = flat @ flat.T, residual.flatten()
    expected = torch.einsum("icd,jcd->ij", j, j)
    torch.testing.assert_close(tangent_kernel(features), expected, rtol=1e-4, atol=1e-5)
    moments = torch.linalg.eigvalsh(kernel).clamp_min(0)
    dimension = (moments / (moments + 1e-2 * moments.max())).sum()
    assert effective_dimension(features) == pytest.approx(float(dimension), rel=1e-4)
    value = target @ kernel @ target / (target @ target * torch.linalg.matrix_norm(kernel))
    assert alignment(features, residual) == pytest.approx(float(value), rel=1e-3)
    # Kernel ridge regression in its dual form, fold by fold.
    logits, labels, ridge = torch.zeros(10, 5).double(), torch.arange(10) % 5, 0.1
    found = prompt_regression(features, residual, logits, labels, ridges=[ridge], folds=5)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    part = torch.empty(10, dtype=torch.long)
    part[order] = torch.arange(10) % 5
    predicted = torch.zeros(10, 5).double()
    for fold in range(5):
        held, rest = part == fold, part != fold
        inside = j[rest].flatten(0, 1)
        gram = inside @ inside.T
        top = torch.linalg.eigvalsh(gram).max()
        dual = torch.linalg.solve(
            gram + ridge * top * torch.eye(len(gram)), residual[rest].flatten()
        )
        predicted[held] = (j[held].flatten(0, 1) @ inside.T @ dual).view(-1, 5)
    error = (predicted - residual).square().sum() / residual.square().sum()
    assert found.explained == pytest.approx(1 - float(error), abs=1e-4)
    right = (predicted.argmax(1) == labels).double().mean()
    assert found.accuracy == pytest.approx(float(right))


def test_at_the_classifiers_input_a_prompt_is_a_shift_of_the_bias(chain):
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    first, middle, last = tangent_features(chain, [images], width=10_000)
    for i in range(6):
        torch.testing.assert_close(last[i].double(), chain[2].weight, rtol=1e-6, atol=1e-6)
    assert variation(last) == 0.0
    assert reach(last) == 0.0
    assert effective_dimension(centred(last)) == 0.0
    assert variation(first) > 0.01
    assert variation(middle) > 0.01
    assert reach(middle, scale=2.0) == pytest.approx(2 * reach(middle))


def test_a_few_directions_stand_for_many_classes():
    torch.testing.assert_close(class_directions(4, 7), torch.eye(4).double())
    torch.manual_seed(0)
    head = nn.Linear(6, 40).double()
    stages = [nn.Sequential(nn.Linear(5, 6), nn.Tanh()).double(), head]
    images = torch.randn(8, 5, dtype=torch.float64)
    exact = tangent_kernel(tangent_features(stages, [images], width=99)[0])
    found = []
    for seed in range(200):
        directions = class_directions(40, 8, seed=seed)
        rows = tangent_features(stages, [images], directions=directions, width=99)[0]
        assert rows.shape[1] == 8
        found.append(tangent_kernel(rows))
    error = (torch.stack(found).mean(0) - exact).abs().max() / exact.abs().max()
    assert error < 0.05
    # A direction for each image: the residual itself gives the gradient in one backward pass.
    residual = torch.randn(8, 40, dtype=torch.float64)
    alone = tangent_features(
        stages, [images[:3], images[3:]], directions=residual[:, None], width=99
    )[0]
    every = tangent_features(stages, [images], width=99)[0]
    direct = gradient(alone, torch.ones(8, 1))
    summed = gradient(every, residual)
    assert direct.norm == pytest.approx(summed.norm, rel=1e-5)
    assert direct.agreement == pytest.approx(summed.agreement, rel=1e-5)


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

"""The joint model of head and prompt against dense regressions, autograd and real training."""

import pytest
import torch
from torch import nn

from aptheory.errors import InputError
from aptheory.theory.joint import Joint, Move, best_ridge, predict, sketch_error
from aptheory.theory.tangent import tangent_features


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def joint():
    features = torch.cat([normal(14, 4), torch.ones(14, 1)], 1)
    return Joint(features, normal(14, 3, 6, seed=1))


LABELS = torch.arange(14) % 3


def design(joint):
    """A row a (image, class), a column a parameter: ΔW class by class, then δ."""
    images, classes, _ = joint.rows.shape
    blocks = torch.zeros(images, classes, classes, joint.features.shape[1], dtype=torch.float64)
    for c in range(classes):
        blocks[:, c, c] = joint.features
    return torch.cat([blocks.flatten(2), joint.rows], 2).flatten(0, 1)


def test_eliminating_the_head_is_one_ridge_over_both(joint):
    x, residual, ridge = design(joint), normal(14, 3, seed=2), 0.03
    penalty = ridge * joint.scale * 14
    theta = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ residual.flatten())
    move = joint.fit(residual, ridge)
    torch.testing.assert_close(joint.change(move).flatten(), x @ theta)
    torch.testing.assert_close(move.prompt, theta[15:])
    # ... which is regression with the kernel φφᵀ ⊗ I + J Jᵀ
    kernel = x @ x.T
    dual = torch.linalg.solve(kernel + penalty * torch.eye(len(kernel)), residual.flatten())
    torch.testing.assert_close(joint.change(move).flatten(), kernel @ dual)


def test_rounds_of_least_squares_end_at_the_cross_entropys_minimum(joint):
    logits, ridge = normal(14, 3, seed=3), 0.05
    move = joint.cross_entropy(logits, LABELS, ridge, rounds=400)
    head, prompt = (t.clone().requires_grad_() for t in (move.head, move.prompt))
    after = logits + joint.change(Move(head, prompt))
    penalty = ridge * joint.scale * 14 / 4  # half of ½λ
    loss = nn.functional.cross_entropy(after, LABELS, reduction="sum")
    loss = loss + penalty * (head.square().sum() + prompt.square().sum())
    for gradient in torch.autograd.grad(loss, (head, prompt)):
        assert gradient.abs().max() < 1e-6
    losses = []
    for rounds in (0, 1, 3, 10):
        few = joint.cross_entropy(logits, LABELS, ridge, rounds=rounds)
        value = nn.functional.cross_entropy(logits + joint.change(few), LABELS, reduction="sum")
        losses.append(
            float(value + penalty * (few.head.square().sum() + few.prompt.square().sum()))
        )
    assert losses == sorted(losses, reverse=True)


def small_network():
    """A chain of two stages and a head; the prompt enters the second stage."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(5, 7), nn.Tanh()).double()
    second = nn.Sequential(nn.Linear(7, 4), nn.Tanh()).double()
    return first, second, nn.Linear(4, 3).double()


def test_the_path_is_the_path_of_real_training_while_the_prompt_is_small():
    first, second, head = small_network()
    images, labels = normal(12, 5), torch.arange(12) % 3
    rows = tangent_features([first, second, head], [images], width=99)[1]
    with torch.no_grad():
        z, logits = first(images), head(second(first(images)))
        features = torch.cat([second(z), torch.ones(12, 1)], 1)
    steps, rate = 5, 1e-3
    move = Joint(features, rows).path(logits, labels, steps=steps, head_rate=rate, prompt_rate=rate)
    delta = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    trained = [delta, head.weight, head.bias]
    for _ in range(steps):
        loss = nn.functional.cross_entropy(head(second(z + delta)), labels)
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= rate * gradient
    with torch.no_grad():
        after = head(second(z + delta))
    predicted = logits + Joint(features, rows).change(move)
    moved, error = (after - logits).norm(), (after - predicted).norm()
    assert error < 1e-3 * moved
    torch.testing.assert_close(move.prompt, delta.detach(), rtol=1e-2, atol=1e-7)


def test_at_the_classifiers_input_a_prompt_adds_nothing_to_a_head():
    """Every image's row is the head's weight: the head's bias does the same."""
    features = torch.cat([normal(40, 4), torch.ones(40, 1)], 1)
    same = normal(1, 3, 6).expand(40, -1, -1)
    move = Joint(features, same).fit(normal(40, 3, seed=1), 1e-9)
    alone = Joint(features, same).without_prompt.fit(normal(40, 3, seed=1), 1e-9)
    change = Joint(features, same).change(move)
    torch.testing.assert_close(change, features @ alone.head, atol=1e-5, rtol=1e-4)


def test_a_planted_prompt_is_predicted_and_noise_is_not():
    def problem(count, seed):
        features = torch.cat([normal(count, 4, seed=seed), torch.ones(count, 1)], 1)
        rows = normal(count, 3, 8, seed=seed + 1)
        logits = features @ normal(5, 3, seed=50)
        return Joint(features, rows), logits

    (train, before), (test, unseen) = problem(90, 1), problem(200, 7)
    delta = 2 * normal(8, seed=9)
    labels = tuple((f + j.rows @ delta).argmax(1) for j, f in ((train, before), (test, unseen)))

    def gain():
        found = predict(train, test, (before, unseen), labels)
        alone = predict(train.without_prompt, test.without_prompt, (before, unseen), labels)
        return found, found.accuracy - alone.accuracy, found.loss - alone.loss

    found, points, nats = gain()
    assert points > 0.2
    assert nats < 0
    assert found.norm > 0.5
    noise = torch.Generator().manual_seed(3)
    labels = tuple(torch.randint(3, (n,), generator=noise) for n in (90, 200))
    assert abs(gain()[1]) < 0.1


def test_the_sketchs_error_is_measured_and_falls_with_its_width():
    stages = small_network()
    images = normal(8, 5)
    narrow, wide = (sketch_error(stages, images, width=width) for width in (2, 99))
    assert max(wide) < 1e-6
    assert max(narrow) > 0.01


def test_bad_input_is_named(joint):
    with pytest.raises(InputError, match="same images"):
        Joint(normal(3, 2), normal(4, 2, 2))
    with pytest.raises(InputError, match="folds"):
        best_ridge(joint.take(torch.arange(2)), normal(2, 3), LABELS[:2])

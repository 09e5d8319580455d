"""Losses of one's own, and classes of unequal size made equal."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory.tasks import ArraySplit, Task
from aptheory.training.losses import class_weights
from tests.quarters import RECIPE, small_cnn, small_task


@pytest.fixture(scope="module")
def net():
    return small_cnn()


def fitted(net, task, recipe=RECIPE, **options):
    adapted = ap.ActivationPrompt(layer=2).attach(net, classes=len(task.classes))
    outcome = ap.fit(adapted, task, recipe=recipe, seed=0, **options)
    return adapted.state(), outcome


def test_weights_make_classes_count_alike():
    labels = torch.tensor([[0, 0, 0, 1, 1, 3], [0, 1, 2, 3, 3, 3]])
    weights = class_weights(labels, 4)
    assert weights[0].tolist() == pytest.approx([6 / 9, 1, 0, 2])
    each = weights.gather(1, labels)
    assert each.mean(1).tolist() == pytest.approx([1, 1])
    for run in range(2):
        shares = torch.zeros(4).index_add(0, labels[run], each[run])
        present = shares[shares > 0]
        assert present.tolist() == pytest.approx([present[0].item()] * len(present))


def test_cross_entropy_given_by_hand_trains_the_same(net):
    ours, _ = fitted(net, small_task())
    by_hand, _ = fitted(
        net, small_task(), loss=lambda z, y: F.cross_entropy(z, y, reduction="none")
    )
    other, _ = fitted(
        net, small_task(), loss=lambda z, y: F.multi_margin_loss(z, y, reduction="none")
    )
    assert all(torch.equal(ours[name], by_hand[name]) for name in ours)
    assert not all(torch.equal(ours[name], other[name]) for name in ours)


def unequal_task():
    """Class "d" has 4 of 90 training images."""
    task = small_task()
    keep = np.flatnonzero((task.train.labels != 3) | (np.arange(90) < 16))
    split = ArraySplit(task.train.pixels[keep], task.train.labels[keep])
    return Task("unequal", task.classes, split, task.val, task.test)


def test_weights_of_equal_classes_change_nothing(net):
    task = small_task()
    even = Task(
        "even", task.classes, *(ArraySplit(task.train.pixels[:88], task.train.labels[:88]),) * 3
    )
    ours, _ = fitted(net, even)
    weighted, _ = fitted(net, even, RECIPE.but(balance="weights"))
    assert all(torch.allclose(ours[name], weighted[name], atol=1e-6) for name in ours)


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_a_rare_class_is_told_more_often(net, balance):
    task = unequal_task()
    recipe = RECIPE.but(epochs=4, head_init="zeros")
    _, plain = fitted(net, task, recipe, predictions=True)
    _, even = fitted(net, task, recipe.but(balance=balance), predictions=True)
    assert (even.predictions == 3).sum() > (plain.predictions == 3).sum()


def test_the_setting_stands_in_no_identity_by_default():
    assert "balance" not in RECIPE.settings()
    assert RECIPE.but(balance="sampler").settings()["balance"] == "sampler"
    with pytest.raises(ap.InputError, match="balance"):
        RECIPE.but(balance="some")

"""Seeds that draw their own images: disjoint, balanced, in a stack the runs they are alone."""

import numpy as np
import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.methods import LinearProbe, RandomPerturbation
from aptheory.tasks import Task
from aptheory.training.drawing import draw
from aptheory.training.fit import Recipe, Run, fit, fit_many, kept_for
from tests.quarters import RECIPE, small_cnn, small_task, split

REDRAWN = RECIPE.but(redraw=True)


@pytest.fixture(scope="module")
def task():
    """Unequal classes; a pool of 4 times as many images."""
    large = Task(
        "quarters", ("a", "b", "c", "d"), split(400, 4, 0), split(200, 4, 1), split(44, 4, 2)
    )
    return large.subset(train=62, val=30)


def drawn(task, seed):
    return {name: part.rows.numpy() for name, part in draw(task, seed).items()}


@pytest.mark.parametrize("whole", [False, True])
def test_a_draw_has_the_classes_of_the_tasks_own_splits_and_no_image_twice(whole, task):
    task = small_task() if whole else task
    labels = task.drawn_from.labels
    first, again, other = (drawn(task, seed) for seed in (0, 0, 1))
    for name, rows in first.items():
        own = np.bincount(getattr(task, name).labels)
        assert np.array_equal(np.bincount(labels[rows]), own)
        assert np.array_equal(np.bincount(labels[other[name]]), own)
        assert np.array_equal(rows, again[name])
        assert not np.array_equal(rows, other[name])
    both = np.concatenate([*first.values()])
    assert len(set(both)) == len(both) == len(task.train) + len(task.val)
    assert len(labels) == (130 if whole else 4 * 92)


def test_every_image_of_the_pool_is_drawn_as_often(task):
    counts = np.zeros(len(task.drawn_from))
    for seed in range(300):
        counts[drawn(task, seed)["train"]] += 1
    share = counts / 300
    for label in range(4):
        own = share[task.drawn_from.labels == label]
        rate = np.bincount(task.train.labels)[label] / len(own)
        assert own.mean() == pytest.approx(rate)
        assert np.std(own) == pytest.approx(np.sqrt(rate * (1 - rate) / 300), rel=0.25)


@pytest.mark.parametrize(
    "method",
    [ap.ActivationPrompt(layer=1), LinearProbe(), RandomPerturbation(layer=1, norm=3.0)],
    ids=lambda method: method.name,
)
def test_runs_of_different_draws_are_in_a_stack_what_they_are_alone(method, vit, task):
    recipe = REDRAWN.but(together=3, validate_every=1)
    runs = [Run(seed=3), Run(seed=4, lr=0.01), Run(seed=3, lr=0.1)]
    stack = fit_many(method, vit, task, runs=runs, recipe=recipe, keep_models=True)
    for run, outcome in zip(runs, stack, strict=True):
        alone = fit_many(method, vit, task, runs=[run], recipe=recipe, keep_models=True)[0]
        for measure in ("train_loss", "val_loss"):
            losses = [entry[measure] for entry in alone.curve]
            assert [entry[measure] for entry in outcome.curve] == pytest.approx(losses, rel=1e-4)
        torch.testing.assert_close(outcome.adapted.head.shift, alone.adapted.head.shift)
    assert not torch.allclose(stack[0].adapted.head.shift, stack[1].adapted.head.shift, atol=1e-3)


def test_a_redrawn_run_is_the_run_on_the_images_that_it_drew(vit, task):
    """The same images handed over as a task of their own give the same curve."""
    method, pool, rows = ap.ActivationPrompt(layer=1), task.drawn_from, drawn(task, 5)
    labels, images = (
        pool.labels,
        pool.images(range(len(pool)), (16, 16)).permute(0, 2, 3, 1).numpy(),
    )
    own = Task(
        "own",
        task.classes,
        *(ap.tasks.ArraySplit(images[rows[name]], labels[rows[name]]) for name in ("train", "val")),
        task.test,
    )
    recipe = RECIPE.but(scale_prompts=False)
    plain = fit(method.attach(vit, classes=4), own, recipe=recipe, seed=5)
    redrawn = fit(method.attach(vit, classes=4), task, recipe=recipe.but(redraw=True), seed=5)
    for ours, theirs in zip(redrawn.curve, plain.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
    assert redrawn.test_loss == pytest.approx(plain.test_loss, rel=1e-4)
    assert redrawn.val_loss == pytest.approx(plain.val_loss, rel=1e-4)


def test_fewer_images_than_a_batch_are_another_run_with_each_seed(vit):
    task = small_task().subset(train=20, val=20)
    method, runs = ap.ActivationPrompt(layer=1), [Run(seed=0), Run(seed=1), Run(seed=1, lr=0.1)]
    first, second, _ = fit_many(method, vit, task, runs=runs, recipe=Recipe(epochs=2, redraw=True))
    assert abs(first.test_loss - second.test_loss) > 1e-3
    assert not first.notes
    # Without a draw the two seeds are one run, and both say so.
    first, second, other = fit_many(method, vit, task, runs=runs, recipe=Recipe(epochs=2))
    assert first.test_loss == pytest.approx(second.test_loss, rel=1e-4)
    for outcome in (first, second):
        assert any("seeds 0 and 1 gave the same run" in note for note in outcome.notes)
    assert not other.notes


def test_augmentation_is_of_training_images_alone():
    cnn, task = small_cnn(), small_task()
    recipe = REDRAWN.but(augment="flip", epochs=1, lr=0.0)
    plain = REDRAWN.but(epochs=1, lr=0.0)
    method = ap.ActivationPrompt(layer=1)
    flipped, straight = (
        fit(method.attach(cnn, classes=4), task, recipe=each, seed=0) for each in (recipe, plain)
    )
    assert flipped.curve[0]["train_loss"] != pytest.approx(
        straight.curve[0]["train_loss"], rel=1e-4
    )
    assert flipped.val_loss == pytest.approx(straight.val_loss, rel=1e-5)
    with pytest.raises(InputError, match="pool"):
        Recipe(augment="flip", views=2, redraw=True)


def test_nothing_but_the_pool_and_the_test_images_is_read(vit, task):
    kept = kept_for(vit, task, REDRAWN)
    fit_many(ap.ActivationPrompt(layer=1), vit, task, runs=[Run()], recipe=REDRAWN, kept=kept)
    assert set(kept.describe()) == {"pool", "test"}


def test_a_pool_too_small_is_refused(vit):
    task = small_task()
    poor = Task("poor", task.classes, task.train, task.val, task.test, pool=split(100, 4, 5))
    with pytest.raises(InputError, match="larger pool"):
        fit(LinearProbe().attach(vit, classes=4), poor, recipe=REDRAWN)

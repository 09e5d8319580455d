"""Blended training images: what is blended, with which labels, and that runs stay their own."""

import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.training.mixing import Mix
from aptheory.training.recipe import Run


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_mixup_blends_images_as_it_blends_labels():
    images = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    mix = Mix("mixup", labels, 3, generators(1, 2))
    blended = mix(images)
    for run in (slice(0, 4), slice(4, 8)):  # each run blends with its own images
        before = images[run].roll(1, 0)
        share = ((blended[run] - before) / (images[run] - before)).mean()
        assert torch.allclose(blended[run], share * images[run] + (1 - share) * before)
        hard = torch.nn.functional.one_hot(labels[run], 3).double()
        expected = share * hard + (1 - share) * hard.roll(1, 0)
        assert torch.allclose(mix.targets[run].double(), expected, atol=1e-6)


def test_cutmix_pastes_a_box_whose_area_is_the_other_labels_share():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 16).clone()
    mix = Mix("cutmix", torch.arange(4), 4, generators(3))
    blended = mix(images)
    kept = (blended == images).double().mean((1, 2, 3))
    assert torch.allclose(mix.targets.double().diagonal(), kept, atol=1e-6)
    assert set(blended.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_a_run_among_others_is_the_run_that_it_is_alone(how):
    net = ap.load("aptheory_vit_mini")
    task = ap.task("digits").subset(train=30, val=20, test=20)
    recipe = ap.Recipe(epochs=1, batch_size=16, mix=how)
    prompt = ap.ActivationPrompt(layer=5)
    both = ap.fit_many(prompt, net, task, runs=[Run(seed=0), Run(seed=1)], recipe=recipe)
    for seed, outcome in enumerate(both):
        alone = ap.fit(prompt.attach(net, classes=10, seed=seed), task, recipe=recipe, seed=seed)
        assert outcome.curve[0]["train_loss"] == pytest.approx(
            alone.curve[0]["train_loss"], rel=1e-4
        )
    plain = ap.fit(prompt.attach(net, classes=10), task, recipe=recipe.but(mix="none"), seed=0)
    assert plain.curve[0]["train_loss"] < both[0].curve[0]["train_loss"]  # blends are harder


def test_what_cannot_be_blended_is_refused():
    with pytest.raises(InputError, match="no image has one class to weigh"):
        ap.Recipe(mix="mixup", balance="weights")
    with pytest.raises(InputError, match="mix must be one of none, mixup, cutmix"):
        ap.Recipe(mix="mixdown")
    with pytest.raises(InputError, match="blends them anew"):
        ap.Recipe(mix="cutmix", augment="flip", views=2)

"""Runs taken out of a stack go on as they would have in it, and leave in one piece."""

import io

import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory.methods import parse
from aptheory.training.fit import Run, fit_many
from tests.quarters import RECIPE, small_task


@pytest.mark.parametrize("text", ["ap:layer=1,std=0.5", "vpt:tokens=2,deep=true", "vapt"])
def test_runs_taken_are_rows_of_the_stack_dropout_included(text, vit):
    stack = parse(text).attach(vit, classes=4, runs=3, seed=[5, 6, 7])
    stack.head.shift.copy_(torch.arange(3.0)[:, None].expand_as(stack.head.shift))
    x = torch.randn(4, *vit.input_shape)
    stack(x)  # the streams of dropout masks have begun
    taken = stack.take([2, -3])
    assert (taken.runs, taken.seeds, taken.training) == (2, [7, 5], True)
    logits = stack(x)
    torch.testing.assert_close(taken(x), logits[[2, 0]])
    dropout = text != "ap:layer=1,std=0.5"
    assert torch.equal(stack(x), logits) != dropout
    torch.testing.assert_close(stack.eval().select(1)(x), stack(x)[1])
    with torch.no_grad():
        taken.head.bias.values[0].add_(1)
    assert not torch.equal(taken.head.bias.values[0], stack.head.bias.values[2])
    with pytest.raises(ap.InputError, match="no run 3"):
        stack.take([0, 3])


@pytest.mark.parametrize("text", ["full", "norm_tuning", "partial:blocks=1"])
def test_a_network_that_learns_itself_is_taken_whole(text, cnn):
    alone = parse(text).attach(cnn, classes=4)
    x = torch.randn(4, *cnn.input_shape)
    with torch.no_grad():
        for parameter in alone.trainable:
            parameter.add_(0.1 * torch.randn_like(parameter))
    alone(x)  # moves running statistics, where they are trained
    taken = alone.take([0]).eval()
    assert torch.equal(taken(x), alone.eval()(x))
    before = taken(x)
    with torch.no_grad():
        alone.trainable[0].add_(1.0)
    assert torch.equal(taken(x), before)


@pytest.mark.parametrize(
    "text",
    [
        "ap:layer=1,std=0.1",
        "vpt:tokens=2",
        "lora",
        "adapter",
        "random_perturbation",
        "linear_probe",
    ],
)
def test_an_adapted_network_is_pickled(text, vit):
    adapted = parse(text).attach(vit, classes=4).eval()
    file = io.BytesIO()
    torch.save(adapted, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    x = torch.randn(2, *vit.input_shape)
    assert torch.equal(again(x), adapted(x))


def test_models_of_runs_that_stopped_early_are_whole_and_saved_as_they_are(cnn, tmp_path):
    """Their BatchNorms are back in place, and what `save` wrote answers to the last bit."""
    task = small_task()
    recipe = RECIPE.but(epochs=12, patience=1, together=3, schedule="constant")
    runs = [Run(seed=0, lr=0.01), Run(seed=1, lr=0.2), Run(seed=2, lr=1e-6)]
    method = ap.ActivationPrompt(layer=1)
    outcomes = fit_many(method, cnn, task, runs=runs, recipe=recipe, keep_models=True)
    assert len({outcome.epochs for outcome in outcomes}) > 1
    x = cnn.normalize(task.test.images(range(44), (16, 16)))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in cnn.module.modules())
    for outcome in outcomes:
        model = outcome.adapted
        assert sum(isinstance(m, nn.BatchNorm2d) for m in model.net.module.modules()) == norms
        ap.save(model, tmp_path / "model.safetensors")
        again = ap.attach_saved(cnn, tmp_path / "model.safetensors")
        assert torch.equal(again(x), model(x))
        right = (model(x).argmax(1).numpy() == task.test.labels).mean()
        assert outcome.test_accuracy == pytest.approx(right, abs=1.5 / 44)

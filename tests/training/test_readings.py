"""Heads at several places, trained beside each other on one prompted pass."""

import pytest
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory import InputError, methods
from aptheory.training.fit import kept_for
from aptheory.training.readings import Readings, fit_readings
from tests import quarters

NETWORKS = {"vit": quarters.small_vit(), "cnn": quarters.small_cnn()}
TASK = quarters.small_task()
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("text", ["ap:layer=1", "norm_tuning"])
def test_each_reading_is_the_method_read_there_and_what_is_shared_follows_the_sum(name, text):
    """Logits and gradients against runs apart that hold the same tensors."""
    net, method = NETWORKS[name], methods.parse(text)
    reads = [2, 3, len(net.layers) - 1]
    shared = Readings(method, net, reads, classes=4, seed=3).eval()
    with torch.no_grad():
        for parameter in shared.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    z = net.run(IMAGES, stop=shared.first_layer)
    logits = shared.rest(z.repeat(len(reads), *[1] * (z.dim() - 1))).chunk(len(reads))
    sum(F.cross_entropy(each, LABELS) for each in logits).backward()
    total = {}
    for read, found, r in zip(reads, logits, range(len(reads)), strict=True):
        alone = shared.select(r).eval()
        assert alone.exit == read
        torch.testing.assert_close(alone(IMAGES), found)
        F.cross_entropy(alone(IMAGES), LABELS).backward()
        for key, parameter in alone.run_parameters(0):
            if key.startswith("head."):
                torch.testing.assert_close(parameter.grad, dict(shared.run_parameters(r))[key].grad)
            else:
                total[key] = total.get(key, 0) + parameter.grad
    for key, gradient in total.items():
        torch.testing.assert_close(dict(shared.run_parameters(2))[key].grad, gradient)


def test_one_reading_is_a_run_alone():
    net, method = NETWORKS["cnn"], methods.ActivationPrompt(layer=1)
    run = ap.Run(seed=2)
    (shared,) = fit_readings(method, net, TASK, reads=3, runs=[run], recipe=quarters.RECIPE)
    alone = methods.ActivationPrompt(layer=1, read=3)
    (expected,) = ap.fit_many(alone, net, TASK, runs=[run], recipe=quarters.RECIPE)
    assert shared.val_loss == pytest.approx(expected.val_loss, rel=1e-6)
    assert shared.test_accuracy == expected.test_accuracy
    assert shared.method == expected.method
    assert shared.parameters == expected.parameters


def test_an_outcome_a_run_and_reading_and_models_like_any_other(tmp_path):
    net, method = NETWORKS["vit"], methods.ActivationPrompt(layer=1)
    runs = [ap.Run(seed=0), ap.Run(seed=1, lr=0.01)]
    with pytest.raises(InputError, match="train them apart"):
        fit_readings(method, net, TASK, reads="blocks", runs=runs, recipe=ap.Recipe(patience=2))
    kept = kept_for(net, TASK, quarters.RECIPE)
    outcomes = fit_readings(
        method, net, TASK, reads=(2, 3), runs=runs, recipe=quarters.RECIPE, kept=kept,
        keep_models=True,
    )  # fmt: skip
    assert [(o.seed, o.lr, o.method["read"]) for o in outcomes] == [
        (0, 0.03, 2), (0, 0.03, 3), (1, 0.01, 2), (1, 0.01, 3),
    ]  # fmt: skip
    prompts = [outcome.adapted.edits_at(1)[0].value() for outcome in outcomes]
    assert torch.equal(prompts[0], prompts[1])
    assert not torch.equal(prompts[0], prompts[2])
    images = net.normalize(torch.from_numpy(TASK.test.images(range(44), (16, 16)).numpy()))
    for outcome in outcomes:
        right = outcome.adapted(images).argmax(1).numpy() == TASK.test.labels
        assert outcome.test_accuracy == pytest.approx(right.mean())
    ap.save(outcomes[0].adapted, tmp_path / "one.safetensors")
    again = ap.attach_saved(net, tmp_path / "one.safetensors")
    assert torch.equal(again(images), outcomes[0].adapted(images))


def test_a_stack_that_loses_readings_goes_on_with_the_others():
    shared = Readings(methods.ActivationPrompt(layer=1), NETWORKS["vit"], [2, 3], classes=4, seed=0)
    with torch.no_grad():
        for parameter in shared.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    taken = shared.take([1])
    assert taken.reads == [3]
    torch.testing.assert_close(taken.select(0)(IMAGES), shared.select(1)(IMAGES))


@pytest.mark.parametrize(
    ("text", "reads", "words"),
    [
        ("linear_probe", (2, 3), "nothing to share"),
        ("vpt:tokens=2", (2, 3), "reads one place"),
        ("full", (2, 3), "batch statistics|running"),
        ("ap:layer=3", (2, 3), "acts at place 3"),
    ],
)
def test_what_cannot_share_is_refused(text, reads, words):
    with pytest.raises(InputError, match=words):
        fit_readings(methods.parse(text), NETWORKS["vit"], TASK, reads=reads, runs=[ap.Run(seed=0)])

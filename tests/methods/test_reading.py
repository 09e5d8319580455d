"""Prompt here, read there: a head at an earlier place, or at several."""

import numpy as np
import pytest
import torch

import aptheory as ap
from aptheory import methods
from aptheory.training.cost import piece_operations, predict
from aptheory.training.fit import kept_for
from aptheory.training.head_start import selected
from tests import quarters
from tests.small_networks import small_resnet, small_vit

NETWORKS = {"vit": small_vit(), "resnet": small_resnet()}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
TEXTS = (
    *("ap:layer=2", "norm_tuning", "bitfit", "ssf", "lora:rank=2", "vp", "linear_probe"),
    "random_perturbation:layer=2",
)
VIT_ONLY = ("vpt:tokens=2", "vpt:tokens=2,deep=false", "vapt:tokens=2", "adapter:bottleneck=4")


CASES = [(net, text) for net in NETWORKS for text in TEXTS] + [("vit", text) for text in VIT_ONLY]


def read_at(text: str, place: int, pooling: str = "mean") -> methods.Method:
    colon = "," if ":" in text else ":"
    return methods.parse(f"{text}{colon}read={place},pooling={pooling}")


@pytest.mark.parametrize(("name", "text"), CASES)
def test_the_head_reads_what_enters_the_place(name, text):
    net = NETWORKS[name]
    adapted = read_at(text, 4).attach(net, classes=3).eval()
    seen = {}
    if not any(part in text for part in ("vpt", "vapt")):
        for module in adapted.modules():
            if isinstance(module, methods.base.Head):
                module.register_forward_pre_hook(lambda _, given: seen.update(z=given[0]))
        adapted(IMAGES)
        clean = net.layers[4].pooled(net.run(IMAGES, stop=4), "mean")
        if text.split(":")[0] not in ("random_perturbation", "ssf"):
            torch.testing.assert_close(seen["z"], clean)
    assert adapted.exit == 4
    assert adapted.head.shift.numel() == net.layers[4].channels


@pytest.mark.parametrize(("name", "text"), CASES)
def test_nothing_behind_the_place_runs_or_learns(name, text):
    net = NETWORKS[name]
    adapted = read_at(text, 4).attach(net, classes=3)
    behind = set(net.modules_between(4)) - set(net.modules_between(0, 4))
    ran = []
    for part in behind:
        adapted.net.module.get_submodule(part).register_forward_hook(lambda *_: ran.append(1))
    logits = adapted(IMAGES)
    logits.sum().backward()
    assert not ran
    assert all(parameter.grad is not None for parameter in adapted.trainable)


@pytest.mark.parametrize(("name", "text"), CASES)
def test_the_networks_own_end_is_unchanged_bit_for_bit(name, text):
    net = NETWORKS[name]
    last = len(net.layers) - 1
    own = methods.parse(text).attach(net, classes=3).eval()
    named = read_at(text, last).attach(net, classes=3).eval()
    assert torch.equal(own(IMAGES), named(IMAGES))
    assert "read" not in own.method.settings()
    assert named.method.settings()["read"] == last


def test_the_layer_probe_is_the_case_without_a_prompt():
    net = NETWORKS["vit"]
    probe = methods.LayerProbe(layer=3).attach(net, classes=3)
    prompt = methods.ActivationPrompt(layer=1, read=3).attach(net, classes=3)
    assert torch.equal(probe(IMAGES), prompt(IMAGES))  # the prompt starts at zero
    with pytest.raises(ap.InputError, match="give layer=4 instead of read"):
        methods.LayerProbe(layer=3, read=4)


def test_reading_before_the_prompt_is_refused():
    with pytest.raises(ap.InputError, match=r"place 4 .* reads at place 2"):
        methods.ActivationPrompt(layer=4, read=2).attach(NETWORKS["vit"], classes=3)


@pytest.mark.parametrize("pooling", ["mean", "class", "both", "all"])
def test_the_pooling_is_the_layers_own(pooling):
    net = NETWORKS["vit"]
    adapted = methods.ActivationPrompt(layer=1, read=3, pooling=pooling).attach(net, classes=3)
    features = adapted.features(net.run(IMAGES, stop=1))
    torch.testing.assert_close(features, net.layers[3].pooled(net.run(IMAGES, stop=3), pooling))


def test_both_is_class_and_mean_side_by_side():
    layer = NETWORKS["vit"].layers[3]
    z = torch.randn(2, *layer.shape)
    both = layer.pooled(z, "both")
    assert torch.equal(both, torch.cat([z[:, 0], z[:, 1:].mean(1)], 1))
    layer = NETWORKS["resnet"].layers[3]
    z = torch.randn(2, *layer.shape)
    assert torch.equal(layer.pooled(z, "both"), z.mean((2, 3)))


@pytest.mark.parametrize("name", NETWORKS)
def test_all_places_side_by_side(name):
    net = NETWORKS[name]
    adapted = methods.LayerProbe(layer="all").attach(net, classes=3)
    parts = [
        z.flatten(1) if layer.layout == "vector" else layer.pooled(z, "mean")
        for layer, z in net.walk(IMAGES, stops=net.layers)
    ]
    torch.testing.assert_close(adapted.features(IMAGES), torch.cat(parts, 1))
    assert adapted.first_layer == 0


def test_all_places_of_a_prompted_pass():
    net = NETWORKS["vit"]
    adapted = methods.ActivationPrompt(layer=2, std=0.5, read="all").attach(net, classes=3)
    delta = adapted.edits_at(2)[0].value()
    clean = [z for _, z in net.walk(IMAGES, stops=[0, 1])]
    moved = net.run(IMAGES, stop=2) + delta
    prompted = [moved, *(z for _, z in net.walk(moved, start=2, stops=net.layers[3:]))]
    parts = [
        z.flatten(1) if layer.layout == "vector" else layer.pooled(z, "mean")
        for layer, z in zip(net.layers, [*clean, *prompted], strict=True)
    ]
    torch.testing.assert_close(adapted.features(IMAGES), torch.cat(parts, 1))


def test_prompt_tokens_read_one_place():
    with pytest.raises(ap.InputError, match="reads one place"):
        methods.VPT(tokens=2, read="all").attach(NETWORKS["vit"], classes=3)


def test_group_lasso_keeps_the_features_that_tell_the_classes_apart():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    x = torch.randn(120, 40, generator=generator)
    for feature in (5, 11, 17):
        x[:, feature] += 3.0 * (labels == feature % 3)
    chosen = selected((x - x.mean(0)) / x.std(0), labels, 3 / 40)
    assert chosen.nonzero().flatten().tolist() == [5, 11, 17]


def test_a_selecting_probe_reads_the_chosen_features_alone():
    net, task = quarters.small_vit(), quarters.small_task()
    method = methods.LayerProbe(layer="all", select=0.1)
    adapted = method.attach(net, classes=4)
    outcome = ap.fit(adapted, task, recipe=quarters.RECIPE)
    kept = adapted.head.scale[0].isfinite()
    assert kept.sum() <= round(0.1 * len(kept))
    assert np.isfinite(outcome.test_accuracy)
    with pytest.raises(ap.InputError, match="share of features"):
        methods.LayerProbe(layer="all", select=1.5)


@pytest.mark.parametrize("text", ["ap:layer=1", "norm_tuning", "vpt:tokens=2", "linear_probe"])
def test_what_was_read_early_is_saved_and_comes_back(text, tmp_path):
    net, task = quarters.small_vit(), quarters.small_task()
    adapted = read_at(text, 3, "both").attach(net, classes=4)
    ap.fit(adapted, task, recipe=quarters.RECIPE)
    ap.save(adapted, tmp_path / "one.safetensors")
    again = ap.attach_saved(net, tmp_path / "one.safetensors")
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), adapted.eval()(x))
    with pytest.raises(ap.InputError, match="read at place 3 cannot be folded"):
        ap.fold(adapted)
    with pytest.raises(ap.InputError, match="cannot be folded: its head reads 6 places"):
        ap.fold(ap.LayerProbe(layer="all").attach(net, classes=4))


def test_a_stack_read_early_is_the_runs_alone():
    net, task = quarters.small_cnn(), quarters.small_task()
    method = methods.ActivationPrompt(layer=1, read=3)
    runs = [ap.Run(seed=seed) for seed in (0, 1)]
    together = ap.fit_many(method, net, task, runs=runs, recipe=quarters.RECIPE)
    for run, outcome in zip(runs, together, strict=True):
        (alone,) = ap.fit_many(method, net, task, runs=[run], recipe=quarters.RECIPE)
        assert alone.val_loss == pytest.approx(outcome.val_loss, rel=1e-4)


def test_kept_features_of_a_reading_are_those_of_the_network():
    net, task = quarters.small_vit(), quarters.small_task()
    kept = kept_for(net, task, quarters.RECIPE)
    adapted = methods.LayerProbe(layer=(1, 3)).attach(net, classes=4)
    images = net.normalize(task.val.images(np.arange(40), (16, 16)))
    expected = adapted.features(net.run(images, stop=1))
    torch.testing.assert_close(kept.features("val", adapted.reading), expected)
    kept.advance(4)
    assert kept.features("val", adapted.reading) is kept.features("val", adapted.reading)


def test_reading_earlier_costs_less():
    net = NETWORKS["resnet"]
    end = ap.methods.ActivationPrompt(layer=1).attach(net, classes=3)
    early = ap.methods.ActivationPrompt(layer=1, read=3).attach(net, classes=3)
    operations = piece_operations(net)
    behind = sum(operations.forward[3:-1]) + sum(operations.backward[3:-1])
    saved = predict(end).step_from_kept - predict(early).step_from_kept
    assert saved == pytest.approx(behind, rel=0.01)  # the heads differ in width
    assert predict(early).step_of_visual_prompting == pytest.approx(
        predict(end).step_of_visual_prompting, rel=0.01
    )

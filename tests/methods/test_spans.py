"""Methods at a layer: what runs there learns, and nothing else."""

import pytest
import torch

import aptheory as ap
from aptheory import methods
from aptheory.methods.spans import modules_at, parameters_at
from tests.small_networks import small_resnet, small_vit

NETWORKS = {"vit": small_vit(), "resnet": small_resnet()}
TEXTS = ("norm_tuning", "bitfit", "ssf", "lora:rank=2", "adapter:bottleneck=4")


def cases():
    return [(n, t) for n in NETWORKS for t in TEXTS if n == "vit" or not t.startswith("adapter")]


def at(text: str, layer: str) -> methods.Method:
    return methods.parse(f"{text}{',' if ':' in text else ':'}layer={layer}")


@pytest.mark.parametrize(("name", "text"), cases())
def test_a_layer_is_what_runs_between_two_places(name, text):
    net = NETWORKS[name]
    adapted = at(text, "3").attach(net, classes=2)
    assert adapted.first_layer == 3
    inside = modules_at(net, 3)
    learned = [n for n, _ in adapted.run_parameters(0) if not n.startswith("head.")]
    assert learned
    prefix = "net.module."
    assert all(any(n.startswith(prefix + part) for part in inside) for n in learned)


@pytest.mark.parametrize(("name", "text"), cases())
def test_all_layers_one_by_one_are_the_whole(name, text):
    net = NETWORKS[name]
    whole = methods.parse(text).attach(net, classes=2).count(head=False)
    parts = 0
    for place in range(len(net.layers) - 1):
        try:
            parts += at(text, str(place)).attach(net, classes=2).count(head=False)
        except ap.InputError:
            continue
    assert parts == whole
    everywhere = methods.from_settings({**methods.parse(text).settings(), "layer": "0.."})
    assert everywhere.attach(net, classes=2).count(head=False) == whole


def test_ranges_and_lists():
    net = NETWORKS["vit"]
    assert parameters_at(net, "2..4") == parameters_at(net, (2, 3))
    assert parameters_at(net, "blocks.1..blocks.3") == parameters_at(net, "2..4")
    assert parameters_at(net, "5..") == parameters_at(net, (5, 6))
    assert parameters_at(net, "..2") == parameters_at(net, (0, 1))
    for wrong in ("4..2", "3..3", -1):
        with pytest.raises(ap.InputError, match="nothing of"):
            parameters_at(net, wrong)


def test_a_place_without_a_norm_names_the_near_ones():
    with pytest.raises(ap.InputError, match=r"layer 0.*nearest places that have one are 1"):
        methods.NormTuning(layer=0).attach(NETWORKS["vit"], classes=2)


def test_settings_without_a_layer_are_as_before():
    assert "layer" not in methods.NormTuning().settings()
    assert methods.NormTuning(layer=3).settings()["layer"] == 3
    assert methods.ActivationPrompt(layer=3).settings()["layer"] == 3


def test_beta_at_a_layer_starts_as_the_network_and_folds():
    net = NETWORKS["resnet"]
    adapted = methods.NormTuning(layer=3, scale=False).attach(net, classes=2)
    with torch.no_grad():
        for _, parameter in adapted.run_parameters(0):
            parameter.add_(0.1)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ap.fold(adapted)(x), adapted.eval()(x), rtol=1e-4, atol=1e-4)

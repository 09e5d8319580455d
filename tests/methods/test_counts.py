"""Trainable parameters without the head, to the unit, against numbers known without training."""

import pytest
import timm
import torch

import aptheory as ap
from aptheory import methods

pytestmark = pytest.mark.slow  # networks of the papers' size


def random_network(name: str, *, size: int | None = None, **settings) -> ap.Network:
    """A large network with constant weights, made without paying for their initialisation."""
    with torch.device("meta"):
        module = timm.create_model(name, **settings)
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    size = size or settings.get("img_size")
    return ap.load(module, name=name, input_shape=(3, size, size) if size else None)


@pytest.fixture(scope="module")
def vit_base():
    return random_network("vit_base_patch16_224", num_classes=0)


def count(net, text: str, *, head: bool = False) -> int:
    return methods.parse(text).attach(net, classes=10).count(head=head)


VIT_BASE = {
    "vpt:tokens=1": 9_216,
    "vpt:tokens=5": 46_080,
    "vpt:tokens=10": 92_160,
    "vpt:tokens=50": 460_800,
    "vpt:tokens=100": 921_600,
    "vpt:tokens=200": 1_843_200,
    "vpt:tokens=50,deep=False": 38_400,
    "vqt": 9_216,
    "vqt:tokens=10": 92_160,
    "vqt:tokens=10,read=6": 5 * 10 * 768,
    "vapt:tokens=1": 31_866,
    "vapt:tokens=5": 42_418,
    "vapt:tokens=10": 55_608,
    "vapt:tokens=50": 161_128,
    "vapt:tokens=100": 293_028,
    "vapt:tokens=200": 556_828,
    # L p H'W' + L K^2 + 2 r d: the formula at every block, and nothing else.
    "vapt:tokens=10,variant=paper": 12 * 10 * 169 + 12 * 4 + 2 * 8 * 768,
    # p d + a gate for each block but the last + a temperature a block.
    "gate_vpt:tokens=10": 10 * 768 + 11 + 12,
    # VPT-deep and two lists of key and value prompts a block.
    "e2vpt:tokens=10,extra=5": 92_160 + 12 * 2 * 5 * 768,
    "norm_tuning": 38_400,
    "norm_tuning:scale=False": 19_200,
    "ap:layer=1": 151_296,
    "ap:layer=7": 151_296,
    "ap:layer=3,shape=channel": 768,
    "ap:layer=3,shape=token": 197,
    "ap:layer=3,rank=4": 4 * (197 + 768),
    "ap:layer=-1": 768,
    "vp": 150_528,
    "vp:frame=30": 69_840,
    "linear_probe": 0,
    "layer_probe:layer=4": 0,
    "random_perturbation:layer=4": 0,
    "partial:blocks=1": 7_087_872 + 1_536,
    "full": 85_798_656,
    # patch embedding, qkv, proj, fc1, fc2, two norms a block, the final norm.
    "bitfit": 768 + 12 * (3 * 768 + 768 + 4 * 768 + 768 + 2 * 768) + 768,
    "ssf": 2 * (768 + 12 * (3 * 768 + 768 + 4 * 768 + 768 + 2 * 768) + 768),
    "lora:rank=8": 12 * 8 * (768 + 3 * 768),
    "adapter:bottleneck=64": 12 * (2 * 768 * 64 + 64 + 768),
}


@pytest.mark.parametrize("text", VIT_BASE)
def test_vit_base(vit_base, text):
    assert count(vit_base, text) == VIT_BASE[text]


def test_the_head_is_counted_apart(vit_base):
    assert count(vit_base, "linear_probe", head=True) == 10 * 768 + 10
    assert count(vit_base, "vpt:tokens=5", head=True) == 46_080 + 7_690
    assert count(vit_base, "vqt", head=True) == 9_216 + 10 * (768 + 12 * 768) + 10


def test_several_runs_count_as_one(vit_base):
    stack = methods.VPT(tokens=5).attach(vit_base, classes=10, runs=3)
    assert stack.count(head=False) == 46_080


def test_resnet101_activation_prompts():
    net = random_network("resnet101", num_classes=0)
    names = {layer.name: layer.index for layer in net.layers}
    for name, expected in {
        "layer2.0": 802_816,  # the output of layer1
        "layer3.0": 401_408,
        "layer4.0": 200_704,
    }.items():
        assert count(net, f"ap:layer={names[name]}") == expected
        assert count(net, f"ap:layer={name}") == expected
    assert count(net, "ap:layer=-2") == 100_352
    assert count(net, "norm_tuning") == 105_344
    assert count(net, "bitfit") == 105_344 // 2


def test_normalisation_of_the_other_large_networks():
    assert count(random_network("resnet50", num_classes=0, size=64), "norm_tuning") == 53_120
    # The number of normalisation parameters does not depend on the image.
    large = random_network("vit_large_patch16_224", num_classes=0, img_size=32)
    assert count(large, "norm_tuning") == 100_352
    assert count(large, "ap:layer=3,shape=channel") == 1_024


def test_vit_large_activation_prompt():
    net = random_network("vit_large_patch16_224", num_classes=0)
    assert count(net, "ap:layer=3") == 201_728

"""Folding: a prompt disappears into ordinary weights exactly, or is refused with the reason."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import aptheory as ap
from aptheory import InputError, methods
from tests.small_networks import small_resnet, small_vit


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5)).double()


@pytest.fixture(scope="module")
def nets():
    from timm.models.resnet import Bottleneck

    bottleneck = {"block": Bottleneck, "channels": (8, 8, 8, 8)}
    return {
        name: net.double()
        for name, net in {
            "vit": small_vit(),
            "layer_scale": small_vit(init_values=0.3),
            "registers": small_vit(reg_tokens=2, no_embed_class=True),
            "average": small_vit(class_token=False, global_pool="avg", fc_norm=False),
            "normed_stem": small_vit(pre_norm=True),
            "rms_norm": small_vit(norm_layer=timm.layers.RmsNorm, qk_norm=True),
            "cnn": small_resnet(),
            "bottleneck": small_resnet(**bottleneck),
            "average_down": small_resnet(**bottleneck, avg_down=True),
        }.items()
    }


def learned(net, text):
    adapted = methods.parse(text).attach(net, classes=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.trainable:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    adapted.head.shift.copy_(torch.linspace(-1, 1, adapted.head.shift.shape[-1]))
    adapted.head.scale.copy_(torch.linspace(0.5, 2, adapted.head.scale.shape[-1]))
    return adapted.eval()


EXACT = [
    (name, text)
    for name in ("vit", "rms_norm", "cnn")
    for text in ("linear_probe", "norm_tuning", "bitfit", "lora", "ssf", "partial", "full")
] + [
    ("vit", "ap:layer=-1"),  # the head's bias
    ("cnn", "ap:layer=-1"),
    ("cnn", "ap:layer=-2"),  # before average pooling: the head's bias
    ("cnn", "ap:layer=-2,rank=1"),
    ("bottleneck", "ap:layer=-1"),
    ("vit", "ap:layer=1"),  # the position embedding
    ("vit", "vp"),
    ("vit", "vp:frame=5"),
    ("average", "vp"),
    ("registers", "vp"),
    ("registers", "bitfit"),
    ("vit", "ap:layer=4,shape=channel"),  # the bias of the MLP before
    ("rms_norm", "ap:layer=1"),
    ("rms_norm", "ap:layer=4,shape=channel"),
    ("layer_scale", "ap:layer=4,shape=channel"),
    ("layer_scale", "ap:layer=2+5,shape=channel"),
    ("average", "ap:layer=3,shape=channel"),
    ("normed_stem", "ap:layer=1,shape=channel"),  # beta of the norm before
    ("bottleneck", "ap:layer=5,shape=channel"),  # identity skip
    ("bottleneck", "ap:layer=3,shape=channel"),  # projected skip
    ("bottleneck", "ap:layer=1+3+5,shape=channel"),
    ("average_down", "ap:layer=3,shape=channel"),
    ("vit", "layer_probe:layer=-1"),
]


@pytest.mark.parametrize(("name", "text"), EXACT)
def test_fold_is_a_plain_network_with_the_same_outputs(nets, images, name, text):
    net = nets[name]
    before = {key: value.clone() for key, value in net.module.state_dict().items()}
    adapted = learned(net, text)
    plain = ap.fold(adapted)
    with torch.no_grad():
        expected = adapted(images)
        assert torch.allclose(plain(images), expected, rtol=1e-10, atol=1e-11)
        assert not torch.allclose(net.module(images)[:, :3], expected)
    # The same modules and the same number of parameters as the network itself with this head.
    assert type(plain) is type(net.module)
    kinds = [(key, type(module)) for key, module in plain.named_modules()]
    own = [(key, type(module)) for key, module in net.module.named_modules()]
    assert kinds == own
    for key, value in net.module.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("vit", "ap:layer=3", "differs from position to position"),
        ("cnn", "ap:layer=3", "differs from position to position"),
        ("cnn", "vp", "differs from position to position"),
        ("cnn", "ap:layer=3,shape=channel", "zero padding"),  # 3x3 convolution first
        ("cnn", "ap:layer=3,shape=token", "differs from position to position"),
        ("vit", "ap:layer=-2", "differs from position to position"),  # before LayerNorm
        ("normed_stem", "ap:layer=1", "differs from position to position"),
        ("registers", "ap:layer=1", "differs from position to position"),  # registers have none
        ("vit", "vp:frame=5,shrink=True", "resized"),
        ("vit", "vpt", "tokens"),
        ("vit", "vqt", "does not ask"),
        ("vit", "vapt", "tokens"),
        ("vit", "gate_vpt", "tokens"),
        ("vit", "e2vpt", "tokens"),
        ("vit", "adapter", "not linear"),
        ("vit", "layer_probe:layer=3", "last features"),
    ],
)
def test_fold_refuses_what_is_not_exact_and_says_why(nets, name, text, words):
    with pytest.raises(InputError, match=words):
        ap.fold(learned(nets[name], text))


def test_a_random_perturbation_at_the_end_folds_too(nets, images):
    adapted = methods.RandomPerturbation(layer=-1, norm=3.0).attach(nets["cnn"], classes=3).eval()
    assert torch.allclose(ap.fold(adapted)(images), adapted(images))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("aptheory_vit_mini", "ap:layer=4,shape=channel"),
        ("aptheory_resnet_mini", "ap:layer=-2"),
        ("aptheory_resnet_mini", "norm_tuning"),
    ],
)
def test_folded_weights_load_with_timm_alone(tmp_path, name, text):
    net = ap.load(name)
    adapted = methods.parse(text).attach(net, classes=4)
    with torch.no_grad():
        for parameter in adapted.trainable:
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_file(ap.fold(adapted.eval()).state_dict(), tmp_path / "folded.safetensors")
    plain = timm.create_model(name, pretrained=False, num_classes=4).eval()
    plain.load_state_dict(load_file(tmp_path / "folded.safetensors"))
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        error = (plain(x) - adapted(x)).abs().max() / adapted(x).abs().max()
    assert error < 1e-5

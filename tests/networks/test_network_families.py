"""A dozen families, made small: split, equal to timm's own forward, and equal from every layer."""

import pytest
import timm
import torch

import aptheory as ap

SMALL_VIT = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}

# timm name, arguments that make it small, image side, least number of layers
FAMILIES = {
    "vision_transformer": ("vit_tiny_patch16_224", SMALL_VIT, 64, 7),
    "registers": ("vit_base_patch14_reg4_dinov2", {**SMALL_VIT, "img_size": 56}, 56, 7),
    "deit": ("deit_tiny_distilled_patch16_224", SMALL_VIT, 64, 7),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", SMALL_VIT, 64, 7),
    "cait": ("cait_xxs24_224", {**SMALL_VIT, "num_heads": 4}, 64, 7),
    "swin_transformer": (
        "swin_tiny_patch4_window7_224",
        {
            "img_size": 64,
            "window_size": 4,
            "embed_dim": 24,
            "depths": (2, 2),
            "num_heads": (2, 4),
        },
        64,
        7,
    ),
    "twins": (
        "twins_svt_small",
        {
            "img_size": 64,
            "embed_dims": (16, 32, 32, 32),
            "num_heads": (2, 2, 2, 2),
            "depths": (2, 2, 1, 1),
            "wss": (4, 4, 4, 4),
        },
        64,
        8,
    ),
    "levit": ("levit_128s", {}, 224, 14),
    "resnet": ("test_resnet", {}, 64, 6),
    "regnet": ("regnetx_002", {}, 64, 16),
    "convnext": ("test_convnext", {}, 64, 6),
    "mobilenetv3": ("mobilenetv3_small_050", {}, 64, 15),
    "dla": ("dla46_c", {}, 64, 7),  # its classifier is a convolution
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": (2, 2, 2, 2)}, 64, 7),
    "selecsls": ("selecsls42", {}, 64, 9),  # blocks that pass lists
}


SLOW = ("levit", "selecsls", "regnet")


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in FAMILIES]
)
def test_every_layer_leads_to_timms_own_output(family: str):
    name, settings, side, least = FAMILIES[family]
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5, **settings).eval()
    net = ap.load(module, input_shape=(3, side, side), name=name)
    assert len(net.layers) >= least, repr(net)
    assert net.layers[0].name == "image"
    assert net.layers[-1].layout == "vector"
    assert net.layers[-2].layout != "vector"
    x = torch.randn(3, 3, side, side)
    before = x.clone()
    with torch.no_grad():
        expected = module(x)
        assert torch.equal(net(x), expected)
        z = x
        for layer in net.layers:
            assert tuple(z.shape[1:]) == layer.shape
            kept = z.clone()
            assert torch.equal(net.run(z, start=layer.index), expected), layer.name
            assert torch.equal(z, kept), f"running from {layer.name} wrote to its input"
            assert layer.positions(z).shape == (3, _positions(layer), layer.channels)
            z = net.run(x, stop=layer.index + 1) if layer.index + 1 < len(net.layers) else z
    assert torch.equal(x, before)


def _positions(layer: ap.Layer) -> int:
    if layer.grid is not None:
        return layer.grid[0] * layer.grid[1]
    return 1 if layer.layout == "vector" else layer.shape[0]  # LeViT mixes what it shrinks


@pytest.mark.parametrize("family", ["vision_transformer", "registers", "deit", "eva", "cait"])
def test_prefix_tokens_are_told_from_patches(family: str):
    name, settings, side, _ = FAMILIES[family]
    net = ap.load(timm.create_model(name, **settings), input_shape=(3, side, side))
    prefix = {"vision_transformer": 1, "registers": 5, "deit": 2, "eva": 5, "cait": 0}[family]
    assert {net.layers[i].prefix for i in net.block_layers[:4]} == {prefix}
    assert {net.layers[i].grid for i in net.block_layers} == {(4, 4)}


def test_a_distilled_model_ends_in_both_tokens():
    name, settings, side, _ = FAMILIES["deit"]
    net = ap.load(timm.create_model(name, **settings), input_shape=(3, side, side))
    assert net.num_features == 2 * 48


@pytest.mark.slow
def test_two_branches_side_by_side_are_refused_by_name():
    module = timm.create_model("crossvit_tiny_240")
    with pytest.raises(ap.InputError, match="crossvit.*side by side"):
        ap.load(module, name="crossvit")

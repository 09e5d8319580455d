"""Normalisation tuning finds every kind of norm there is, RMS normalisation without a shift too."""

import copy

import pytest
import timm
import torch
from timm import layers
from torch import nn
from torch.nn import functional as F

import aptheory as ap
from aptheory import InputError, methods
from aptheory.methods.normalization import kind_of
from tests.small_networks import small_vit

RMS = (
    nn.RMSNorm,
    layers.RmsNorm,
    layers.RmsNormFp32,
    layers.RmsNorm2d,
    layers.RmsNorm2dFp32,
    layers.RmsNormAct,
    layers.RmsNormActFp32,
    layers.RmsNormAct2d,
    layers.RmsNormAct2dFp32,
    layers.SimpleNorm,
    layers.SimpleNormFp32,
    layers.SimpleNorm2d,
    layers.SimpleNorm2dFp32,
)
SIZE = {"test_vit4": 32, "convnext_zepto_rms": 64}
# Two norms of 96 channels in each of nine blocks and one after; one in each of 2, 2, 4 and 2 blocks
# of 32, 64, 128 and 256 channels, after the stem, before each reduction and in the head.
SCALES = {
    "test_vit4": 9 * 2 * 96 + 96,
    "convnext_zepto_rms": (2 * 32 + 2 * 64 + 4 * 128 + 2 * 256) + 32 + (32 + 64 + 128) + 256,
}


def load(name: str) -> ap.Network:
    """A real timm network, double precision, its scales and residual gains as after training."""
    settings = {"img_size": 32, "patch_size": 8} if "vit" in name else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=4, **settings).double()
        for part in module.modules():
            if isinstance(part, RMS):
                nn.init.uniform_(part.weight, 0.5, 1.5)
            if isinstance(part, layers.LayerScale):
                nn.init.constant_(part.gamma, 0.5)
    return ap.load(module, input_shape=(3, SIZE[name], SIZE[name]), name=name)


@pytest.fixture(scope="module", params=SIZE)
def net(request):
    return load(request.param)


class OwnRMSNorm(nn.Module):
    """As in many repositories, with a name of its own for the scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:]) * self.g


@pytest.mark.parametrize("kind", [*RMS, OwnRMSNorm])
def test_every_rms_normalisation_is_known(kind):
    assert kind_of(kind(8)) == "rms"


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (layers.LayerNorm2d(8), "layer"),
        (layers.LayerNormFp32(8), "layer"),
        (layers.LayerNormAct2d(8), "layer"),
        (layers.BatchNormAct2d(8), "batch"),
        (layers.GroupNorm1(8), "group"),
        (layers.GroupNormAct(8, num_groups=2), "group"),
        (layers.LayerScale(8), None),
        (layers.GlobalResponseNormMlp(8).grn, None),
        (nn.Linear(8, 8), None),
        (timm.create_model("convnext_zepto_rms").head, None),  # it ends in a norm, and is none
    ],
)
def test_others_are_what_they_are(module, kind):
    assert kind_of(module) == kind


def test_scales_are_counted(net):
    found = [m.weight.numel() for m in net.module.modules() if isinstance(m, RMS)]
    assert sum(found) == SCALES[net.name]
    for text in ("norm_tuning", "norm_tuning:shift=False", "norm_tuning:kind=rms"):
        assert methods.parse(text).attach(net, classes=3).count(head=False) == sum(found)


def test_a_shift_that_is_not_there_is_told(net):
    told = "normalisation layers have a scale and no shift; set scale=True or another method"
    with pytest.raises(InputError, match=told) as error:
        methods.NormTuning(scale=False).attach(net, classes=3)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no layer normalisation layer with scale or shift"):
        methods.NormTuning(kind="layer").attach(net, classes=3)


def test_training_moves_the_scales_and_they_fold_and_return(net, tmp_path):
    before = copy.deepcopy(net.module.state_dict())
    x = torch.randn(4, *net.input_shape, generator=torch.Generator().manual_seed(1)).double()
    adapted = methods.NormTuning().attach(net, classes=3)
    start = [value.detach().clone() for value in adapted.trainable]
    optimiser = torch.optim.Adam(adapted.trainable, lr=1e-2)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(adapted(x), torch.tensor([0, 1, 2, 1]))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert all((a != b).any() for a, b in zip(start, adapted.trainable, strict=True))
    with torch.no_grad():
        out = adapted.eval()(x)
        torch.testing.assert_close(ap.fold(adapted)(x), out, rtol=1e-9, atol=1e-10)
        ap.save(adapted, tmp_path / "one.safetensors")
        assert torch.equal(ap.attach_saved(net, tmp_path / "one.safetensors")(x), out)
    for name, value in net.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_network_may_mix_them():
    module = small_vit().module
    module.blocks[1].norm1 = OwnRMSNorm(24)
    module.blocks[2].norm1 = nn.LayerNorm(24, bias=False)
    net = ap.load(module, input_shape=(3, 32, 32), name="mixed")

    def count(text):
        return methods.parse(text).attach(net, classes=3).count(head=False)

    norms = 2 * 5 + 1
    assert count("norm_tuning:shift=False") == norms * 24
    assert count("norm_tuning:scale=False") == (norms - 2) * 24
    assert count("norm_tuning:kind=rms") == 24
    assert count("norm_tuning:kind=layer") == (2 * norms - 3) * 24

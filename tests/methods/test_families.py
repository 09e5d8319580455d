"""What every method promises, on networks that are unlike the two of the other tests."""

import copy

import pytest
import timm
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory import methods
from tests.networks.test_network_families import SMALL_VIT

SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
NETWORKS = {
    # position biases come from an MLP that runs on a table, and qkv is read, not called
    "swin_v2": ("swinv2_tiny_window8_256", SWIN, (32, 32)),
    "swin_v2_cr": ("swinv2_cr_tiny_224", SWIN, (32, 32)),
    "registers": (
        "vit_base_patch14_reg4_dinov2",
        {**SMALL_VIT, "img_size": (28, 42), "depth": 3},
        (28, 42),
    ),
    "distilled": (
        "deit_tiny_distilled_patch16_224",
        {**SMALL_VIT, "img_size": 32, "patch_size": 8, "depth": 3},
        (32, 32),
    ),
    "rotary": (
        "vit_tiny_patch16_dinov3_qkvb",
        {**SMALL_VIT, "img_size": 32, "patch_size": 8, "depth": 3},
        (32, 32),
    ),
    "rms_norm": (
        "vit_tiny_patch16_224",
        {
            **SMALL_VIT,
            "img_size": 32,
            "patch_size": 8,
            "depth": 3,
            "norm_layer": timm.layers.RmsNorm,
            "qk_norm": True,
        },
        (32, 32),
    ),
    "group_norm": ("resnet18", {"norm_layer": timm.layers.GroupNorm}, (40, 48)),
    "channel_norm": ("test_convnext", {}, (64, 64)),
}

NORMS = (torch.nn.LayerNorm, torch.nn.GroupNorm, timm.layers.RmsNorm)


def load(family: str) -> ap.Network:
    name, settings, size = NETWORKS[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=4, **settings).double()
        for part in module.modules():  # LayerScale and residual norms that start at almost nothing
            gain = getattr(part, "gamma", None)
            if isinstance(gain, torch.nn.Parameter):
                torch.nn.init.constant_(gain, 0.5)
            if isinstance(part, NORMS):
                torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    return ap.load(module, input_shape=(3, *size), name=family)


QUICK = ("swin_v2", "registers")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NETWORKS
    ],
)
def net(request):
    return load(request.param)


def disturb(adapted, size=0.05):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.trainable:
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return adapted


def test_every_learned_tensor_has_an_effect_and_the_network_stays(net, tmp_path):
    """Gradients reach all of it; runs are apart; what is saved comes back; ``net`` is as before."""
    before = copy.deepcopy(net.module.state_dict())
    modules = [(name, type(module)) for name, module in net.module.named_modules()]
    x = torch.randn(2, *net.input_shape, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([0, 2])
    found = methods.applicable(net)
    assert {"ap", "vp", "linear_probe", "norm_tuning", "bitfit", "lora", "ssf"} <= {
        method.name for method in found
    }
    for method in found:
        adapted = disturb(method.attach(net, classes=3)).eval()
        F.cross_entropy(adapted(x), labels).backward()
        idle = [
            name
            for name, parameter in adapted.run_parameters(0)
            if parameter.grad is None or not parameter.grad.any()
        ]
        assert idle == [], method
        with torch.no_grad():
            out = adapted(x)
            z = net.run(x, stop=adapted.first_layer)
            torch.testing.assert_close(adapted.rest(z), out)
            ap.save(adapted, tmp_path / "one.safetensors")
            assert torch.equal(ap.attach_saved(net, tmp_path / "one.safetensors")(x), out)
            if method.stackable:
                stack = disturb(method.attach(net, classes=3, runs=2, seed=[5, 6])).eval()
                together = stack(x)
                for k in range(2):
                    torch.testing.assert_close(stack.select(k)(x), together[k])
    assert [(name, type(module)) for name, module in net.module.named_modules()] == modules
    for name, value in net.module.state_dict().items():
        assert torch.equal(value, before[name]), name

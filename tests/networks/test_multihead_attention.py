"""nn.MultiheadAttention is seen as timm's attention is."""

import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory.networks.attention import attention_error, attention_layers, observe_attention
from tests.encoders import KINDS, encoder
from tests.small_networks import small_resnet


@pytest.fixture(scope="module", params=KINDS)
def net(request) -> ap.Network:
    return encoder(request.param)


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def maps(net: ap.Network) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), observe_attention(net, lambda s, p: seen.update({s.module: p.clone()})):
        net(images())
    return seen


def test_every_layer_is_found(net):
    layers = attention_layers(net)
    assert len(layers) == 2
    prefix = 0 if net.name == "asking" else 1
    assert {(a.heads, a.grid, a.prefix, a.keys) for a in layers} == {
        (3, (4, 4), prefix, 16 + prefix)
    }
    assert all(a.is_self_attention for a in layers)


def test_the_map_makes_the_modules_output_again(net):
    errors = attention_error(net, images())
    assert len(errors) == 2
    assert max(errors.values()) < 1e-5


def test_the_map_is_what_the_module_would_tell(net):
    """Against the weights that each module returns when it is called by itself."""
    inputs = {}
    parts = {n: m for n, m in net.module.named_modules() if isinstance(m, nn.MultiheadAttention)}
    handles = [
        part.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
        for name, part in parts.items()
    ]
    seen = maps(net)
    for handle in handles:
        handle.remove()
    for name, part in parts.items():
        x = inputs[name]
        with torch.no_grad():
            told = part(x, x, x, need_weights=True, average_attn_weights=False)[1]
        assert torch.allclose(seen[name], told, atol=1e-6)


def test_watching_changes_nothing_beyond_rounding(net):
    with torch.no_grad():
        before = net(images())
        with observe_attention(net, lambda *_: None):
            during = net(images())
        assert torch.equal(net(images()), before)
    assert torch.allclose(during, before, atol=1e-5)


def test_a_network_without_attention_says_so():
    with pytest.raises(ap.InputError, match="attention") as error:
        ap.profile(small_resnet(), images(), measures=("attention_distance",), batch_size=2)
    assert "\n" not in str(error.value)

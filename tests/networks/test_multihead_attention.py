"""nn.MultiheadAttention is seen as timm's attention is."""

import pytest
import timm
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


def as_timm(theirs: nn.Module) -> nn.Module:
    """The same network in timm's modules."""
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    module = timm.create_model("vit_tiny_patch16_224", num_classes=4, mlp_ratio=2, **size)
    state = {
        "cls_token": theirs.class_token,
        "pos_embed": theirs.encoder.pos_embedding,
        "patch_embed.proj": theirs.conv_proj,
        "norm": theirs.encoder.ln,
        "head": theirs.heads.head,
    }
    for number, block in enumerate(theirs.encoder.layers):
        attention, at = block.self_attention, f"blocks.{number}."
        state |= {at + "norm1": block.ln_1, at + "norm2": block.ln_2}
        state |= {at + "mlp.fc1": block.mlp[0], at + "mlp.fc2": block.mlp[3]}
        state |= {at + "attn.proj": attention.out_proj}
        state |= {at + "attn.qkv.weight": attention.in_proj_weight}
        state |= {at + "attn.qkv.bias": attention.in_proj_bias}
    flat = {}
    for key, value in state.items():
        named = value.named_parameters() if isinstance(value, nn.Module) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): p for name, p in named}
    module.load_state_dict(flat)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-6
    return module


def test_attention_distance_is_that_of_the_same_network_in_timm():
    ours = encoder("torchvision")
    theirs = ap.load(as_timm(ours.module), None, input_shape=(3, 32, 32))
    with torch.no_grad():
        assert torch.allclose(ours(images()), theirs(images()), atol=1e-4)
    tables = [
        ap.profile(net, images(), measures=("attention_distance",), batch_size=2)
        for net in (ours, theirs)
    ]
    ours_seen, theirs_seen = (table["value"].to_numpy() for table in tables)
    assert len(ours_seen) == 2 * (1 + 3)  # of each layer, and of each of its heads
    assert ours_seen == pytest.approx(theirs_seen, rel=1e-4)


def test_a_network_without_attention_says_so():
    with pytest.raises(ap.InputError, match="attention") as error:
        ap.profile(small_resnet(), images(), measures=("attention_distance",), batch_size=2)
    assert "\n" not in str(error.value)

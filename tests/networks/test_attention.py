"""Attention that is seen: right to 1e-5, without a change to the output, and in its place."""

import pytest
import timm
import torch
from torch.nn import functional

import aptheory as ap
from aptheory.networks.attention import attention_error, attention_layers, observe_attention
from tests.networks.test_network_families import FAMILIES
from tests.small_networks import small_resnet, small_vit

# attention layers, how many timm fuses, (heads, queries, keys, windows) of the first
SEEN = {
    "vision_transformer": (4, 4, (3, 17, 17, 1)),
    "registers": (4, 4, (3, 21, 21, 1)),
    "deit": (4, 4, (3, 18, 18, 1)),
    "eva": (4, 4, (3, 21, 21, 1)),  # rotary embedding, queries and keys from one matrix
    "cait": (6, 2, (4, 16, 16, 1)),  # talking heads, then class attention
    "swin_transformer": (4, 0, (2, 16, 16, 16)),
    "twins": (6, 6, (2, 16, 16, 16)),
}


def load(family: str) -> ap.Network:
    name, settings, side, _ = FAMILIES[family]
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5, **settings)
    for name, parameter in module.named_parameters():
        if "weight" in name and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # attention that is far from uniform
    return ap.load(module, input_shape=(3, side, side))


@pytest.mark.parametrize("family", SEEN)
def test_probabilities_are_seen_and_the_output_stays(family: str):
    count, fused, (heads, queries, keys, windows) = SEEN[family]
    net = load(family)
    sites = attention_layers(net)
    assert len(sites) == count
    first = sites[0]
    assert (first.heads, first.queries, first.keys) == (heads, queries, keys)
    assert (1 if first.window is None else first.window.count) == windows
    x = torch.randn(2, *net.input_shape)
    seen: list[str] = []

    def callback(site, probabilities):
        here = 1 if site.window is None else site.window.count
        assert probabilities.shape == (2 * here, site.heads, site.queries, site.keys)
        sums = probabilities.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        seen.append(site.name)

    with torch.no_grad():
        expected = net(x)
        with observe_attention(net, callback):
            assert torch.equal(net(x), expected)
            half = len(net.layers) // 2
            z = net.run(x, stop=half)
            assert torch.equal(net.run(z, start=half), expected)
    assert seen == [site.name for site in sites] * 2
    errors = attention_error(net, x)
    assert len(errors) == fused
    assert all(error < 1e-5 for error in errors.values()), errors


def test_the_map_gives_the_modules_own_output():
    """attn @ v, then the projection, from outside: a second way to the module's output."""
    net = load("registers")
    inputs, outputs, maps = {}, {}, {}
    for site in attention_layers(net):
        module = net.module.get_submodule(site.name)

        def keep(_, args, output, name=site.name):
            inputs[name], outputs[name] = args[0], output

        module.register_forward_hook(keep)
    with torch.no_grad(), observe_attention(net, lambda s, p: maps.__setitem__(s.name, p)):
        net(torch.randn(2, *net.input_shape))
    for name, x in inputs.items():
        module = net.module.get_submodule(name)
        _, _, v = module.qkv(x).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        again = module.proj((maps[name] @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(again, outputs[name], rtol=1e-5, atol=1e-5)


def test_sites_say_where_they_are():
    net = small_vit()
    sites = attention_layers(net)
    assert [site.layer for site in sites] == [1, 2, 3, 4, 5]
    assert {site.prefix for site in sites} == {1}
    assert {site.grid for site in sites} == {(4, 4)}
    assert all(site.is_self_attention for site in sites)
    twins = attention_layers(load("twins"))
    assert [s.is_self_attention for s in twins[:2]] == [True, False]  # its keys are a coarser grid


def test_shifted_windows_lie_where_swin_puts_them():
    """Each window's tokens, against the roll and partition written out by hand."""
    net = load("swin_transformer")
    plain, shifted, *_ = attention_layers(net)
    rows = torch.arange(16).repeat_interleave(16).view(16, 16)
    both = torch.stack([rows, rows.T], -1)
    for site, shift in ((plain, 0), (shifted, 2)):
        grid = both.roll((-shift, -shift), (0, 1))
        expected = grid.view(4, 4, 4, 4, 2).transpose(1, 2).reshape(16, 16, 2)
        assert site.grid == (16, 16)
        assert torch.equal(site.window.coordinates(site.grid), expected.double())


def test_only_some_layers_and_only_within_the_context():
    net = small_vit()
    seen = []
    chosen = attention_layers(net)[2:3]
    x = torch.randn(2, 3, 32, 32)
    with observe_attention(net, lambda site, _: seen.append(site.name), chosen):
        net(x)
    net(x)
    assert seen == ["blocks.2.attn"]


def test_hooks_go_even_after_an_error():
    net = small_vit()

    def fail(site, probabilities):
        raise RuntimeError("stop")

    x = torch.randn(2, 3, 32, 32)
    expected = net(x)
    with pytest.raises(RuntimeError, match="stop"), observe_attention(net, fail):
        net(x)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.module.modules())
    assert torch.equal(net(x), expected)


def test_gradients_pass_while_one_watches():
    net = small_vit()
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (expected,) = torch.autograd.grad(net(x).sum(), x)
    with observe_attention(net, lambda *_: None):
        (found,) = torch.autograd.grad(net(x).sum(), x)
    assert torch.equal(found, expected)


def test_masks_and_scales_enter_the_probabilities():
    """The recomputation against the definition, for a causal mask, a bias and a scale."""
    from aptheory.networks.attention_calls import Watch

    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind()
    bias = torch.randn(5, 5)
    seen = []
    watch = Watch(lambda name, call, what: seen.append(what.probabilities()))
    watch.stack.append(["here", 0])
    with watch:
        functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3)
        functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(seen[0], (q @ k.mT * 0.3 + bias).softmax(-1))
    ahead = torch.ones(5, 5, dtype=torch.bool).triu(1)
    causal = (q @ k.mT / 8**0.5).masked_fill(ahead, float("-inf")).softmax(-1)
    torch.testing.assert_close(seen[1], causal)


def test_networks_without_attention_have_none():
    assert attention_layers(small_resnet()) == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "resnest14d", "skresnet18"])
def test_a_softmax_over_channels_or_branches_is_no_attention(name: str):
    net = ap.load(name, None, input_shape=(3, 64, 64))
    sites = attention_layers(net)
    assert all("cls_attn" in site.name for site in sites), [site.name for site in sites]


def test_a_window_larger_than_the_map_is_seen_with_its_padding():
    """Twins pads a 2 x 2 map to one 4 x 4 window: twelve of its sixteen tokens are nowhere."""
    last = attention_layers(load("twins"))[-1]
    assert (last.name, last.queries, last.grid) == ("blocks.3.0.attn", 16, (2, 2))
    (places,) = last.window.coordinates(last.grid)
    real = ~places.isnan().any(-1)
    assert real.nonzero().flatten().tolist() == [0, 1, 4, 5]
    assert places[real].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]

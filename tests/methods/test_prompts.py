"""Prompt tokens against their definitions, written out again the slow way."""

import pytest
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory import InputError, methods
from aptheory.methods.key_value_prompts import MaskedPromptTokens, _importance
from aptheory.methods.prompt_tokens import patch_size, prompt_bound
from tests.small_networks import small_vit


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5)).double()


@pytest.fixture(scope="module", params=["class", "registers", "average", "layer_scale"])
def vit(request):
    settings = {
        "class": {},
        "registers": {"reg_tokens": 2},
        "average": {"class_token": False, "global_pool": "avg"},
        "layer_scale": {"init_values": 0.4},
    }
    return small_vit(**settings[request.param]).double()


@pytest.fixture(scope="module")
def plain_vit():
    return small_vit().double()


def disturb(adapted, size=0.3):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.trainable:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * noise)
    return adapted


def embed(module, images):
    return module.norm_pre(module._pos_embed(module.patch_embed(images)))


def head(adapted, module, tokens):
    return adapted.head(module.forward_head(module.norm(tokens), pre_logits=True))


def learned(adapted, name):
    return dict(adapted.run_parameters(0))[name]


def test_initial_bound_is_the_authors(plain_vit):
    layer = plain_vit.layers[1]
    assert patch_size(plain_vit, layer) == (8, 8)
    bound = (6 / (3 * 8 * 8 + 24)) ** 0.5
    assert prompt_bound(plain_vit, layer) == pytest.approx(bound)
    prompts = methods.VPT(tokens=50).attach(plain_vit, classes=2).edits_at(3)[0].prompt()
    assert 0.98 * bound < prompts.max() <= bound
    assert -0.98 * bound > prompts.min() >= -bound
    assert abs(prompts.mean()) < 0.05 * bound
    big = small_vit(img_size=32, patch_size=16, embed_dim=768, num_heads=12, depth=1)
    assert prompt_bound(big, big.layers[1]) == 0.0625


@pytest.mark.parametrize("deep", [False, True])
def test_vpt_by_hand(vit, images, deep):
    adapted = disturb(methods.VPT(tokens=3, deep=deep).attach(vit, classes=3)).eval()
    module, prefix = vit.module, vit.layers[1].prefix
    z = embed(module, images)
    for i, block in enumerate(module.blocks):
        if i == 0 or deep:
            prompts = adapted.edits_at(1 + i)[0].prompt()[0].expand(4, -1, -1)
            patches = z[:, prefix:] if i == 0 else z[:, prefix + 3 :]
            z = torch.cat([z[:, :prefix], prompts, patches], dim=1)
        z = block(z)
    z = torch.cat([z[:, :prefix], z[:, prefix + 3 :]], dim=1)
    assert torch.allclose(adapted(images), head(adapted, module, z))


@pytest.mark.parametrize("variant", ["release", "paper"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_vapt_by_hand(vit, images, variant, kernel):
    method = methods.VAPT(tokens=3, hidden=5, kernel=kernel, variant=variant)
    adapted = disturb(method.attach(vit, classes=3)).eval()
    module, prefix, width = vit.module, vit.layers[1].prefix, 24
    down = learned(adapted, "feature_projector.down")
    up = learned(adapted, "feature_projector.up")
    z = embed(module, images)
    for i, block in enumerate(module.blocks):
        tokens = z[:, prefix + (3 if i else 0) :]
        name = f"edits.{1 + i}.0"
        if i == 0 and variant == "release":
            prompts = learned(adapted, f"{name}.prompt").expand(4, -1, -1)
        else:
            x = tokens
            if variant == "release":
                gain, shift = learned(adapted, f"{name}.gain"), learned(adapted, f"{name}.shift")
                x = F.layer_norm(x, (width,), gain, shift, eps=1e-5)
            x = x.transpose(1, 2).reshape(4, width, 4, 4)
            one = learned(adapted, f"{name}.kernel")
            x = F.conv2d(x, one.expand(width, 1, kernel, kernel), groups=width)
            mix = learned(adapted, f"{name}.mix")
            u = torch.einsum("jhw,bchw->bjc", mix, x)
            if variant == "release":
                u = u + learned(adapted, f"{name}.bias")
            prompts = torch.relu(u @ down) @ up
            if variant == "release":
                prompts = u + prompts
        z = block(torch.cat([z[:, :prefix], prompts, tokens], dim=1))
    z = torch.cat([z[:, :prefix], z[:, prefix + 3 :]], dim=1)
    assert torch.allclose(adapted(images), head(adapted, module, z))


def test_vapt_starts_as_vpt_with_zeroed_deep_prompts(vit, images):
    vapt = methods.VAPT(tokens=4).attach(vit, classes=3, seed=1).eval()
    vpt = methods.VPT(tokens=4).attach(vit, classes=3, seed=2).eval()
    with torch.no_grad():
        for name, parameter in vpt.run_parameters(0):
            if name.startswith("edits.1."):
                parameter.copy_(learned(vapt, name))
            elif name.startswith("edits."):
                parameter.zero_()
            else:
                parameter.copy_(learned(vapt, name))
    assert torch.equal(vapt(images), vpt(images))
    z = vapt.net.run(images, stop=1)
    for place in range(1, 6):
        z = vapt.edits_at(place)[0](z)
        prefix = vit.layers[place].prefix
        assert bool(z[:, prefix : prefix + 4].any()) == (place == 1)
        z = vapt.net.run(z, start=place, stop=place + 1)


def test_vapt_paper_variant_learns_from_the_start(plain_vit, images):
    """Without the residual a zero start would give no gradient; this start does."""
    adapted = methods.VAPT(variant="paper").attach(plain_vit, classes=3)
    F.cross_entropy(adapted(images), torch.tensor([0, 1, 2, 1])).backward()
    assert all(parameter.grad.any() for _, parameter in adapted.run_parameters(0))


def test_prompt_dropout_acts_in_training_only(plain_vit, images):
    for method in (methods.VPT(tokens=4), methods.VAPT(tokens=4)):
        adapted = disturb(method.attach(plain_vit, classes=3))
        assert not torch.allclose(adapted(images), adapted(images))
        assert torch.equal(adapted.eval()(images), adapted(images))
    still = methods.VPT(tokens=4, deep=False).attach(plain_vit, classes=3).train()
    assert torch.equal(still(images), still(images))


def test_channel_dropout_keeps_or_drops_whole_channels():
    from aptheory.methods.per_run import RunDropout

    dropout = RunDropout(2, 0.3, whole_channels=True)
    dropout.reset(0, 1)
    dropout.reset(1, 1)
    out = dropout(torch.ones(6, 5, 200))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert torch.equal(out[:3], out[3:])  # the same seed, the same masks
    assert not torch.equal(out[0], out[1])
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.06)


def test_open_gates_are_shallow_vpt_and_closed_ones_keep_the_prompts(vit, images):
    shallow = methods.VPT(tokens=3, deep=False).attach(vit, classes=3, seed=1).eval()
    module, prefix = vit.module, vit.layers[1].prefix
    for start, text in ((60.0, "open"), (-60.0, "closed")):
        method = methods.GateVPT(tokens=3, start=start)
        gated = method.attach(vit, classes=3, seed=2).eval()
        with torch.no_grad():
            for name, parameter in shallow.run_parameters(0):
                learned(gated, name).copy_(parameter)
        if text == "open":
            assert torch.allclose(gated(images), shallow(images))
            continue
        prompts = learned(gated, "edits.1.0.prompt").expand(4, -1, -1)
        z = embed(module, images)
        for block in module.blocks:
            z = block(torch.cat([z[:, :prefix], prompts, z[:, prefix:]], dim=1))
            z = torch.cat([z[:, :prefix], z[:, prefix + 3 :]], dim=1)
        assert torch.allclose(gated(images), head(gated, module, z))
        assert not torch.allclose(gated(images), shallow(images))


def test_half_open_gate_averages(plain_vit, images):
    gated = methods.GateVPT(tokens=3, temperature=False).attach(plain_vit, classes=3).eval()
    z = gated.edits_at(1)[0](plain_vit.run(images, stop=1))
    before, after = z[:, 1:4], plain_vit.module.blocks[0](z)[:, 1:4]
    assert torch.allclose(gated.net.module.blocks[0](z)[:, 1:4], (before + after) / 2)


def test_temperature_divides_the_scores(plain_vit, images):
    gated = methods.GateVPT(tokens=3, start=60.0).attach(plain_vit, classes=3).eval()
    attention = gated.net.module.blocks[2].block.attn
    x = plain_vit.run(images, stop=3)
    with torch.no_grad():
        attention.q_norm.log_tau.values[0].fill_(0.7)
    slow = plain_vit.share().module.blocks[2].attn
    slow.fused_attn, slow.scale = False, slow.scale / torch.tensor(0.7).double().exp().item()
    assert torch.allclose(attention(x), slow(x))


def test_key_value_prompts_by_hand(vit, images):
    adapted = disturb(methods.E2VPT(tokens=2, extra=3).attach(vit, classes=3)).eval()
    own = adapted.net.module.blocks[1].attn
    frozen = vit.module.blocks[1].attn
    x = vit.run(images, stop=2)
    q, k, v = frozen.qkv(x).chunk(3, dim=-1)
    heads = []
    for h in range(3):
        part = slice(8 * h, 8 * h + 8)
        keys = torch.cat([k[..., part], own.keys.values[0][h].expand(4, -1, -1)], dim=1)
        values = torch.cat([v[..., part], own.values.values[0][h].expand(4, -1, -1)], dim=1)
        scores = q[..., part] @ keys.transpose(1, 2) / 8**0.5
        heads.append(scores.softmax(-1) @ values)
    assert torch.allclose(own(x), frozen.proj(torch.cat(heads, dim=-1)))


def test_importance_is_the_derivative_of_the_loss_with_respect_to_the_mask(plain_vit, images):
    adapted = disturb(methods.E2VPT(tokens=2, segments=4).attach(plain_vit, classes=3))
    labels = torch.tensor([0, 1, 2, 1])
    masks = [
        part.segment_mask.values[0]
        for part in adapted.modules()
        if isinstance(part, MaskedPromptTokens)
    ]
    importance = _importance(adapted, masks, [(images, labels)])
    adapted.eval()
    step = 1e-5
    expected = []
    with torch.no_grad():
        for mask in masks[:2]:
            for index in range(mask.numel()):
                flat = mask.view(-1)
                flat[index] += step
                up = F.cross_entropy(adapted(images), labels)
                flat[index] -= 2 * step
                down = F.cross_entropy(adapted(images), labels)
                flat[index] += step
                expected.append(((up - down) / (2 * step)).abs())
    assert torch.allclose(importance[: len(expected)], torch.stack(expected), rtol=1e-5, atol=1e-9)


def test_pruning_removes_the_least_important_and_rewinds(plain_vit, images, tmp_path):
    method = methods.E2VPT(tokens=4, segments=4, extra=1)
    adapted = method.attach(plain_vit, classes=3, seed=9)
    start = [parameter.clone() for parameter in adapted.trainable]
    full = adapted.count(head=False)
    disturb(adapted)
    batches = [(images, torch.tensor([0, 1, 2, 1]))]
    methods.prune(adapted, batches, keep_tokens=0.5, keep_segments=0.75)
    parts = [m for m in adapted.modules() if isinstance(m, MaskedPromptTokens)]
    kept = torch.cat([part.token_mask.values[0].flatten() for part in parts])
    assert kept.sum() == 10  # of 5 blocks with 4 tokens
    # A quarter of the 80 segments goes; those of pruned tokens have no influence and go first.
    assert full - adapted.count(head=False) == 10 * 24
    assert all(torch.equal(a, b) for a, b in zip(start, adapted.trainable, strict=True))
    ap.save(adapted, tmp_path / "pruned.safetensors")
    again = methods.attach_saved(plain_vit, tmp_path / "pruned.safetensors")
    assert torch.equal(again(images), adapted.eval()(images))
    assert again.count() == adapted.count()
    with torch.no_grad():  # a pruned token's value does not matter
        part = next(p for p in parts if not p.token_mask.values[0].all())
        before = adapted(images)
        part.prompt.values[0][part.token_mask.values[0][:, 0] == 0] += 5
        assert torch.equal(adapted(images), before)


def test_blocks_behind_one_place_are_refused_where_each_is_prompted():
    import aptheory as ap

    merged = ap.load(
        small_vit().module, name="merged", granularity="stage", input_shape=(3, 32, 32)
    )
    for method in (methods.VPT(), methods.VAPT(), methods.GateVPT(), methods.E2VPT()):
        with pytest.raises(InputError, match="granularity='block'"):
            method.attach(merged, classes=3)
    assert methods.VPT(deep=False).attach(merged, classes=3).count(head=False) == 10 * 24


def test_prune_checks_its_arguments(plain_vit, images):
    batches = [(images, torch.tensor([0, 1, 2, 1]))]
    with pytest.raises(InputError, match="one run of e2vpt"):
        methods.prune(methods.VPT().attach(plain_vit, classes=3), batches, keep_tokens=0.5)
    adapted = methods.E2VPT().attach(plain_vit, classes=3)
    with pytest.raises(InputError, match="fractions"):
        methods.prune(adapted, batches, keep_tokens=0.0)
    with pytest.raises(InputError, match="at least one batch"):
        methods.prune(adapted, [], keep_tokens=0.5)


def test_rotary_attention_leaves_prompts_unrotated(images):
    """Prompts count as prefix tokens, so the patches keep their own angles."""
    import timm

    import aptheory as ap

    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model("eva02_tiny_patch14_224", num_classes=4, **size).double()
    net = ap.load(module, input_shape=(3, 32, 32), name="small_eva")
    adapted = disturb(methods.VPT(tokens=3, deep=False).attach(net, classes=3)).eval()
    with torch.no_grad():
        # A prompt whose keys are very negative for all queries would vanish; instead compare with
        # the frozen network on a sequence in which the prompts are given as its own prefix tokens.
        z = net.run(images, stop=1)
        prompts = adapted.edits_at(1)[0].prompt()[0].expand(4, -1, -1)
        longer = torch.cat([z[:, :1], prompts, z[:, 1:]], dim=1)
        own = net.share()
        for block in own.module.blocks:
            block.attn.num_prefix_tokens = 4
        longer = own.run(longer, start=1, stop=3)
        expected = torch.cat([longer[:, :1], longer[:, 4:]], dim=1)
        got = adapted.net.run(adapted.edits_at(1)[0](z), start=1, stop=3)
        assert torch.allclose(adapted.edits_at(3)[0](got), expected)
    assert net.module.blocks[0].attn.num_prefix_tokens == 1

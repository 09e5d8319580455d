"""VQT: learned queries that ask every block, against the same written out token by token."""

import pytest
import timm
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory import InputError, methods
from aptheory.networks.fast_path import fast_path_off
from aptheory.training.cost import count_operations, piece_operations, predict
from tests import quarters
from tests.encoders import encoder
from tests.small_networks import small_resnet, small_vit

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def vit(**settings) -> ap.Network:
    return small_vit(**settings).double()


def answers_by_hand(block, z, queries):
    """Each query's answer of one block for one image, head by head: loops and exponentials."""
    attention = block.attn
    heads, width = attention.num_heads, attention.head_dim
    inner = heads * width
    weight, bias = attention.qkv.weight, attention.qkv.bias
    tokens, asking = block.norm1(z), block.norm1(queries)
    given = []
    for p, u in zip(queries, asking, strict=True):
        mixed = []
        for h in range(heads):
            rows = slice(h * width, (h + 1) * width)
            q = attention.q_norm(weight[:inner][rows] @ u + bias[:inner][rows])
            scores, values = [], []
            for token in tokens:
                k = weight[inner : 2 * inner][rows] @ token + bias[inner : 2 * inner][rows]
                scores.append(q @ attention.k_norm(k) / width**0.5)
                values.append(weight[2 * inner :][rows] @ token + bias[2 * inner :][rows])
            shares = torch.stack([score.exp() for score in scores])
            shares = shares / shares.sum()
            mixed.append(sum(a * v for a, v in zip(shares, values, strict=True)))
        p = p + block.ls1(attention.proj(attention.norm(torch.cat(mixed))))
        given.append(p + block.ls2(block.mlp(block.norm2(p))))
    return torch.cat(given)


@pytest.mark.parametrize(
    "settings", [{}, {"init_values": 0.3}, {"qk_norm": True}], ids=["plain", "scaled", "qk_norm"]
)
@torch.no_grad()
def test_the_head_reads_every_blocks_answers_and_the_final_feature(settings):
    net = vit(**settings)
    adapted = methods.VQT(tokens=2).attach(net, classes=3).eval()
    x = IMAGES.double()
    rows = []
    for image in x:
        parts, z = [net.run(image[None], stop=-1)[0]], net.run(image[None], stop=1)
        for i, block in enumerate(net.module.blocks):
            queries = adapted.net.module.blocks[i].queries.values[0]
            parts.append(answers_by_hand(block, z[0], queries))
            z = block(z)
        rows.append(torch.cat(parts))
    found = adapted.features(net.run(x, stop=1))
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-10, atol=1e-12)
    assert adapted.first_layer == 1
    assert found.shape[1] == 24 + 5 * 2 * 24


@pytest.mark.parametrize("kind", ["vit", "torchvision", "encoder", "asking"])
def test_no_token_sees_a_query_and_no_gradient_enters_the_network(kind):
    net = small_vit() if kind == "vit" else encoder(kind)
    adapted = methods.VQT(tokens=2).attach(net, classes=3).eval()
    features = adapted.features(net.run(IMAGES, stop=adapted.first_layer))
    final = net.run(IMAGES, stop=-1).flatten(1)
    torch.testing.assert_close(features[:, : final.shape[1]], final)
    with fast_path_off():
        for layer, z in adapted.net.walk(IMAGES, stops=range(len(net.layers))):
            assert not z.requires_grad, layer
    features.square().sum().backward()
    queries = [p for n, p in adapted.run_parameters(0) if not n.startswith("head.")]
    assert len(queries) == len(net.module.blocks if kind in ("vit", "asking") else net.block_layers)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in queries)


def test_torchs_attention_answers_as_with_the_queries_in_its_place():
    """One block of torch's: asked with the tokens themselves, it answers as it always does."""
    net = encoder("torchvision")
    adapted = methods.VQT(tokens=17).attach(net, classes=3).eval()
    z = net.run(IMAGES[:1], stop=1)
    block = adapted.net.module.get_submodule("encoder.layers.encoder_layer_0")
    with torch.no_grad():
        block.queries.values[0].copy_(z[0])
    out = block(z)
    torch.testing.assert_close(adapted.summaries.given[-1], out.flatten(1), rtol=1e-4, atol=1e-5)


def test_read_earlier_only_the_blocks_before_are_asked():
    net = small_vit()
    adapted = methods.VQT(read=3).attach(net, classes=3)
    assert adapted.count(head=False) == 2 * 24
    assert adapted.head.shift.shape[1] == 24 + 2 * 24
    with pytest.raises(InputError, match="none with attention lies before place 1"):
        methods.VQT(read=1).attach(net, classes=3)


def test_an_interrupted_pass_leaves_nothing_behind():
    """What was answered before an error, as when memory runs out, is not read by the next pass."""
    net = small_vit()
    adapted = methods.VQT().attach(net, classes=3).eval()
    expected = adapted(IMAGES)

    def fail(*_):
        raise RuntimeError("out of memory")

    mlp = adapted.net.module.get_submodule("blocks.2.block.mlp")
    handle = mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        adapted(IMAGES)
    handle.remove()
    assert torch.equal(adapted(IMAGES), expected)


def test_the_head_starts_as_a_probe_of_what_it_reads():
    net, task = quarters.small_vit(), quarters.small_task()
    recipe = ap.Recipe(epochs=1, lr=1e-9)
    runs = [ap.Run(seed=seed) for seed in (0, 1)]
    method = methods.VQT(tokens=2)
    together = ap.fit_many(method, net, task, runs=runs, recipe=recipe, keep_models=True)
    probe = ap.fit_many(methods.LinearProbe(), net, task, runs=runs[:1], recipe=recipe)
    for run, outcome in zip(runs, together, strict=True):
        (alone,) = ap.fit_many(method, net, task, runs=[run], recipe=recipe)
        assert alone.val_loss == pytest.approx(outcome.val_loss, rel=1e-3)
        head = outcome.adapted.head
        assert head.scale.shape == (1, 24 + 3 * 2 * 24)
        assert outcome.curve[0]["train_loss"] < probe[0].curve[0]["train_loss"]
    heads = [outcome.adapted.head.shift for outcome in together]
    assert torch.equal(heads[0][:, :24], heads[1][:, :24])
    assert not torch.equal(heads[0][:, 24:], heads[1][:, 24:])  # each run asks its own


def test_a_selecting_head_keeps_the_chosen_answers_and_comes_back(tmp_path):
    net, task = quarters.small_vit(), quarters.small_task()
    method = methods.parse("vqt:tokens=2,select=0.1")
    assert method.settings()["select"] == 0.1
    assert "select" not in methods.VQT(tokens=2).settings()
    adapted = method.attach(net, classes=4)
    before = adapted.head.scale.shape[1]
    ap.fit(adapted, task, recipe=quarters.RECIPE)
    kept = adapted.head.scale[0].isfinite()
    assert len(kept) == before == 24 + 3 * 2 * 24
    assert 0 < kept.sum() <= round(0.1 * len(kept))
    assert kept[24:].any()  # answers among them
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ap.save(adapted, tmp_path / "one.safetensors")
    assert torch.equal(ap.attach_saved(net, tmp_path / "one.safetensors")(x), adapted.eval()(x))
    with pytest.raises(InputError, match="share of features"):
        methods.VQT(select=0.0)


def test_a_step_costs_about_what_is_predicted():
    net = small_vit(embed_dim=48, depth=4)
    adapted = methods.VQT(tokens=4).attach(net, classes=3)
    x = IMAGES[:1]

    def step():
        F.cross_entropy(adapted(x), torch.tensor([1])).backward()

    counted, predicted = count_operations(step), predict(adapted, piece_operations(net))
    assert predicted.step == pytest.approx(counted, rel=0.1)
    prompts = predict(methods.VPT(tokens=4).attach(net, classes=3), piece_operations(net))
    assert predicted.step_from_kept < 0.8 * prompts.step_from_kept


def small(name: str, size: int = 64, **settings) -> ap.Network:
    return ap.load(timm.create_model(name, **settings), input_shape=(3, size, size), name=name)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (small_resnet, "shows none; choose a vision transformer"),
        (
            lambda: small(
                "swin_tiny_patch4_window7_224",
                **{"img_size": 64, "embed_dim": 12, "window_size": 4},
                **{"depths": (1, 1), "num_heads": (1, 2)},
            ),
            "attends within windows",
        ),
        (
            lambda: small(
                "beit_base_patch16_224", 32, img_size=32, embed_dim=24, depth=2, num_heads=3
            ),
            "only timm's Attention and torch's MultiheadAttention",
        ),
        (lambda: encoder("tokens first"), "samples on axis 1"),
        (lambda: small_vit_in_stages(), "granularity='block'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(load, reason):
    with pytest.raises(InputError) as error:
        methods.VQT.default(load())
    assert reason in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def small_vit_in_stages() -> ap.Network:
    module = small_vit().module
    return ap.load(module, input_shape=(3, 32, 32), granularity="stage")

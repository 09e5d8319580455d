"""Weights as training scripts leave them: the same tensors reach the module, or a true refusal."""

import argparse
import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import aptheory as ap
from aptheory.networks.fitting import load_weights
from tests.small_networks import small_resnet, small_vit


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return small_vit(depth=2).module


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return small_resnet().module


def blank(module: nn.Module) -> nn.Module:
    """The same architecture with every parameter 0.1."""
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        nn.init.constant_(parameter, 0.1)
    return twin


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def other(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in state.items()}


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def without_head(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("head")}


MLP = {"head.mlp.0.weight": torch.ones(3, 24), "head.last_layer.weight_g": torch.ones(3, 1)}
FORMS = {
    "bare": lambda s: s,
    "wrapped": lambda s: {"state_dict": under("module.", s), "epoch": 3},
    "compiled": lambda s: {"model_state_dict": under("module._orig_mod.", s)},
    "compiled first": lambda s: under("_orig_mod.module.", s),
    "ema": lambda s: {"state_dict": other(s), "state_dict_ema": s},
    "timm's other ema": lambda s: {"model": other(s), "model_ema": s, "args": argparse.Namespace()},
    "dino": lambda s: {
        "student": under("module.backbone.", other(s)),
        "teacher": under("backbone.", s) | MLP,
        "args": argparse.Namespace(arch="vit_tiny", lr=np.float64(0.1)),
        "dino_loss": {"center": torch.zeros(1, 3)},
    },
    "moco": lambda s: {
        "state_dict": under("module.encoder_k.", other(s))
        | under("module.encoder_q.", s)
        | {"module.queue": torch.zeros(3, 4)}
    },
    "moco v3": lambda s: {
        "state_dict": under("module.momentum_encoder.", other(s))
        | under("module.base_encoder.", s)
        | {"module.predictor.0.weight": torch.zeros(3, 3)},
        "best": np.float32(71.5),
    },
    "mae": lambda s: {
        "model": s
        | {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
        | {"decoder_pos_embed": torch.zeros(1, 17, 8)},
        "args": argparse.Namespace(),
        "scaler": {},
    },
    "lightning": lambda s: {
        "state_dict": under("model.", s) | {"criterion.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 1e-3},
        "optimizer_states": [{"state": {}}],
    },
    "backbone": lambda s: under("backbone.", s) | {"neck_head.weight": torch.ones(2)},
    "deep": lambda s: under("model.encoder.backbone.", s),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_training_scripts_wrap_is_unwrapped(vit, tmp_path, form):
    state = state_of(vit)
    torch.save(FORMS[form](state), tmp_path / "w.pth")
    module = blank(vit)
    load_weights(module, tmp_path / "w.pth", "vit")
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("ema", "the averaged (EMA) weights, state_dict_ema was taken"),
        ("dino", "of the file's teacher and student, teacher was taken"),
        ("moco v3", "taken under module.base_encoder., not under module.momentum_encoder."),
        ("mae", "left in the file: decoder_blocks, decoder_pos_embed, mask_token"),
        ("backbone", "weights taken under backbone.; left in the file: neck_head"),
    ],
)
def test_what_was_taken_is_said(vit, tmp_path, form, words):
    torch.save(FORMS[form](state_of(vit)), tmp_path / "w.pth")
    assert words in "; ".join(load_weights(blank(vit), tmp_path / "w.pth", "vit").notes)


def test_the_choice_is_timms(vit, tmp_path):
    from timm.models import load_checkpoint

    state = state_of(vit)
    file = {"state_dict": under("module.", other(state)), "state_dict_ema": under("module.", state)}
    torch.save(file, tmp_path / "w.pth")
    theirs, ours = blank(vit), blank(vit)
    load_checkpoint(theirs, str(tmp_path / "w.pth"))
    load_weights(ours, tmp_path / "w.pth", "vit")
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])


def test_a_wrapper_takes_the_file_of_what_it_wraps(vit, tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = blank(vit), nn.Linear(24, 5)
            self.backbone.head = nn.Identity()

        def forward(self, x):
            return self.head(self.backbone(x))

    torch.save({"model": state_of(vit)}, tmp_path / "w.pth")
    net = ap.load(Wrapped(), tmp_path / "w.pth", input_shape=(3, 32, 32))
    assert torch.equal(net.module.backbone.norm.weight, vit.norm.weight)
    assert "head" in " ".join(net.notes)
    again = ap.load(Wrapped(), tmp_path / "w.pth", input_shape=(3, 32, 32))
    assert again.digest == net.digest  # what stands for the classifier is the same each time


@pytest.mark.parametrize(
    "change",
    [
        without_head,
        lambda s: s | {"head.weight": torch.ones(7, 24), "head.bias": torch.ones(7)},
        lambda s: without_head(s) | MLP,
    ],
    ids=["missing", "of other classes", "a projector"],
)
def test_a_classifier_that_is_never_used_may_be_missing(vit, tmp_path, change):
    save_file(change(state_of(vit)), tmp_path / "w.safetensors")
    net = ap.load(blank(vit), tmp_path / "w.safetensors", input_shape=(3, 32, 32))
    reference = ap.load(copy.deepcopy(vit), None, input_shape=(3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net.run(x, stop=-1), reference.run(x, stop=-1))
    assert "the file has no classifier that fits (head)" in repr(net)


def test_a_surplus_classifier_stays_in_the_file(vit, resnet, tmp_path):
    for module, name in ((vit, "head"), (resnet, "fc")):
        torch.save(state_of(module), tmp_path / "w.pth")
        headless = blank(module)
        setattr(headless, name, nn.Identity())
        notes = load_weights(headless, tmp_path / "w.pth", "net").notes
        assert notes == (f"left in the file: {name}",)


def test_buffers_that_can_be_made_again_may_be_missing(resnet, tmp_path):
    state = state_of(resnet)
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "w.pth")
    load_weights(blank(resnet), tmp_path / "w.pth", "resnet")
    torch.save({k: v for k, v in state.items() if "running_var" not in k}, tmp_path / "w.pth")
    with pytest.raises(ap.InputError, match=r"missing bn1\.running_var"):
        load_weights(blank(resnet), tmp_path / "w.pth", "resnet")


def test_position_embeddings_are_resampled_as_timm_does(vit, tmp_path):
    from timm.layers import resample_abs_pos_embed

    torch.save({"model": under("module.", state_of(vit))}, tmp_path / "w.pth")
    size = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    larger = blank(timm.create_model("vit_tiny_patch16_224", num_classes=10, **size))
    notes = load_weights(larger, tmp_path / "w.pth", "vit").notes
    expected = resample_abs_pos_embed(vit.pos_embed.detach(), [8, 8], num_prefix_tokens=1)
    assert torch.equal(larger.pos_embed, expected)
    assert "pos_embed resampled from (1, 17, 24) to (1, 65, 24)" in notes
    plain = nn.Module()
    plain.encoder = nn.Module()
    plain.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 65, 24))
    plain.encoder.norm = nn.LayerNorm(24)
    save_file(
        {
            "encoder.pos_embedding": vit.pos_embed.detach().clone(),
            "encoder.norm.weight": torch.ones(24),
            "encoder.norm.bias": torch.ones(24),
        },
        tmp_path / "w.safetensors",
    )
    load_weights(plain, tmp_path / "w.safetensors", "own")  # a module that timm does not know
    assert torch.equal(plain.encoder.pos_embedding, expected)


def googles(vit: nn.Module) -> dict[str, np.ndarray]:
    """A ViT's tensors under Google's names, laid out as flax lays them."""
    width, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    made = {
        "embedding/kernel": vit.patch_embed.proj.weight.permute(2, 3, 1, 0),
        "embedding/bias": vit.patch_embed.proj.bias,
        "cls": vit.cls_token,
        "Transformer/posembed_input/pos_embedding": vit.pos_embed,
        "Transformer/encoder_norm/scale": vit.norm.weight,
        "Transformer/encoder_norm/bias": vit.norm.bias,
        "head/kernel": vit.head.weight.T,
        "head/bias": vit.head.bias,
    }
    for number, block in enumerate(vit.blocks):
        at = f"Transformer/encoderblock_{number}"
        attention = f"{at}/MultiHeadDotProductAttention_1"
        weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            made[f"{attention}/{name}/kernel"] = weight.T.reshape(width, heads, -1)
            made[f"{attention}/{name}/bias"] = bias.reshape(heads, -1)
        made[f"{attention}/out/kernel"] = block.attn.proj.weight.T.reshape(heads, -1, width)
        made[f"{attention}/out/bias"] = block.attn.proj.bias
        for name, norm in (("LayerNorm_0", block.norm1), ("LayerNorm_2", block.norm2)):
            made[f"{at}/{name}/scale"], made[f"{at}/{name}/bias"] = norm.weight, norm.bias
        for name, dense in (("Dense_0", block.mlp.fc1), ("Dense_1", block.mlp.fc2)):
            made[f"{at}/MlpBlock_3/{name}/kernel"] = dense.weight.T
            made[f"{at}/MlpBlock_3/{name}/bias"] = dense.bias
    return {key: value.detach().numpy() for key, value in made.items()}


def test_googles_arrays_are_read(vit, resnet, tmp_path):
    np.savez(tmp_path / "ViT.npz", **googles(vit))
    module = blank(vit)
    fitted = load_weights(module, tmp_path / "ViT.npz", "vit")
    assert fitted.unset == ()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(module.eval()(x), copy.deepcopy(vit).eval()(x), atol=1e-6)
    with pytest.raises(ap.InputError, match="and resnet is none of them"):
        load_weights(blank(nn.Sequential(nn.Linear(2, 2))), tmp_path / "ViT.npz", "resnet")
    partial = {key: value for key, value in googles(vit).items() if "encoderblock_1" not in key}
    np.savez(tmp_path / "part.npz", **partial)
    module = blank(vit)
    with pytest.raises(ap.InputError, match="Google's arrays of another network than vit"):
        load_weights(module, tmp_path / "part.npz", "vit")
    assert module.norm.weight.eq(0.1).all()  # a refusal leaves the module as it was


def test_the_content_tells_what_a_file_is(vit, tmp_path):
    state = state_of(vit)
    save_file(state, tmp_path / "a.bin")
    torch.save(state, tmp_path / "b.safetensors")
    np.savez(tmp_path / "c.npz", **{key: value.numpy() for key, value in state.items()})
    for file in ("a.bin", "b.safetensors", "c.npz"):
        module = blank(vit)
        load_weights(module, tmp_path / file, "vit")
        assert torch.equal(module.pos_embed, vit.pos_embed)


@pytest.mark.parametrize("around", [("checkpoint", "net"), ("weights",), ("model", "vit")])
def test_a_state_dict_is_found_under_any_name(vit, tmp_path, around):
    content = {"optimizer": {"state": {"momentum": torch.zeros(3)}}, "epoch": 3}
    inner = state_of(vit)
    for name in reversed(around):
        inner = {name: inner}
    torch.save(content | inner, tmp_path / "w.pth")
    module = blank(vit)
    fitted = load_weights(module, tmp_path / "w.pth", "vit")
    assert any("were found under" in note for note in fitted.notes)
    assert torch.equal(module.pos_embed, vit.pos_embed)


class TestRefusals:
    def test_several_state_dicts_are_asked_about(self, vit, tmp_path):
        torch.save({"best": state_of(vit), "last": state_of(vit)}, tmp_path / "w.pth")
        with pytest.raises(ap.InputError, match=r"several state dicts \(best, last\)"):
            load_weights(blank(vit), tmp_path / "w.pth", "vit")

    @pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
    def test_numbers_of_another_kind(self, vit, tmp_path, kind):
        state = state_of(vit)
        torch.save(state | {"norm.weight": state["norm.weight"].to(kind)}, tmp_path / "w.pth")
        with pytest.raises(
            ap.InputError, match="holds norm.weight as .*save the weights as float32"
        ):
            load_weights(blank(vit), tmp_path / "w.pth", "vit")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
            (b"<!DOCTYPE html><html>", "neither a safetensors, nor an npz"),
            (b"PK\x03\x04" + b"0" * 99, "its end is missing"),
        ],
    )
    def test_files_that_were_not_fetched(self, vit, tmp_path, content, reason):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(ap.InputError, match=reason):
            load_weights(blank(vit), tmp_path / "w.pth", "vit")

    def test_a_linear_map_that_the_features_need(self, vit, tmp_path):
        state = {k: v for k, v in state_of(vit).items() if not k.startswith("blocks.1.mlp.fc2")}
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ap.InputError, match=r"missing blocks\.1\.mlp\.fc2\.bias"):
            ap.load(blank(vit), tmp_path / "w.pth", input_shape=(3, 32, 32))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"blocks.2.norm1.weight": torch.ones(24)}, "unexpected blocks.2.norm1.weight"),
            ({"norm_pre.weight": torch.ones(24)}, "unexpected norm_pre.weight"),
            ({"reg_token": torch.ones(1, 4, 24)}, "unexpected reg_token"),
            ({"norm.weight": torch.ones(25)}, r"norm.weight is \(25,\) instead of \(24,\)"),
        ],
    )
    def test_what_another_architecture_has(self, vit, tmp_path, change, words):
        torch.save(state_of(vit) | change, tmp_path / "w.pth")
        with pytest.raises(ap.InputError, match=f"does not fit vit: {words}"):
            load_weights(blank(vit), tmp_path / "w.pth", "vit")

    def test_other_names_are_told_with_the_nearest(self, vit, tmp_path):
        renamed = {key.replace("blocks.", "layers_"): v for key, v in state_of(vit).items()}
        torch.save(renamed, tmp_path / "w.pth")
        with pytest.raises(ap.InputError) as error:
            load_weights(blank(vit), tmp_path / "w.pth", "vit")
        assert "blocks.0.norm1.weight is nearest to layers_0.norm1.weight" in str(error.value)
        assert "\n" not in str(error.value)

    def test_nothing_is_executed(self, vit, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "executed"), "w"))

        for content in (Evil(), {"model": state_of(vit), "args": Evil()}):
            with (tmp_path / "w.pth").open("wb") as file:
                pickle.dump(content, file)
            with pytest.raises(ap.InputError, match="cannot be read as weights"):
                load_weights(blank(vit), tmp_path / "w.pth", "vit")
            torch.save(content, tmp_path / "w.pth") if isinstance(content, dict) else None
            with pytest.raises(ap.InputError, match="cannot be read as weights"):
                load_weights(blank(vit), tmp_path / "w.pth", "vit")
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize(
        "content", [b"", b"PK\x03\x04", b"\x08\0\0\0\0\0\0\0{broken}", b"a" * 99]
    )
    def test_what_is_no_file_of_weights(self, vit, tmp_path, content):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(ap.InputError, match="cannot be read as weights") as error:
            load_weights(blank(vit), tmp_path / "w.pth", "vit")
        assert "\n" not in str(error.value)


def test_real_weights_without_their_classifier(assets):
    net = ap.load("mobilenetv2_035", assets / "mobilenetv2_035.safetensors")
    assert "no classifier that fits (classifier)" in " ".join(net.notes)
    module = timm.create_model("mobilenetv2_035", num_classes=0)
    load_weights(module, assets / "mobilenetv2_035.safetensors", "mobilenetv2_035")
    assert torch.equal(module.bn2.weight, net.module.bn2.weight)


def test_a_file_that_is_far_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse.safetensors"
    with open(path, "wb") as file:
        file.truncate(2**31)
    with pytest.raises(ap.InputError, match="has 2,147 MB and the weights of aptheory_vit_mini"):
        ap.load("aptheory_vit_mini", path)

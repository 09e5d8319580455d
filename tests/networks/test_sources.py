"""Networks by name, from whoever publishes them; without a connection, one sentence at once."""

import time
import types

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import aptheory as ap
from aptheory import hub
from aptheory.errors import InputError
from aptheory.networks.configuration import (
    _crop,
    _from_preprocessor,
    configuration,
    torchvisions,
    transform_for,
)
from aptheory.networks.sources import build, list_networks
from aptheory.preprocessing import fit_picture


def whole(net: ap.Network) -> bool:
    """Whether running in two pieces from the middle is running the module, bit for bit."""
    x = torch.rand(2, *net.input_shape)
    middle = len(net.layers) // 2
    with torch.no_grad():
        return torch.equal(net.run(net.run(x, stop=middle), start=middle), net.module(x))


class TestTorchvision:
    @pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "swin_v2_t"])
    def test_preprocessing_is_its_own(self, name):
        from torchvision import models

        weights = models.get_model_weights(name).DEFAULT
        values = torchvisions(weights)
        to = transform_for(values, values["input_size"], {})
        for size in ((300, 401), (200, 150)):
            pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels)
            ours = torch.from_numpy(np.array(fit_picture(picture, to))).permute(2, 0, 1) / 255
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (to.mean, to.std))
            assert torch.allclose((ours - mean) / std, weights.transforms()(picture), atol=1e-6)

    def test_is_built_without_the_internet(self):
        net = ap.load("torchvision:squeezenet1_1", None, input_shape=(3, 64, 64))
        assert whole(net)
        assert "torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1" in repr(net)

    def test_unknown_names(self):
        with pytest.raises(ap.InputError, match="near ones are torchvision:resnet18"):
            build("torchvision:resnet81", None, None, {})
        with pytest.raises(ap.InputError, match=r"no weights 'V9' of resnet50: it has IMAGENET1K"):
            build("torchvision:resnet50.V9", None, None, {})


SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}


class TestHuggingFace:
    def test_the_tensor_is_taken_out(self):
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        net = ap.load("transformers:vit", None, input_shape=(3, 32, 32), **SMALL)
        assert whole(net)
        model = transformers.ViTModel(net.module.backbone.config).eval()
        model.load_state_dict(net.module.backbone.state_dict())
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(net(x), model(x).pooler_output, atol=1e-6)
        assert net.mean == (0.5, 0.5, 0.5)
        assert "as Hugging Face's vit networks are published" in repr(net)

    def test_local_weights_and_the_file_beside_them(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(**SMALL)
        transformers.ViTModel(config).save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(
            '{"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32},'
            '"resample": 3, "do_center_crop": true, "image_mean": [0.1, 0.2, 0.3],'
            '"image_std": [0.4, 0.5, 0.6]}'
        )
        module = build(f"transformers:{tmp_path}", "pretrained", None, {})
        values = configuration(module)
        assert values["input_size"] == (3, 32, 32)
        assert (values["mean"], values["std"]) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert (values["resize"], values["crop"]) == ("center", 0.8)
        assert values["interpolation"] == "bicubic"

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("facebook/dinov2-small", ("center", 256, "bicubic", 0.485)),
            ("openai/clip-vit-base-patch32", ("center", 224, "bicubic", 0.48145466)),
            ("google/siglip-base-patch16-224", ("squash", 224, "bicubic", 0.5)),
            ("microsoft/swin-tiny-patch4-window7-224", ("squash", 224, "bicubic", 0.485)),
        ],
    )
    def test_what_each_kind_is_published_with(self, name, expected):
        pytest.importorskip("transformers")
        fewer = {} if "swin" in name else {"num_hidden_layers": 1}
        values = configuration(build(f"transformers:{name}", None, None, fewer))
        to = transform_for(values, values["input_size"], {})
        assert (to.resize, to.scaled((256, 256))[0], to.interpolation, to.mean[0]) == expected

    def test_convnexts_file(self):
        values = _from_preprocessor(
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}
            | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        )
        assert (values["input_size"], values["crop"]) == ((3, 224, 224), 0.875)

    def test_a_kind_is_no_weights(self):
        pytest.importorskip("transformers")
        with pytest.raises(ap.InputError, match="'dinov2' is a kind of model, not weights"):
            build("transformers:dinov2", "pretrained", None, {})


def test_open_clips_image_tower():
    open_clip = pytest.importorskip("open_clip")
    module = build("open_clip:ViT-S-32", None, None, {})
    values = configuration(module)
    assert values["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert (values["resize"], values["interpolation"]) == ("center", "bicubic")
    with pytest.raises(ap.InputError, match="near ones are open_clip:ViT-B-32"):
        build("open_clip:ViT-B32", None, None, {})
    with pytest.raises(ap.InputError, match="no pretrained weights 'mine' of ViT-B-32: it has"):
        build("open_clip:ViT-B-32.mine", "pretrained", None, {})


def test_a_tower_gives_what_it_pools_without_its_tokens(monkeypatch):
    """CoCa's gives both: (pooled, tokens for the decoder of text)."""
    open_clip = pytest.importorskip("open_clip")
    sizes = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "heads": 2}
    tower = open_clip.transformer.VisionTransformer(
        **sizes, mlp_ratio=2.0, output_dim=8, output_tokens=True
    )
    pooled, _ = tower.eval()(torch.ones(1, 3, 32, 32))
    monkeypatch.setattr(
        open_clip, "create_model", lambda *_, **__: types.SimpleNamespace(visual=tower)
    )
    assert torch.equal(
        build("open_clip:coca_ViT-B-32", None, None, {})(torch.ones(1, 3, 32, 32)), pooled
    )


def test_the_side_of_the_scaled_picture_is_the_published_one():
    import math

    for side in (224, 384, 456):
        for scaled in range(side, side + 100):
            assert math.floor(side / _crop(side, scaled)) == scaled


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet10t.c3_in1k", "resnet10t.c3_in1k"])
def test_every_name_that_timm_takes(name):
    assert isinstance(build(name, None, None, {}), timm.models.ResNet)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A hub that no connection reaches, and counts how often it is asked."""
    asked = []
    hub.reachable.cache_clear()

    def refuse(address, timeout):
        asked.append(address)
        raise OSError("no route")

    monkeypatch.setattr(hub.socket, "create_connection", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    yield asked
    hub.reachable.cache_clear()


@pytest.mark.parametrize(
    ("name", "bring"),
    [
        ("resnet18", "hf download timm/resnet18.a1_in1k"),
        ("hf-hub:nobody/nothing", "hf download nobody/nothing"),
        ("transformers:nobody/nothing", "hf download nobody/nothing"),
        ("open_clip:ViT-S-32", None),
    ],
)
def test_a_missing_weight_is_one_sentence_at_once(offline, name, bring):
    if bring is None:
        pytest.importorskip("open_clip")
    start = time.monotonic()
    with pytest.raises(ap.InputError) as error:
        build(name, "pretrained", None, {})
    # A second on a quiet machine; with the hub's own retries it takes most of a minute.
    assert time.monotonic() - start < 15 or bring is None
    assert "\n" not in str(error.value)
    if bring:
        assert "there is no connection, and they are not in the cache" in str(error.value)
        assert f"fetch it where there is one ({bring})" in str(error.value)
        assert len(offline) == 1


@pytest.mark.parametrize("name", ["mine:resnet18", "dino/vits16", "resnet1"])
def test_names_of_nobody(name):
    with pytest.raises(ap.InputError) as error:
        build(name, None, None, {})
    assert (
        "aptheory networks" in str(error.value)
        or "near ones are" in str(error.value)
        or ("names begin with torchvision:, open_clip:, transformers:" in str(error.value))
    )


@pytest.mark.parametrize("option", [{"pretrained": False}, {"checkpoint_path": "file.pth"}])
@pytest.mark.parametrize("name", ["resnet10t", "torchvision:resnet18"])
def test_weights_are_said_in_one_way(name, option):
    with pytest.raises(InputError, match=r"is said with weights= here: .* None for random ones"):
        ap.load(name, **option)


def test_networks_are_listed():
    table = list_networks("*resnet18")
    assert {"resnet18", "torchvision:resnet18"} <= set(table["name"])
    assert list(table.columns) == ["name", "source", "pretrained"]
    assert set(list_networks("aptheory")["source"]) == {"aptheory"}
    assert set(list_networks("torchvision:")["source"]) == {"torchvision"}
    assert "torchvision:resnet18" in set(list_networks("resnet1?")["name"])
    assert len(list_networks("no such network")) == 0


@pytest.mark.parametrize("options", [{"depth": -1}, {"embed_dim": 0}])
def test_options_at_fault_are_not_the_connections(offline, options):
    with pytest.raises(ap.InputError, match="change these arguments"):
        build("aptheory_vit_mini", "pretrained", None, options)


@pytest.mark.parametrize("weights", ["pretrained", None])
def test_a_tag_that_timm_has_not_is_told_with_those_that_it_has(weights):
    with pytest.raises(ap.InputError, match=r"no weights 'nope' of resnet18: it has a1_in1k, "):
        build("resnet18.nope", weights, None, {})
    with pytest.raises(ap.InputError, match="no weights '' of resnet18: it has a1_in1k, "):
        build("resnet18.", weights, None, {})
    with pytest.raises(ap.InputError, match="of aptheory_vit_mini: it has none at all"):
        build("aptheory_vit_mini.v2", weights, None, {})


@pytest.mark.parametrize("source", ["torchvision", "open_clip", "transformers", "hf-hub"])
@pytest.mark.parametrize("rest", ["", " ", "/"])
def test_a_source_without_a_network_is_told(source, rest):
    with pytest.raises(ap.InputError, match=f"write one behind the colon .{source}:NAME"):
        build(f"{source}:{rest}", "pretrained", None, {})


@pytest.mark.parametrize("name", ["transformers:nope/nope", "local-dir:{folder}"])
def test_random_weights_are_no_remedy_where_they_were_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.setattr("aptheory.networks.sources.hub_reachable", lambda: False)
    with pytest.raises(ap.InputError) as refused:
        build(name.format(folder=tmp_path), None, None, {})
    assert "take random ones" not in str(refused.value)
    assert "choose a network that is described here" in str(refused.value)


@pytest.mark.parametrize("name", ["facebook/dinov2-small", "vit"])
def test_an_option_that_transformers_would_swallow_is_told(name):
    pytest.importorskip("transformers")
    with pytest.raises(ap.InputError, match="num_hiden_layers; near ones are num_hidden_layers"):
        build(f"transformers:{name}", None, None, {"num_hiden_layers": 2})
    if name == "vit":
        build(f"transformers:{name}", None, None, {"num_hidden_layers": 1, "num_labels": 3})

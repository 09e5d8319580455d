"""The list of layers: running between places, sharing, replacing, weights from files, bad input."""

import copy
import pickle
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

import aptheory as ap
from tests.small_networks import small_resnet, small_vit


@pytest.fixture(scope="module")
def vit() -> ap.Network:
    return small_vit()


@pytest.fixture(scope="module")
def resnet() -> ap.Network:
    return small_resnet()


@pytest.fixture(params=["vit", "resnet"])
def net(request) -> ap.Network:
    return request.getfixturevalue(request.param)


def images(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


class Writes(nn.Module):
    """A block whose first deed is an in-place ReLU on what it is given."""

    def __init__(self, width: int):
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        x = self.act(x)
        return x + self.conv2(self.conv1(x))


class Plain(nn.Module):
    """Not timm's: a stem, a list of blocks, mean over positions, a linear layer."""

    def __init__(self, block=Writes, classes: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.ModuleList([block(6) for _ in range(4)])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = nn.functional.dropout(x.mean((2, 3)), 0.5, training=self.training)
        return self.head(self.dropout(x))


class TestPlaces:
    def test_a_vit_is_the_list_that_the_design_shows(self, vit):
        names = [layer.name for layer in vit.layers]
        assert names == ["image", *(f"blocks.{i}" for i in range(5)), "norm", "head"]
        assert vit.layers[1].shape == (17, 24)
        assert (vit.layers[1].prefix, vit.layers[1].grid) == (1, (4, 4))
        assert vit.block_layers == (1, 2, 3, 4, 5)
        assert vit.num_features == 24

    def test_stages_are_a_subset_of_the_blocks(self, resnet):
        stages = ap.load(resnet.module, granularity="stage", input_shape=(3, 32, 32))
        assert 4 < len(stages.layers) < len(resnet.layers)
        assert {x.name for x in stages.layers} < {x.name for x in resnet.layers}
        x = images()
        for layer in stages.layers:
            z = stages.run(x, stop=layer.index)
            assert torch.equal(stages.run(z, start=layer.index), resnet(x))

    def test_positions_and_pooling(self, vit, resnet):
        z = vit.run(images(), stop=2)
        layer = vit.layers[2]
        assert torch.equal(layer.positions(z), z[:, 1:])
        assert torch.equal(layer.pooled(z, "class"), z[:, 0])
        torch.testing.assert_close(layer.pooled(z), z[:, 1:].mean(1))
        assert layer.pooled(z, "all").shape == (2, 16 * 24)
        z = resnet.run(images(), stop=3)
        layer = resnet.layers[3]
        torch.testing.assert_close(layer.pooled(z), z.mean((2, 3)))
        torch.testing.assert_close(layer.pooled(z, "class"), z.mean((2, 3)))
        with pytest.raises(ap.InputError, match="'max'"):
            layer.pooled(z, "max")

    def test_every_parameter_is_used_between_two_places(self, net):
        used = net.parameters_between()
        assert sorted(used) == sorted(name for name, _ in net.module.named_parameters())
        last = len(net.layers) - 1
        assert len(net.parameters_between(last)) == 2  # the classifier alone

    def test_modules_know_their_layer(self, vit):
        assert vit.layer_of("blocks.2.attn.qkv") == 3
        assert vit.layer_of("patch_embed") == 0
        assert vit.layer_of("blocks") == 1
        between = vit.modules_between(3, 4)
        assert between[0] == "blocks.2"
        assert "blocks.2.mlp.fc1" in between
        assert all(name.startswith("blocks.2") for name in between)
        with pytest.raises(ap.InputError, match=r"blocks\.2\.attn\.qkv"):
            vit.layer_of("blocks.2.attn.qkvv")

    def test_the_table_names_every_layer(self, vit):
        for text in (repr(vit), vit._repr_html_()):
            assert all(layer.name in text for layer in vit.layers)
        assert "17 x 24" in repr(vit)


class TestRunning:
    @pytest.mark.parametrize("count", [1, 5])
    def test_equal_from_every_layer_at_any_batch_size(self, net, count):
        x = images(count)
        expected = net.module(x)
        for layer in net.layers:
            z = net.run(x, stop=layer.index)
            assert torch.equal(net.run(z, start=layer.index), expected)

    def test_gradients_are_the_models_own(self, net):
        x = images().requires_grad_()
        (expected,) = torch.autograd.grad(net.module(x).square().sum(), x)
        for layer in net.layers[1:]:
            z = net.run(x, stop=layer.index)
            y = net.run(z, start=layer.index)
            (found,) = torch.autograd.grad(y.square().sum(), x)
            assert torch.equal(found, expected)

    def test_the_last_piece_is_the_classifier_alone(self, vit):
        z = torch.randn(3, 24)
        assert torch.equal(vit.run(z, start=-1), vit.module.head(z))

    def test_more_tokens_pass_through(self, vit):
        z = vit.run(images(), stop=2)
        more = torch.cat([z, torch.zeros(2, 3, 24)], 1)
        assert vit.run(more, start=2, stop=5).shape == (2, 20, 24)
        assert vit.run(more, start=2).shape == (2, 10)

    def test_nothing_the_caller_holds_is_overwritten(self):
        torch.manual_seed(0)
        net = ap.load(Plain(), input_shape=(3, 32, 32))
        assert [layer.name for layer in net.layers][1:5] == [f"blocks.{i}" for i in range(4)]
        assert any(piece.writes_input for piece in net.pieces)
        x = images()
        expected = net.module(x)
        for layer in net.layers:
            z = net.run(x, stop=layer.index)
            kept = z.clone()
            assert torch.equal(net.run(z, start=layer.index), expected)
            assert torch.equal(z, kept)

    def test_train_and_eval_reach_every_piece(self):
        net = ap.load(Plain(), input_shape=(3, 32, 32))
        x = images(16)
        net.train()
        torch.manual_seed(1)
        expected = net(x)
        torch.manual_seed(1)
        assert torch.equal(net.run(net.run(x, stop=3), start=3), expected)
        assert not torch.equal(net(x), expected)  # dropout draws again
        net.eval()
        assert torch.equal(net(x), net.run(x))

    def test_dtype_and_memory_format(self, net):
        double = net.share().to(torch.float64)
        x = images().double()
        assert torch.equal(double.run(double.run(x, stop=3), start=3), double(x))
        torch.testing.assert_close(double(x).float(), net(images()), rtol=1e-3, atol=1e-4)
        last = net.share().to(memory_format=torch.channels_last)
        x = images().to(memory_format=torch.channels_last)
        assert torch.equal(last.run(last.run(x, stop=3), start=3), last(x))

    @pytest.mark.slow
    def test_compiled(self):
        script = (
            "import timm, torch, aptheory as ap\n"
            "net = ap.load('aptheory_vit_mini', None)\n"
            "x = torch.randn(2, 3, 32, 32)\n"
            "compiled = torch.compile(net, backend='eager', fullgraph=True)\n"
            "rest = torch.compile(lambda z: net.run(z, start=3), backend='eager', fullgraph=True)\n"
            "with torch.no_grad():\n"
            "    assert torch.equal(compiled(x), net(x))\n"
            "    assert torch.equal(rest(net.run(x, stop=3)), net(x))\n"
        )  # in a process of its own, without the run-time type checks of the tests
        subprocess.run([sys.executable, "-c", script], check=True)

    def test_out_of_range_and_backwards(self, vit):
        with pytest.raises(ap.InputError, match="0 to 7"):
            vit.run(images(), stop=8)
        with pytest.raises(ap.InputError, match="backwards"):
            vit.run(images(), start=3, stop=2)

    @pytest.mark.parametrize("shape", [(2, 3, 31, 32), (2, 1, 32, 32), (3, 32, 32)])
    def test_wrong_images_are_told_the_right_shape(self, vit, shape):
        with pytest.raises(ap.InputError, match="3, 32, 32"):
            vit.run(torch.zeros(shape))

    def test_normalize(self, vit):
        pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        back = vit.normalize(pixels) * torch.tensor(vit.std).view(3, 1, 1)
        back = (back + torch.tensor(vit.mean).view(3, 1, 1)) * 255
        torch.testing.assert_close(back, pixels.float(), atol=1e-3, rtol=0)


class TestSharing:
    def test_weights_are_the_same_memory_and_frozen(self, net):
        twin = net.share()
        own = dict(net.module.named_parameters())
        for name, parameter in twin.module.named_parameters():
            assert parameter.data_ptr() == own[name].data_ptr()
            assert parameter is not own[name]
            assert not parameter.requires_grad
        assert torch.equal(twin(images()), net(images()))
        assert twin.digest == net.digest

    @pytest.mark.parametrize("name", ["blocks.2.norm1", "blocks.2.mlp", "norm", "head"])
    def test_a_replaced_module_is_felt_in_the_copy_alone(self, vit, name):
        twin = vit.share()
        before = vit(images())
        old = twin.replace(name, nn.Identity())
        assert type(old) is type(vit.module.get_submodule(name))
        x = images()
        for layer in twin.layers:
            z = twin.run(x, stop=layer.index)
            assert torch.equal(twin.run(z, start=layer.index), twin(x))
        assert not torch.equal(twin(x)[:, :5], before[:, :5])
        assert torch.equal(vit(x), before)
        assert twin.digest != vit.digest

    def test_what_spans_layers_cannot_be_replaced(self, vit):
        with pytest.raises(ap.InputError, match="spans several layers"):
            vit.share().replace("blocks", nn.Identity())

    def test_batch_norm_statistics_are_the_copys_own(self, resnet):
        twin = resnet.share().train()
        before = resnet.module.bn1.running_mean.clone()
        twin(images())
        assert torch.equal(resnet.module.bn1.running_mean, before)
        assert not torch.equal(twin.module.bn1.running_mean, before)
        assert not resnet.training

    def test_copies_and_pickles(self, net):
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(twin.run(twin.run(images(), stop=2), start=2), net(images()))

    def test_digest_follows_the_weights(self, vit):
        same = ap.load(vit.module, name=vit.name, input_shape=(3, 32, 32))
        assert same.digest == vit.digest
        other = copy.deepcopy(same)
        assert other.digest == vit.digest
        with torch.no_grad():
            other.module.head.bias[0] += 1
        assert other.digest != vit.digest


class TestWeights:
    def saved(self, net, path, change=lambda state: state):
        from safetensors.torch import save_file

        state = {k: v.clone() for k, v in net.module.state_dict().items()}
        state = change(state) or state
        if path.suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return path

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_weights_from_a_file(self, resnet, tmp_path, suffix):
        path = self.saved(resnet, tmp_path / f"w{suffix}")
        module = copy.deepcopy(resnet.module)
        for parameter in module.parameters():
            nn.init.constant_(parameter, 0.1)
        net = ap.load(module, path, input_shape=(3, 32, 32))
        assert torch.equal(net(images()), resnet(images()))

    def test_wrappers_of_training_scripts_are_taken_off(self, vit, tmp_path):
        state = {f"module.{k}": v for k, v in vit.module.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
        ap.load(copy.deepcopy(vit.module), tmp_path / "w.pth", input_shape=(3, 32, 32))

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda s: s.pop("norm.weight") is None, "missing norm.weight"),
            (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
            (lambda s: s.update({"norm.bias": torch.zeros(7)}), r"norm.bias is \(7,\).*\(24,\)"),
            (lambda s: s["norm.weight"].fill_(float("nan")) is None, "not finite, in norm.weight"),
        ],
    )
    def test_what_does_not_fit_is_named(self, vit, tmp_path, change, told):
        path = self.saved(vit, tmp_path / "w.safetensors", lambda s: change(s) and None)
        with pytest.raises(ap.InputError, match=told):
            ap.load(copy.deepcopy(vit.module), path, input_shape=(3, 32, 32))

    def test_a_file_of_another_model_is_one_sentence(self, vit, resnet, tmp_path):
        path = self.saved(resnet, tmp_path / "w.safetensors")
        with pytest.raises(ap.InputError, match="another model") as error:
            ap.load(copy.deepcopy(vit.module), path, input_shape=(3, 32, 32))
        assert "\n" not in str(error.value)

    def test_nothing_in_a_file_is_executed(self, vit, tmp_path):
        torch.save(vit.module, tmp_path / "whole.pt")
        with pytest.raises(ap.InputError, match="state dict"):
            ap.load(copy.deepcopy(vit.module), tmp_path / "whole.pt", input_shape=(3, 32, 32))

    def test_no_such_file(self, vit, tmp_path):
        with pytest.raises(ap.InputError, match=r"there is no weights file"):
            ap.load(copy.deepcopy(vit.module), tmp_path / "no.pt", input_shape=(3, 32, 32))


class TestBadInput:
    def test_an_unknown_name_lists_near_ones(self):
        with pytest.raises(ap.InputError, match="resnet18"):
            ap.load("resnet1")

    def test_no_pretrained_weights(self):
        with pytest.raises(ap.InputError, match="no pretrained weights"):
            ap.load("vit_small_resnet26d_224")

    def test_no_network(self, monkeypatch):
        def offline(*_, **__):
            raise OSError("We couldn't connect\nto the hub")

        monkeypatch.setattr(timm, "create_model", offline)
        with pytest.raises(ap.InputError, match="cannot be had") as error:
            ap.load("resnet18")
        assert "\n" not in str(error.value)

    def test_arguments_that_timm_does_not_know(self):
        with pytest.raises(ap.InputError, match="widht"):
            ap.load("test_vit", None, widht=3)

    def test_a_module_must_say_its_image_size(self):
        with pytest.raises(ap.InputError, match="input_shape"):
            ap.load(Plain())

    def test_weights_that_are_not_finite(self):
        module = Plain()
        nn.init.constant_(module.head.weight, float("inf"))
        with pytest.raises(ap.InputError, match="not finite"):
            ap.load(module, input_shape=(3, 32, 32))

    def test_a_model_that_cannot_be_traced_is_refused_by_name(self):
        class Loops(nn.Module):
            def forward(self, x):
                while x.sum() > 0:
                    x = x - 1
                return {"out": x}

        with pytest.raises(ap.InputError, match=r"loops cannot be split"):
            ap.load(Loops(), input_shape=(3, 8, 8), name="loops")

    @pytest.mark.parametrize("shape", [(3, 32, 0), (3, -1, 32)])
    def test_an_image_shape_is_channels_height_and_width(self, vit, shape):
        with pytest.raises(ap.InputError, match="channels, height, width"):
            ap.load(vit.module, input_shape=shape)

    def test_granularity(self, vit):
        with pytest.raises(ap.InputError, match="stage"):
            ap.load(vit.module, granularity="layer", input_shape=(3, 32, 32))


class Basic(nn.Module):
    """A basic block of the CIFAR ResNets: the shortcut has no parameters."""

    def __init__(self, inner: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.pad = stride, (width - inner) // 2

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        if self.stride > 1 or self.pad:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return (out + x).relu_()


class CifarResNet(nn.Module):
    def __init__(self, depth: int = 56, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inner = 16
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(Basic(inner, width, 2 if i == 0 and stage > 1 else 1))
                inner = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu_()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_a_module_that_timm_does_not_have():
    net = ap.load(CifarResNet(20), input_shape=(3, 32, 32))
    assert [layer.name for layer in net.layers[1:4]] == ["layer1.0", "layer1.1", "layer1.2"]
    assert len(net.block_layers) == 9
    assert net.num_features == 64
    x = images()
    for layer in net.layers:
        assert torch.equal(net.run(net.run(x, stop=layer.index), start=layer.index), net(x))


def test_real_weights(assets):
    net = ap.load(CifarResNet(), assets / "cifar10_resnet56.safetensors", input_shape=(3, 32, 32))
    assert len(net.block_layers) == 27
    mobile = ap.load(
        "mobilenetv2_035",
        assets / "mobilenetv2_035.safetensors",
        pad_type="same",
        bn_eps=0.001,
        num_classes=0,
    )
    assert mobile.num_features == 1280
    with pytest.raises(ap.InputError, match="another model"):
        ap.load("vit_tiny_patch16_224", assets / "mobilenetv2_035.safetensors")


class TestTheResolver:
    """One resolver, the same in Python, in a study file and on the command line."""

    @pytest.mark.parametrize(
        ("layer", "index"),
        [(3, 3), (-2, 6), ("blocks.2", 3), (0.0, 0), (0.5, 4), (1.0, 7), ("3", 3), ("-2", 6)],
    )
    def test_an_index_a_name_and_a_fraction(self, vit, layer, index):
        assert vit.place(layer).index == index
        assert vit.place(vit.place(layer)) == vit.layers[index]

    @pytest.mark.parametrize("layer", [8, -9, 1.5, "block.2", True, "1.5", ""])
    def test_no_such_place(self, vit, layer):
        with pytest.raises(ap.InputError, match=r"no place .* an index from 0 to 7"):
            vit.place(layer)

    def test_near_names_are_offered(self, vit):
        with pytest.raises(ap.InputError, match="near ones are blocks"):
            vit.place("block.2")

    def test_several(self, vit):
        assert vit.places("all") == vit.layers
        assert [layer.index for layer in vit.places("blocks")] == [1, 2, 3, 4, 5]
        assert [layer.index for layer in vit.places([-1, "blocks.0", 0.0, 7, "1"])] == [0, 1, 7]
        assert [layer.index for layer in vit.places("blocks.1")] == [2]
        with pytest.raises(ap.InputError, match="no place of"):
            vit.places([])

    def test_a_walk_is_the_run_to_each_stop(self, vit):
        x = images()
        for layer, z in vit.walk(x, stops=["blocks.1", 5, -1]):
            assert torch.equal(z, vit.run(x, stop=layer.index))

    def test_a_walk_goes_on_from_what_was_edited(self, vit):
        x = images()

        def doubled(layer, z):
            return 2 * z if layer.index == 2 else z

        *_, (_, z) = vit.walk(x, stops=[2, 5], edit=doubled)
        assert torch.equal(z, vit.run(2 * vit.run(x, stop=2), start=2, stop=5))

    def test_where_the_weights_are(self, vit):
        assert vit.device == torch.device("cpu")
        assert vit.dtype == torch.float32


@pytest.mark.parametrize(
    "given",
    [
        *(torch.zeros(2, 4, 8, 8), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8).numpy(), "x"),
        *(torch.zeros(2, 3, 8, 8).cfloat(), torch.zeros(2, 3, 8, 8).bool()),
    ],
)
def test_only_a_batch_of_its_channels_is_normalised(vit, given):
    with pytest.raises(ap.InputError, match=r"\(batch, 3, height, width\), not"):
        vit.normalize(given)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("foo", "device is 'foo'"),
        (torch.device("meta"), "device is 'meta'"),
        (torch.int64, "cannot go to torch.int64"),
        ([1], "cannot go to"),
    ],
)
def test_a_network_goes_to_devices_and_floats_alone(vit, place, reason):
    with pytest.raises(ap.InputError, match=reason):
        vit.to(place)
    assert vit.to("cpu").to(device="cpu", dtype=torch.float32) is vit


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "go",
    [
        *(lambda net: net.cuda(), lambda net: net.cuda(1), lambda net: net.to("cuda")),
        *(
            lambda net: net.to(torch.device("cuda")),
            lambda net: net.to(device=torch.device("cuda")),
        ),
    ],
)
def test_a_network_goes_to_no_gpu_that_is_not_there(vit, go):
    with pytest.raises(ap.InputError, match="there is no such GPU"):
        go(vit)


@pytest.mark.parametrize(
    ("start", "given", "reason"),
    [
        (0, torch.zeros(1, 3, 32, 32).half(), "weights of float32 and was given float16"),
        (0, torch.zeros(1, 3, 32, 32).double(), "weights of float32 and was given float64"),
        (0, torch.zeros(1, 3, 32, 32).to_sparse(), "takes dense tensors, not torch.sparse"),
        (0, torch.zeros(1, 3, 32, 32, device="meta"), "is on cpu and was given a tensor on meta"),
        (2, torch.zeros(1, 3, 32, 32), r"place 2 of Plain takes \(batch, 6, 32, 32\), not"),
        (2, torch.zeros(1, 6, 32, 32).double(), "weights of float32 and was given float64"),
    ],
)
def test_what_the_network_does_not_take_is_refused(start, given, reason):
    net = ap.load(Plain(), None, input_shape=(3, 32, 32))
    with pytest.raises(ap.InputError, match=reason):
        net.run(given, start=start)
    if not start:
        with pytest.raises(ap.InputError, match=reason):
            net(given)


def test_a_fault_of_the_network_itself_stays_torchs():
    net = ap.load(Plain(), None, input_shape=(3, 32, 32))
    net.module.blocks[2].conv2 = nn.Conv2d(5, 6, 3)
    with pytest.raises(RuntimeError, match="expected input"):
        net.run(torch.zeros(1, 3, 32, 32))


class Ends(Plain):
    def forward(self, x):
        sys.exit(3)


class Endless(Plain):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Asks(Plain):
    def forward(self, x, *, mask):
        return super().forward(x)


class Sums(Plain):
    def forward(self, x):
        return super().forward(x).sum()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (lambda: Ends(), "SystemExit: 3"),
        (lambda: Sums(), "a single number, of shape"),
        (lambda: Endless(), "not finite for random images: mend its forward, or"),
        (lambda: Asks(), "this Asks needs mask by keyword"),
        (lambda: Plain(classes=0), r"without numbers, of shape \(2, 0\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_what_gives_no_row_an_image_is_refused(module, reason):
    with pytest.raises(ap.InputError, match=reason):
        ap.load(module(), None, input_shape=(3, 32, 32))


def test_a_factory_that_ends_the_program_is_refused():
    from aptheory.studies.sources import load_network

    with pytest.raises(ap.InputError, match="'sys:exit' failed .SystemExit.; call it"):
        load_network({"factory": "sys:exit"})


def test_a_factory_that_raises_something_odd_is_refused(tmp_path, monkeypatch):
    from aptheory.studies.sources import load_network

    (tmp_path / "odd_of_mine.py").write_text(
        "class Odd(BaseException):\n    def __str__(self):\n        raise RuntimeError\n\n"
        "def network():\n    raise Odd\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ap.InputError, match="'odd_of_mine:network' failed .Odd.; call it"):
        load_network({"factory": "odd_of_mine:network"})

"""Whatever people bring is read rightly, or refused with the true reason."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations

import aptheory as ap
from aptheory.networks.geometry import BANDS, Axes, read_tokens
from tests.networks import brought
from tests.networks.brought import SHAPE, Around, Maps, Tokens, vit


def load(module: nn.Module, **settings) -> ap.Network:
    return ap.load(module, None, **{"input_shape": SHAPE, **settings})


def headless_vit() -> nn.Module:
    module = vit()
    module.head = nn.Identity()
    return Around(module)


def torchvision_vit(headless: bool = False) -> nn.Module:
    module = torchvision.models.VisionTransformer(32, 8, 4, 2, 24, 48, num_classes=5)
    if headless:
        module.heads = nn.Identity()
    return module


def registers() -> nn.Module:
    size = {"img_size": 56, "patch_size": 14, "embed_dim": 24, "depth": 4, "num_heads": 3}
    return Around(timm.create_model("vit_base_patch14_reg4_dinov2", num_classes=5, **size))


# network -> (last place, its shape, how many blocks, (prefix, suffix, grid) at the first)
RIGHT = {
    "an unused layer declared last": (lambda: Tokens(), "head", (24,), 5, (0, 0, (4, 4))),
    "headless": (headless_vit, "inner.head", (24,), 4, (1, 0, (4, 4))),
    "torchvision's ViT": (torchvision_vit, "heads.head", (24,), 4, (1, 0, (4, 4))),
    "torchvision's, headless": (
        lambda: torchvision_vit(headless=True),
        *("heads", (24,), 4, (1, 0, (4, 4))),
    ),
    "tokens as output": (
        lambda: Tokens(lambda net, x: net.backbone(x)),
        *("output", (16, 24), 5, (0, 0, (4, 4))),
    ),
    "a functional classifier": (
        lambda: Tokens(brought.functional),
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "a classifier of every token": (
        lambda: Tokens(brought.dense),
        *("head", (16, 24), 5, (0, 0, (4, 4))),
    ),
    "a parameter": (
        lambda: Tokens(lambda net, x: net.backbone(x).mean(1) @ net.projector.weight.T),
        *("projector", (24,), 5, (0, 0, (4, 4))),
    ),
    "a 1x1 convolution": (
        lambda: Maps(brought.convolves, nn.Conv2d(16, 5, 1)),
        *("head", (16,), 4, (0, 0, (16, 16))),
    ),
    "squeeze": (lambda: Maps(brought.squeezes), "head", (16,), 4, (0, 0, (16, 16))),
    "len": (lambda: Tokens(brought.counts_images), "head", (24,), 5, (0, 0, (4, 4))),
    "size": (lambda: Tokens(brought.sizes), "head", (24,), 5, (0, 0, (4, 4))),
    "a branch on shapes": (
        lambda: Tokens(brought.branches_on_shapes),
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "item": (lambda: Tokens(brought.reads_a_value), "head", (24,), 5, (0, 0, (4, 4))),
    "a class token behind": (
        lambda: Tokens(brought.joined(True), 1),
        *("head", (24,), 5, (0, 1, (4, 4))),
    ),
    "five tokens behind": (
        lambda: Tokens(brought.joined(True), 5),
        *("head", (24,), 5, (0, 5, (4, 4))),
    ),
    "sixteen tokens in front": (
        lambda: Tokens(brought.joined(False), 16),
        *("head", (24,), 5, (16, 0, (4, 4))),
    ),
    "tokens, images, width": (
        lambda: Tokens(brought.tokens_first),
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "channels, tokens": (brought.ChannelsFirst, "head", (24,), 4, (0, 0, (4, 4))),
    "tokens in no raster": (lambda: Tokens(brought.shuffled), "head", (24,), 5, (0, 0, None)),
    "a dict with logits": (
        lambda: Tokens(brought.returns_logits),
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "a dataclass with logits": (
        lambda: Tokens(brought.returns_a_dataclass),
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "one token in front, four behind": (
        lambda: Tokens(brought.around, 5),
        *("head", (24,), 5, (1, 4, (4, 4))),
    ),
    "DataParallel": (lambda: nn.DataParallel(Tokens()), "head", (24,), 5, (0, 0, (4, 4))),
    "heads whose answers are dropped": (
        brought.Supervised,
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "pooling by torch's attention": (
        brought.PooledByAttention,
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "pooling by weights": (brought.Weighed, "head", (24,), 5, (0, 0, (4, 4))),
    "blocks that return more than is read": (brought.More, "head", (24,), 5, (0, 0, (4, 4))),
    "einops by its own name": (
        lambda: Tokens(brought.by_einops),
        *("head", (24,), 5, (0, 0, (4, 4))),
    ),
    "an LSTM of three layers": (brought.Recurrent, "head", (24,), 1, (0, 0, (4, 4))),
    "a convolutional stem": (brought.Stem, "head", (24,), 5, (0, 0, (4, 4))),
    "a class token behind such a stem": (
        lambda: brought.Stem(1),
        *("head", (24,), 5, (1, 0, (4, 4))),
    ),
    "channels last": (brought.LastAxis, "head", (16,), 4, (0, 0, (16, 16))),
}


@pytest.mark.parametrize("case", RIGHT)
def test_places_are_right_and_lead_to_the_networks_own_output(case):
    make, last, shape, blocks, (prefix, suffix, grid) = RIGHT[case]
    torch.manual_seed(0)
    module = make()
    net = load(module)
    assert (net.layers[-1].name, net.layers[-1].shape) == (last, shape)
    assert len(net.block_layers) == blocks
    first = net.layers[1]
    assert (first.prefix, first.suffix, first.grid) == (prefix, suffix, grid)
    x = torch.rand(3, *SHAPE) * 100
    with torch.no_grad():
        expected = net.module(x)
        if isinstance(expected, (dict, brought.Answer)):
            expected = net.pick(expected)
            assert expected.shape == (3, 5)  # the logits
        for layer in net.layers:
            z = net.run(x, stop=layer.index)
            assert tuple(z.shape) == (3, *layer.shape)
            assert torch.equal(net.run(z, start=layer.index), expected), layer.name
        one = net.run(x[:1])
        assert one.shape == (1, *expected.shape[1:])
        assert torch.equal(one, net(x[:1]))


@pytest.mark.parametrize("how", brought.IN_PLACE)
def test_places_lie_behind_what_writes_in_place(how):
    torch.manual_seed(0)
    net = load(brought.InPlace(brought.IN_PLACE[how]))
    assert [layer.name for layer in net.layers[1:5]] == [f"layers.{i}" for i in range(1, 5)]
    entered = []
    net.module.layers[2].register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        expected = net.module(x)
        z = net.run(x, stop="layers.2")
        assert torch.equal(z, entered[0])
        assert (z >= 0).all()
        assert torch.equal(net.run(z, start="layers.2"), expected)


@pytest.mark.filterwarnings("ignore:Where the queries and keys:UserWarning")
@pytest.mark.parametrize("make", [brought.Supervised, brought.PooledByAttention])
def test_attention_that_the_output_does_not_feel_is_not_looked_at(make):
    from tests.quarters import small_task

    torch.manual_seed(0)
    net = load(make())
    assert net.layers[2].name == "backbone.encoder.layers.1"  # and not a head in front of it
    assert len(ap.profile(net, small_task(), limit=8)) > 0


def test_tokens_first_are_tokens_behind_the_images():
    net = load(Tokens(brought.tokens_first))
    assert net.layers[1].shape == (16, 24)
    assert {net.layers[i].layout for i in net.block_layers} == {"tokens"}
    assert net.layer_of("backbone.encoder.layers.3.norm") == 4


def test_channels_last_where_all_sizes_are_alike():
    net = load(brought.LastAxis())
    assert {layer.layout for layer in net.layers[1:-1]} == {"map_last"}


def test_registers_inside_a_wrapper():
    net = load(registers(), input_shape=(3, 56, 56))
    assert {(net.layers[i].prefix, net.layers[i].grid) for i in net.block_layers} == {(5, (4, 4))}


def test_places_are_where_two_streams_are_one():
    net = load(brought.TwoStreams(torch.add))
    names = [layer.name for layer in net.layers]
    assert names == ["image", "left.0", "tail.0", "tail.1", "tail.2", "pool", "head"]
    assert {layer.channels for layer in net.layers[1:-1]} == {16}


# wrapper -> what stands before the names of its places
WRAPPED = {
    "DDP": (lambda folder: brought.distributed(Tokens(), folder), ""),
    "compiled in place": (lambda _: compiled_in_place(), ""),
    "compiled inside": (lambda _: Around(torch.compile(Tokens())), "inner._orig_mod."),
    "Lightning": (lambda _: brought.Trained(Tokens()), "net."),
    "Lightning, compiled": (lambda _: brought.Trained(torch.compile(Tokens())), "net._orig_mod."),
    "PEFT": (lambda _: brought.adapted_by_peft(), ""),
    "averaged": (lambda _: torch.optim.swa_utils.AveragedModel(Tokens()), ""),
    "weight norm": (lambda _: brought.with_weight_norm(parametrizations.weight_norm), ""),
    "weight norm by hooks": (lambda _: brought.with_weight_norm(torch.nn.utils.weight_norm), ""),
    "spectral norm": (lambda _: brought.with_weight_norm(parametrizations.spectral_norm), ""),
    "pruned": (lambda _: brought.with_weight_norm(brought.pruned), ""),
}


def compiled_in_place() -> nn.Module:
    module = Tokens()
    module.compile()
    return module


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_are_taken_off(wrapper, tmp_path):
    make, above = WRAPPED[wrapper]
    torch.manual_seed(0)
    net = load(make(tmp_path))
    blocks = [f"{above}backbone.encoder.layers.{i}" for i in range(5)]
    assert [layer.name for layer in net.layers] == ["image", *blocks, "pool", f"{above}head"]
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        expected = net.module(x)
        twin = net.share()  # what methods train
        for layer in net.layers:
            assert torch.equal(twin.run(net.run(x, stop=layer), start=layer), expected)


def test_a_border_that_answers_late_is_no_row_of_prefix_tokens():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    response = torch.zeros(2 * BANDS, 64, 1)
    response[(rows // 2).flatten(), torch.arange(64)] = 1
    response[BANDS + (columns // 2).flatten(), torch.arange(64)] = 1
    response[1, :8] = 2  # the first row sees the second band most
    assert read_tokens(response, (3, 64, 64)) == Axes("tokens", grid=(8, 8))
    assert read_tokens(response[:, 8:], (3, 64, 64)).grid == (7, 8)


REFUSED = {
    "a branch on values": (
        lambda: Tokens(brought.branches_on_values),
        r"what the images contain decides .*brought\.py, line \d+: if x\.max\(\) > 1:",
    ),
    "a loop over images": (
        lambda: Tokens(brought.loops_over_images),
        r"other steps for other batch sizes .*brought\.py, line \d+",
    ),
    "dropout that is always on": (lambda: Tokens(brought.draws), "draws random numbers"),
    "blocks that are left out at random": (
        lambda: Tokens(brought.leaves_out_at_random),
        "draws random numbers in evaluation mode",
    ),
    "vectors alone": (brought.vectors, "are vectors, without positions"),
    "two outputs": (lambda: Tokens(brought.returns_two), r"several tensors \(0, 1\).*output=0"),
    **{
        f"images that are mixed by {how}": (
            lambda over_images=over_images: Tokens(brought.mixes(over_images)),
            r"mixes the images of a batch: what enters backbone\.encoder\.layers\.0 changes",
        )
        for how, over_images in brought.MIXING.items()
    },
    "logits that are mixed": (
        lambda: Tokens(lambda net, x: net.head(net.backbone(x).mean(1)).softmax(0)),
        "mixes the images of a batch: its output changes",
    ),
    "BatchNorm without statistics": (
        brought.Unfixed,
        r"\(layers\.0\.1 normalises by the batch's own statistics\): what enters layers\.1",
    ),
    "two streams from the image on": (
        brought.apart,
        "several activations live side by side nearly all the way",
    ),
    "autocast inside": (
        lambda: Tokens(brought.by_autocast),
        r"switches autocast on or off .*brought\.py, line \d+: return net\.head",
    ),
    "activations from hooks": (brought.Hooked, "as hooks collect them"),
    "images in fours": (
        lambda: Tokens(
            lambda net, x: net.head(net.backbone(x).mean(1).view(-1, 4, 24)).flatten(0, 1)
        ),
        r"its forward fails on three images .*any number",
    ),
    "another size of images": (
        lambda: vit(img_size=64),
        r"its forward fails on three images of \(3, 32, 32\) .*another input_shape=",
    ),
    "no places": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "fewer than two layers with weights",
    ),
    "two inputs": (brought.TwoInputs, "needs images and mask: wrap it"),
    "a number that counts calls": (
        lambda: Tokens(brought.counts_calls),
        r"is \d+ when it runs on 3 images and \d+ when it then runs on 5, which does not follow",
    ),
    "two views in one batch": (
        lambda: Tokens(brought.folds),
        "no activation stands alone with the images along one axis",
    ),
    "quantised": (lambda: torch.ao.quantization.quantize_dynamic(Tokens()), "is quantised"),
    "no numbers": (lambda: Tokens().to("meta"), "on the meta device"),
    "an exported program": (
        lambda: torch.export.export(Tokens().eval(), (torch.zeros(2, *SHAPE),)),
        "holds operations and no modules",
    ),
    "a class": (lambda: Tokens, "is a class of networks"),
    "no module": (lambda: 3, "not int"),
}


@pytest.mark.filterwarnings("ignore:torch.(ao.quantization|quantize_per_tensor)")
@pytest.mark.parametrize("case", REFUSED)
def test_the_reason_is_true(case):
    make, reason = REFUSED[case]
    with pytest.raises(ap.InputError, match=reason) as error:
        load(make())
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


class TestOverrides:
    def test_the_classifier(self):
        net = load(vit(), classifier="blocks.3.mlp.fc2")
        assert net.layers[-1].name == "blocks.3.mlp.fc2"
        assert load(Tokens(), classifier="none").layers[-1].name == "output"
        with pytest.raises(ap.InputError, match="'projector' never runs"):
            load(Tokens(), classifier="projector")
        with pytest.raises(ap.InputError, match="no module 'heed'.* head"):
            load(Tokens(), classifier="heed")
        with pytest.raises(ap.InputError, match="'backbone.encoder.layers' runs in parts, and"):
            load(Tokens(), classifier="backbone.encoder.layers")
        with pytest.raises(ap.InputError, match="layers.0' runs too early to be its classifier"):
            load(Tokens(), classifier="backbone.encoder.layers.0")

    def test_the_blocks(self):
        net = load(Tokens(), blocks="backbone.encoder.layers")
        assert len(net.block_layers) == 5
        some = load(Tokens(), blocks=["backbone.encoder.layers.1", "backbone.encoder.layers.3"])
        assert len(some.block_layers) < len(net.block_layers)
        with pytest.raises(ap.InputError, match="its lists are backbone"):
            load(Tokens(), blocks="backbone.blocks")

    @pytest.mark.parametrize(
        ("blocks", "reason"),
        [
            (["1", "1"], "layers.1' is named twice"),
            (["1", "2", "1"], "layers.1' runs before '.*layers.2'; name them in order"),
            (["1", "1.outer"], "layers.1.outer' lies within its block '.*layers.1'; name one"),
        ],
    )
    def test_the_blocks_are_named_once_and_in_order(self, blocks, reason):
        with pytest.raises(ap.InputError, match=reason):
            load(Tokens(), blocks=[f"backbone.encoder.layers.{name}" for name in blocks])

    def test_a_block_that_never_runs(self):
        with pytest.raises(ap.InputError, match="'projector' never runs; leave it out"):
            load(Tokens(), blocks=["backbone.encoder.layers.1", "projector"])

    def test_the_output(self):
        net = load(Tokens(brought.returns_two), output=1)
        assert net.layers[-1].shape == (24,)
        assert net(torch.zeros(2, *SHAPE)).shape == (2, 24)
        with pytest.raises(ap.InputError, match="no 'features'"):
            load(Tokens(brought.returns_two), output="features")

    def test_prefix_and_layout(self):
        net = load(Tokens(brought.joined(True), 4), prefix=-4)
        assert (net.layers[1].prefix, net.layers[1].suffix, net.layers[1].grid) == (0, 4, (4, 4))
        net = load(brought.LastAxis(), layout="map")
        assert net.layers[1].layout == "map"
        with pytest.raises(ap.InputError, match="layout is 'rows'"):
            load(Tokens(), layout="rows")

    def test_what_was_found_is_printed(self):
        text = repr(load(Tokens()))
        assert "classifier head: the last linear map" in text
        assert "mean" in text
        assert "headless" in repr(load(headless_vit()))
        assert "unknown" in repr(load(Tokens(brought.shuffled)))


class OwnNorm(nn.Module):
    """Of maps, as ConvNeXt's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        x = torch.nn.functional.layer_norm(x.movedim(1, -1), (x.shape[1],))
        return (x * self.gamma + self.beta).movedim(-1, 1)


class LayerNorm2d(OwnNorm):
    pass


@pytest.mark.parametrize("norm", [LayerNorm2d, lambda width: nn.InstanceNorm2d(width, affine=True)])
def test_norms_of_every_kind_are_tuned(norm):
    blocks = [
        nn.Sequential(norm(8), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)) for _ in range(4)
    ]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    net = load(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), *blocks, *head))
    adapted = ap.NormTuning().attach(net, classes=3)
    assert adapted.count(head=False) == 4 * 2 * 8
    x = torch.randn(2, *SHAPE)
    (adapted(x).square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.trainable)


@pytest.mark.parametrize(
    "method", [ap.NormTuning(), ap.VPT(tokens=2), ap.ActivationPrompt(layer=2)]
)
def test_a_network_of_float64_fits(method):
    from tests.quarters import small_task

    torch.manual_seed(0)
    net = load(Tokens().double())
    adapted = method.attach(net, classes=4)
    before = [p.detach().clone() for p in adapted.trainable]
    ap.fit(adapted, small_task(), recipe=ap.Recipe(epochs=1), seed=0)
    assert not any(torch.equal(p, q) for p, q in zip(before, adapted.trainable, strict=True))


def test_tokens_that_would_be_folded_are_refused():
    net = load(Tokens(brought.folds_tokens))
    with pytest.raises(ap.InputError, match=r"take 16 tokens and no more \(what leaves"):
        ap.VPT(tokens=2).attach(net, classes=2)


def test_a_half_network_that_casts_by_itself_is_refused():
    net = load(Tokens(lambda net, x: net.head(net.backbone(x.half()).mean(1))).half())
    with pytest.raises(ap.InputError, match="does not run when they are float32"):
        ap.LinearProbe().attach(net, classes=2)


def test_a_weight_that_is_computed_takes_no_update():
    net = load(with_spectral_norm())
    with pytest.raises(ap.InputError, match=r"whose weight is its own \(that of layers\.0\.0 is"):
        ap.LoRA(rank=2).attach(net, classes=2)


def with_spectral_norm() -> nn.Module:
    module = Maps(brought.squeezes)
    for part in module.layers.modules():
        if isinstance(part, nn.Conv2d):
            parametrizations.spectral_norm(part)
    return module


def test_a_half_network_fits():
    from tests.quarters import RECIPE, small_task

    torch.manual_seed(0)
    net = ap.load(Maps(brought.squeezes).bfloat16(), None, input_shape=(3, 16, 16), name="half")
    assert net.dtype == torch.bfloat16
    table = ap.profile(net, small_task(), limit=16)  # the default: no attention, no fault
    assert "attention_distance" not in set(table["measure"])
    adapted = ap.ActivationPrompt(layer=2).attach(net, classes=4)
    outcome = ap.fit(adapted, small_task(), recipe=RECIPE, seed=0)
    assert outcome.test_accuracy > 0.3
    assert net.dtype == torch.bfloat16


class TwoKinds(nn.Module):
    """Convolutions in float32, and a classifier in float64 behind them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(*(nn.Conv2d(8, 8, 3, 1, 1) for _ in range(4)))
        self.head = nn.Linear(8, 4).double()

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)).double())


class Wipes(TwoKinds):
    """Its forward wipes what the gradient needs."""

    def forward(self, x):
        x = self.blocks(self.stem(x))
        y = x * x
        x.zero_()
        return self.head(y.mean((2, 3)).double())


def test_a_network_of_two_kinds_of_numbers_fits():
    from tests.quarters import RECIPE, small_task

    torch.manual_seed(0)
    net = ap.load(TwoKinds(), None, input_shape=(3, 16, 16))
    for method in (ap.ActivationPrompt(layer=2), ap.LinearProbe()):
        adapted = method.attach(net, classes=4)
        assert not ap.fit(adapted, small_task(), recipe=RECIPE).failed


def test_a_forward_that_wipes_what_the_gradient_needs_is_refused():
    from tests.quarters import RECIPE, small_task

    net = ap.load(Wipes(), None, input_shape=(3, 16, 16))
    adapted = ap.ActivationPrompt(layer=2).attach(net, classes=4)
    with pytest.raises(ap.InputError, match="changes in place a tensor that the gradient needs"):
        ap.fit(adapted, small_task(), recipe=RECIPE)


def test_a_loaded_network_is_not_loaded_again():
    net = ap.load("aptheory_vit_mini", weights=None)
    with pytest.raises(ap.InputError, match="aptheory_vit_mini is loaded already"):
        ap.load(net)

"""What every method promises, looped over all methods on a ViT and a CNN."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory import InputError, methods
from tests.small_networks import small_resnet, small_vit

VIT, CNN = "vit", "cnn"
LOAD = {VIT: small_vit, CNN: small_resnet}
VARIANTS = (
    *methods.METHODS,
    "ap:layer=2+5",
    "ap:layer=3,shape=channel",
    "ap:layer=3,shape=token",
    "ap:layer=3,rank=2",
    "vp:frame=4",
    "vp:frame=4,shrink=True",
    "layer_probe:layer=4,pooling=class",
    "layer_probe:layer=4,pooling=all",
    "norm_tuning:scale=False",
    "vpt:deep=False,tokens=3",
    "vqt:tokens=2",
    "vapt:variant=paper",
)
TOKENS_ONLY = ("vpt", "vqt", "vapt", "gate_vpt", "e2vpt", "adapter")
CASES = [
    (name, text)
    for name in (VIT, CNN)
    for text in VARIANTS
    if name == VIT or not text.startswith(TOKENS_ONLY)
]


@pytest.fixture(scope="module")
def nets32():
    return {name: load() for name, load in LOAD.items()}


@pytest.fixture(scope="module")
def nets():
    """Both networks in float64, where agreement means agreement."""
    return {name: load().double() for name, load in LOAD.items()}


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5)).double()


LABELS = torch.tensor([0, 1, 2, 1])


def make(text: str, net) -> methods.Method:
    return methods.parse(text) if ":" in text else methods.METHODS[text].default(net)


def disturb(adapted, seed=3):
    """Move every learned tensor away from its start, each run by its own amount."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.trainable:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.05 * noise).to(parameter))
    return adapted


@pytest.mark.parametrize(("name", "text"), CASES)
def test_first_layer_is_the_first_place_that_feels_it(nets, images, name, text):
    net = nets[name]
    adapted = disturb(make(text, net).attach(net, classes=3)).eval()
    first = adapted.first_layer
    with torch.no_grad():
        before = net.run(images, stop=first)
        assert torch.allclose(adapted.net.run(images, stop=first), before, rtol=0, atol=1e-12)
        assert torch.allclose(adapted.rest(before), adapted(images), rtol=0, atol=1e-12)
        unchanged = bool(adapted.summaries.width)  # blocks that are only asked
        if first not in adapted.places and first != adapted.exit and not unchanged:
            after = net.run(before, start=first, stop=first + 1)
            own = adapted.net.run(before, start=first, stop=first + 1)
            assert not torch.allclose(own, after), "a later place would have done"


@pytest.mark.parametrize(("name", "text"), CASES)
def test_run_k_of_a_stack_is_that_run_alone(nets, images, name, text):
    net = nets[name]
    method = make(text, net)
    if not method.stackable:
        with pytest.raises(InputError, match="runs=1"):
            method.attach(net, classes=3, runs=2)
        return
    seeds = [11, 4, 4]
    stack = method.attach(net, classes=3, runs=3, seed=seeds)
    alone = [method.attach(net, classes=3, seed=seed) for seed in seeds]
    with torch.no_grad():
        for k, one in enumerate(alone):
            for (a, mine), (b, theirs) in zip(
                one.run_parameters(0), stack.run_parameters(k), strict=True
            ):
                assert a == b
                assert torch.equal(mine, theirs)
                moved = torch.randn(mine.shape, generator=torch.Generator().manual_seed(k))
                mine.add_(0.05 * moved)
                theirs.add_(0.05 * moved)
    losses = [F.cross_entropy(out, LABELS) for out in stack(images)]
    sum(losses).backward()
    for k, one in enumerate(alone):
        loss = F.cross_entropy(one(images), LABELS)  # training mode: the dropout masks too
        loss.backward()
        assert torch.allclose(loss, losses[k], rtol=1e-10)
        for (_, mine), (_, theirs) in zip(
            one.run_parameters(0), stack.run_parameters(k), strict=True
        ):
            assert torch.allclose(mine.grad, theirs.grad, rtol=1e-8, atol=1e-10)
    chosen = stack.eval().select(1)
    assert torch.allclose(chosen(images), stack(images)[1], rtol=0, atol=1e-11)
    assert chosen.count() == stack.count()


@pytest.mark.parametrize(("name", "text"), CASES)
def test_training_moves_what_learns_and_nothing_else(nets, images, name, text):
    net = nets[name]
    before = {key: value.clone() for key, value in net.module.state_dict().items()}
    outputs = net(images)
    adapted = make(text, net).attach(net, classes=3)
    start = {key: value.detach().clone() for key, value in adapted.run_parameters(0)}
    statistics = [b.clone() for n, b in adapted.net.named_buffers() if "running" in n]
    optimiser = torch.optim.Adam(adapted.trainable, lr=1e-3)
    adapted.train()
    first = None
    for _ in range(4):
        loss = F.cross_entropy(adapted(images), LABELS)
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < first
    unmoved = [key for key, value in adapted.run_parameters(0) if torch.equal(value, start[key])]
    assert unmoved == []
    for key, value in net.module.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(net(images), outputs)
    now = [b for n, b in adapted.net.named_buffers() if "running" in n]
    same = all(torch.equal(a, b) for a, b in zip(statistics, now, strict=True))
    assert same == (adapted.method.batchnorm == "frozen" or name == VIT)


@pytest.mark.parametrize(("name", "text"), CASES)
def test_saved_and_reloaded_gives_the_same_bits(tmp_path, nets32, name, text):
    net = nets32[name]
    method = make(text, net)
    adapted = disturb(method.attach(net, classes=3))
    adapted.head.shift.copy_(torch.linspace(-1, 1, adapted.head.shift.shape[-1]))
    adapted.head.scale.copy_(torch.linspace(0.5, 2, adapted.head.scale.shape[-1]))
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if method.batchnorm == "trained":
        adapted.train()(x)
    adapted.eval()
    path = tmp_path / "learned" / "one.safetensors"
    ap.save(adapted, path)
    again = ap.attach_saved(net, path)
    assert again.method == method
    assert torch.equal(again(x), adapted(x))
    learned = sum(v.numel() for v in adapted.state().values())
    assert path.stat().st_size < 4 * learned + 20_000


def test_saved_file_is_refused_on_another_network(tmp_path, nets32):
    net = nets32[CNN]
    path = tmp_path / "one.safetensors"
    ap.save(methods.LinearProbe().attach(net, classes=3), path)
    with pytest.raises(InputError, match="not on small_vit"):
        ap.attach_saved(nets32[VIT], path)
    path.write_bytes(b"not a tensor")
    with pytest.raises(InputError, match="not a safetensors file"):
        ap.attach_saved(net, path)
    with pytest.raises(InputError, match="there is no file"):
        ap.attach_saved(net, tmp_path / "none")


@pytest.mark.parametrize("text", VARIANTS)
def test_settings_make_the_method_again(nets32, text):
    method = make(text, nets32[VIT])
    settings = method.settings()
    assert methods.from_settings(settings) == method
    plain = (str, int, float, bool, list, type(None))
    assert all(isinstance(value, plain) for value in settings.values())
    pairs = []
    for key, value in settings.items():
        if key != "method" and value is not None:
            shown = "+".join(map(str, value)) if isinstance(value, list) else value
            pairs.append(f"{key}={shown}")
    assert methods.parse(f"{method.name}:{','.join(pairs)}") == method


def test_applicable_knows_what_fits(nets32):
    assert [m.name for m in methods.applicable(nets32[VIT])] == list(methods.METHODS)
    fits = [m.name for m in methods.applicable(nets32[CNN])]
    assert fits == [name for name in methods.METHODS if name not in TOKENS_ONLY]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (CNN, "vpt", "makes no sense"),
        (CNN, "vqt", "makes no sense"),
        (CNN, "vapt", "makes no sense"),
        (CNN, "gate_vpt", "makes no sense"),
        (CNN, "e2vpt", "makes no sense"),
        (CNN, "adapter", "makes no sense"),
        (VIT, "norm_tuning:kind=batch", "no batch normalisation"),
        (CNN, "norm_tuning:kind=layer", "no layer normalisation"),
        (VIT, "ap:layer=99", "no place 99"),
        (VIT, "ap:layer=nowhere", "no place 'nowhere'"),
        (VIT, "ap:layer=2+2", "different places"),
        (VIT, "vp:frame=16", "leaves no image"),
        (VIT, "vapt:kernel=9", "does not fit"),
        (VIT, "e2vpt:segments=7", "does not divide"),
        (VIT, "partial:blocks=9", "has 5 blocks"),
        (VIT, "lora:targets=nothing", "finds no"),
    ],
)
def test_what_makes_no_sense_says_so(nets32, name, text, words):
    with pytest.raises(InputError, match=words):
        methods.parse(text).attach(nets32[name], classes=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("app", "no method"),
        ("ap:depth=3", "no setting 'depth'"),
        ("ap:layer", "not setting=value"),
        ("ap:shape=round", "shape must be"),
        ("ap:rank=0", "rank must be"),
        ("vp:shrink=True", "needs a frame"),
        ("norm_tuning:scale=False,shift=False", "nothing learns"),
        ("norm_tuning:kind=spectral", "kind must be"),
        ("layer_probe:pooling=max", "pooling must be"),
        ("vpt:tokens=0", "at least 1"),
        ("vqt:tokens=0", "at least 1"),
        ("vapt:variant=new", "variant must be"),
        ("vapt:hidden=0", "at least 1"),
        ("gate_vpt:deep=True", "shallow"),
        ("e2vpt:deep=False", "every block"),
        ("adapter:bottleneck=0", "at least 1"),
        ("partial:blocks=0", "at least 1"),
        ("lora:rank=0", "at least 1"),
        ("vpt:tokens=1.5", "tokens of vpt is 1.5; expected a whole number"),
        ("vpt:tokens=many", "tokens of vpt is 'many'"),
        ("vpt:deep=1", "deep of vpt is 1; expected True or False"),
        ("ap:layer=2.5", "a fraction of the depth"),
        ("ap:layer=None", "layer of ap is None"),
        ("adapter:bottleneck=True", "bottleneck of adapter is True; expected a whole number"),
    ],
)
def test_bad_settings_say_what_is_wrong(text, words):
    with pytest.raises(InputError, match=words):
        methods.parse(text)


def test_attach_checks_its_arguments(nets32):
    net = nets32[VIT]
    with pytest.raises(InputError, match="at least 1"):
        methods.LinearProbe().attach(net, classes=0)
    with pytest.raises(InputError, match="2 runs need 2 seeds"):
        methods.LinearProbe().attach(net, classes=3, runs=2, seed=[1, 2, 3])
    stack = methods.LinearProbe().attach(net, classes=3, runs=2)
    with pytest.raises(InputError, match="there is no run 2"):
        stack.select(2)
    with pytest.raises(InputError, match="choose one"):
        ap.save(stack, "never.safetensors")
    with pytest.raises(InputError, match="choose one"):
        ap.fold(stack)


@pytest.mark.parametrize("name", LOAD)
def test_seed_decides_the_start(nets32, name):
    any_net = nets32[name]
    method = methods.ActivationPrompt(layer=3, std=0.1)
    one, same, other = (
        method.attach(any_net, classes=3, seed=seed).trainable for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    again = method.attach(any_net, classes=3, seed=2)
    again.reset([1])
    assert all(torch.equal(a, b) for a, b in zip(one, again.trainable, strict=True))


def test_fresh_prompts_leave_the_features_alone(nets, images):
    """What starts at zero starts as the frozen network; low rank, adapters and LoRA included."""
    for name, text in CASES:
        if not text.startswith(("ap", "norm_tuning", "bitfit", "lora", "adapter", "full")):
            continue
        if text.startswith("vp:frame=4,"):
            continue
        net = nets[name]
        adapted = make(text, net).attach(net, classes=3).eval()
        z = net.run(images, stop=adapted.first_layer)
        expected = net.run(images, stop=adapted.exit)
        assert torch.allclose(adapted.features(z), expected, rtol=0, atol=1e-10), text


def test_random_perturbation_has_its_norm_and_does_not_learn(nets):
    for net in nets.values():
        method = methods.RandomPerturbation(layer=4, norm=2.5)
        adapted = method.attach(net, classes=3, runs=2, seed=[0, 1])
        (edit,) = adapted.edits_at(4)
        deltas = edit.value()
        assert torch.allclose(deltas.flatten(1).norm(dim=1), torch.full((2,), 2.5).double())
        assert not torch.equal(deltas[0], deltas[1])
        assert adapted.count(head=False) == 0


def test_layer_probe_pools_what_it_says(nets, images):
    net = nets[VIT]
    z = net.run(images, stop=4)
    layer = net.layers[4]
    for pooling in ("mean", "class", "all"):
        method = methods.LayerProbe(layer=4, pooling=pooling)
        adapted = method.attach(net, classes=3)
        weight, bias = adapted.head.weight.values[0], adapted.head.bias.values[0]
        expected = F.linear(layer.pooled(z, pooling), weight, bias)
        assert torch.allclose(adapted(images), expected)
    assert methods.LayerProbe(layer="blocks.3").attach(net, classes=3).first_layer == 4


def test_head_standardises_and_folds_its_features():
    from aptheory.methods.head import Head

    generator = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.randn(6, 5, generator=generator).double()
    head = Head(1, 5, 4, like=features)
    with torch.no_grad():
        head.weight.values[0].copy_(torch.randn(4, 5, generator=generator))
        head.bias.values[0].copy_(torch.randn(4, generator=generator))
    head.shift.copy_(features.mean(0))
    head.scale.copy_(features.std(0))
    weight, bias = head.folded()
    assert torch.allclose(head(features), F.linear(features, weight, bias))


def test_visual_prompt_frame_touches_the_frame_only(nets, images):
    net = nets[CNN]
    adapted = disturb(methods.VisualPrompt(frame=5).attach(net, classes=3))
    (edit,) = adapted.edits_at(0)
    changed = (edit(images) - images).abs().amax((0, 1)) > 0
    expected = torch.ones(32, 32, dtype=torch.bool)
    expected[5:27, 5:27] = False
    assert torch.equal(changed, expected)
    shrunk = methods.VisualPrompt(frame=5, shrink=True).attach(net, classes=3)
    (edit,) = shrunk.edits_at(0)
    small = edit(images)
    assert not small[..., :5, :].any()
    assert not small[..., 27:].any()
    expected = F.interpolate(images, size=22, mode="bilinear", antialias=True)
    assert torch.equal(small[..., 5:27, 5:27], expected)


def test_prompt_shapes_are_shared_as_they_say(nets):
    for net in nets.values():
        layer = net.layers[3]
        for shape in ("channel", "token"):
            method = methods.ActivationPrompt(layer=3, shape=shape, std=1.0)
            adapted = method.attach(net, classes=3)
            (edit,) = adapted.edits_at(3)
            delta = edit.value()[0].expand(layer.shape)
            rows = delta.flatten(1).T if layer.layout == "map" else delta  # positions, channels
            assert rows.shape[1] == layer.channels
            shared = rows[:1] if shape == "channel" else rows[:, :1]
            assert torch.equal(rows, shared.expand_as(rows))
            assert adapted.count(head=False) == (
                layer.channels if shape == "channel" else len(rows)
            )
        low = disturb(methods.ActivationPrompt(layer=3, rank=2).attach(net, classes=3))
        (edit,) = low.edits_at(3)
        delta = edit.value()[0]
        assert delta.shape == layer.shape
        rows = delta.flatten(1) if layer.layout == "map" else delta
        assert torch.linalg.matrix_rank(rows) == 2
        positions = delta.numel() // layer.channels
        assert low.count(head=False) == 2 * (positions + layer.channels)


def test_copies_do_not_share_what_they_learn(nets32):
    adapted = methods.ActivationPrompt(layer=3).attach(nets32[VIT], classes=3)
    twin = copy.deepcopy(adapted)
    disturb(twin)
    assert not adapted.edits_at(3)[0].value().any()


class Dilated(torch.nn.Module):
    """Blocks of a plain convolution and one with gaps, which peft cannot update."""

    def __init__(self):
        super().__init__()
        blocks = [
            torch.nn.Sequential(
                torch.nn.Conv2d(3 if n == 0 else 8, 8, 3, padding=1),
                torch.nn.ReLU(),
                torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2),
            )
            for n in range(3)
        ]
        self.blocks = torch.nn.Sequential(*blocks)
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.blocks(x).mean((2, 3)))


def test_lora_leaves_dilated_convolutions_as_they_are():
    net = ap.load(Dilated(), input_shape=(3, 8, 8))
    adapted = methods.LoRA(rank=2).attach(net, classes=4)
    assert adapted(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    assert methods.LoRA(rank=2).modules(net) == [f"blocks.{n}.0" for n in (1, 2)]


@pytest.mark.parametrize("given", [None, "x", 1.5, -3, 99, True])
def test_an_install_that_names_no_place_is_refused(given):
    @dataclass(frozen=True)
    class Odd(ap.Method):
        name: ClassVar[str] = "odd"

        def install(self, adapted):
            return given

    net = ap.load("aptheory_vit_mini", weights=None)
    with pytest.raises(ap.InputError, match="install of Odd returned .*; expected the index"):
        Odd().attach(net, classes=2)


def test_an_install_that_names_a_place_behind_its_edit_is_refused():
    @dataclass(frozen=True)
    class Odd(ap.Method):
        name: ClassVar[str] = "odd"

        def install(self, adapted):
            adapted.edit(2, torch.nn.Identity())
            return 5

    net = ap.load("aptheory_vit_mini", weights=None)
    with pytest.raises(ap.InputError, match="install of Odd returned 5, but it edits place 2"):
        Odd().attach(net, classes=2)


@pytest.mark.parametrize("edit", [None, abs])
def test_an_edit_that_is_no_module_is_refused(edit):
    net = ap.load("aptheory_vit_mini", weights=None)
    adapted = ap.LinearProbe().attach(net, classes=2)
    with pytest.raises(ap.InputError, match="an edit at place 2 is .*; expected a torch module"):
        adapted.edit(2, edit)

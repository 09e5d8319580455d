"""What is adapted is a module like any other: compiled, laid out or moved, it gives the same."""

import copy

import pytest
import torch
from torch.nn import functional as F

import aptheory as ap
from aptheory import methods
from tests.own_process import lines_printed_by

VIT, CNN = "aptheory_vit_mini", "aptheory_resnet_mini"
CASES = [
    (VIT, "ap:layer=1"),
    (VIT, "norm_tuning"),
    (VIT, "vpt:tokens=3"),
    (CNN, "ap:layer=-2"),
    (CNN, "norm_tuning"),
]
CNN_CASES = ["ap:layer=3", "ap:layer=-2", "norm_tuning", "bitfit", "ssf", "lora", "full"]
LABELS = torch.tensor([0, 1, 2, 1])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def nets():
    return {name: ap.load(name) for name in (VIT, CNN)}


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def attach(net, text, **options):
    """Every learned tensor away from its start."""
    adapted = methods.parse(text).attach(net, classes=3, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.trainable:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


def given(adapted, x):
    """Logits, then the gradient of every learned tensor."""
    out = adapted(x)
    loss = F.cross_entropy(out.flatten(0, -2), LABELS.to(x.device).repeat(adapted.runs))
    return [out, *torch.autograd.grad(loss, adapted.trainable)]


def assert_same(ours, theirs, error):
    """Up to ``error`` of the largest entry of each."""
    for a, b in zip(ours, theirs, strict=True):
        size = b.abs().max().item()
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=error * max(size, 1e-3))


def train(adapted, x, steps=3):
    """The loss before each step."""
    optimiser = torch.optim.SGD(adapted.train().trainable, lr=0.1)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(adapted(x), LABELS.to(x.device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    adapted.eval()
    return losses


COMPILED = """
import sys
import torch
import aptheory as ap
from tests.methods.test_moved import CASES, assert_same, attach, given

x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
for name, text in CASES:
    net = ap.load(name)
    for runs in (1, 2):
        adapted = attach(net, text, runs=runs)
        plain = given(adapted, x)
        torch.compiler.reset()
        compiled = torch.compile(adapted, backend="aot_eager", fullgraph=True)
        assert_same(given(compiled, x), plain, 1e-5)
    # Dropout of prompts draws from generators of its own, which no graph holds.
    adapted = attach(net, text).train()
    plain = given(adapted, x)
    adapted = attach(net, text).train()
    torch.compiler.reset()
    compiled = torch.compile(adapted, backend="eager")
    assert_same(given(compiled, x), plain, 1e-5)
    print(name, text)
"""


@pytest.mark.slow
def test_compiled_it_gives_the_same_outputs_and_gradients():
    # In a process of its own: the compiler cannot read functions that check shapes as they run.
    printed = lines_printed_by(COMPILED)
    assert printed == [f"{name} {text}" for name, text in CASES]


LONG = ("lora", "ssf")


@pytest.mark.parametrize(
    "text", [pytest.param(t, marks=[pytest.mark.slow] if t in LONG else []) for t in CNN_CASES]
)
def test_channels_last_gives_the_same(nets, images, text, tmp_path):
    net, last = nets[CNN], torch.channels_last
    plain = attach(net, text)
    adapted = attach(net, text).to(memory_format=last)
    x = images.to(memory_format=last)
    assert adapted.net.run(x, stop=2).is_contiguous(memory_format=last)
    assert not net.run(images, stop=2).is_contiguous(memory_format=last)
    assert_same(given(adapted, x), given(plain, images), 1e-4)
    assert train(adapted, x) == pytest.approx(train(plain, images), rel=1e-4)
    with torch.no_grad():
        out = adapted(x)
        assert_same([out], [plain(images)], 1e-3)
        ap.save(adapted, tmp_path / "one.safetensors")
        assert_same([ap.attach_saved(net, tmp_path / "one.safetensors")(images)], [out], 1e-5)
        if text != "ap:layer=3":
            assert_same([ap.fold(adapted)(x)], [out], 1e-4)


def test_a_run_is_chosen_in_the_precision_it_has(nets, images):
    stack = attach(nets[VIT], "norm_tuning", runs=2).double()
    x = images.double()
    assert stack.select(1)(x).dtype == torch.float64
    torch.testing.assert_close(stack.select(1)(x), stack(x)[1])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("name", "text"), CASES)
def test_there_and_back_from_a_gpu(nets, images, name, text, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net, there = nets[name], "cuda"
    adapted, stack = attach(net, text), attach(net, text, runs=2)
    before, both = given(adapted, images), given(stack, images)
    twin, x = copy.deepcopy(adapted), images.to(there)
    moved = given(adapted.to(there), x)
    assert moved[0].is_cuda
    assert_same(moved, before, 1e-4)
    assert_same(given(stack.to(there), x), both, 1e-4)
    assert_same([stack.select(1)(x)], [both[0][1]], 1e-4)
    ap.save(adapted, tmp_path / "one.safetensors")
    assert torch.equal(ap.attach_saved(net, tmp_path / "one.safetensors")(images), before[0])
    if not text.startswith("vpt"):
        folded = ap.fold(adapted)
        assert next(folded.parameters()).is_cuda
        assert_same([folded(x)], [before[0]], 1e-4)
    assert not next(net.parameters()).is_cuda
    if not text.startswith("vpt"):  # the masks of a GPU's dropout are others
        assert train(copy.deepcopy(adapted), x) == pytest.approx(
            train(copy.deepcopy(twin), images), rel=1e-3
        )
    back = adapted.to("cpu")
    assert all(torch.equal(a, b) for a, b in zip(given(back, images), before, strict=True))
    assert train(back, images) == train(twin, images)
    if not text.startswith("vpt"):
        assert torch.equal(ap.fold(back)(images), ap.fold(twin)(images))

"""Methods on nn.MultiheadAttention and torch's encoder: what learns there is felt there."""

import copy

import pytest
import torch

import aptheory as ap
from aptheory.methods import METHODS, Adapter, BitFit, LoRA, NormTuning
from tests.encoders import encoder

NAMES = ("norm_tuning", "bitfit", "ssf", "lora", "adapter")
WHOLE = ("encoder", "torchvision")


@pytest.fixture(scope="module", params=WHOLE)
def net(request):
    return encoder(request.param)


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def moved(adapted):
    """Every trained tensor moved, each run in its own direction."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.trainable:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_feels_what_training_moves(net, name):
    """torch's fused kernels would take the frozen weights in evaluation without gradients."""
    adapted = METHODS[name].default(net).attach(net, classes=3)
    if name != "ssf":  # which starts around the frozen network, not at it
        features = adapted.features(net.run(images(), stop=adapted.first_layer))
        assert torch.allclose(features, net.run(images(), stop=-1), atol=1e-4)
    start = adapted.eval()(images()).detach()
    moved(adapted).eval()
    with_gradients = adapted(images())
    with torch.no_grad():
        without = adapted(images())
    assert torch.allclose(with_gradients, without, atol=1e-5)
    assert not torch.allclose(start, without, atol=1e-3)
    with_gradients.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapted.trainable)


@pytest.mark.parametrize("name", [n for n in NAMES if METHODS[n].stackable])
def test_a_stack_is_its_runs(net, name):
    stack = moved(METHODS[name].default(net).attach(net, classes=3, runs=2)).eval()
    with torch.no_grad():
        together = stack(images())
        for run in range(2):
            assert torch.allclose(stack.select(run).eval()(images()), together[run], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_what_learns(net):
    norms = NormTuning().attach(net, classes=3)
    assert norms.count(head=False) == 5 * 48  # two a block, and the last
    attention = "self_attn" if net.name == "encoder" else "self_attention"
    assert {name.rpartition(".")[2] for name in LoRA().modules(net)} == {attention}
    assert LoRA(rank=2).attach(net, classes=3).count(head=False) == 2 * 2 * (24 + 72)
    assert len(Adapter().modules(net)) == 2
    taken = {name for names in BitFit().biases(net).values() for name in names}
    assert {"in_proj_bias", "out_proj.bias"} <= taken


def test_print_says_what_was_adapted(net):
    text = repr(LoRA(rank=2).attach(net, classes=3))
    first, *parts = text.splitlines()
    assert first == (f"lora on {net.name}: 384 parameters in 2 parts learn, and 75 in the head")
    assert [part.split()[-1] for part in parts] == ["192", "192"]
    assert all("encoder.layers" in part for part in parts)
    text = repr(METHODS["ap"](layer=2).attach(net, classes=3, runs=2))
    assert "place 2" in text
    assert text.splitlines()[0].endswith(", 2 runs")


def test_a_low_rank_update_folds(net):
    adapted = moved(LoRA(rank=2).attach(net, classes=3)).eval()
    plain = copy.deepcopy(net.module)
    adapted.method.fold_into(adapted, plain)
    plain = ap.load(plain, None, input_shape=(3, 32, 32))
    with torch.no_grad():
        learned = adapted.features(net.run(images(), stop=adapted.first_layer))
        assert torch.allclose(plain.run(images(), stop=-1), learned, atol=1e-4)


def test_frozen_weights_do_not_move(net):
    before = net.digest
    adapted = LoRA().attach(net, classes=3)
    for _ in range(3):
        adapted(images()).sum().backward()
    assert net.digest == before
    inner = adapted.net.module.get_submodule(LoRA().modules(net)[0]).inner
    original = net.module.get_submodule(LoRA().modules(net)[0])
    assert torch.equal(inner.in_proj_weight, original.in_proj_weight)


class Padded(torch.nn.Module):
    """A convolution whose surroundings read its settings, as Hugging Face's MobileNetV2 does."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(8, 8, 3)

    def forward(self, x):
        sides = [(size - 1) // 2 for size in self.convolution.kernel_size]
        return x + self.convolution(torch.nn.functional.pad(x, (*sides, *sides)))


@pytest.mark.parametrize("name", ["lora", "ssf", "bitfit"])
def test_a_forward_may_read_the_settings_of_what_is_adapted(name):
    blocks = (Padded() for _ in range(4))
    end = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5))
    net = ap.load(
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 2, 2), torch.nn.Sequential(*blocks), *end),
        None,
        input_shape=(3, 32, 32),
    )
    adapted = METHODS[name]().attach(net, classes=3)
    assert adapted.count(head=False) > 0
    adapted(images()).sum().backward()

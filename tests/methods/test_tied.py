"""What a network shares between its modules stays shared: one learned tensor, counted once."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aptheory as ap
from aptheory import InputError, methods
from tests.small_networks import small_vit


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + F.gelu(self.linear(self.norm(x)))


class Tied(nn.Module):
    """Four blocks on 16 patches; the linear layers of the second and the last share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.ModuleList(Block(8) for _ in range(4))
        self.blocks[3].linear.weight = self.blocks[1].linear.weight
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def tied_vit() -> ap.Network:
    """timm's own, so that it folds: a weight, a bias, a scale and two whole norms are shared."""
    module = small_vit().module
    module.blocks[3].mlp.fc1.weight = module.blocks[1].mlp.fc1.weight
    module.blocks[2].mlp.fc2.bias = module.blocks[0].mlp.fc2.bias
    module.blocks[4].norm1.weight = module.blocks[2].norm1.weight
    module.blocks[1].norm2 = module.blocks[0].norm2
    module.blocks[3].norm2 = module.blocks[3].norm1
    return ap.load(module, input_shape=(3, 32, 32), name="tied_vit").double()


@pytest.fixture(scope="module")
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ap.load(Tied().double(), weights=None, input_shape=(3, 16, 16), name="tied")


@pytest.fixture(scope="module")
def vit():
    return tied_vit()


def images(net):
    shape = (4, *net.input_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).double()


def trained(method, net, **options):
    adapted = method.attach(net, classes=3, **options)
    optimiser = torch.optim.SGD(adapted.trainable, lr=0.5)
    for _ in range(3):
        out = adapted(images(net))
        labels = torch.tensor([0, 1, 2, 1])
        F.cross_entropy(out.flatten(0, -2), labels.repeat(adapted.runs)).backward()
        optimiser.step()
        optimiser.zero_grad()
    return adapted.eval()


PARTIAL, FULL = methods.Partial(), methods.FullFineTuning()
# The second block comes after the patches and the first, at place 2.
FIRST = {PARTIAL: 2, FULL: 0}
BLOCK = 8 * 8 + 8 + 2 * 8
COUNT = {PARTIAL: BLOCK, FULL: 3 * 4 * 4 * 8 + 8 + 4 * BLOCK - 8 * 8}


@pytest.mark.parametrize("method", [PARTIAL, FULL])
def test_fine_tuning_keeps_two_linear_layers_tied(tiny, method, tmp_path):
    before = copy.deepcopy(tiny.module.state_dict())
    adapted = trained(method, tiny)
    first, last = (adapted.net.module.blocks[i].linear.weight for i in (1, 3))
    assert first is last
    assert not torch.equal(first, tiny.module.blocks[1].linear.weight)
    assert sum(parameter is first for parameter in adapted.trainable) == 1
    assert adapted.count(head=False) == COUNT[method]
    x = images(tiny)
    with torch.no_grad():
        out = adapted(x)
        # Nothing before this place feels it.
        assert adapted.first_layer == FIRST[method]
        z = tiny.run(x, stop=adapted.first_layer)
        torch.testing.assert_close(adapted.rest(z), out)
        ap.save(adapted, tmp_path / "one.safetensors")
        again = ap.attach_saved(tiny, tmp_path / "one.safetensors")
        assert torch.equal(again(x), out)
        assert again.net.module.blocks[1].linear.weight is again.net.module.blocks[3].linear.weight
        adapted.reset([0])
        torch.testing.assert_close(adapted.net.run(x, stop=-1), tiny.run(x, stop=-1))
    for name, value in tiny.module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert tiny.module.blocks[1].linear.weight is tiny.module.blocks[3].linear.weight
    with pytest.raises(InputError, match="no timm model with a classifier"):
        ap.fold(again)


def test_an_untied_part_begins_where_it_did(tiny):
    assert methods.Partial(blocks=3).attach(tiny, classes=3).first_layer == 2
    assert methods.Partial(blocks=4).attach(tiny, classes=3).first_layer == 1


LEARNS = {
    "full": lambda name: True,
    "bitfit": lambda name: name.endswith("bias"),
    "norm_tuning": lambda name: "norm" in name,
    "norm_tuning:shift=False": lambda name: "norm" in name and name.endswith("weight"),
}


@pytest.mark.parametrize("text", LEARNS)
def test_what_is_learned_is_one_tensor_and_folds_and_returns(vit, text, tmp_path):
    before = copy.deepcopy(vit.module.state_dict())
    adapted = trained(methods.parse(text), vit)
    body = [  # each shared one once
        (name, value)
        for name, value in vit.module.named_parameters()
        if not name.startswith("head.") and LEARNS[text](name)
    ]
    assert adapted.count(head=False) == sum(value.numel() for _, value in body)
    x = images(vit)
    with torch.no_grad():
        out = adapted(x)
        plain = ap.fold(adapted)
        torch.testing.assert_close(plain(x), out, rtol=1e-9, atol=1e-10)
        assert plain.blocks[4].norm1.weight is plain.blocks[2].norm1.weight
        assert all(not torch.equal(plain.get_parameter(name), value) for name, value in body)
        ap.save(adapted, tmp_path / "one.safetensors")
        assert torch.equal(ap.attach_saved(vit, tmp_path / "one.safetensors")(x), out)
    for name, value in vit.module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("text", ["bitfit", "norm_tuning"])
def test_runs_side_by_side_share_within_a_run_alone(vit, text):
    stack = trained(methods.parse(text), vit, runs=2, seed=[0, 1])
    with torch.no_grad():
        together = stack(images(vit))
        for k in range(2):
            alone = stack.select(k)
            torch.testing.assert_close(alone(images(vit)), together[k])
            torch.testing.assert_close(ap.fold(alone)(images(vit)), together[k])
    assert not torch.allclose(*together)


def test_a_prompt_folds_into_a_bias_unless_it_is_shared(vit):
    """The bias before place 3 is its block's own; those before 2 and 4 are one."""
    adapted = trained(methods.ActivationPrompt(layer=3, shape="channel"), vit)
    plain = ap.fold(adapted)
    torch.testing.assert_close(plain(images(vit)), adapted(images(vit)), rtol=1e-9, atol=1e-10)
    for layer in (2, 4):
        with pytest.raises(InputError, match="cannot be folded"):
            ap.fold(trained(methods.ActivationPrompt(layer=layer, shape="channel"), vit))

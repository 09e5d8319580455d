"""A structural copy is what `copy.deepcopy` makes, with the weights shared."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from aptheory.networks.copying import structural_copy
from tests.small_networks import small_resnet, small_vit


class Knotted(nn.Module):
    """A part used twice, one that knows its owner, one with a copy of its own, a list, a hook."""

    def __init__(self):
        super().__init__()
        self.once = self.again = nn.Linear(4, 4)
        self.own = OwnCopy(4, 4)
        self.normed = weight_norm(nn.Linear(4, 4))
        self.own.owner = [self]
        self.listed, self.seen = [nn.Linear(4, 4)], {"calls": 0}
        self.register_buffer("shift", torch.ones(4))
        self.own.register_forward_hook(double)

    def forward(self, x):
        self.seen["calls"] += 1
        return self.normed(self.again(self.own(self.once(x)))) + self.listed[0](x) + self.shift


class OwnCopy(nn.Linear):
    copies = 0

    def __deepcopy__(self, memo):
        OwnCopy.copies += 1
        twin = memo[id(self)] = OwnCopy.__new__(OwnCopy)
        twin.__dict__.update({k: copy.deepcopy(v, memo) for k, v in vars(self).items()})
        return twin


def double(module, args, output):
    return 2 * output


@pytest.mark.parametrize(
    "make", [lambda: small_vit().module, lambda: small_resnet().module, Knotted]
)
def test_it_has_the_same_parts_and_answers_and_none_of_the_modules(make):
    module = make().eval()
    twin = structural_copy(module)
    expected = copy.deepcopy(module)
    names = [name for name, _ in expected.named_modules(remove_duplicate=False)]
    assert [name for name, _ in twin.named_modules(remove_duplicate=False)] == names
    assert not set(map(id, twin.modules())) & set(map(id, module.modules()))
    for name, parameter in module.named_parameters():
        other = twin.get_parameter(name)
        assert other.data_ptr() == parameter.data_ptr()
        assert not other.requires_grad
    for name, buffer in module.named_buffers():
        assert twin.get_buffer(name).data_ptr() != buffer.data_ptr()
    shape = (2, 4) if isinstance(module, Knotted) else (2, 3, 32, 32)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(twin(x), module(x))


def test_what_is_knotted_stays_knotted_among_the_copies():
    module = Knotted()
    OwnCopy.copies = 0
    twin = structural_copy(module)
    assert OwnCopy.copies == 1
    assert twin.once is twin.again
    assert twin.own.owner == [twin]
    twin(torch.ones(1, 4))
    assert (module.seen, twin.seen) == ({"calls": 0}, {"calls": 1})
    assert twin.listed[0] is not module.listed[0]
    handle = twin.once.register_forward_hook(double)
    assert not module.once._forward_hooks
    handle.remove()


class Tied(nn.Module):
    """Two buffers that are one memory, and a layer that keeps references of its own."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(4, 4, batch_first=True)
        self.register_buffer("whole", torch.ones(4))
        self.register_buffer("start", self.whole[:2])

    def forward(self, x):
        return self.recurrent(x)[0] * self.whole


def test_what_shares_memory_shares_it_among_the_copies():
    module = Tied().eval()
    twin = structural_copy(module)
    twin.whole.zero_()
    assert twin.start.tolist() == [0, 0]
    assert module.start.tolist() == [1, 1]
    twin.whole.fill_(1)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(twin(x), module(x))
    for weight, other in zip(
        module.recurrent.all_weights[0], twin.recurrent.all_weights[0], strict=True
    ):
        assert weight is not other
        assert weight.data_ptr() == other.data_ptr()

"""Blocks that run on (tokens, samples, width) learn as those on (samples, tokens, width) do."""

import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory.methods.samples import sample_axes
from tests.networks import brought
from tests.networks.brought import SHAPE, WIDTH, Tokens


class Encoder(nn.Module):
    """torch's own transformer as it is by default: tokens first."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 8, 8)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 48)
        norm = nn.LayerNorm(WIDTH)
        self.encoder = nn.TransformerEncoder(layer, 4, norm, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x):
        return self.head(self.encoder(self.stem(x).flatten(2).permute(2, 0, 1)).mean(0))


@pytest.fixture(scope="module")
def net() -> ap.Network:
    torch.manual_seed(0)
    return ap.load(Encoder(), None, input_shape=SHAPE, name="encoder")


def test_the_axis_that_follows_the_number_of_images(net):
    axes = sample_axes(net)
    assert (axes["stem"], axes["encoder.layers.0"], axes["head"]) == (0, 1, 0)
    assert "encoder.layers.0.self_attn.out_proj" not in axes  # it is read, not called


def test_norm_tuning_trains_all_norms(net):
    adapted = ap.NormTuning().attach(net, classes=2)
    names = [name for name, _ in adapted.run_parameters(0) if not name.startswith("head.")]
    assert len(names) == 18
    adapted(torch.randn(3, *SHAPE)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for _, p in adapted.run_parameters(0))


@pytest.mark.parametrize("method", [ap.NormTuning(), ap.methods.SSF()], ids=lambda m: m.name)
def test_several_runs_are_what_each_is_alone(net, method):
    adapted = method.attach(net, classes=2, runs=2, seed=[3, 8])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *SHAPE, generator=generator)
    with torch.no_grad():
        for run in range(2):
            for _, parameter in adapted.run_parameters(run):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        together = adapted(x)
        for run in range(2):
            torch.testing.assert_close(together[run], adapted.select(run)(x))
    assert not torch.allclose(*together, atol=0.01)


def test_a_module_that_may_mix_samples_holds_one_run():
    net = ap.load(Tokens(brought.tokens_first), None, input_shape=SHAPE)
    block = "backbone.encoder.layers.1"
    adapted = ap.NormTuning().attach(net, classes=2, runs=2)
    with pytest.raises(ap.InputError, match=r"Block that has the samples on axis 1 .*together=1"):
        adapted.replace(block, nn.Identity())
    ap.NormTuning().attach(net, classes=2).replace(block, nn.Identity())

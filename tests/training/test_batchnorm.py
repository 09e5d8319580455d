"""Frozen BatchNorm folded away while training: rounding alone changes."""

import pytest
import torch

import aptheory as ap
from aptheory.training.batchnorm import Fused
from aptheory.training.fit import fit
from tests.quarters import RECIPE


def test_fusing_changes_rounding_alone_and_leaves_no_trace(cnn, task):
    adapted = ap.ActivationPrompt(layer=1, std=0.1).attach(cnn, classes=4).eval()
    kinds = [type(m) for m in adapted.net.module.modules()]
    z = torch.randn(3, *cnn.layers[1].shape)
    with torch.no_grad():
        before = adapted.rest(z)
        fused = Fused.apply(adapted)
        assert fused.pairs >= 8
        after = adapted.rest(z)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
        fused.undo()
        assert torch.equal(adapted.rest(z), before)
    assert [type(m) for m in adapted.net.module.modules()] == kinds

    plain = fit(adapted, task, recipe=RECIPE.but(fuse=False))
    again = fit(adapted, task, recipe=RECIPE)
    assert [type(m) for m in adapted.net.module.modules()] == kinds
    for ours, theirs in zip(again.curve, plain.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_fusing_leaves_alone_what_is_learned_hooked_or_read_elsewhere(cnn):
    assert Fused.apply(ap.NormTuning().attach(cnn, classes=4)).pairs == 0
    adapted = ap.ActivationPrompt(layer=1).attach(cnn, classes=4)
    everything = Fused.apply(adapted)
    count = everything.pairs
    everything.undo()
    conv = next(m for m in adapted.net.module.layer2.modules() if type(m) is torch.nn.Conv2d)
    conv.register_forward_hook(lambda module, given, out: None)
    assert Fused.apply(adapted).pairs == count - 1

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 4, 3)
            self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(4)
            self.pool = torch.nn.AdaptiveAvgPool2d(1)
            self.fc = torch.nn.Linear(4, 5)

        def forward(self, x):
            y = self.conv(self.first(x))
            return self.fc(torch.flatten(self.pool(torch.relu(self.norm(y)) + y), 1))

    module = Twice().eval()
    module.norm.running_mean.fill_(0.7)
    net = ap.load(module, input_shape=(3, 8, 8))
    adapted = ap.VisualPrompt().attach(net, classes=4)
    assert Fused.apply(adapted).pairs == 0
    assert isinstance(adapted.net.module.norm, torch.nn.BatchNorm2d)

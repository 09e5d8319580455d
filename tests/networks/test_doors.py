"""A network that was changed after it was loaded is refused before it gives wrong results."""

import pytest

import aptheory as ap
from tests.quarters import small_cnn, small_task


def profiled(net):
    return ap.profile(net, small_task(), measures=["effective_rank"], limit=8)


def test_a_hook_that_would_not_be_called_is_refused():
    net = small_cnn()
    handle = net.module.register_forward_hook(lambda *_: None)
    with pytest.raises(ap.InputError, match="a hook was put on the network itself"):
        profiled(net)
    handle.remove()
    seen = []
    net.module.layer1[0].conv1.register_forward_hook(lambda *_: seen.append(1))
    profiled(net)
    assert seen


def test_a_module_that_is_gone_is_told():
    net = small_cnn()
    del net.module.layer2
    with pytest.raises(ap.InputError, match="layer2.0 of .* is gone"):
        profiled(net)


def test_training_mode_is_refused():
    net = small_cnn()
    net.module.train()
    with pytest.raises(ap.InputError, match="training mode"):
        profiled(net)

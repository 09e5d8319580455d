"""A network that was changed after it was loaded is refused before it gives wrong results."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda module: setattr(module.layer2[0], "conv1", nn.Conv2d(3, 8, 3).eval()), "it fails"),
        (lambda module: setattr(module.layer2[0], "conv1", nn.Flatten().eval()), "it fails"),
        (lambda module: delattr(module.layer2[0], "conv1"), "it fails"),
        (lambda module: setattr(module, "global_pool", nn.Identity().eval()), "it gives"),
    ],
)
def test_a_module_of_another_shape_is_told(changed, told):
    net = small_cnn()
    changed(net.module)
    with pytest.raises(ap.InputError, match=f"was changed since it was loaded: .* {told}"):
        profiled(net)
    with pytest.raises(ap.InputError, match="load the network anew"):
        ap.fit_many(ap.LinearProbe(), net, small_task(), runs=[ap.Run()])


def trained(net, method=None):
    recipe = ap.Recipe(epochs=1)
    runs = [ap.Run()]
    return ap.fit_many(method or ap.LinearProbe(), net, small_task(), runs=runs, recipe=recipe)


def test_gradients_that_are_switched_off_are_switched_on_or_told():
    net = small_cnn()
    with torch.no_grad():
        without = trained(net, ap.ActivationPrompt(layer=2))
    again = trained(net, ap.ActivationPrompt(layer=2))
    assert without[0].val_loss == again[0].val_loss
    with torch.inference_mode(), pytest.raises(ap.InputError, match="outside of torch.inference"):
        trained(net)
    with torch.inference_mode():
        made_there = small_cnn()
    with pytest.raises(ap.InputError, match="was made under torch.inference_mode"):
        trained(made_there)


def test_the_meta_device_is_told():
    net = small_cnn()
    with torch.device("meta"), pytest.raises(ap.InputError, match="default device is meta"):
        trained(net)
    net.module.to("meta")
    for use in (trained, profiled):
        with pytest.raises(ap.InputError, match="is on the meta device"):
            use(net)


def test_weights_that_changed_in_place_are_another_network(tmp_path):
    """The runs of the network as it was are not taken for those of what it is now."""
    net = small_cnn()
    study = {"tasks": [small_task()], "methods": ["linear_probe"], "seeds": [0]}
    study["recipes"] = [{"name": "quick", "epochs": 1}]
    before = ap.sweep(ap.Study(networks=[net], **study), tmp_path / "study", progress=False)
    with torch.no_grad():
        net.module.conv1[0].weight.mul_(-1)
    after = ap.sweep(ap.Study(networks=[net], **study), tmp_path / "study", progress=False)
    assert not before.equals(after)
    model = ap.fit_model(net, small_task(), method="linear_probe", recipe=ap.Recipe(epochs=1))
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(ap.InputError, match="weights"):
        ap.load_model(tmp_path / "model.safetensors", network=small_cnn())
    again = ap.load_model(tmp_path / "model.safetensors", network=net)
    assert again.predict(small_task().test.pixels).equals(model.predict(small_task().test.pixels))


def test_networks_are_loaded_in_several_threads():
    """torch.fx stands in for every module's call while it traces, and took itself off no more."""
    with ThreadPoolExecutor(4) as pool:
        nets = [pool.submit(ap.load, "aptheory_resnet_mini", "random") for _ in range(8)]
        assert {len(net.result().layers) for net in nets} == {13}
    assert len(ap.load("aptheory_vit_mini", "random").layers) > 3


def test_one_thread_trains_while_others_load():
    """While torch.fx traces, it stands in for the modules of every thread; and the check that a
    forward draws no random numbers is not to be misled by another's draws."""
    net, task = small_cnn(), small_task()

    def train(_: int) -> list[float]:
        outcomes = []
        for seed in range(3):
            adapted = ap.ActivationPrompt(layer=1).attach(net, classes=len(task.classes))
            outcomes.append(ap.fit(adapted, task, recipe=ap.Recipe(epochs=2), seed=seed))
        return [outcome.test_loss for outcome in outcomes]

    alone = train(0)
    with ThreadPoolExecutor(4) as pool:
        trained = pool.map(train, range(2))
        loaded = [pool.submit(ap.load, "aptheory_resnet_mini", "random") for _ in range(8)]
        assert all(len(net.result().layers) == 13 for net in loaded)
        assert list(trained) == [alone, alone]


def test_profiles_in_several_threads_are_those_of_one():
    """Their watchers hang in the network, where another's would be taken for a stranger's hooks."""
    net = small_cnn()
    alone = profiled(net)
    with ThreadPoolExecutor(4) as pool:
        tables = [pool.submit(profiled, net) for _ in range(4)]
        assert all(table.result().equals(alone) for table in tables)

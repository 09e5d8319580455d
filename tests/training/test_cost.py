"""Cost: counts against closed forms, predictions against counts, memory as allocated."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.training.cost import (
    cost,
    count_operations,
    front,
    piece_operations,
    predict,
    step_memory,
)
from tests.quarters import small_cnn, small_vit


@pytest.fixture(scope="module")
def vit():
    return small_vit(32, patch_size=8, depth=4)


@pytest.fixture(scope="module")
def cnn():
    return small_cnn(32)


def test_operations_of_a_transformer_are_those_of_the_formula(vit):
    """A block on N tokens of width D: 24 N D^2 for its four matrices (hidden 4 D), 4 N^2 D for
    the attention, which PyTorch's own counter gives as zero on a CPU."""
    tokens, width = 17, 24
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    operations = piece_operations(vit).forward
    blocks = vit.block_layers
    assert [operations[i] for i in blocks] == [block] * 4
    assert operations[0] == 2 * 16 * width * 3 * 8 * 8  # the patch embedding
    assert operations[-1] == 2 * width * 1000  # the model's own classifier
    assert len(operations) == len(vit.layers)
    back = piece_operations(vit).backward
    assert [back[i] - block for i in blocks] == [4 * tokens**2 * width] * 4


def test_operations_of_a_convolution():
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    x = torch.zeros(2, 3, 10, 12)
    with torch.no_grad():
        assert count_operations(lambda: conv(x)) == 2 * 2 * 10 * 12 * 8 * 3 * 9


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_the_prediction_is_what_a_step_runs(name, request):
    net = request.getfixturevalue(name)
    operations = piece_operations(net)
    classes, batch = 10, 4
    x, y = torch.randn(batch, *net.input_shape), torch.zeros(batch, dtype=torch.int64)
    middle = net.block_layers[len(net.block_layers) // 2]
    methods = [
        ap.VisualPrompt(),
        ap.ActivationPrompt(layer=middle),
        ap.ActivationPrompt(layer=net.block_layers[-1]),
        ap.LinearProbe(),
        ap.FullFineTuning(),
    ]
    for method in methods:
        adapted = method.attach(net, classes=classes)
        prediction = predict(adapted, operations)

        def papers_step(adapted=adapted):
            with torch.no_grad():
                z = adapted.net.run(x, stop=adapted.first_layer)
            torch.nn.functional.cross_entropy(adapted.rest(z), y).backward()

        def kept_step(adapted=adapted, z=None):
            torch.nn.functional.cross_entropy(adapted.rest(z), y).backward()

        counted = count_operations(papers_step) / batch
        exact = 0.06 if method.name == "full" else 1e-9
        # Full fine-tuning needs no gradient of the image; the rest is exact.
        assert counted == pytest.approx(prediction.step, rel=exact), method.name
        with torch.no_grad():
            z = net.run(x, stop=adapted.first_layer)
        counted = count_operations(lambda a=adapted, z=z: kept_step(a, z)) / batch
        assert counted == pytest.approx(prediction.step_from_kept, rel=exact), method.name


def test_the_papers_ratio():
    """Claim 19 [derived]: AP at the input of layer4 of a ResNet-101 costs 0.55 of VP a step."""
    net = ap.load("resnet50", weights=None, input_shape=(3, 64, 64))
    place = next(layer.index for layer in net.layers if layer.name == "layer4.0")
    prediction = predict(ap.ActivationPrompt(layer=place).attach(net, classes=37))
    ratio = prediction.step / prediction.step_of_visual_prompting
    # (F + F_after) / 2F with ResNet-50's 0.81 of 4.09 GMAC after that place
    assert ratio == pytest.approx((1 + 0.81 / 4.09) / 2, abs=0.01)
    kept = prediction.step_from_kept / prediction.step_of_visual_prompting
    assert kept == pytest.approx(0.81 / 4.09, abs=0.01)


def test_memory_of_a_step_is_what_it_allocates():
    size = 1_000_000
    held = []

    def step():
        a = torch.ones(size)
        b = a + 1
        del a
        held.append(torch.ones(size // 2))
        del b

    peak = step_memory(step, torch.device("cpu"))
    assert 2 * 4 * size <= peak <= 2 * 4 * size + 4 * size // 2 + 10_000


def test_the_table(cnn):
    methods = [ap.VisualPrompt(), ap.ActivationPrompt(layer=3), ap.LinearProbe()]
    table = cost(cnn, methods, classes=5, batch_size=8, repeats=2, images=20, clock="cpu")
    assert list(table["method"]) == ["vp", "ap", "ap", "linear_probe", "linear_probe"]
    assert list(table["kept"]) == [False, False, True, False, True]
    measured = ["step_ms", "epoch_seconds", "peak_memory_mb", "throughput", "measured_ratio"]
    assert (table[measured] > 0).all().all()
    assert table["epoch_seconds"].iloc[0] == pytest.approx(3 * table["step_ms"].iloc[0] / 1e3)
    vp, prompt, kept, probe, _ = (row for _, row in table.iterrows())
    for ratio in ("measured_ratio", "throughput_ratio"):
        assert (table[f"{ratio}_low"] <= table[ratio]).all()
        assert (table[ratio] <= table[f"{ratio}_high"]).all()
    assert vp["parameters"] == 3 * 32 * 32 + 5 * (cnn.num_features + 1)
    assert vp["parameters_without_head"] == 3 * 32 * 32
    assert vp["step_gflop"] > prompt["step_gflop"] > kept["step_gflop"] > 0
    assert vp["predicted_ratio"] == pytest.approx(1.0)
    assert vp["step_gflop_counted"] == pytest.approx(vp["step_gflop"], rel=0.05)
    assert vp["peak_memory_mb"] > prompt["peak_memory_mb"]
    assert probe["predicted_ratio"] == pytest.approx(0.5, abs=0.05)
    assert kept["first_epoch_seconds"] > kept["epoch_seconds"]


def test_prediction_alone_measures_nothing(cnn):
    table = cost(cnn, ap.ActivationPrompt(layer=2), measure=False)
    assert "step_ms" not in table
    assert len(table) == 2


def test_the_front_holds_what_nothing_beats():
    table = pd.DataFrame(
        {
            "method": list("abcdef"),
            "step_ms": [3.0, 1.0, 2.0, 2.0, 4.0, math.nan],
            "test_accuracy": [0.7, 0.5, 0.6, 0.65, 0.69, 0.99],
        }
    )
    assert list(front(table)["method"]) == ["b", "d", "a"]
    with pytest.raises(InputError, match="no column"):
        front(table, cost="euros")


def test_bad_clock(cnn):
    with pytest.raises(InputError, match="clock"):
        cost(cnn, ap.LinearProbe(), clock="sun")


@pytest.mark.parametrize("methods", [np.zeros((0, 8)), torch.zeros(0, 8), []])
def test_an_empty_array_is_no_methods(methods):
    with pytest.raises(InputError, match="is empty; give at least one"):
        cost(small_cnn(), methods, measure=False)


def test_an_array_of_methods_is_a_list_of_them():
    assert len(cost(small_cnn(), np.array([ap.LinearProbe()]), measure=False)) == 2

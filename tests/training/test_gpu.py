"""Training on a GPU and compiled: the numbers of the CPU, to rounding. Run with -m gpu, -m slow."""

import pytest
import torch

import aptheory as ap
from aptheory.training.cost import cost
from aptheory.training.fit import Run, fit_many
from tests.own_process import lines_printed_by
from tests.quarters import RECIPE

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def losses(net, task, recipe, **options):
    method = ap.ActivationPrompt(layer=net.block_layers[1])
    runs = [Run(seed=0), Run(seed=1, lr=0.01)]
    return [
        [entry["train_loss"] for entry in outcome.curve]
        for outcome in fit_many(method, net, task, runs=runs, recipe=recipe, **options)
    ]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["vit", "cnn"])
@pytest.mark.parametrize("changes", [{}, {"cuda_graph": True}, {"precision": "bfloat16"}])
def test_a_gpu_trains_like_the_cpu(name, changes, task, request):
    net = request.getfixturevalue(name)
    before = losses(net, task, RECIPE)
    try:
        found = losses(net.to("cuda"), task, RECIPE.but(together=2, **changes))
    finally:
        net.to("cpu")
    close = 0.05 if "precision" in changes else 2e-3
    for ours, theirs in zip(found, before, strict=True):
        assert ours == pytest.approx(theirs, rel=close)


@pytest.mark.gpu
@needs_gpu
def test_cost_on_a_gpu(cnn):
    try:
        table = cost(cnn.to("cuda"), ap.VisualPrompt(), batch_size=4, repeats=2, classes=4)
    finally:
        cnn.to("cpu")
    assert (table["step_ms"] > 0).all()
    assert (table["peak_memory_mb"] > 0).all()


COMPILED = """
import aptheory as ap
from aptheory.training.fit import Recipe, fit
from tests.quarters import small_task, small_vit

net, task = small_vit(), small_task()
for how in ("none", "default"):
    adapted = ap.ActivationPrompt(layer=2).attach(net, classes=4)
    outcome = fit(adapted, task, recipe=Recipe(epochs=2, batch_size=30, compile=how))
    print(*(entry["train_loss"] for entry in outcome.curve))
"""


@pytest.mark.slow
def test_a_compiled_rest_trains_like_the_plain_one():
    # In a process of its own: the compiler cannot read functions that check shapes as they run.
    printed = lines_printed_by(COMPILED)
    plain, compiled = ([float(v) for v in line.split()] for line in printed[-2:])
    assert compiled == pytest.approx(plain, rel=1e-3)

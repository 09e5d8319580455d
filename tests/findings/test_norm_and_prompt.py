"""A prompt taken apart at the next norm, on networks where the answer is known."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import aptheory as ap
from aptheory.errors import InputError
from aptheory.findings.norm_and_prompt import compare_norm
from aptheory.findings.prompt_parts import next_norm, read_as_prompt, take_apart
from aptheory.studies.records import key_of
from tests.quarters import RECIPE, small_vit


class NormFirst(nn.Module):
    """Two blocks, each a BatchNorm, an activation and a convolution; nothing passes a norm by."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(3), activation(), nn.Conv2d(3, 3, 3, padding=1))
            for _ in range(2)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.fc(self.pool(x))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    module = NormFirst()
    for block in module.blocks:
        block[0].running_mean.normal_()
        block[0].weight.data.normal_()
    return ap.load(module, input_shape=(3, 16, 16), name="norm_first")


def prompted(net, shape, *, layer=0):
    """A prompt of random values, and a head that tells classes apart at random."""
    adapted = ap.ActivationPrompt(layer=layer, shape=shape).attach(net, classes=4)
    generator = torch.Generator().manual_seed(1)
    for parameter in (adapted.edits_at(layer)[0].delta.values[0], adapted.head.weight.values[0]):
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


def test_one_number_a_channel_before_a_batchnorm_is_beta_and_nothing_else(net, task):
    found = take_apart(prompted(net, "channel"), task)
    assert found["norm"] == next_norm(net, 0)
    for share in ("exact", "beta", "logits beta", "logits gamma and beta", "logits whole"):
        assert found[share] == pytest.approx(1, abs=1e-4), share
    assert found["left"] == pytest.approx(0, abs=1e-6)
    assert found["logits rest"] == pytest.approx(0, abs=1e-3)
    assert found["kept beta"] == found["kept whole"]
    assert found["kept rest"] == found["kept none"]
    assert found["retrained beta"] == found["retrained whole"]
    assert found["more"] == 0
    assert found["more_low"] < 0 < found["more_high"]


@pytest.mark.parametrize("shape", ["full", "token"])
def test_shares_of_other_prompts_add_up_and_follow_from_the_prompt(net, task, shape):
    adapted = prompted(net, shape)
    found = take_apart(adapted, task)
    assert found["beta"] + found["gamma"] + found["left"] == pytest.approx(1)
    delta = adapted.edits_at(0)[0].value()[0].detach().expand(3, 16, 16).double()
    mean = delta.mean((1, 2))
    exact = 256 * mean.square().sum() / delta.square().sum()
    assert found["exact"] == pytest.approx(float(exact))
    # The norm scales each channel by gamma / t; the exact part is the mean there, too.
    norm = net.module.get_submodule(found["norm"])
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
    change = delta * factor[:, None, None]
    beta = 256 * (mean * factor).square().sum() / change.square().sum()
    assert found["beta"] == pytest.approx(float(beta), abs=1e-5)
    assert found["left"] > 0.5
    assert found["kept whole"] == pytest.approx(accuracy(adapted, task))


def accuracy(adapted, task):
    images = task.test.images(np.arange(len(task.test)), (16, 16))
    with torch.no_grad():
        guess = adapted(adapted.source.normalize(images)).argmax(1)
    return float((guess.numpy() == task.test.labels).mean())


def test_a_skip_connection_leaves_its_share_to_the_rest(task):
    """Of a ViT's block the norm sees the prompt and the skip carries it on as it is."""
    found = take_apart(prompted(small_vit(), "full", layer=1), task)
    assert found["beta"] + found["gamma"] + found["left"] == pytest.approx(1)
    assert found["exact"] == 0.0
    assert 0 < found["unseen"] < 0.2  # 1/24 of a random prompt is equal in all channels
    assert found["logits whole"] == pytest.approx(1)
    assert found["logits none"] == pytest.approx(0)


def test_a_tuned_beta_is_a_prompt_and_a_tuned_gamma_is_not(task):
    """Without an activation what beta adds is the same for every input, at every later place."""
    torch.manual_seed(0)
    net = ap.load(NormFirst(nn.Identity), input_shape=(3, 16, 16), name="linear")
    shares = {}
    for scale in (False, True):
        adapted = ap.NormTuning(layer=1, scale=scale).attach(net, classes=4).eval()
        heads = {id(parameter) for parameter in adapted.head.parameters()}
        for parameter in adapted.trainable:
            if id(parameter) not in heads:
                parameter.data += 0.5
        shares[scale] = read_as_prompt(adapted, task, 1)
    assert shares[False][0] == pytest.approx(1, abs=1e-5)
    assert 0.5 < shares[False][1] < 1  # the padding of the convolution is not shifted
    assert shares[True][0] < 0.99


def test_what_cannot_be_taken_apart_is_refused(net, task):
    with pytest.raises(InputError, match="one run of one activation prompt"):
        take_apart(ap.LinearProbe().attach(net, classes=4), task)
    with pytest.raises(InputError, match="no normalisation.*choose an earlier place"):
        next_norm(net, len(net.layers) - 1)


ONE_STEP = RECIPE.but(epochs=1, batch_size=1000)


def test_the_comparison_has_every_method_at_every_place_with_its_cost(net, task):
    found = compare_norm(net, task, layers=(1, 2), recipe=RECIPE.but(epochs=2), lrs=(1e-2,))
    counts = found.table["method"].value_counts()
    assert counts["linear probe"] == counts["all beta"] == counts["all norms"] == 1
    assert counts["prompt"] == counts["prompt, channels"] == 2
    assert found.table.set_index("method").loc["linear probe", "gain"] == 0
    assert found.table["gain_low"].isna().tolist() == [True, *[False] * (len(found.table) - 1)]
    assert (found.table["parameters"] >= 0).all()
    steps = found.table[found.table["method"] == "prompt"].set_index("layer")["step"]
    assert steps[1] > steps[2] > 0
    assert set(found.parts["shape"]) == {"full", "channel"}
    assert found.parts[["beta", "gamma", "left"]].sum(axis=1).to_numpy() == pytest.approx(1)
    said = str(found)
    assert "imitate plus" in said
    first = found.parts.assign(val_accuracy=0.5, val_loss=2.0)
    tied = pd.concat([first, first.assign(layer=2, val_loss=1.0)])
    assert "At place 2, the best on validation" in str(replace(found, parts=tied))
    assert "read as a prompt" in said
    none = replace(found, parts=found.parts.iloc[:0])
    assert "head as trained)\nnone\n" in str(none)
    probes = found.table[found.table["layer"].isna()].assign(layer=None)  # no run at a place held
    assert "all norms     -" in str(replace(found, table=probes))
    with pytest.raises(InputError, match="all beta came to no usable model"):
        compare_norm(net, task, layers=(1,), recipe=ONE_STEP, lrs=(1e30,))
    with pytest.raises(InputError, match="at least one place"):
        compare_norm(net, task, layers=(len(net.layers) - 1,))


def test_an_interrupted_comparison_goes_on_with_what_it_has(net, task, tmp_path, monkeypatch):
    options = {"layers": (1, 2), "recipe": RECIPE.but(epochs=2), "lrs": (1e-2,)}
    undisturbed = compare_norm(net, task, **options)
    trained = []

    def interrupted(method, *given, **more):
        if len(trained) in stops:
            raise KeyboardInterrupt
        trained.append(method)
        return ap.fit_many(method, *given, **more)

    monkeypatch.setattr("aptheory.findings.norm_and_prompt.fit_many", interrupted)
    stops = [2, 6, len(undisturbed.table) - 1]
    while stops:
        with pytest.raises(KeyboardInterrupt):
            compare_norm(net, task, steps=tmp_path / "steps.jsonl", **options)
        stops.pop(0)
    found = compare_norm(net, task, steps=tmp_path / "steps.jsonl", **options)
    assert len(trained) == len(undisturbed.table)  # each once
    costs = ["seconds", "memory"]
    pd.testing.assert_frame_equal(
        found.table.drop(columns=costs), undisturbed.table.drop(columns=costs), check_exact=True
    )
    pd.testing.assert_frame_equal(found.parts, undisturbed.parts, check_exact=True)
    pd.testing.assert_frame_equal(found.backwards, undisturbed.backwards, check_exact=True)
    other = compare_norm(net, task, steps=tmp_path / "steps.jsonl", **{**options, "lrs": (3e-2,)})
    assert len(trained) == 2 * len(undisturbed.table)
    assert set(other.table["lr"]) == {3e-2}


def test_steps_that_somebody_forged_are_passed_over(net, task, tmp_path):
    """A checksum can be computed by anybody; a kept value has the form of a measured one."""
    path = tmp_path / "table.steps"
    options = {"layers": (1,), "recipe": ONE_STEP, "lrs": (1e-2,)}
    right = compare_norm(net, task, steps=path, **options)
    whole = path.read_text().splitlines()
    lines = [json.loads(line) for line in whole if line]
    number = next(n for n, line in enumerate(lines) if line["step"] == "prompt at 1")
    value = json.loads(lines[number]["value"])
    row, parts = value["row"], value["parts"]
    forged = [
        *(None, {}, [], 3, {"said": 5}, {**value, "more": 1}, {**value, "row": {}}),
        *({**value, "row": {**row, "test_accuracy": wrong}} for wrong in ("=1+1", 3, None)),
        *({**value, "row": {**row, "layer": wrong}} for wrong in ("a", -1)),
        *({**value, "correct": wrong} for wrong in ("zzz", "8:AA==", "1000000000000:AA==", 5)),
        *({**value, "parts": wrong} for wrong in ([1], {}, {**parts, "beta": "x"})),
    ]
    for wrong in forged:
        line = {**lines[number], "value": json.dumps(wrong)}
        del line["checksum"]
        changed = [*lines[:number], {**line, "checksum": key_of(line)}, *lines[number + 1 :]]
        path.write_text("\n".join(map(json.dumps, changed)))
        found = compare_norm(net, task, steps=path, **options)
        costs = ["seconds", "memory"]
        pd.testing.assert_frame_equal(
            found.table.drop(columns=costs), right.table.drop(columns=costs)
        )
        pd.testing.assert_frame_equal(found.parts, right.parts)

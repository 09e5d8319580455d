"""The two-layer networks of the theory: data, attention, prompts, and what must hold exactly."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from aptheory.errors import InputError
from aptheory.theory.comparison import preference, smallest_by_place
from aptheory.theory.patterns import Patterns, head_weights
from aptheory.theory.prompt_learning import Learning, learn, with_best_rate
from aptheory.theory.sample_complexity import smallest_samples, steps_to_zero
from aptheory.theory.slopes import bootstrap_mean, slope_difference, slope_interval
from aptheory.theory.trained_vit import pretrain
from aptheory.theory.two_layer_cnn import TwoLayerCNN
from aptheory.theory.two_layer_vit import TwoLayerViT, ring_distance, windows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("nuisance", ["independent", "shared"])
def test_samples_follow_their_description(nuisance):
    data = Patterns(16, fraction=0.25, noise=0.2, nuisance=nuisance)
    drawn = data.draw(3, 2000, generator())
    positive = (drawn.kinds == 0).sum(-1)
    assert torch.equal(positive, torch.where(drawn.labels > 0, 4, 0))
    assert torch.equal((drawn.kinds == 1).sum(-1), torch.where(drawn.labels < 0, 4, 0))
    assert drawn.noise.abs().max() <= 0.2
    excess = ((drawn.kinds == 2).sum(-1) - (drawn.kinds == 3).sum(-1)).float() / 16
    assert excess.std().item() == pytest.approx(data.nuisance_deviation, rel=0.05)


@pytest.mark.parametrize("tokens", [32, 64])
def test_untouched_network_errs_on_a_quarter(tokens):
    data = Patterns(tokens, noise=0.0, nuisance="independent")
    network = TwoLayerViT.for_data(data, attention="hard", activation="relu")
    drawn = data.draw(1, 3000, generator())
    logits = network.logits(drawn)
    error = (logits * drawn.labels < 0).float().mean() + (logits == 0).float().mean() / 2
    assert error.item() == pytest.approx(0.5 * math.erfc(1 / 1.5 / math.sqrt(2)), abs=0.05)


def reference_logits(network, drawn, place, prompt):
    """One sample at a time, with loops over queries: an independent path."""
    out = []
    for s in range(drawn.labels.shape[1]):
        kinds = drawn.kinds[0, s].long()
        state = torch.nn.functional.one_hot(kinds, 4).double() + drawn.noise[0, s]
        for layer in range(2):
            if place == f"layer {layer + 1}":
                state = state + prompt.double()
            rows = []
            for n in range(network.tokens):
                near = [
                    m
                    for m in range(network.tokens)
                    if min(abs(n - m), network.tokens - abs(n - m)) <= network.ranges[layer]
                ]
                if network.attention == "softmax":
                    scores = [network.sharpness * float(state[n] @ state[m]) for m in near]
                    weight = np.exp(np.array(scores) - max(scores))
                elif network.attention == "even":
                    weight = np.ones(len(near))
                else:
                    weight = np.array([float(kinds[m] == kinds[n]) for m in near])
                weight = weight / weight.sum()
                rows.append(sum(float(w) * state[m] for w, m in zip(weight, near, strict=True)))
            state = torch.stack(rows)
            if network.activation == "relu":
                state = state.clamp_min(0)
        out.append(float(state.mean(0).float() @ network.head))
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("attention", ["hard", "even", "softmax"])
@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("ranges", [(6, 0), (2, 6), (1, 3)])
def test_logits_equal_a_loop(attention, activation, ranges):
    data = Patterns(12, noise=0.3)
    network = TwoLayerViT.for_data(data, ranges=ranges, attention=attention, activation=activation)
    drawn = data.draw(1, 5, generator(1))
    for place in ("layer 1", "layer 2"):
        prompt = torch.randn(1, 12, 4, generator=generator(2))[0]
        ours = network.logits(drawn, place=place, prompt=prompt[None, None])[0].double()
        assert torch.allclose(ours, reference_logits(network, drawn, place, prompt), atol=1e-3)


@pytest.mark.parametrize("attention", ["hard", "even"])
def test_shared_prompt_ignores_the_range_when_attention_is_frozen(attention):
    """Rows of the attention sum to one: the claim [derived] of the module."""
    data = Patterns(16, noise=0.0)
    drawn = data.draw(1, 50, generator())
    prompt = torch.tensor([0.3, -0.2, 0.1, 0.4]).view(1, 1, 1, 4)
    shifts = []
    for reach in (0, 3, 8):
        network = TwoLayerViT.for_data(
            data, ranges=(reach, 2), attention=attention, activation="linear"
        )
        shifts.append(network.logits(drawn, place="layer 1", prompt=prompt) - network.logits(drawn))
    assert torch.allclose(shifts[0], shifts[1], atol=1e-4)
    assert torch.allclose(shifts[0], shifts[2], atol=1e-4)
    steered = TwoLayerViT.for_data(data, ranges=(3, 2), attention="softmax")
    moved = steered.logits(drawn, place="layer 1", prompt=prompt) - steered.logits(drawn)
    assert not torch.allclose(shifts[0], moved, atol=1e-2)


def test_input_prompt_is_the_layer_one_prompt_through_the_embedding():
    data = Patterns(8)
    network = TwoLayerViT.for_data(data)
    drawn = data.draw(1, 20, generator())
    prompt = torch.randn(1, 1, 8, 4, generator=generator(1))
    embedded = prompt @ network._embedding().T
    left = network.logits(drawn, place="input", prompt=prompt)
    right = network.logits(drawn, place="layer 1", prompt=embedded)
    assert torch.allclose(left, right)
    assert torch.linalg.cond(network._embedding()).item() == pytest.approx(4, rel=1e-4)


def test_attention_distance_of_even_attention_is_the_mean_ring_distance():
    data = Patterns(16)
    drawn = data.draw(1, 10, generator())
    network = TwoLayerViT.for_data(data, ranges=(8, 2), attention="even")
    first, second = network.attention_distance(drawn)
    assert first == pytest.approx(float(ring_distance(16).mean()), abs=1e-5)
    assert second == pytest.approx((2 + 1 + 0 + 1 + 2) / 5, abs=1e-5)
    assert network.flipped.attention_distance(drawn) == pytest.approx((second, first), abs=1e-5)


def test_windows_wrap_around():
    row = windows(torch.arange(5.0)[:, None], 1)[:, 0]
    assert row.tolist() == [[4, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]]


def test_a_range_between_two_whole_ones_lies_between_their_attentions():
    data = Patterns(12)
    drawn = data.draw(1, 5, generator())
    for attention in ("hard", "even", "softmax"):
        distances = [
            TwoLayerViT.for_data(data, ranges=(reach, 1), attention=attention).attention_distance(
                drawn
            )[0]
            for reach in (2, 2.25, 2.75, 3)
        ]
        assert distances == sorted(distances)
        assert distances[0] < distances[1] < distances[2] < distances[3]
    # windows and the whole map are two routes to one softmax
    network = TwoLayerViT.for_data(data, ranges=(1.5, 6))
    kinds = torch.nn.functional.one_hot(drawn.kinds.long(), 4).float()
    local = network._attend(drawn.values, kinds, 1.5)
    whole = network._weights(drawn.values, kinds, 1.5) @ drawn.values
    assert torch.allclose(local, whole, atol=1e-6)


def test_convolution_equals_torch():
    data = Patterns(12, noise=0.3)
    network = TwoLayerCNN.for_data(data, kernels=(3, 5), stride=2)
    drawn = data.draw(1, 6, generator())
    prompt = torch.randn(6, 4, generator=generator(1))
    state = drawn.values[0].transpose(1, 2)
    for layer, width in enumerate((3, 5)):
        if layer == 1:
            state = state + prompt.T
        padded = torch.nn.functional.pad(state, (width // 2,) * 2, mode="circular")
        kernel = network.kernel(layer).expand(4, 1, -1)
        state = torch.relu(torch.nn.functional.conv1d(padded, kernel, groups=4))
        if layer == 0:
            state = torch.nn.functional.avg_pool1d(state, 2)
    expected = state.mean(-1) @ network.head
    ours = network.logits(drawn, place="layer 2", prompt=prompt[None, None])[0]
    assert torch.allclose(ours, expected, atol=1e-4)


def test_globality_of_a_convolution_grows_with_stride():
    data = Patterns(16)
    flat = TwoLayerCNN.for_data(data, stride=1).globality()
    strided = TwoLayerCNN.for_data(data, stride=4).globality()
    assert strided[0] == flat[0]
    assert strided[1] == pytest.approx(4 * flat[1])


def test_a_prompt_that_silences_the_nuisance_removes_every_error():
    data = Patterns(16)
    network = TwoLayerViT.for_data(data, attention="hard", activation="relu")
    drawn = data.draw(1, 500, generator())
    assert (network.logits(drawn) * drawn.labels <= 0).any()
    prompt = torch.tensor([0.0, 0.0, -1.2, -1.2]).view(1, 1, 1, 4)
    for place in ("layer 1", "layer 2"):
        assert (network.logits(drawn, place=place, prompt=prompt) * drawn.labels > 0).all()


def test_learning_finds_such_a_prompt_and_reports_it():
    data = Patterns(8)
    network = TwoLayerViT.for_data(data, attention="hard", activation="relu")
    runs = learn(
        network,
        data,
        "layer 1",
        sizes=[2, 128],
        repetitions=3,
        learning=Learning(rate=0.04, steps=200, batch=8, shape="shared"),
        looks=2,
    )
    assert set(runs.step) == {100, 200}
    last = runs[runs.step == 200].groupby("samples").mean()
    assert last.test_error[128] < 0.01 < last.test_error[2]
    assert last.removed[128] > 0.5
    assert last.norm[128] > 0.5


def test_runs_do_not_mix():
    """A run's result does not depend on which other runs share the batch's gradient."""
    data = Patterns(8)
    network = TwoLayerViT.for_data(data)
    learning = Learning(rate=0.02, steps=20, batch=8)
    both = learn(network, data, "layer 2", sizes=[32], rates=[0.02, 0.0], learning=learning)
    still = both[both.rate == 0.0]
    assert (still.norm == 0).all()
    assert (both[both.rate > 0].norm > 0).all()


def test_a_training_that_diverged_errs_on_every_sample():
    data = Patterns(8)
    network = TwoLayerViT.for_data(data)
    learning = Learning(steps=40, batch=8)
    runs = learn(
        network, data, "layer 1", sizes=[8], rates=[0.02, 1e20], repetitions=1, learning=learning
    )
    wild = runs[runs.rate == 1e20].iloc[0]
    assert np.isnan(wild.norm)
    assert (wild.val_error, wild.test_error, wild.train_error) == (1.0, 1.0, 1.0)
    assert set(with_best_rate(runs).rate) == {0.02}


def test_same_seed_same_table():
    data = Patterns(8)
    network = TwoLayerViT.for_data(data)
    learning = Learning(steps=5, batch=4)
    first = learn(network, data, "layer 1", sizes=[8], repetitions=2, learning=learning, seed=3)
    again = learn(network, data, "layer 1", sizes=[8], repetitions=2, learning=learning, seed=3)
    other = learn(network, data, "layer 1", sizes=[8], repetitions=2, learning=learning, seed=4)
    pd.testing.assert_frame_equal(first, again)
    assert not first.norm.equals(other.norm)


def test_each_size_gets_the_rate_with_the_smallest_validation_error():
    data = Patterns(8)
    network = TwoLayerViT.for_data(data, attention="hard", activation="relu")
    learning = Learning(steps=100, batch=8, shape="shared")
    runs = learn(
        network, data, "layer 1", sizes=[4, 64], rates=[1e-9, 0.04], repetitions=2,
        learning=learning,
    )  # fmt: skip
    assert len(runs) == 2 * 2 * 2
    best = with_best_rate(runs)
    assert sorted(best.samples) == [4, 4, 64, 64]
    assert set(best[best.samples == 64].rate) == {0.04}


def test_smallest_samples_takes_the_first_hit_and_flags_what_is_missing():
    runs = pd.DataFrame(
        {
            "repetition": [0, 0, 0, 1, 1, 1],
            "samples": [4, 8, 16] * 2,
            "step": 10,
            "test_error": [0.3, 0.0, 0.0, 0.3, 0.2, 0.1],
        }
    )
    found = smallest_samples(runs)
    assert found.samples.tolist() == [8, 32]
    assert found.reached.tolist() == [True, False]
    assert smallest_samples(runs, epsilon=0.2).samples.tolist() == [8, 8]


def test_steps_shrink_with_the_rate():
    data = Patterns(8)
    network = TwoLayerViT.for_data(data, attention="hard", activation="relu")
    found = steps_to_zero(
        network,
        data,
        "layer 1",
        rates=[0.01, 0.04],
        shape="shared",
        repetitions=4,
        steps=300,
        looks=60,
        epsilon=0.02,
    )
    middle = found.groupby("rate").steps.median()
    assert found.reached.all()
    assert middle[0.01] > 2 * middle[0.04]


def test_places_compare_and_the_sign_of_a_preference():
    data = Patterns(8)
    table = smallest_by_place(
        TwoLayerViT.for_data(data, attention="hard", activation="relu"),
        data,
        places=("layer 1", "layer 2"),
        sizes=(2, 8, 32),
        rates=(0.04,),
        repetitions=3,
        learning=Learning(batch=8, steps=60, shape="shared"),
    )
    assert len(table) == 2 * 2 * 3
    made = pd.DataFrame(
        {
            "repetition": [0, 1, 0, 1],
            "place": ["layer 1"] * 2 + ["layer 2"] * 2,
            "samples": [8, 8, 32, 32],
        }
    )
    assert preference(made) == (2.0, 2.0, 2.0)


def test_pretraining_learns_the_shares():
    data = Patterns(8)
    network = pretrain(data, (4, 1), steps=150, seed=0)
    assert network.upstream_error < 0.08  # guessing the mean share leaves 0.2
    first, second = network.attention_distance(data.draw(1, 50, generator()))
    assert first > second
    assert network.prompt_shape("layer 2", "token") == (8, 8)


def test_slopes_of_exact_powers():
    x = [1.0, 2.0, 4.0, 8.0]
    y = np.outer([1.0, 1.1, 0.9], np.power(x, -0.5))
    for summary in ("median", "geometric"):
        slope, low, high = slope_interval(x, y, summary=summary)
        assert slope == pytest.approx(-0.5)
        assert low == pytest.approx(-0.5)
        assert high == pytest.approx(-0.5)
    apart = slope_difference(x, y, np.outer([1.0, 1.1, 0.9], np.power(x, 1.5)))
    assert apart == pytest.approx((2.0, 2.0, 2.0))
    noisy = y * np.exp(np.random.default_rng(0).normal(0, 0.3, y.shape))
    slope, low, high = slope_interval(x, noisy)
    assert low < slope < high
    assert bootstrap_mean([1.0, 1.0]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Patterns(2),
        lambda: Patterns(8, fraction=0.0),
        lambda: Patterns(8, noise=-1.0),
        lambda: TwoLayerViT(head_weights(Patterns(8)), 8, (-1, 2)),
        lambda: TwoLayerCNN.for_data(Patterns(9), stride=2),
        lambda: TwoLayerCNN.for_data(Patterns(8), kernels=(2, 3)),
        lambda: TwoLayerViT.for_data(Patterns(8)).prompt_shape("layer 3", "token"),
        lambda: learn(TwoLayerViT.for_data(Patterns(8)), Patterns(8), "layer 9", sizes=[4]),
        lambda: slope_interval([1.0, 2.0], np.array([[1.0, -1.0]])),
    ],
)
def test_bad_input_is_named(wrong):
    with pytest.raises(InputError):
        wrong()

"""Prompts as experts: a real attention layer rewritten, and the rate's machinery."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import LayerNorm
from timm.layers.attention import Attention

from aptheory.errors import InputError
from aptheory.theory.expert_rate import (
    Problem,
    Prompts,
    Setting,
    fit,
    function_error,
    one_repetition,
    start_far,
    start_near_truth,
    voronoi_loss,
)
from aptheory.theory.experts import (
    AttentionWeights,
    adaptive_prompts,
    affine_scores,
    attention_as_experts,
)


def layer(width=24, heads=3, *, bias=True, **settings) -> Attention:
    torch.manual_seed(0)
    attention = Attention(width, num_heads=heads, qkv_bias=bias, **settings).double().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return attention


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_without_prompts_is_the_mixture(bias):
    attention, tokens = layer(bias=bias), normal(2, 7, 24)
    view = attention_as_experts(AttentionWeights.from_timm(attention), tokens)
    assert torch.allclose(view.output(), attention(tokens), atol=1e-10)
    assert (view.prompt_share() == 0).all()


@pytest.mark.parametrize("fused", [True, False])
def test_vpt_layer_is_the_mixture_with_constant_experts(fused):
    attention, tokens, prompts = layer(), normal(2, 7, 24), normal(1, 4, 24, seed=1)
    attention.fused_attn = fused
    sequence = torch.cat([tokens[:, :1], prompts.expand(2, -1, -1), tokens[:, 1:]], 1)
    output = attention(sequence)
    rows = torch.cat([output[:, :1], output[:, 5:]], 1)
    view = attention_as_experts(AttentionWeights.from_timm(attention), tokens, prompts)
    assert (view.output() - rows).abs().max() < 1e-6
    assert torch.equal(view.experts[0, :, 7:], view.experts[1, :, 7:])
    assert torch.allclose(view.gates.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64))
    assert (view.prompt_share() > 0).all()


def test_vapt_layer_is_the_mixture_with_adaptive_experts():
    attention, tokens = layer(), normal(2, 17, 24)
    image = tokens[:, 1:].transpose(1, 2).reshape(2, 24, 4, 4)
    prompts = adaptive_prompts(
        image, normal(2, 2), normal(5, 9), normal(8, 24), normal(24, 8), residual=True
    )
    rows = attention(torch.cat([tokens, prompts], 1))[:, :17]
    view = attention_as_experts(AttentionWeights.from_timm(attention), tokens, prompts)
    assert (view.output() - rows).abs().max() < 1e-6
    assert not torch.allclose(view.experts[0, :, 17:], view.experts[1, :, 17:])


def test_float32_layer_agrees_to_a_millionth():
    attention = layer().float()
    tokens, prompts = 0.5 * normal(2, 7, 24).float(), normal(1, 4, 24, seed=1).float()
    rows = attention(torch.cat([tokens, prompts.expand(2, -1, -1)], 1))[:, :7]
    double = AttentionWeights.from_timm(attention.double())
    view = attention_as_experts(double, tokens.double(), prompts.double())
    assert (view.output() - rows).abs().max() < 2e-6 * rows.abs().max()


def test_prompt_score_is_affine_in_the_query_alone():
    weights, prompts = AttentionWeights.from_timm(layer()), normal(1, 4, 24, seed=1)
    slope, offset = affine_scores(weights, prompts)
    one, two = normal(1, 5, 24, seed=2), normal(1, 5, 24, seed=3)
    two[:, 0] = one[:, 0]  # the same query among other tokens
    scores = [attention_as_experts(weights, t, prompts).scores[0, :, 0, 5:] for t in (one, two)]
    assert torch.allclose(scores[0], scores[1])
    assert torch.allclose(scores[0], slope[0] @ one[0, 0] + offset[0])


def test_adaptive_prompts_match_loops():
    image, kernel, alpha = normal(2, 6, 3, 3), normal(2, 2, seed=1), normal(3, 4, seed=2)
    down, up = normal(2, 6, seed=3), normal(6, 2, seed=4)
    ours = adaptive_prompts(image, kernel, alpha, down, up, activation=torch.tanh)
    for b in range(2):
        mixed = torch.zeros(6, 4, dtype=torch.float64)
        for place, (r, c) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            for i in range(2):
                for j in range(2):
                    mixed[:, place] += kernel[i, j] * image[b, :, r + i, c + j]
        for p in range(3):
            expected = up @ torch.tanh(down @ (mixed @ alpha[p]))
            assert torch.allclose(ours[b, p], expected)


def test_layers_that_are_no_such_mixture_are_refused():
    for wrong in (
        layer(qk_norm=True, norm_layer=LayerNorm),
        layer(scale_norm=True, norm_layer=LayerNorm),
        torch.nn.Linear(3, 3),
    ):
        with pytest.raises(InputError):
            AttentionWeights.from_timm(wrong)
    weights = AttentionWeights.from_timm(layer())
    with pytest.raises(InputError, match="prompts must be"):
        attention_as_experts(weights, normal(2, 7, 24), normal(3, 4, 24))
    with pytest.raises(InputError, match="places"):
        adaptive_prompts(normal(1, 6, 3, 3), normal(2, 2), normal(3, 5), normal(2, 6), normal(6, 2))


@pytest.mark.parametrize("heads", [1, 2])
def test_simulated_row_is_the_layer_row(heads):
    """The simulation's formula against an explicit softmax over all experts."""
    problem = Problem.draw(Setting(heads=heads), seed=0)
    x, truth = problem.inputs(4, seed=1), problem.truth
    ours = problem.predict(x, truth)
    for n in range(4):
        prompts = [truth.outer @ torch.tanh(w @ x[n].flatten()) for w in truth.inner]
        for h in range(heads):
            query = x[n, 0] @ problem.score[h] / 3**0.5
            scores = torch.stack(
                [query @ t for t in x[n]]
                + [query @ p + b for p, b in zip(prompts, truth.bias, strict=True)]
            )
            experts = torch.stack([problem.value[h] @ e for e in [*x[n], *prompts]])
            assert torch.allclose(ours[n, h], torch.softmax(scores, 0) @ experts)


def test_parameters_survive_flattening():
    truth = Problem.draw(Setting(rank=2), seed=0).truth
    again = truth.unflat(torch.from_numpy(truth.flat()))
    assert torch.equal(again.inner, truth.inner)
    assert torch.equal(again.outer, truth.outer)
    assert torch.equal(again.bias, truth.bias)
    constant = Prompts(normal(2, 3), None, normal(2))
    assert torch.equal(constant.unflat(torch.from_numpy(constant.flat())).inner, constant.inner)


def test_truth_has_no_loss_and_is_recovered_without_noise():
    problem = Problem.draw(Setting(), seed=0)
    assert voronoi_loss(problem, problem.truth) == 0
    assert function_error(problem, problem.truth, seed=1) == 0
    x = problem.inputs(400, seed=2)
    y = problem.predict(x, problem.truth)
    fitted = fit(problem, x, y, start_near_truth(problem, 2, spread=0.05, seed=3))
    assert function_error(problem, fitted, seed=1) < 1e-3
    assert voronoi_loss(problem, fitted) < 0.05


def test_overfitted_start_is_the_truth_in_another_form():
    problem = Problem.draw(Setting(), seed=0)
    start = start_near_truth(problem, 3, spread=0.0, seed=0)
    assert function_error(problem, start, seed=1) < 1e-12
    assert voronoi_loss(problem, start) < 1e-12
    with pytest.raises(InputError):
        start_near_truth(problem, 1, spread=0.0, seed=0)


def test_relu_loss_ignores_the_scale_that_cannot_be_known():
    problem = Problem.draw(Setting(activation="relu"), seed=0)
    t = problem.truth
    scaled = Prompts(t.inner * 2, t.outer / 2, t.bias)
    assert function_error(problem, scaled, seed=1) < 1e-12
    assert voronoi_loss(problem, scaled) < 1e-12
    smooth = Problem.draw(Setting(activation="tanh"), seed=0)
    assert voronoi_loss(smooth, scaled) > 0.5


def test_adaptive_prompts_learn_and_constant_ones_do_not():
    rows = {
        n: {(r["fit"], r["measure"]): r["value"] for r in one_repetition(Setting(), n, seed=0)}
        for n in (200, 2000)
    }
    few, many = rows[200], rows[2000]
    key = ("exact", "function_error")
    assert many[key] < 0.6 * few[key]
    floor = ("constant", "function_error")
    assert many[floor] > 5 * many[key]
    assert np.isclose(many[floor], few[floor], rtol=0.2)


def test_setting_is_checked():
    with pytest.raises(InputError):
        Setting(heads=0)


def test_a_static_truth_lies_in_both_classes():
    problem = Problem.draw(Setting(truth="static"), seed=0)
    x = problem.inputs(20, seed=1)
    as_constants = problem.predict(x, problem.constants())
    assert torch.allclose(problem.predict(x, problem.truth), as_constants)
    with pytest.raises(InputError, match="static"):
        Problem.draw(Setting(), seed=0).constants()
    rows = one_repetition(Setting(truth="static"), 500, seed=0, fits=("exact", "constant"))
    errors = {r["fit"]: r["value"] for r in rows if r["measure"] == "function_error"}
    assert errors["constant"] < errors["exact"] < 0.2  # fewer parameters, the same truth


def test_the_identitys_free_scale_is_no_loss_and_far_starts_see_nothing_of_the_truth():
    problem = Problem.draw(Setting(activation="identity"), seed=0)
    t = problem.truth
    scaled = Prompts(t.inner * 2, t.outer / 2, t.bias)
    assert function_error(problem, scaled, seed=1) < 1e-12
    assert voronoi_loss(problem, scaled) < 1e-12
    start = start_far(problem, seed=0)
    assert (start.inner - t.inner).norm() > 0.5

"""The scores of layers, the rule on them, and the recommendation."""

import numpy as np
import pandas as pd
import pytest
import torch

import aptheory as ap
from aptheory.errors import InputError
from aptheory.recommend import (
    SCORES,
    RidgeHead,
    Rule,
    fit_rule,
    layer_scores,
    recommend_layer,
    standardise,
    sweep_operations,
)


@pytest.fixture(scope="module")
def net():
    return ap.load("aptheory_resnet_mini")


@pytest.fixture(scope="module")
def task():
    return ap.task("digits").subset(train=60, val=30, test=30, seed=0)


@pytest.fixture(scope="module")
def scores(net, task):
    return layer_scores(net, task, images=40, width=64)


def made_up(layers: int, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({name: generator.normal(size=layers) for name in SCORES})
    table.insert(0, "layer", range(layers))
    table.insert(1, "layer_name", [f"block{i}" for i in range(layers)])
    return table


def test_scores_cover_every_layer_and_are_finite(net, scores):
    assert scores["layer"].tolist() == list(range(len(net.layers)))
    assert np.isfinite(standardise(scores).to_numpy()).all()


def test_the_same_seed_gives_the_same_scores(net, task, scores):
    pd.testing.assert_frame_equal(scores, layer_scores(net, task, images=40, width=64))


def test_ridge_head_leaves_one_out_as_refitting_does():
    torch.manual_seed(0)
    features, labels = torch.randn(24, 5), torch.arange(24) % 3
    head = RidgeHead.fit(features, labels, 3)
    x = features.double() - features.double().mean(0)
    y = head.targets
    # The penalty that was chosen, recovered from the weights: W (xᵀx + λ) = yᵀx.
    gap = y.T @ x - head.weight @ (x.T @ x)
    penalty = float((gap / head.weight).mean())
    for i in range(24):
        rest = torch.arange(24) != i
        # Leaving out moves the centre too: refit with an unpenalised intercept.
        ones = torch.ones(23, 1, dtype=torch.float64)
        design = torch.cat([x[rest], ones], 1)
        ridge = penalty * torch.eye(6, dtype=torch.float64)
        ridge[-1, -1] = 0
        solution = torch.linalg.solve(design.T @ design + ridge, design.T @ y[rest])
        expected = torch.cat([x[i], torch.ones(1, dtype=torch.float64)]) @ solution
        torch.testing.assert_close(head.left_out[i], expected, rtol=1e-6, atol=1e-8)


def test_rule_finds_the_score_that_decides():
    pairs = []
    for seed in range(6):
        table = made_up(12, seed)
        pairs.append((table, table["logme"].to_numpy() * 0.1 + 0.5))
    rule = fit_rule(pairs, penalty=0.01)
    assert max(rule.weights, key=lambda name: abs(rule.weights[name])) == "logme"
    fresh = made_up(12, 99)
    assert int(rule.predict(fresh).argmax()) == int(fresh["logme"].argmax())


def test_rule_does_not_feel_the_scale_of_a_score_or_of_accuracy():
    table = made_up(10)
    accuracy = table["globality"].to_numpy()
    rule = fit_rule([(table, accuracy)])
    scaled = table.assign(globality=7 * table["globality"] + 3)
    assert fit_rule([(scaled, 100 * accuracy)]).weights == pytest.approx(rule.weights)
    np.testing.assert_allclose(rule.predict(scaled), rule.predict(table), atol=1e-9)


def test_rule_survives_its_file(tmp_path):
    rule = Rule({"depth": 0.5}, ("net on task",), 0.8, 1.4)
    rule.save(tmp_path / "rule.json")
    import json

    assert json.loads((tmp_path / "rule.json").read_text())["regret"] == 0.8


def test_the_packaged_rule_says_what_it_was_fitted_on():
    rule = Rule.packaged()
    assert set(rule.weights) <= set(SCORES)
    assert len(rule.fitted_on) >= 4
    assert np.isfinite(rule.regret)


def test_recommendation_is_the_top_of_its_table_and_says_why(net, task):
    chosen = recommend_layer(net, task, images=40)
    assert chosen.layer == chosen.table["layer"].iloc[0]
    assert chosen.trials == 0
    said = str(chosen)
    assert f"prompt layer {chosen.layer}" in said
    assert "expected regret" in said
    assert len(chosen.table) == len(net.layers)


def test_a_budget_buys_trials_best_first_and_is_not_overspent(net, task):
    recipe = ap.Recipe(epochs=2)
    rule = Rule({"depth": 1.0}, ("made up",), 1.0, 1.0)
    chosen = recommend_layer(net, task, images=20, budget=0.6, recipe=recipe, rule=rule)
    assert chosen.trials >= 1
    assert chosen.cost <= 0.6
    tried = chosen.table["val_accuracy"].notna()
    assert tried.tolist() == sorted(tried, reverse=True)  # the best ranked are tried first
    best = chosen.table["val_accuracy"].max()
    assert chosen.table.set_index("layer").loc[chosen.layer, "val_accuracy"] == best


def test_sweep_operations_by_hand():
    assert sweep_operations([1.0, 2.0], 10, 3, seeds=1) == 2 * (3 + 2) * 10 * 3


def test_too_few_images_are_refused(net, task):
    with pytest.raises(InputError, match="too few|expected at least"):
        layer_scores(net, task, images=5)

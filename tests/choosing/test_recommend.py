"""The scores of layers and the recommendation, with and without a budget."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import aptheory as ap
from aptheory.choosing import recommend
from aptheory.choosing.recommend import Recommendation, layer_by_rule, recommend_layer
from aptheory.choosing.rule import Budget, Rule, Trials
from aptheory.choosing.scores import SCORES, RidgeHead, layer_scores, score_operations, standardise
from aptheory.choosing.trials import (
    Plan,
    Prices,
    full_trials,
    plan,
    pulled,
    run_trials,
    search,
    spread_inside,
    spread_out,
)
from aptheory.errors import InputError
from aptheory.training.cost import Operations, piece_operations
from aptheory.training.halving import rungs
from aptheory.training.judging import Score

UNIT = Operations(forward=(1.0, 1.0, 1.0, 1.0), backward=(1.0, 1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def net():
    return ap.load("aptheory_resnet_mini")


@pytest.fixture(scope="module")
def task():
    return ap.task("digits").subset(train=60, val=30, test=30, seed=0)


@pytest.fixture(scope="module")
def scores(net, task):
    return layer_scores(net, task, images=40, width=64)


@pytest.fixture(scope="module")
def ranked(net, task):
    """A recommendation without a budget, by a rule that is known."""
    rule = Rule({"depth": 1.0, "probe": 0.5}, "made up", 1.0, ("some_net on some_task",), 0.8, 1.4)
    return recommend_layer(net, task, images=40, rule=rule)


def test_the_layer_alone_is_that_of_the_recommendation(net, task, ranked, monkeypatch):
    scores = ranked.table.drop(columns=["rank", "preference"]).sort_values("layer")
    monkeypatch.setattr(recommend, "layer_scores", lambda *_, **__: scores)
    assert layer_by_rule(net, task, rule=ranked.rule) == ranked.layer
    monkeypatch.setattr(recommend, "layer_scores", lambda *_, **__: pytest.fail("looked"))
    assert layer_by_rule(net, task) in (len(net.layers) // 2 - 1, len(net.layers) // 2)


# ---- scores


def test_scores_cover_every_layer_and_are_finite(net, scores):
    assert scores["layer"].tolist() == list(range(len(net.layers)))
    assert np.isfinite(standardise(scores).to_numpy()).all()
    assert set(SCORES) <= set(scores)


def test_at_the_classifiers_input_a_prompt_tells_no_images_apart(scores):
    last = scores.iloc[-1]
    assert last["tangent_variation"] == 0.0
    assert last["tangent_explained"] == pytest.approx(0, abs=0.02)
    assert (scores["tangent_variation"].iloc[:-3] > 0.01).all()
    # The reach of the other layers is still told apart beside one that vanishes.
    assert standardise(scores)["tangent_reach"].iloc[:-1].std() > 0.2


def test_the_same_seed_gives_the_same_scores_for_any_batch(net, task, scores):
    again = layer_scores(net, task, images=40, width=64, batch_size=9)
    np.testing.assert_allclose(
        standardise(scores).to_numpy(), standardise(again).to_numpy(), atol=2e-2
    )


def test_a_few_directions_of_the_logits_give_the_same_gradient(net, task, scores):
    few = layer_scores(net, task, images=40, width=64, directions=4)
    np.testing.assert_allclose(few["gradient_gain"], scores["gradient_gain"], atol=1e-3)
    assert few["tangent_gain"].isna().all()
    assert (standardise(few)["tangent_gain"] == 0).all()
    assert np.corrcoef(few["tangent_reach"][:-2], scores["tangent_reach"][:-2])[0, 1] > 0.8


def test_test_and_validation_images_are_never_looked_at(net, task, scores):
    class Sealed:
        def __init__(self, split):
            self.labels = split.labels

        def __len__(self):
            return len(self.labels)

        def images(self, indices, size):
            raise AssertionError("a sealed split was read")

    sealed = replace(task, val=Sealed(task.val), test=Sealed(task.test))
    again = layer_scores(net, sealed, images=40, width=64)
    np.testing.assert_allclose(again["logme"], scores["logme"])


def test_too_few_images_or_classes_are_refused_in_our_own_words(net, task):
    with pytest.raises(InputError, match="^5 images of 10 classes are too few to score layers"):
        layer_scores(net, task, images=5)
    labels = np.zeros(len(task.train), dtype=np.int64)

    class OneClass:
        def __init__(self):
            self.labels = labels

        def __len__(self):
            return len(labels)

        images = task.train.images

    with pytest.raises(InputError, match="of 1 classes are too few"):
        recommend_layer(net, replace(task, train=OneClass()))


def test_ridge_head_leaves_one_out_as_refitting_does():
    torch.manual_seed(0)
    features, labels = torch.randn(24, 5) * 3 + 1, torch.arange(24) % 3
    head = RidgeHead.fit(features, labels, 3)
    x = features.double() - features.double().mean(0)
    scale = x.std(0, correction=0)
    x = x / scale
    y, one = head.targets, torch.ones(24, 1, dtype=torch.float64)
    ridge = head.penalty * torch.diag(torch.tensor([1.0, 1, 1, 1, 1, 0])).double()
    design = torch.cat([x, one], 1)  # leaving out moves the centre: an unpenalised intercept
    full = torch.linalg.solve(design.T @ design + ridge, design.T @ y)
    torch.testing.assert_close(head.weight, (full[:5] / scale[:, None]).T, rtol=1e-6, atol=1e-9)
    for i in range(24):
        rest = torch.arange(24) != i
        part = design[rest]
        solution = torch.linalg.solve(part.T @ part + ridge, part.T @ y[rest])
        torch.testing.assert_close(head.left_out[i], design[i] @ solution, rtol=1e-6, atol=1e-8)


def test_features_that_diverged_are_refused():
    features = torch.full((6, 2), torch.inf)
    with pytest.raises(InputError, match="nan or inf"):
        RidgeHead.fit(features, torch.arange(6) % 2, 2)


def test_ridge_head_survives_constant_features():
    features = torch.ones(20, 3)
    head = RidgeHead.fit(features, torch.arange(20) % 2, 2)
    assert (head.weight == 0).all()
    assert head.accuracy(torch.arange(20) % 2) <= 0.5


# ---- the recommendation


def test_recommendation_is_the_top_of_its_table_and_says_why(net, ranked):
    assert ranked.layer == ranked.table["layer"].iloc[0] == len(net.layers) - 1  # depth decides
    assert ranked.trials == 0
    assert len(ranked.table) == len(net.layers)
    said = str(ranked)
    assert f"prompt layer {ranked.layer}" in said
    assert "place in the network" in said
    assert "0.8 accuracy points on average (95 % interval over networks: up to 1.4)" in said
    assert "nothing trained" in said


def test_a_rule_that_saw_the_network_says_so(ranked):
    seen = replace(ranked.rule, fitted_on=(f"{ranked.network} on other",), baseline=0.9)
    said = str(replace(ranked, rule=seen))
    assert "this network is one of them" in said
    assert "the middle layer's being 0.9" in said


def test_the_packaged_rule_says_what_it_was_fitted_on_and_what_budgets_bring():
    rule = Rule.packaged()
    assert rule.trials.pairs >= 40
    assert rule.trials.budgets[0].cost == 0
    costs = [one.cost for one in rule.trials.budgets]
    assert costs == sorted(costs)
    assert all(0 <= one.probe <= 1 and one.regret < one.high for one in rule.trials.budgets)
    assert rule.trials.expected(1.0) == rule.trials.budgets[-1]
    assert set(rule.weights) <= set(SCORES)
    assert len(rule.fitted_on) >= 4
    assert np.isfinite(rule.regret)


def test_cost_counts_every_pass(net):
    operations = piece_operations(net)
    forward, backward = sum(operations.forward), sum(operations.backward)
    assert score_operations(operations, 40, 10) == 40 * (3 * forward + 10 * backward)
    assert score_operations(operations, 40, 100) == 40 * (3 * forward + 11 * backward)


# ---- budgets


def test_prices_by_hand():
    prices = Prices(UNIT, train=100, val=10)
    assert prices.epoch(0) == 100 * 8
    assert prices.epoch(3) == 100 * 2
    # Two layers, two seeds, three epochs, one validation each; features and the walk.
    expected = 2 * (3 * (800 + 200) + 10 * (4 + 1)) + 210 * 4
    assert prices.sweep([0, 3], epochs=3, seeds=2) == expected
    assert rungs(3, 2, factor=3, least=1) == [1, 3]
    # Features, two walks, an epoch of both and its validation, two more of the dearer, its ending.
    expected = 100 * 4 + 2 * 110 * 4
    expected += 800 + 200 + 10 * (4 + 1) + 2 * 800 + 2 * 10 * 4
    assert prices.search([3, 0], epochs=3) == expected
    # The second of two seeds joins for the last rung and trains all three epochs.
    expected += 3 * 800 + 2 * 10 * 4
    assert prices.search([3, 0], epochs=3, seeds=2) == expected


@pytest.mark.parametrize("share", [0.001, 0.02, 0.05, 0.1, 0.3, 0.6, 1.0, 3.0])
def test_a_plan_is_best_first_and_never_overspends(share):
    prices = Prices(Operations((1.0,) * 12, (1.0,) * 12), train=400, val=200)
    full = prices.sweep(range(12), epochs=27, seeds=3)
    order = spread_out(range(12))
    found = plan(prices, order, budget=share * full, epochs=27)
    assert found.operations <= share * full
    assert found.layers == order[: len(found.layers)]
    assert len(found.layers) != 1
    if found.layers:
        assert found.operations == prices.search(
            found.layers, epochs=found.epochs, seeds=found.seeds
        )
    if share <= 0.001:
        assert found == Plan()
    if share >= 1:
        assert (len(found.layers), found.epochs, found.seeds) == (12, 27, 3)


def test_more_budget_never_buys_less_training():
    prices = Prices(Operations((1.0,) * 12, (1.0,) * 12), train=400, val=200)
    full = prices.sweep(range(12), epochs=27, seeds=3)
    found = [plan(prices, range(12), budget=s * full, epochs=27) for s in np.linspace(0.01, 1, 40)]
    assert [p.epochs for p in found] == sorted(p.epochs for p in found)


def test_spread_out_covers_the_depth_at_every_beginning():
    order = spread_out(range(13))
    assert sorted(order) == list(range(13))
    assert order[0] == 6
    assert set(order[:3]) == {0, 6, 12}
    assert spread_out([]) == ()


def test_a_search_never_reads_test_images_and_returns_its_best_validated(net, task):
    class Sealed:
        labels = task.test.labels

        def __len__(self):
            return len(self.labels)

        def images(self, indices, size):
            raise AssertionError("the test split was read")

    bought = Plan((12, 11, 9), 2, 1)
    found = search(net, replace(task, test=Sealed()), bought, seed=0)
    last = found.table[found.table["rung"] == found.table["rung"].max()]
    assert set(found.table["layer"]) == {9, 11, 12}
    assert found.best[0].settings()["layer"] in set(last["layer"])
    chosen = last[last["layer"] == found.best[0].settings()["layer"]]
    assert chosen["val_accuracy"].item() == last["val_accuracy"].max()


def test_full_trials_are_spread_inside_and_never_overspend():
    prices = Prices(Operations((1.0,) * 13, (1.0,) * 13), train=400, val=200)
    full = prices.sweep(range(13), epochs=20, seeds=12)
    assert full_trials(prices, range(12), budget=0.001 * full, epochs=20) == Plan()
    counts = []
    for share in (0.02, 0.03, 0.1, 0.2, 0.5):
        budget = share * full
        found = full_trials(prices, range(12), budget=budget, epochs=20, lrs=(1, 2, 3, 4))
        assert found.operations <= budget
        assert found.layers == spread_inside(range(12), len(found.layers))
        counts.append((len(found.layers), len(found.lrs)))
    assert counts == sorted(counts)
    assert counts[0][0] >= 2
    assert counts[2:] == [(5, 1), (5, 1), (12, 4)]


def test_few_layers_are_spread_inside_and_all_are_all():
    assert spread_inside(range(9), 1) == (4,)
    assert spread_inside(range(10), 2) == (3, 6)
    assert spread_inside([0, 1, 2], 2) == (1, 2) or spread_inside([0, 1, 2], 2) == (0, 1)
    for count in range(1, 8):
        assert len(set(spread_inside(range(7), count))) == count
    assert spread_inside(range(4), 9) == (0, 1, 2, 3)


def test_the_pull_decides_between_close_layers_and_not_between_distant_ones():
    close = {0: Score(0.51, 1.0), 5: Score(0.50, 1.0)}
    values = pulled(close, 11, 2.0)
    assert max(values, key=values.get) == 5
    assert pulled(close, 11, 0.0)[0] == pytest.approx(51, abs=1e-5)
    distant = {0: Score(0.60, 1.0), 5: Score(0.50, 1.0)}
    values = pulled(distant, 11, 2.0)
    assert max(values, key=values.get) == 0
    tied = pulled({3: Score(0.5, 1.2), 7: Score(0.5, 1.1)}, 11, 0.0)
    assert max(tied, key=tied.get) == 7


@pytest.mark.parametrize(
    ("budget", "pull"), [(0.1, 0.0), pytest.param(0.5, 1.5, marks=pytest.mark.slow)]
)
def test_a_budget_is_spent_on_trials_and_what_they_bring_is_said(net, task, budget, pull):
    budgets = (Budget(0.0, 1.7, 2.4, 0.6), Budget(0.02, 1.2, 1.7, 0.55), Budget(0.3, 0.1, 0.2, 0.5))
    how = Trials(lr=3e-2, lrs=(1e-2, 3e-2), pull=1.5, budgets=budgets, pairs=40)
    rule = Rule({"distance_from_middle": -1.0}, "the middle", 0.1, ("a on b",), trials=how)
    found = recommend_layer(net, task, budget=budget, recipe=ap.Recipe(epochs=1), rule=rule)
    assert found.score_cost == 0
    assert found.cost <= budget
    last = len(net.layers) - 1
    tried = found.table[found.table["val_accuracy"].notna()].set_index("layer")
    assert tuple(sorted(tried.index)) == spread_inside(range(last), found.trials)
    assert found.trials == (last if pull else 5)
    off = np.abs(2 * tried.index.to_numpy() / last - 1)
    value = 100 * tried["val_accuracy"] - pull * off
    assert value[found.layer] == pytest.approx(value.max())
    said = str(found)
    assert "all for the trials" in said
    assert "best on validation images" in said
    assert ("1.5 points taken off towards both ends" in said) == (pull > 0)
    if not pull:
        assert "1.2 accuracy points on average (95 % interval over networks: up to 1.7)" in said
        assert "up to 1.7) for 2 % of a sweep, the middle layer's being 1.7," in said
        assert "of these 40 pairs the best layer's own probe, without a prompt, was the" in said
        assert "better choice in 55 %" in said


def test_a_trial_is_a_run_of_its_rate_and_test_images_are_not_read(net, task):
    class Sealed:
        labels = task.test.labels

        def __len__(self):
            return len(self.labels)

        def images(self, indices, size):
            raise AssertionError("the test split was read")

    bought, recipe = Plan((9, 11), 1, 1, lrs=(3e-2,)), ap.Recipe(epochs=1)
    sealed = replace(task, test=Sealed())
    found = run_trials(net, sealed, bought, recipe=recipe)
    alone = ap.fit(
        ap.ActivationPrompt(layer=11).attach(net, classes=10), task, recipe=recipe, lr=3e-2
    )
    assert found[11].accuracy == pytest.approx(alone.val_accuracy)
    with pytest.raises(InputError, match="holds no trial"):
        run_trials(net, task, Plan())


def test_a_budget_that_buys_nothing_leaves_the_ranking(net, task, ranked):
    found = recommend_layer(net, task, images=20, budget=1e-4, rule=ranked.rule)
    assert found.trials == 0
    assert found.layer == found.table["layer"].iloc[0]
    assert "buys no second trial" in str(found)


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (0.0, "share of a full sweep"),
        (-1.0, "share of a full sweep"),
        (10.0, "the budget is 10; expected a share of a full sweep.s cost"),  # meant in per cent
        (float("nan"), "budget of recommend_layer is nan; expected a number or None"),
    ],
)
def test_budgets_that_make_no_sense(net, task, budget, sentence):
    with pytest.raises(InputError, match=sentence):
        recommend_layer(net, task, budget=budget)


def test_reasons_read_forwards_and_the_middle_is_called_the_middle():
    layers = pd.DataFrame(
        {"layer": range(5), "layer_name": list("abcde"), "rank": [4, 2, 1, 3, 5], "preference": 0.0}
        | dict.fromkeys(SCORES, 0.0)
        | {"distance_from_middle": [1.0, 0.25, 0.0, 0.25, 1.0], "globality": [1.0, 2, 9, 2, 1]}
        | {"probe": [0.2, 0.5, 0.7, 0.9, 0.6]}
    )
    shared = {"network": "net", "task": "signs", "layer": 2, "cost": 0.01, "score_cost": 0.01}
    shared |= {"images": 80}
    middle = Recommendation(table=layers, rule=Rule({"distance_from_middle": -0.3}), **shared)
    assert "because it lies nearest the middle" in str(middle)
    assert "or probe layer 3 (d): a linear probe reaches 90.0 % there and 60.0 %" in str(middle)
    assert "on the 80 images that chose the layer" in middle.rival
    last = replace(middle, table=layers.assign(probe=[0.2, 0.5, 0.7, 0.6, 0.9]))
    assert "or probe the network's end: a linear probe reaches 90.0 % there and no" in last.rival
    tied = layers.assign(probe=[0.7, 0.7, 0.7, 0.7, 0.1])
    drawn = {replace(middle, table=tied, task=str(one)).rival.split(":")[0] for one in range(40)}
    assert len(drawn) == 4  # not the shallowest, nor the nearest to the middle
    both = Rule({"distance_from_middle": -0.3, "globality": 0.5})
    reasons = Recommendation(table=layers, rule=both, **shared).reasons
    assert reasons[0].startswith("high among the layers: share of variance carried by the spatial")
    assert reasons[1].startswith("low among the layers: squared distance from the middle")

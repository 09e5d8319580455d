"""The rule: what it finds, what it must not feel, and that its choices are made blind."""

import json

import numpy as np
import pandas as pd
import pytest

from aptheory.choosing.rule import FAMILIES, Budget, Fitter, Pair, Rule, Trials, fit_rule
from aptheory.choosing.scores import SCORES
from aptheory.errors import InputError


def made_up(layers: int, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({name: generator.normal(size=layers) for name in SCORES})
    table["depth"] = np.linspace(0, 1, layers)
    table["distance_from_middle"] = (2 * table["depth"] - 1) ** 2
    table.insert(0, "layer", range(layers))
    table.insert(1, "layer_name", [f"block{i}" for i in range(layers)])
    return table


def pairs_of(truth, networks: int = 4, tasks: int = 3, noise: float = 0.0):
    """Pairs whose accuracy is a function of the scores."""
    generator = np.random.default_rng(0)
    found = []
    for network in range(networks):
        for task in range(tasks):
            table = made_up(12, 100 * network + task)
            accuracy = 0.5 + 0.1 * truth(table).to_numpy() + noise * generator.normal(size=12)
            found.append(Pair(f"n{network}", f"t{task}", table, accuracy))
    return found


def test_the_family_that_decides_is_found_and_its_score_too():
    rule = fit_rule(pairs_of(lambda table: table["logme"]))
    assert "logme" in rule.weights
    assert max(rule.weights, key=lambda name: abs(rule.weights[name])) == "logme"
    fresh = made_up(12, 999)
    assert int(rule.predict(fresh).argmax()) == int(fresh["logme"].argmax())
    assert len(rule.fitted_on) == 12


def test_where_only_the_middle_matters_the_simplest_family_is_taken():
    rule = fit_rule(pairs_of(lambda table: -table["distance_from_middle"]))
    assert rule.family == "the middle"
    assert rule.weights["distance_from_middle"] < 0
    assert not rule.needs_images


def test_a_rule_that_reads_features_needs_images():
    assert fit_rule(pairs_of(lambda table: table["logme"])).needs_images


def test_neither_choice_nor_weights_feel_the_pair_that_is_left_out():
    pairs = pairs_of(lambda table: table["logme"], noise=0.02)
    fitter = Fitter(pairs)
    on = fitter.unlike(0, range(len(pairs)))
    assert all(pairs[i].network != "n0" and pairs[i].task != "t0" for i in on)
    before = fitter.rule(on)
    wrong = [
        Pair(p.network, p.task, p.scores, p.accuracy[::-1].copy())
        if p.network == "n0" or p.task == "t0"
        else p
        for p in pairs
    ]
    assert Fitter(wrong).rule(on) == before


def test_rule_does_not_feel_the_scale_of_a_score():
    pairs = pairs_of(lambda table: table["globality"], noise=0.05)
    scaled = [
        Pair(
            p.network, p.task, p.scores.assign(globality=7 * p.scores["globality"] + 3), p.accuracy
        )
        for p in pairs
    ]
    first, second = fit_rule(pairs), fit_rule(scaled)
    assert second.weights == pytest.approx(first.weights)
    np.testing.assert_allclose(
        second.predict(scaled[0].scores), first.predict(pairs[0].scores), atol=1e-9
    )


def test_a_flat_curve_says_little_and_a_tall_one_does_not_outvote():
    table = made_up(12)
    tall = Pair("a", "t", table, 0.5 + 0.2 * table["depth"].to_numpy())
    taller = Pair("a", "t", table, 0.1 + 0.8 * table["depth"].to_numpy())
    flat = Pair("a", "t", table, 0.5 + 0.001 * table["depth"].to_numpy())
    assert taller.curve()[1].std() == pytest.approx(tall.curve()[1].std(), rel=0.02)
    assert flat.curve()[1].std() < 0.05


def test_layers_that_were_not_swept_do_not_count():
    table = made_up(10)
    accuracy = np.full(10, np.nan)
    accuracy[[0, 3, 6, 9]] = [0.1, 0.5, 0.4, 0.2]
    pair = Pair("a", "t", table, accuracy)
    assert pair.curve()[0].shape == (4, len(SCORES))
    preference = np.zeros(10)
    preference[5], preference[6] = 9.0, 1.0
    assert pair.regret(preference) == pytest.approx(10.0)  # layer 5 has no accuracy
    with pytest.raises(InputError, match="at least two"):
        Pair("a", "t", table, np.full(10, np.nan))


def test_one_network_gives_the_simplest_family():
    assert fit_rule(pairs_of(lambda table: table["logme"], networks=1)).family == "the middle"
    with pytest.raises(InputError, match="at least one"):
        Fitter(pairs_of(lambda table: table["logme"], 1, 1)).rule([])


def test_noise_gives_no_better_regret_than_a_random_layer():
    """Scores that say nothing: left-out regret is that of chance, though fitted regret is not."""
    generator = np.random.default_rng(3)
    pairs = [
        Pair(f"n{n}", f"t{t}", made_up(12, 1000 + 10 * n + t), generator.uniform(0.4, 0.6, 12))
        for n in range(6)
        for t in range(4)
    ]
    fitter, lost, chance = Fitter(pairs), [], []
    for i, pair in enumerate(pairs):
        rule = fitter.rule(fitter.unlike(i, range(len(pairs))))
        lost.append(pair.regret(rule.predict(pair.scores)))
        chance.append(100 * (pair.accuracy.max() - pair.accuracy.mean()))
    assert np.mean(lost) > np.mean(chance) - 3


def test_rule_survives_its_file(tmp_path):
    how = Trials(3e-2, (1e-2, 3e-2), 2.0, (Budget(0.0, 1.7, 2.4, 0.6),), 40)
    rule = Rule({"depth": 0.5}, "depth", 0.1, ("net on task",), 0.8, 1.4, 0.9, how)
    rule.save(tmp_path / "rule.json")
    assert json.loads((tmp_path / "rule.json").read_text())["regret"] == 0.8
    assert Rule.load(tmp_path / "rule.json") == rule


def test_rules_that_are_none(tmp_path):
    with pytest.raises(InputError, match="cannot read the rule"):
        Rule.load(tmp_path / "nowhere.json")
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="is not a rule"):
        Rule.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="no score is called"):
        Rule({"luck": 1.0})


def test_every_family_is_made_of_scores():
    assert {name for family in FAMILIES.values() for name in family} <= set(SCORES)

"""Pretraining seeds: what tells curves apart, and what lies between draws."""

import numpy as np
import pandas as pd
import pytest

from analyses.campaign_plan import MINIS, NETWORKS
from analyses.campaign_pretraining import (
    about,
    between_draws,
    chance,
    grid,
    likeness,
    shares,
)

SEEDS, TASKS, PLACES = 3, 5, 8


def curves(task=0.0, seed=0.0, noise=0.0, rng=0):
    """Curves whose shape belongs to a task, a seed or to nothing, by so much."""
    generator = np.random.default_rng(rng)
    of_task = task * generator.normal(size=(1, TASKS, PLACES))
    of_seed = seed * generator.normal(size=(SEEDS, 1, PLACES))
    return of_task + of_seed + noise * generator.normal(size=(SEEDS, TASKS, PLACES))


@pytest.mark.parametrize("what", ["task", "seed"])
def test_curves_of_one_origin_have_all_their_variance_there(what):
    found = shares(curves(**{what: 1.0}))
    name = {"task": "task", "seed": "pretraining seed"}[what]
    assert found[name] == pytest.approx(1)
    assert sum(found.values()) == pytest.approx(1)


def test_a_curve_s_height_and_scale_do_not_count():
    values = curves(task=1, seed=1, noise=1)
    raised = values + np.arange(SEEDS * TASKS).reshape(SEEDS, TASKS, 1)
    assert shares(5 * raised) == pytest.approx(shares(values))


def test_the_shares_are_those_of_the_anova_by_hand():
    values = curves(task=1, seed=0.5, noise=1, rng=3)
    x = values - values.mean(2, keepdims=True)
    total = between = among = 0.0
    for place in range(PLACES):
        column = x[:, :, place]
        total += ((column - column.mean()) ** 2).sum()
        between += sum(SEEDS * (column[:, t].mean() - column.mean()) ** 2 for t in range(TASKS))
        among += sum(TASKS * (column[s].mean() - column.mean()) ** 2 for s in range(SEEDS))
    found = shares(values)
    assert found["task"] == pytest.approx(between / total)
    assert found["pretraining seed"] == pytest.approx(among / total)


def test_chance_finds_what_is_there_and_nothing_in_noise():
    expected, p = chance(curves(task=2, noise=1), "task")
    assert p < 0.01
    assert expected < 0.5
    many = [chance(curves(noise=1, rng=rng), "pretraining seed")[1] for rng in range(20)]
    assert np.mean(np.array(many) < 0.05) <= 0.2
    assert 0.3 < np.mean(many) < 0.7


def test_likeness_is_one_for_what_is_the_same():
    found = likeness(curves(task=1)).groupby("by")["value"].mean()
    assert found["task"] == pytest.approx(1)
    assert abs(found["seed"]) < 0.5


def test_names_tell_architecture_and_seed():
    table = about(pd.DataFrame({"network": ["aptheory_vit_mini", "aptheory_resnet_mini_2"]}))
    assert table["architecture"].tolist() == ["aptheory_vit_mini", "aptheory_resnet_mini"]
    assert table["pretraining"].tolist() == [0, 2]
    seeds = about(pd.DataFrame({"network": list(MINIS)})).groupby("architecture")["pretraining"]
    assert {tuple(sorted(group)) for _, group in seeds} == {(0, 1, 2)}
    assert {NETWORKS[name].kind for name in MINIS} == {"cnn", "vit"}


def test_the_grid_has_each_curve_in_its_row():
    rows = [
        {"network": name, "kind": "vit", "task": task, "layer": layer}
        | {"measured": 100 * number + 10 * (task == "b") + layer}
        for number, name in enumerate(("aptheory_vit_mini", "aptheory_vit_mini_1"))
        for task in ("b", "a")
        for layer in (0, 3)
    ]
    values, tasks = grid(pd.DataFrame(rows), "vit")
    assert tasks == ["a", "b"]
    assert values.tolist() == [[[0, 3], [10, 13]], [[100, 103], [110, 113]]]


def test_two_draws_are_compared_within_their_pair():
    rows = [
        {"network": network, "task": "t", "seed": seed, "layer": layer, "measured": sign * layer}
        for network, other in (("x", 1), ("y", 1), ("z", -1))
        for seed, sign in ((0, 1), (1, other))
        for layer in range(5)
    ]
    rows += [{"network": "x", "task": "u", "seed": 0, "layer": 0, "measured": 1}]  # one draw
    found = between_draws(pd.DataFrame(rows))
    assert found.n == 3
    assert found.value > 0

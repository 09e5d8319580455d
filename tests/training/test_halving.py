"""Successive halving goes on with the best, and changes nothing for them."""

import pytest

import aptheory as ap
from aptheory.errors import InputError
from aptheory.methods import LayerProbe, LinearProbe
from aptheory.training.fit import Run, fit_many, grid
from aptheory.training.halving import halving, rungs, seeds_at
from tests.quarters import RECIPE


def test_rungs():
    assert rungs(20, 30) == [2, 7, 20]
    assert rungs(20, 30, factor=2) == [2, 5, 10, 20]
    assert rungs(1, 30) == [1]
    assert rungs(20, 1) == [20]
    with pytest.raises(InputError, match="factor"):
        rungs(20, 30, factor=1)


def test_halving_goes_on_with_the_best_and_changes_nothing_for_them(vit, task):
    methods = [LayerProbe(layer=0), ap.ActivationPrompt(layer=1), LinearProbe()]
    runs = grid(seeds=(0, 1), lrs=(0.03, 1e-5))
    recipe = RECIPE.but(epochs=6, together=4, head_init="default")  # a start for each seed
    found = halving(methods, vit, task, runs=runs, recipe=recipe)
    assert found.epochs < found.full_epochs == 3 * 4 * 6
    assert sorted(found.table["epochs"].unique()) == [2, 6]
    first = found.table[found.table["rung"] == 0]
    assert len(first) == 6
    going = first[first["goes_on"]]
    assert len(going) == 2
    dropped = first[~first["goes_on"]]
    assert going["val_accuracy"].min() >= dropped["val_accuracy"].max()
    assert (first["seeds"] == 1).all()  # a third of the epochs, a third of the seeds
    assert (found.table[found.table["rung"] == 1]["seeds"] == 2).all()
    assert found.epochs == 6 * 2 + 2 * (4 + 6)
    assert len(found.outcomes) == 4  # two configurations of two seeds
    method, run = found.best
    own = [o for o in found.outcomes if (o.method, o.lr) == (method.settings(), run.lr)]
    assert [o.seed for o in own] == [0, 1]  # one from the start, one that joined for the last rung
    for outcome in own:
        again = Run(seed=outcome.seed, lr=run.lr)
        alone = fit_many(method, vit, task, runs=[again], recipe=recipe)[0]
        losses = outcome.curve[-1]["train_loss"], alone.curve[-1]["train_loss"]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        assert outcome.test_accuracy == pytest.approx(alone.test_accuracy, abs=1.5 / 44)


def test_seeds_are_spent_as_epochs_are():
    assert [seeds_at(epoch, 9, 2) for epoch in (1, 3, 9)] == [1, 1, 2]
    assert [seeds_at(epoch, 9, 5) for epoch in (1, 3, 9)] == [1, 2, 5]
    assert seeds_at(9, 9, 1) == 1


def test_a_run_that_stopped_early_is_judged_by_its_best(vit, task):
    methods = [ap.ActivationPrompt(layer=1), LinearProbe()]
    recipe = RECIPE.but(epochs=6, patience=1, validate_every=1, lr=1e-9)  # nothing gets better
    found = halving(methods, vit, task, runs=grid(seeds=(0,)), recipe=recipe, least=3)
    assert found.table["val_accuracy"].between(0, 1).all()
    assert all(0 < outcome.epochs < 6 for outcome in found.outcomes)

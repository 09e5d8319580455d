"""Which run is better, whether it was trained to the end, and which images it got right."""

import json
import math

import numpy as np
import pytest

import aptheory as ap
from aptheory.errors import InputError
from aptheory.training.convergence import accuracy_flat, flat
from aptheory.training.fit import Recipe, Run, fit, fit_many
from aptheory.training.judging import WORST, Score
from aptheory.training.outcome import packed, unpacked
from tests.quarters import RECIPE


def curve(losses, measure="val_loss", schedule="constant"):
    recipe = Recipe(epochs=len(losses), schedule=schedule)
    return [
        {"lr": recipe.lr_factor(epoch), "train_loss": 1.0 + 1 / (1 + epoch), measure: float(loss)}
        for epoch, loss in enumerate(losses)
    ]


EPOCHS = np.arange(30)
FALLING = 2 - EPOCHS / 30
SETTLED = 1 + np.exp(-EPOCHS / 2)


@pytest.mark.parametrize(
    ("losses", "answer"),
    [
        (SETTLED, True),
        (FALLING, False),
        (FALLING[::-1], False),  # it rises: the result depends on where it was stopped
        (SETTLED + 0.01 * (-1.0) ** EPOCHS, True),  # noise about a level
        (0.05 * FALLING, False),  # a rate too small: it falls as much at the end as at the start
        (0.001 * FALLING, True),  # next to nothing is left to lose
        (SETTLED[:8], None),  # a third of eight epochs tells nothing
        (np.where(EPOCHS == 29, np.inf, SETTLED), None),
    ],
)
def test_flat_is_said_of_the_end_of_the_loss(losses, answer):
    assert flat(curve(losses)) is answer
    assert flat(curve(losses, "train_loss")) is answer  # without validations, the training loss


@pytest.mark.parametrize(
    ("accuracies", "pictures", "answer"),
    [
        (0.5 - np.exp(-EPOCHS / 3) / 2, 200, True),
        (0.2 + EPOCHS / 60, 200, False),
        (0.7 - EPOCHS / 60, 200, False),  # it falls: too late to stop
        (0.5 + 0.0015 * EPOCHS, 200, True),  # 1.4 points over the window, 3.5 are one error
        (0.5 + 0.0015 * EPOCHS, 20_000, False),  # so many pictures tell it
        (np.ones(30), 200, True),
        (0.2 + EPOCHS[:8] / 60, 200, None),
    ],
)
def test_an_accuracy_is_flat_within_its_binomial_error(accuracies, pictures, answer):
    assert accuracy_flat(curve(accuracies, "val_accuracy"), pictures) is answer


def test_a_rising_loss_may_come_with_a_flat_accuracy():
    both = [
        loss | {"val_accuracy": accuracy["val_accuracy"]}
        for loss, accuracy in zip(
            curve(FALLING[::-1]), curve(np.full(30, 0.6), "val_accuracy"), strict=True
        )
    ]
    assert flat(both) is False
    assert accuracy_flat(both, 200) is True


def test_the_end_is_counted_in_learning_rate():
    """A cosine's last epochs move nothing: a loss that fell until then is not flat."""
    rates = np.array([entry["lr"] for entry in curve(FALLING, schedule="cosine")])
    driven = 2 - np.cumsum(rates) / rates.sum()  # it falls as fast as the rate lets it
    assert abs(driven[-4] - driven[-1]) < 0.01
    assert flat(curve(driven, schedule="cosine")) is False
    assert flat(curve(SETTLED, schedule="cosine")) is True
    assert flat([{**entry, "lr": 0.0} for entry in curve(FALLING)]) is False


def test_runs_say_whether_they_converged(vit, task):
    """A head alone is convex: it settles with time, and not at a rate too small."""
    method = ap.LinearProbe()
    recipe = RECIPE.but(
        epochs=40, schedule="constant", head_init="default", batch_size=90, lr=0.05, weight_decay=9
    )
    runs = [Run(), Run(lr=5e-4)]
    settled, begun = fit_many(method, vit, task, runs=runs, recipe=recipe)
    assert (settled.converged, begun.converged) == (True, False)
    short = fit_many(method, vit, task, runs=runs, recipe=recipe.but(epochs=3))
    assert [outcome.converged for outcome in short] == [None, None]
    stopped = fit_many(method, vit, task, runs=runs[:1], recipe=recipe.but(patience=2, lr=1e-9))
    assert stopped[0].epochs < 40
    assert stopped[0].converged is True
    failed = fit_many(method, vit, task, runs=[Run(lr=1e38)], recipe=recipe.but(optimizer="sgd"))
    assert failed[0].failed
    assert failed[0].converged is None


def test_scores_are_ordered_by_their_judge():
    sure, right = Score(0.5, 0.1), Score(0.6, 0.9)
    assert min((sure, right), key=lambda score: score.cost("accuracy")) == right
    assert min((sure, right), key=lambda score: score.cost("loss")) == sure
    tied = Score(0.5, 0.2)
    assert min((tied, sure), key=lambda score: score.cost("accuracy")) == sure
    assert Score(math.nan, math.nan).cost("loss") == WORST.cost("loss")
    with pytest.raises(InputError, match="accuracy, loss"):
        Recipe(judge="test")


def test_early_stopping_by_loss_returns_the_smallest_loss(vit, task):
    recipe = RECIPE.but(epochs=30, patience=3, lr=0.2, schedule="constant", judge="loss")
    outcome = fit(ap.ActivationPrompt(layer=1).attach(vit, classes=4), task, recipe=recipe)
    losses = [entry["val_loss"] for entry in outcome.curve]
    assert outcome.val_loss == pytest.approx(min(losses))
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    accuracies = [entry["val_accuracy"] for entry in outcome.curve]
    assert max(accuracies) > accuracies[int(np.argmin(losses))]  # the other judge chooses otherwise


def test_settings_at_their_default_stand_in_no_identity():
    assert "judge" not in Recipe().settings()
    assert Recipe(judge="loss").settings()["judge"] == "loss"
    assert Recipe(**Recipe(judge="loss").settings()) == Recipe(judge="loss")


def test_which_images_are_right_is_always_kept(vit, task):
    adapted = ap.LinearProbe().attach(vit, classes=4)
    outcome = fit(adapted, task, recipe=RECIPE, predictions=True)
    assert np.array_equal(outcome.correct, outcome.predictions == task.test.labels)
    assert outcome.correct.mean() == outcome.test_accuracy
    assert outcome.val_correct.mean() == outcome.val_accuracy
    record = json.loads(json.dumps(outcome.record()))
    assert np.array_equal(unpacked(record["correct"]), outcome.correct)
    assert len(record["correct"]) < 44 / 2
    for length in (0, 1, 8, 9):
        bits = np.arange(length) % 3 == 0
        assert np.array_equal(unpacked(packed(bits)), bits)
    assert packed(np.array([True, False, True])) == "3:oA=="

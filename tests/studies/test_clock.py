"""The one clock: honest within a factor of 1.5 once a tenth of the time is over."""

import time

import numpy as np
import pytest

from aptheory.studies.clock import OVERHEAD, Epochs, Underway, seconds_left
from aptheory.studies.status import doing, under_way
from aptheory.training.epochs import epoch_done, told_to


@pytest.mark.parametrize(("slope", "overhead"), [(1.0, 1.0), (6.0, 0.2), (0.3, 8.0)])
def test_from_a_tenth_on_the_clock_is_right_within_a_factor_of_one_and_a_half(slope, overhead):
    """A machine slower or faster than predicted, probes far cheaper than prompts, noise of 20 %."""
    generator = np.random.default_rng(0)
    predicted = np.where(np.arange(60) % 3, generator.uniform(5, 20, 60), 0.1)
    took = (slope * predicted + overhead) * generator.lognormal(0, 0.2, 60)
    for done in range(60):
        if took[:done].sum() < 0.1 * took.sum():
            continue
        known = list(zip(predicted[:done], took[:done], strict=True))
        left = seconds_left(known, [], predicted[done:])
        if took[done:].sum() > 0.05 * took.sum():
            assert 1 / 1.5 < left / took[done:].sum() < 1.5


def test_a_single_batch_is_timed_by_its_epochs():
    """40 epochs of 2 runs, a second each after a start of 30 s that no prediction knew."""
    epochs = Epochs(done=20, total=80, step=2, first=100.0, last=109.0, epoch=10, epochs=40)
    assert epochs.remaining(109.0) == pytest.approx(30.0)
    assert epochs.remaining(110.0) == pytest.approx(29.0)
    assert Epochs(2, 80, 2, 100.0, 100.0).remaining(101.0) is None
    assert seconds_left([], [Underway(5.0, 39.0, 30.0)], [5.0]) == pytest.approx(30 + 69)


def test_before_anything_is_timed_the_prediction_stands_and_workers_share_it():
    assert seconds_left([], [Underway(5.0, 2.0)], [9.0]) == 5 + OVERHEAD - 2 + 9 + OVERHEAD
    assert seconds_left([], [], [9.0, 9.0], workers=2) == 9 + OVERHEAD


def test_a_listener_hears_every_epoch_and_only_while_it_listens():
    heard = []
    with told_to(lambda *word: heard.append(word)):
        epoch_done(1, 8, 3)
    epoch_done(2, 8, 3)
    assert heard == [(1, 8, 3)]


def test_what_is_being_done_is_said_with_layer_and_epoch():
    epochs = Epochs(6, 16, 2, 0.0, 1.0, 3, 8)
    labels = {"method": "ap", "place": "layer 5 (blocks.4)"}
    assert doing(labels, epochs) == "ap at layer 5 (blocks.4), epoch 3 of 8"
    assert doing({}, None) == "a batch"
    assert under_way(4.0, {"since": time.time() - 7}, None).elapsed == pytest.approx(7, abs=1)

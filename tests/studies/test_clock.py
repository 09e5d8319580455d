"""The one clock: honest within a factor of 1.5 once a tenth of the time is over."""

import time

import numpy as np
import pytest

from aptheory.studies.clock import OVERHEAD, Epochs, Underway, seconds_left
from aptheory.studies.engines import Here
from aptheory.studies.status import doing, status, under_way
from aptheory.studies.store import Store
from aptheory.studies.sweep import write_plan
from aptheory.studies.watching import Progress, Watch
from aptheory.training.epochs import epoch_done, told_to
from tests.studies.sweep_fakes import plan


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
    assert seconds_left([], [Underway(5.0, 39.0, 30.0, 40.0)], [5.0]) == pytest.approx(70)


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


def test_a_log_file_gets_a_line_at_the_start_and_the_end_and_no_bar(tmp_path, capsys):
    made, store = plan(tasks=1, seconds=30.0), Store(tmp_path).create()
    batch = made.jobs[0].batches[0]
    shown = Progress(Watch(made, store))
    shown.show()
    shown.show()  # within the minute
    with store.claim(batch.key):
        store.tell(batch.key, Epochs(6, 16, 2, 100.0, 104.0, 3, 8))
        shown.show(last=True)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("0 of 12 runs, about 3 min left, as predicted")
    assert last.startswith("0 of 12 runs, about")
    assert "at layer 0 (block0), epoch 3 of 8" in last
    assert store.told(batch.key) is None  # the word goes with the claim


def test_status_answers_while_the_networks_are_profiled(tmp_path):
    store = Store(tmp_path).create()
    write_plan(plan(tasks=1), store, Here())
    with store.claim("profile"):
        told = status(tmp_path)
    assert told.now == ["profiling"]
    assert "now: profiling" in told.text()
    assert status(tmp_path).now == []

"""Faults of the machine are told from those of the run; a folder belongs to one study at once."""

import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from aptheory.errors import InputError
from aptheory.studies.engines import Died, Ended, Here, Processes, Tick
from aptheory.studies.presence import presence
from aptheory.studies.store import Store
from aptheory.studies.sweep import execute, status
from aptheory.studies.tables import table
from aptheory.studies.worker import of_the_machine
from aptheory.writing import part_owner, writer_lives
from tests.studies import sweep_fakes as fakes

ROOT = Path(__file__).resolve().parents[2]


def run(folder, *, trainer=fakes.trainer, plan=None, **options):
    plan = plan or fakes.plan(seconds=0.0, tasks=1)
    return execute(plan, folder, engine=Here(), trainer=trainer, progress=False, **options)


def raising(error):
    """A trainer that fails with an error at the prompts of layer 1."""

    def trainer(job):
        train = fakes.trainer(job)

        def fail(batch, lead):
            if batch.place == 1 and batch.follows is None:
                raise error
            return train(batch, lead)

        return fail

    return trainer


MACHINE = [
    MemoryError(),
    OSError(5, "Input/output error"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ImportError("libcudart.so.12: cannot open shared object file"),
]
RUN = [RuntimeError("loss is not finite"), ValueError("bad shape"), InputError("no such setting")]


def caused(sentence, cause):
    error = InputError(sentence)
    error.__cause__ = cause
    return error


MACHINE.append(caused("a.png cannot be read; put it back.", OSError(116, "Stale file handle")))
RUN.append(caused("a.png cannot be decoded; replace it.", OSError("image file is truncated")))


@pytest.mark.parametrize("error", MACHINE, ids=repr)
def test_a_fault_of_the_machine_is_tried_again_by_the_same_command(tmp_path, error):
    run(tmp_path, trainer=raising(error))
    told = status(tmp_path)
    assert len(told.failed) == len(told.machine) == 4  # the prompts, and what follows them
    assert "the same command tries them again" in told.text()
    assert "--retry-failed" not in told.text()
    run(tmp_path)
    assert not status(tmp_path).failed
    assert len(table(tmp_path)) == 2 * 12


@pytest.mark.parametrize("error", RUN, ids=repr)
def test_a_fault_of_the_run_is_kept_until_it_is_asked_for(tmp_path, error):
    run(tmp_path, trainer=raising(error))
    run(tmp_path)
    told = status(tmp_path)
    assert len(told.failed) == 4
    assert not told.machine
    assert "with --retry-failed" in told.text()
    run(tmp_path, retry_failed=True)
    assert not status(tmp_path).failed


def test_a_trainer_that_cannot_start_is_the_machines_fault(tmp_path):
    """A device or a file that is missing: nothing of the runs was tried."""

    def trainer(job):
        raise InputError("there is no GPU; use device 'auto'.")

    assert run(tmp_path, trainer=trainer).empty
    assert len(status(tmp_path).machine) == 12
    assert len(run(tmp_path)) == 2 * 12


def test_what_is_of_the_machine():
    assert all(map(of_the_machine, MACHINE))
    assert not any(map(of_the_machine, RUN))


def test_engines_tell_what_happened_by_type():
    from collections import deque

    assert list(Here().run(len, deque([[1], [2]]))) == [Ended([1]), Ended([2])]
    events = list(Processes(1).run(_die, deque([0])))
    assert isinstance(events[-1], Died)
    assert events[-1].job == 0
    assert all(isinstance(event, Tick) for event in events[:-1])


@pytest.mark.parametrize("error", [ValueError("bad value(s) in fds_to_keep"), BlockingIOError(11)])
def test_a_worker_that_cannot_be_started_is_a_death_of_its_job(monkeypatch, error):
    from collections import deque

    from joblib.externals.loky.backend.popen_loky_posix import Popen

    def launch(popen, process):
        raise error

    monkeypatch.setattr(Popen, "_launch", launch)
    events = [e for e in Processes(2).run(len, deque([[0], [1]])) if not isinstance(e, Tick)]
    assert sorted(event.job for event in events) == [[0], [1]]
    assert all(event.why.startswith("not started, ") for event in events)
    monkeypatch.undo()
    assert Ended([0]) in list(Processes(1).run(len, deque([[0]])))


def _die(job):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------- one study a folder


def test_another_study_is_refused_before_it_spends_anything(tmp_path):
    first, second = fakes.plan(seconds=0.0), fakes.plan(seconds=0.0, layers=2)
    store = Store(tmp_path).create()
    with presence(store, first):
        with pytest.raises(InputError, match="another study is running"):
            run(tmp_path, plan=second)
        assert not list(store.runs.iterdir())
        run(tmp_path, plan=first)  # the same one shares the work
    run(tmp_path, plan=second)
    assert not list(store.claims.iterdir())


def test_what_a_killed_sweep_left_is_removed(tmp_path):
    code = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.studies import sweep_fakes as fakes
        from aptheory.studies.presence import presence
        from aptheory.studies.store import Store
        with presence(Store({str(tmp_path)!r}).create(), fakes.plan()):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    subprocess.run([sys.executable, "-c", code])
    store = Store(tmp_path)
    assert len(list(store.claims.glob("sweep.*"))) == 1
    run(tmp_path, plan=fakes.plan(seconds=0.0, layers=2))  # another study: nobody lives there
    assert not list(store.claims.iterdir())


def test_parts_of_the_living_stay_and_of_the_dead_go_whatever_the_clock_says(tmp_path):
    import os

    store = Store(tmp_path).create()
    mine = store.runs / f".a.json.{part_owner()}.ab.part"
    host = part_owner().rpartition(".")[0]
    dead = store.runs / f".b.json.{host}.{2**22 + 1}.ab.part"
    for part in (mine, dead):
        part.write_text("x")
    os.utime(mine, (0, 0))  # a clock that runs ahead sees it as old
    assert writer_lives(mine) is True
    assert writer_lives(store.runs / ".c.json.elsewhere.7.ab.part") is None
    store.create()
    assert mine.exists()
    assert not dead.exists()


# ------------------------------------------------------------------------- damaged and hostile


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "null", "5", '{"checksum": 1}', "\udcff", "[1e999]"]
)
def test_hostile_outcomes_and_journals_are_not_believed(tmp_path, text):
    run(tmp_path)
    store = Store(tmp_path)
    record = store.read_all()[0][0]
    data = text.encode("utf-8", "surrogatepass")
    store.path(record.key).write_bytes(data)
    (store.journal / "x.json").write_bytes(data)
    assert len(status(tmp_path).damaged) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(table(tmp_path)) == 2 * 11
    assert store.recover() == 0
    assert not list(store.journal.iterdir())
    run(tmp_path)
    assert not status(tmp_path).damaged


def test_an_outcome_of_another_shape_is_left_out(tmp_path):
    run(tmp_path)
    store = Store(tmp_path)
    record = store.read_all()[0][0]
    odd = replace(record, outcome={"labels": 5, "test_accuracy": None})
    store.path(record.key).write_text(odd.text())
    assert len(table(tmp_path)) == 2 * 11


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("made_by", "seconds", "x"),
        ("made_by", "batch_seconds", -1),
        ("outcome", "test_accuracy", 1.5),
        ("outcome", "val_loss", "low"),
        ("outcome", "val_accuracy", True),
        ("outcome", "test_accuracy", 10**400),
        ("made_by", "seconds", 10**400),
    ],
)
def test_an_outcome_with_a_number_that_no_run_ends_with_is_not_believed(
    tmp_path, place, name, value
):
    run(tmp_path)
    store = Store(tmp_path)
    record = store.read_all()[0][0]
    odd = replace(record, **{place: {**getattr(record, place), name: value}})
    store.path(record.key).write_text(odd.text())
    (sentence,) = status(tmp_path).damaged
    assert record.key in sentence
    assert name in sentence or "more than 300 digits" in sentence

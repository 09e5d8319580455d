"""The machinery that runs a study: durable, resumable, one table, told with trainers that sleep."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from aptheory.errors import InputError
from aptheory.studies.engines import Here, Processes, make_engine
from aptheory.studies.files import StorageError
from aptheory.studies.store import Store
from aptheory.studies.sweep import execute, export, status, table
from aptheory.studies.tables import runs
from tests.studies import sweep_fakes as fakes

ROOT = Path(fakes.__file__).resolve().parents[2]


def run(plan, folder, *, engine=None, trainer=fakes.trainer, **options):
    return execute(
        plan, folder, engine=engine or Here(), trainer=trainer, progress=False, **options
    )


def quick(folder="", **options):
    return fakes.plan(seconds=0.0, folder=folder, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The bytes of the table of a sweep that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(quick(), folder)
    return (folder / "accuracy.csv").read_bytes()


def test_table_is_tidy_sorted_and_has_no_times(tmp_path):
    frame = run(quick(), tmp_path)
    assert len(frame) == 2 * 3 * 2 * 2 * 2  # tasks, layers, prompt and control, seeds, measures
    keys = ["network", "task", "method", "layer", "seed"]
    shuffled = frame.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        frame, shuffled.sort_values([*keys, "measure"], key=_as_measured).reset_index(drop=True)
    )
    assert set(frame["measure"]) == {"val_accuracy", "test_accuracy"}
    read = pd.read_csv(tmp_path / "accuracy.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)


def _as_measured(column):
    order = {"train_accuracy": 0, "val_accuracy": 1, "test_accuracy": 2}
    return column.map(order) if column.name == "measure" else column


def test_control_sees_the_outcome_that_it_follows(tmp_path):
    frame = run(quick(), tmp_path)
    test = frame[frame["measure"] == "test_accuracy"].set_index(["method", "task", "layer", "seed"])
    for batch in quick().batches:
        if batch.follows is None:
            continue
        for identity in batch.identities:
            at = (identity["task"]["name"], identity["layer"]["index"], identity["seed"])
            led = test.loc[("ap", *at), "value"]
            assert test.loc[("random_perturbation", *at), "value"] == fakes.value(identity, led)


def test_second_sweep_trains_nothing(tmp_path, undisturbed):
    run(quick(tmp_path), tmp_path)
    count = len(fakes.trainings(tmp_path))
    assert count == 12
    (tmp_path / "accuracy.csv").unlink()
    run(quick(tmp_path), tmp_path)
    assert len(fakes.trainings(tmp_path)) == count
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed


def test_study_that_grew_trains_only_what_is_new(tmp_path):
    run(quick(tmp_path, layers=2), tmp_path)
    run(quick(tmp_path, layers=3), tmp_path)
    trained = fakes.trainings(tmp_path)
    assert len(trained) == len(set(trained)) == 12
    assert len(run(quick(tmp_path, layers=1), tmp_path)) == 16  # a table has the plan's runs only
    assert len(table(tmp_path, every=True)) == 48


def test_partly_finished_batch_is_trained_whole_and_the_same(tmp_path, undisturbed):
    run(quick(tmp_path), tmp_path)
    plan = quick(tmp_path)
    batch = next(iter(plan.batches))
    Store(tmp_path).path(batch.run_keys[1]).unlink()
    run(plan, tmp_path)
    assert fakes.trainings(tmp_path).count(batch.key) == 2
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed


@pytest.mark.parametrize("harm", ["cut", "edit", "empty", "swap"])
def test_harmed_outcome_is_reported_and_trained_again(tmp_path, undisturbed, harm):
    plan = quick(tmp_path)
    run(plan, tmp_path)
    store, batch = Store(tmp_path), list(plan.batches)[2]
    path = store.path(batch.run_keys[0])
    text = path.read_text()
    if harm == "swap":
        path.write_text(store.path(batch.run_keys[1]).read_text())
    else:
        path.write_text({"cut": text[:300], "empty": ""}.get(harm, text.replace("0.5", "0.9")))
    told = status(tmp_path)
    assert told.done == len(plan) - 1
    assert len(told.damaged) == 1
    assert path.name in told.text()
    with pytest.warns(UserWarning, match=path.name):
        assert len(table(tmp_path)) == 2 * (len(plan) - 1)
    run(plan, tmp_path)
    assert fakes.trainings(tmp_path).count(batch.key) == 2
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed


def test_failure_is_recorded_and_stops_nothing_else(tmp_path, undisturbed):
    plan = quick(tmp_path)
    frame = run(plan, tmp_path, trainer=fakes.failing)
    told = status(tmp_path)
    assert (told.done, len(told.failed), told.left) == (16, 8, 0)  # 2 tasks, prompt and control
    assert "RuntimeError: loss is not finite" in told.text()
    assert "the prompt whose norm it takes failed" in told.text()
    assert len(frame) == 2 * 16
    failed, _ = Store(tmp_path).read_all()
    traces = [record.made_by["traceback"] for record in failed if record.status == "failed"]
    assert any("in fail" in (trace or "") for trace in traces)

    (tmp_path / "mended").touch()
    run(plan, tmp_path)
    assert len(status(tmp_path).failed) == 8  # they wait to be asked for
    run(plan, tmp_path, trainer=fakes.failing, retry_failed=True)
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed
    assert len(fakes.trainings(tmp_path)) == 12


def test_retry_that_fails_again_ends(tmp_path):
    run(quick(tmp_path), tmp_path, trainer=fakes.failing)
    run(quick(tmp_path), tmp_path, trainer=fakes.failing, retry_failed=True)
    assert len(status(tmp_path).failed) == 8


def test_trainer_that_gives_too_few_outcomes_fails(tmp_path):
    run(quick(tasks=1, layers=1), tmp_path, trainer=lambda job: lambda batch, lead: [])
    assert "0 outcomes for 2 runs" in status(tmp_path).text()


def test_full_disk_stops_the_sweep_and_loses_nothing(tmp_path, monkeypatch, undisturbed):
    plan, calls = quick(tmp_path), []
    original = Store.write_batch

    def full(self, batch, records):
        calls.append(batch)
        if len(calls) > 3:
            raise StorageError("cannot write: No space left on device; free some space")
        original(self, batch, records)

    monkeypatch.setattr(Store, "write_batch", full)
    with pytest.raises(InputError, match="free some space"):
        run(plan, tmp_path)
    monkeypatch.undo()
    assert status(tmp_path).done == 6
    run(plan, tmp_path)
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed


def test_folder_that_a_worker_does_not_see_is_refused(tmp_path):
    from aptheory.studies.worker import work

    with pytest.raises(StorageError, match="all machines share"):
        work(quick().jobs[0], folder=tmp_path, trainer=fakes.trainer, retry=False, token="other")


def test_tracker_sees_each_run_once_and_cannot_stop_the_sweep(tmp_path):
    seen = []
    run(quick(tmp_path, layers=2), tmp_path)
    run(quick(tmp_path), tmp_path, tracker=seen.append)
    assert len(seen) == 8  # the new ones
    assert {record["status"] for record in seen} == {"done"}
    with pytest.warns(UserWarning, match="tracker failed"):
        run(quick(tmp_path, seeds=3), tmp_path, tracker=lambda record: 1 / 0)
    assert status(tmp_path).left == 0


def test_status_of_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match="no study"):
        status(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        status(tmp_path)


def test_status_tells_what_runs_now_and_estimates(tmp_path):
    plan = quick(tmp_path)
    run(replace(plan, jobs=plan.jobs[:1]), tmp_path)
    Store(tmp_path).folder.joinpath("plan.json").write_text(
        json.dumps({**plan.to_dict(), "workers": 2})
    )
    batch = plan.jobs[1].batches[0]
    with Store(tmp_path).claim(batch.key):
        told = status(tmp_path)
    assert (told.total, told.done, told.running, told.left) == (24, 12, 2, 10)
    assert told.seconds_left is not None
    assert "12 of 24 runs done" in told.text()
    assert 'value="12" max="24"' in told._repr_html_()


def test_export_writes_csv_and_parquet(tmp_path):
    frame = run(quick(), tmp_path)
    export(tmp_path, tmp_path / "all.csv", measures=["test_accuracy", "batch_seconds"])
    assert set(pd.read_csv(tmp_path / "all.csv")["measure"]) == {"test_accuracy", "batch_seconds"}
    export(tmp_path, tmp_path / "all.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "all.parquet"), frame)
    with pytest.raises(InputError, match=r"expected \.csv or \.parquet"):
        export(tmp_path, tmp_path / "all.xlsx")
    assert {"test_accuracy", "host", "run"} <= set(runs(tmp_path).columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "slurm"}, "expected 'processes'"),
        ({"engine": "processes", "workers": 0}, "1 or more"),
        ({"engine": "processes", "address": "auto"}, "no address"),
    ],
)
def test_engine_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_engine(**options)


# ------------------------------------------------------------------------- several processes


def test_processes_give_the_same_table_and_train_once(tmp_path, undisturbed):
    run(quick(tmp_path), tmp_path, engine=Processes(2))
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed
    trained = fakes.trainings(tmp_path)
    assert len(trained) == len(set(trained)) == 12
    assert len(list(tmp_path.glob("trained.*"))) == 2
    assert not list((tmp_path / "claims").iterdir())


def test_batch_that_kills_its_process_fails_and_the_others_finish(tmp_path):
    run(quick(tmp_path, seeds=1), tmp_path, engine=Processes(2), trainer=fakes.deadly)
    told = status(tmp_path)
    assert (told.done, len(told.failed)) == (10, 2)
    assert "its process died 3 times" in told.text()
    assert "SIGKILL" in told.text()


def start(folder, *, seconds, tasks=2, layers=3, engine="Processes(2)"):
    """A sweep in a process group of its own, as a user would start it in a terminal."""
    code = textwrap.dedent(f"""
        import signal, sys
        # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.path.insert(0, {str(ROOT)!r})
        from tests.studies import sweep_fakes as fakes
        from aptheory.studies.engines import Here, Processes
        from aptheory.studies.sweep import execute
        plan = fakes.plan(
            seconds={seconds}, folder={str(folder)!r}, tasks={tasks}, layers={layers}
        )
        execute(plan, {str(folder)!r}, engine={engine}, trainer=fakes.trainer, progress=False)
    """)
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def members(group):
    """Process ids of a process group, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after[2]) == group and after[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_workers_go_when_their_parent_is_killed(tmp_path):
    process = start(tmp_path, seconds=30)
    wait_for(lambda: len(Store(tmp_path).running()) == 2)
    workers = [about["pid"] for about in Store(tmp_path).running().values()]
    process.kill()
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)
    assert Store(tmp_path).running() == {}


def test_interrupt_keeps_what_is_finished_and_stops_the_workers(tmp_path, undisturbed):
    process = start(tmp_path, seconds=0.3, engine="Processes(1)")
    wait_for(lambda: len(list((tmp_path / "runs").glob("*.json"))) >= 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.wait(60)
    assert process.returncode != 0
    wait_for(lambda: not members(process.pid), 20)
    assert status(tmp_path).done >= 2
    run(quick(tmp_path), tmp_path)
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed


@pytest.mark.slow
def test_two_sweeps_of_one_folder_share_the_work(tmp_path, undisturbed):
    both = [start(tmp_path, seconds=0.1, engine="Here()") for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    trained = fakes.trainings(tmp_path)
    assert len(trained) == len(set(trained)) == 12
    assert len(list(tmp_path.glob("trained.*"))) == 2  # each did some of it
    assert (tmp_path / "accuracy.csv").read_bytes() == undisturbed


def disturb(folder, seed, *, seconds, kills, tasks=2, layers=3):
    """Kill something at random moments, start again when the sweep itself dies; count kills."""
    chance, killed = random.Random(seed), 0
    process = None
    options = {"seconds": seconds, "tasks": tasks, "layers": layers}
    while True:
        if process is None or process.poll() is not None:
            if process is not None and process.returncode == 0:
                return killed
            process = start(folder, **options)
        try:
            process.wait(chance.uniform(0.05, 4.0))
        except subprocess.TimeoutExpired:
            if killed < kills:
                group = members(process.pid)
                victims = chance.choice([group, [process.pid], [chance.choice(group)]])
                for victim in victims:
                    try:
                        os.kill(victim, signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        continue
                if process.pid in victims:
                    process.wait()


def check_after_kills(folder, expected, killed):
    assert killed > 0
    told = status(folder)
    assert (told.left, told.running, len(told.failed), told.damaged) == (0, 0, 0, [])
    assert (folder / "accuracy.csv").read_bytes() == expected
    # Nothing finished is run twice: a training that was noted as finished and ran again was
    # killed between the note and the journal, a moment; each kill can cause one at most.
    trained = fakes.trainings(folder)
    assert len(trained) - len(set(trained)) <= killed
    assert not list((folder / "journal").iterdir())


@pytest.mark.slow
def test_killed_at_random_moments_the_table_is_the_same(tmp_path, undisturbed):
    killed = disturb(tmp_path, seed=1, seconds=0.2, kills=5)
    check_after_kills(tmp_path, undisturbed, killed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(8))
def test_killed_many_times_the_table_is_the_same(tmp_path, seed):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    size = {"tasks": 4, "layers": 12}
    run(quick(**size), whole)
    broken.mkdir()
    killed = disturb(broken, seed, seconds=0.3, kills=40, **size)
    check_after_kills(broken, (whole / "accuracy.csv").read_bytes(), killed)

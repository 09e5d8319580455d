"""Outcome files: whole or absent, believed only when they check."""

import errno
import json
import multiprocessing
import os
import resource
import time

import numpy as np
import pytest

from aptheory.errors import InputError
from aptheory.studies.files import StorageError, write_atomically
from aptheory.studies.records import DamagedError, Record, canonical, key_of
from aptheory.studies.store import Store


def record(seed=0, status="done", **outcome):
    identity = {"network": {"name": "net"}, "seed": seed}
    return Record(key_of(identity), identity, status, outcome, {"host": "here"})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "study").create()


def test_identity_hash_does_not_depend_on_order_or_container():
    assert key_of({"a": 1, "b": (1, 2)}) == key_of({"b": [1, 2], "a": np.int64(1)})
    assert key_of({"a": 1}) != key_of({"a": 2})
    # SHA-256 of the text {"a":1}, from the command `printf '{"a":1}' | sha256sum`
    assert key_of({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"


@pytest.mark.parametrize("odd", ["xxx", ":", "3:", "10000000000:AAAA", "100:AAAA", "3:!!", 7, [1]])
def test_what_no_packed_array_says_is_not_believed(store, odd):
    store.write_batch("batch", [record(correct=odd), record(1, correct="3:oA==")])
    with pytest.raises(DamagedError, match="which test pictures its run knew"):
        store.read(record().key)
    assert store.read(record(1).key).outcome["correct"] == "3:oA=="


def test_outcomes_that_cannot_be_read_are_not_none(store, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match="runs cannot be read .Permission denied.; let yourself"):
        store.read_all()


def test_a_folder_in_the_place_of_an_outcome_is_refused_at_once(store):
    store.path(record().key).mkdir()
    with pytest.raises(InputError, match="is a folder where a run's outcome belongs; remove it"):
        store.create()


def test_numbers_that_json_lacks_become_null():
    assert canonical({"x": float("nan"), "y": np.float32(0.5)}) == '{"x":null,"y":0.5}'
    with pytest.raises(TypeError, match="object"):
        canonical(object())


def test_what_is_written_comes_back(store):
    written = record(test_accuracy=0.1 + 0.2, curve=[1.0, float("inf")])
    store.write_batch("batch", [written, record(1)])
    read = store.read(written.key)
    assert read.outcome == {"test_accuracy": 0.1 + 0.2, "curve": [1.0, None]}
    assert read.identity == written.identity
    assert {path.name for path in store.runs.iterdir()} == {
        f"{written.key}.json",
        f"{record(1).key}.json",
    }
    assert not list(store.journal.iterdir())
    assert store.read("0" * 32) is None


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_truncated_file_is_not_believed(store, cut):
    store.write_batch("batch", [record(test_accuracy=0.5)])
    path = store.path(record().key)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedError, match=path.name):
        store.read(record().key)
    records, damaged = store.read_all()
    assert not records
    assert len(damaged) == 1


def test_every_single_edit_is_noticed(store):
    store.write_batch("batch", [record(test_accuracy=0.5)])
    path = store.path(record().key)
    original = path.read_text()
    for old, new in [
        ("0.5", "0.6"),
        ('"seed": 0', '"seed": 1'),
        ('"done"', '"failed"'),
        ('"here"', '"there"'),
        ('"format": 1', '"format": 2'),
    ]:
        assert old in original
        path.write_text(original.replace(old, new))
        with pytest.raises(DamagedError):
            store.read(record().key)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedError, match="not text"):
        store.read(record().key)
    path.write_text("[1, 2]")
    with pytest.raises(DamagedError, match="no checksum"):
        store.read(record().key)


def test_file_under_another_name_is_not_believed(store):
    store.write_batch("batch", [record()])
    os.rename(store.path(record().key), store.path("f" * 32))
    with pytest.raises(DamagedError, match="another run"):
        store.read("f" * 32)


def test_finished_run_keeps_its_file_and_a_failed_one_is_replaced(store):
    store.write_batch("batch", [record(test_accuracy=0.5), record(1, status="failed")])
    store.write_batch("batch", [record(test_accuracy=0.7), record(1, test_accuracy=0.8)])
    assert store.read(record().key).outcome["test_accuracy"] == 0.5
    assert store.read(record(1).key).outcome["test_accuracy"] == 0.8


def test_journal_of_a_killed_writer_is_finished(store, monkeypatch):
    def killed(batch, records):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_write_runs", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write_batch("batch", [record(test_accuracy=0.5), record(1)])
    monkeypatch.undo()
    assert store.read(record().key) is None
    assert store.recover() == 1
    assert store.read(record().key).outcome["test_accuracy"] == 0.5
    assert store.read(record(1).key) is not None
    assert store.recover() == 0


def test_tampered_journal_is_dropped(store):
    body = {"format": 1, "records": [record().text()], "checksum": "0"}
    (store.journal / "batch.json").write_text(json.dumps(body))
    (store.journal / "other.json").write_text('{"records": [')
    assert store.recover() == 0
    assert not list(store.journal.iterdir())
    assert store.read(record().key) is None


def test_a_batch_written_again_removes_the_part_of_the_killed_writer(store):
    (store.journal / ".batch.json.1.ab.part").write_text("half")
    (store.journal / ".other.json.1.ab.part").write_text("its writer may live")
    store.write_batch("batch", [record()])
    assert [path.name for path in store.journal.iterdir()] == [".other.json.1.ab.part"]


def test_full_disk_leaves_the_old_file_and_no_part(store):
    path = store.folder / "big"
    write_atomically(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match="free some space"):
            write_atomically(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert {item.name for item in store.folder.iterdir()} == {"big", "runs", "journal", "claims"}


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "choose a folder"),
        (errno.EACCES, "choose a folder"),
        (errno.EIO, "check the folder"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(tmp_path, monkeypatch, number, advice):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=advice) as caught:
        Store(tmp_path / "study").create()
    assert "\n" not in str(caught.value)


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "study").write_text("mine")
    with pytest.raises(StorageError, match="study"):
        Store(tmp_path / "study").create()
    assert (tmp_path / "study").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="may write"):
        Store(tmp_path / "study").create()
    tmp_path.chmod(0o700)


def _hold(folder, held, release):
    with Store(folder).claim("batch") as mine:
        assert mine
        held.set()
        release.wait(30)


def test_claim_is_exclusive_visible_and_dies_with_its_process(store):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(store.folder, held, release))
    process.start()
    assert held.wait(30)
    with store.claim("batch") as mine:
        assert not mine
    assert store.running()["batch"]["pid"] == process.pid
    process.kill()
    process.join()
    assert store.running() == {}
    with store.claim("batch") as mine:
        assert mine
    assert not list(store.claims.iterdir())


def test_claim_is_not_fooled_by_a_removed_file(store):
    """A lock on a file that is no longer at its path is no claim."""
    with store.claim("batch") as first:
        assert first
        (store.claims / "batch.lock").unlink()
        with store.claim("batch") as second:
            assert second  # a new file: the first was taken away from under its holder


def _race(folder, count, start, won):
    start.wait(30)
    store = Store(folder)
    for number in range(count):
        with store.claim(f"batch{number}") as mine:
            if mine and store.read(record(number).key) is None:
                with won.get_lock():
                    won.value += 1
                store.write_batch(f"batch{number}", [record(number)])


def test_many_processes_do_each_batch_once(store):
    context = multiprocessing.get_context("fork")
    start, won = context.Event(), context.Value("i", 0)
    count = 25
    processes = [
        context.Process(target=_race, args=(store.folder, count, start, won)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    records, damaged = store.read_all()
    assert won.value == len(records) == count
    assert not damaged


def test_abandoned_parts_are_removed_and_young_ones_left(store):
    old, young = store.runs / ".a.json.1.ab.part", store.runs / ".b.json.1.ab.part"
    old.write_text("x")
    young.write_text("x")
    os.utime(old, (time.time() - 7200,) * 2)
    store.create()
    assert not old.exists()
    assert young.exists()

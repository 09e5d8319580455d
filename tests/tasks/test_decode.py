"""Decoding once: the same pictures, the same digest, and what happens on a full disk."""

import os
import threading
import time

import numpy as np
import pytest
import torch

import aptheory as ap
from aptheory import tasks
from aptheory.errors import InputError
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.readers import decode
from tests.tasks import tasks_fixtures as make


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APTHEORY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def task(tmp_path):
    counts = {"train": {"a": 90, "b": 90}, "test": {"a": 10, "b": 10}}
    return ap.task(f"folder:{make.folder(tmp_path / 'pets', counts)}")


def test_decoded_pictures_are_the_same_at_every_size(task):
    made = tasks.decoded_task(task, (16, 20), progress=False)
    for split in ("train", "val", "test"):
        before, after = getattr(task, split), getattr(made, split)
        for size in ((16, 20), (8, 8)):
            x = after.images(range(len(after)), size)
            assert torch.equal(x, before.images(range(len(before)), size))
        assert np.array_equal(before.labels, after.labels)
    assert made.digest == task.digest


def test_decoding_happens_once(task, tmp_path, monkeypatch):
    first = tasks.decoded(task.train, (8, 8), folder=tmp_path / "kept", progress=False)
    assert isinstance(first.pixels, np.memmap)
    monkeypatch.setattr(type(task.train), "images", lambda *a: pytest.fail("decoded again"))
    second = tasks.decoded(task.train, (8, 8), folder=tmp_path / "kept", progress=False)
    assert np.array_equal(first.pixels, second.pixels)
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_what_is_decoded_stays_below_its_limit(task, tmp_path):
    """Of all files in the folder together; what is there already costs nothing."""
    folder, size = tmp_path / "kept", len(task.test) * 8 * 8 * 3
    for _ in range(2):
        tasks.decoded(task.test, (8, 8), folder=folder, limit=size + 200, progress=False)
    with pytest.raises(InputError, match=r"at most 0 MB \(limit=\)"):
        tasks.decoded(task.val, (8, 8), folder=folder, limit=size + 200, progress=False)
    assert len(list(folder.iterdir())) == 1


def test_subsets_of_decoded_tasks(task):
    made = tasks.decoded_task(task, (8, 8), progress=False).subset(train=20)
    x = made.train.images([4], (8, 8))
    assert torch.equal(x, task.train.images([made.train.indices[4]], (8, 8)))


def test_a_corrupt_picture_leaves_nothing_behind(task, tmp_path):
    file = next((tmp_path / "pets/test/a").iterdir())
    file.write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be decoded"):
        tasks.decoded(task.test, (8, 8), folder=tmp_path / "kept", progress=False)
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_full_or_unusable_folder_is_told_in_a_sentence(task, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        tasks.decoded(task.test, (8, 8), folder=tmp_path / "file", progress=False)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        tasks.decoded(task.test, (8, 8), folder=tmp_path / "kept", progress=False)
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_decoding_goes_on_where_it_stood(task, tmp_path, monkeypatch, how):
    folder, split = tmp_path / "kept", type(task.train)
    images, asked = split.images, []

    def counted(self, indices, size):
        asked.extend(indices)
        return images(self, indices, size)

    def until_64(self, indices, size):
        if 64 in indices:
            raise KeyboardInterrupt
        return images(self, indices, size)

    with monkeypatch.context() as patch:
        patch.setattr(split, "images", until_64)
        if how == "killed":  # nothing is done at the end; what was forced to the disk is there
            patch.setattr(decode, "FORCED_EVERY", 1)
            patch.setattr(decode._Part, "__exit__", lambda self, *_: self._out.close())
        with pytest.raises(KeyboardInterrupt):
            tasks.decoded(task.train, (8, 8), folder=folder, progress=False)
    (part,) = folder.iterdir()
    assert part.name.split(".")[1:2] == ["64"]
    with part.open("ab") as file:  # and half a picture that nobody counted
        file.write(b"x" * 100)
    with monkeypatch.context() as patch:
        patch.setattr(split, "images", counted)
        made = tasks.decoded(task.train, (8, 8), folder=folder, limit=40000, progress=False)
    assert asked == [0, *range(64, len(task.train))]
    assert torch.equal(
        made.images(range(len(made)), (8, 8)), task.train.images(range(len(made)), (8, 8))
    )
    assert [file.suffix for file in folder.iterdir()] == [".npy"]


def test_two_that_decode_at_once_do_not_write_into_one_file(task, tmp_path):
    file = tmp_path / "identity.npy"
    shape = (len(task.test), 8, 8, 3)
    with decode._Part(file, shape) as one, decode._Part(file, shape) as other:
        assert one.path != other.path
        one.write(np.zeros(shape, dtype=np.uint8))
        other.write(np.zeros(shape, dtype=np.uint8))
    assert [path.name for path in tmp_path.glob("identity*")] == ["identity.npy"]
    assert np.load(file).shape == shape


def test_a_damaged_file_is_refused(task, tmp_path):
    kept = tmp_path / "kept"
    tasks.decoded(task.test, (8, 8), folder=kept, progress=False)
    file = next(kept.iterdir())
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(InputError, match="is damaged"):
        tasks.decoded(task.test, (8, 8), folder=kept, progress=False)
    np.save(file, np.zeros((2, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"has shape \(2, 8, 8, 3\)"):
        tasks.decoded(task.test, (8, 8), folder=kept, progress=False)


def test_work_is_done_ahead_in_order_and_no_further():
    started: list[int] = []
    gate = threading.Event()

    def work(part: int) -> int:
        started.append(part)
        return part * part

    results = ahead_of(work, range(10), ahead=2)
    assert next(results) == (0, 0)
    deadline = time.monotonic() + 5
    while len(started) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.wait(0.05)
    assert started == [0, 1, 2]
    assert list(results) == [(n, n * n) for n in range(1, 10)]


def test_an_error_ahead_comes_up_where_it_belongs():
    def work(part: int) -> int:
        if part == 2:
            raise InputError("two")
        return part

    results = ahead_of(work, range(5), ahead=3)
    assert [next(results)[1], next(results)[1]] == [0, 1]
    with pytest.raises(InputError, match="two"):
        next(results)

"""Files are whole or absent, nothing is left of a killed writer, and one command writes a place."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from aptheory.checked import json_text, json_value
from aptheory.errors import InputError
from aptheory.studies.files import StorageError, write_together
from aptheory.studies.records import Record, canonical, key_of
from aptheory.studies.store import Store
from aptheory.writing import beside, lock, only_writer, part_owner, refuse_no_file

DEAD = 2**22 + 1  # above the largest number of a process


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.csv"
    with beside(path) as part:
        part.write_text("one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), beside(path) as part:
        part.write_text(f"half {1 / 0}")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_full_disk_is_told_by_the_name_of_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")  # as fsync does: of no file

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.csv") as fault, beside(tmp_path / "a.csv"):
        pass
    assert fault.value.filename == str(tmp_path / "a.csv")
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_told_where_a_library_stumbles_over_it_once_more(tmp_path):
    def written(disk):
        with beside(path):
            try:
                if disk == "full":
                    raise OSError(errno.ENOSPC, "No space left on device")
            finally:  # as a file format does that writes its table of contents when it is closed
                raise AttributeError("no attribute 'pos'")

    path = tmp_path / "picture.pdf"
    path.write_text("before")
    with pytest.raises(OSError, match="picture.pdf") as raised:
        written("full")
    assert raised.value.errno == errno.ENOSPC
    assert path.read_text() == "before"
    with pytest.raises(AttributeError):
        written("large")


def test_files_that_belong_together_are_written_all_or_none(tmp_path, monkeypatch):
    table, page = tmp_path / "scores.csv", tmp_path / "page.html"
    write_together({table: "old", page: b"old"})

    @contextlib.contextmanager
    def full(path):
        with beside(path) as part:
            if path == page:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            yield part

    monkeypatch.setattr("aptheory.studies.files.beside", full)
    with pytest.raises(StorageError, match="free some space"):
        write_together({table: "new", page: "new"})
    assert table.read_text() == page.read_text() == "old"
    monkeypatch.undo()
    write_together({table: "new", page: "\udc80"})  # of a name that is no UTF-8
    assert (table.read_text(), page.read_text()) == ("new", "\\udc80")
    assert sorted(os.listdir(tmp_path)) == ["page.html", "scores.csv"]


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    host = part_owner().rpartition(".")[0]
    left = tmp_path / f".a.csv.{host}.{DEAD}.0123abcd.part"
    stay = [
        tmp_path / f".a.csv.{part_owner()}.0123abcd.part",  # its writer lives
        tmp_path / f".a.csv.not-{host}.{DEAD}.0123abcd.part",  # another machine's
        tmp_path / ".film.part",  # another program's
    ]
    for part in (left, *stay):
        part.write_text("half")
    dead = tmp_path / ".model.pt2.aptheory-lock"
    dead.touch()
    held = open(tmp_path / ".other.pt2.aptheory-lock", "w")  # noqa: SIM115
    assert lock(held)
    with beside(tmp_path / "b.csv") as part:
        part.write_text("whole")
    assert not left.exists()
    assert not dead.exists()
    assert all(part.exists() for part in (*stay, Path(held.name)))
    held.close()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_names_of_the_standard_streams_are_left_alone(name):
    with pytest.raises(InputError, match="a device or a pipe"):
        refuse_no_file(Path(name))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(tmp_path, make):
    path = tmp_path / "x"
    make(path)
    before = path.lstat().st_mode
    with pytest.raises(InputError, match="is a folder|a pipe, not a file"), beside(path):
        pass
    assert path.lstat().st_mode == before


def test_one_command_writes_a_place_at_a_time(tmp_path):
    path = tmp_path / "model.safetensors"
    with only_writer(path):
        with pytest.raises(InputError, match="another command is writing"), only_writer(path):
            pass
        with only_writer(tmp_path / "other.safetensors"):
            pass
    with only_writer(path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_writer(tmp_path / "a"):
        assert not list(tmp_path.iterdir())


def test_a_folder_that_goes_away_is_told_by_the_name_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()

    def use():
        with beside(Path("out/table.npz")):
            shutil.rmtree("out")
            with tempfile.TemporaryFile(dir="out"):
                pass

    with pytest.raises(FileNotFoundError) as error:
        use()
    assert error.value.filename == "out/table.npz"


def test_a_lock_that_cannot_be_removed_does_not_hide_what_went_wrong(tmp_path, monkeypatch):
    def immutable(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", immutable)
    with pytest.raises(StorageError, match="cannot write to"), only_writer(tmp_path / "table.csv"):
        raise StorageError("cannot write to the folder")
    with only_writer(tmp_path / "table.csv"):  # nothing else went wrong: it is no fault
        pass
    with pytest.raises(ZeroDivisionError), Store(tmp_path).create().claim("batch") as mine:
        raise ZeroDivisionError(mine)


def test_json_of_a_name_that_is_no_utf8_is_read_back(tmp_path):
    odd = {"caf\udce9": ["bild\udcfc", "\U0001f408", 1.5], "plain": "\\udcfc"}
    assert json_value(json_text(odd), name="it") == {
        "caf\\xe9": ["bild\\xfc", "\U0001f408", 1.5],
        "plain": "\\udcfc",
    }
    assert json_text({"a": "é"}, indent=1) == json.dumps({"a": "é"}, indent=1)
    about = {"place": "bild\udcfc"}
    record = Record(key=key_of(about), identity=about, status="done", outcome={}, made_by={})
    assert Record.from_text(record.text(), name="it").identity == {"place": "bild\\xfc"}
    assert json_value(canonical(odd), name="it")

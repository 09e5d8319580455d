"""What becomes of a command whose answer cannot be written."""

import errno
import io
import subprocess
import sys

import pytest

from aptheory.cli import app


class Refusing(io.StringIO):
    """A stream that raises what the machine would."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, "as the machine says")

    def write(self, text: str) -> int:
        raise OSError(self.number, "as the machine says")


def ended(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(words))
    return end.value.code


def test_a_closed_output_is_no_success(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert ended("recipes") == 2
    assert "standard output is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, 2, "a file or the standard output: as the machine says"),
        (errno.EPIPE, 141, ""),
    ],
)
def test_an_output_that_takes_nothing_more(number, code, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Refusing(number))
    assert ended("recipes") == code
    words = capsys.readouterr().err
    assert said in words if said else words == ""


def test_without_an_error_stream_sentences_do_not_mix_with_the_answer(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    assert ended("nosuchverb") == 2
    assert capsys.readouterr().out == ""


def test_an_error_stream_that_takes_nothing_ends_no_work(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "stderr", Refusing(errno.ENOSPC))
    out = tmp_path / "model.safetensors"
    quick = ["--layer", "5", "--epochs", "1", "--subset", "60,20,20"]
    assert ended("fit", "aptheory_vit_mini", "-t", "digits", *quick, "-o", str(out)) == 0
    assert out.is_file()
    assert str(out) in capsys.readouterr().out


def test_a_failed_thread_of_a_package_prints_no_traceback(tmp_path):
    """As the thread does that writes a tracker's events to a disk that is full."""
    (tmp_path / "threads_of_mine.py").write_text(
        "import threading\n"
        "def net():\n"
        "    def fail(): raise OSError('the disk is full')\n"
        "    thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "    raise ValueError('enough')\n"
    )
    words = [sys.executable, "-m", "aptheory", "cost", "threads_of_mine:net", "ap:layer=0"]
    for verbose in (False, True):
        ended = subprocess.run(
            [*words, *["-v"] * verbose], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        assert ("the disk is full" in ended.stderr) == verbose
        assert "enough" in ended.stderr

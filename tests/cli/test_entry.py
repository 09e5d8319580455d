"""The command as a process starts it."""

import os
import signal
import time

import pytest
from typer.testing import CliRunner

from aptheory import __main__ as command
from aptheory.cli import app


@pytest.fixture(autouse=True)
def _signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_imports_is_a_line_and_130(monkeypatch, capsys, number):
    def interrupted():
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr("aptheory.cli.main", interrupted)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command begins again\n"


@pytest.mark.parametrize(
    ("words", "name"), [(["status", ""], "FOLDER"), (["predict", "m.safetensors", ""], "PICTURES")]
)
def test_an_empty_argument_is_not_the_working_directory(words, name):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"{name} is empty; give it a value" in result.stderr

"""The command as a process starts it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aptheory import __main__ as command
from aptheory.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_an_interrupt_in_an_import_leaves_at_once(tmp_path):
    """Compiled libraries may end the process with a page where what they call is interrupted."""
    (tmp_path / "slow_of_mine.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import aptheory.__main__ as command, aptheory.cli\n"
        "def run():\n    import slow_of_mine\n"
        "aptheory.cli.main = run\ncommand.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )
    assert ended.returncode == 130
    assert ended.stderr == "\ninterrupted; give the same command again\n"


@pytest.mark.parametrize(
    ("words", "name"), [(["status", ""], "FOLDER"), (["predict", "m.safetensors", ""], "PICTURES")]
)
def test_an_empty_argument_is_not_the_working_directory(words, name):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"{name} is empty; give it a value" in result.stderr

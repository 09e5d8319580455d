"""The command as a process starts it."""

import pytest

from aptheory import __main__ as command


def test_an_interrupt_while_it_imports_is_a_line_and_130(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("aptheory.cli.main", interrupted)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command begins again\n"

"""A few harmed inputs of every kind end in an answer or a sentence."""

from benchmarks import fuzz
from benchmarks.fuzz_targets import TARGETS


def test_the_quick_form_finds_no_traceback(capsys):
    assert len(TARGETS) >= 20
    assert fuzz.main(["--quick"]) == 0, capsys.readouterr().err
    assert "tracebacks: 0 of " in capsys.readouterr().out

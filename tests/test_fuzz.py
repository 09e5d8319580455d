"""A few harmed inputs of every kind end in an answer or a sentence."""

import subprocess
import sys
from pathlib import Path

from benchmarks.fuzz_targets import TARGETS


def test_the_quick_form_finds_no_traceback():
    """In a process of its own: the tests' type checker stops wrong types before our own checks."""
    assert len(TARGETS) >= 20
    words = [sys.executable, "-m", "benchmarks.fuzz", "--quick"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tracebacks: 0 of " in done.stdout

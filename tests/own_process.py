"""Python in a process of its own, for what cannot run under the shape checks of the tests."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lines_printed_by(code: str) -> list[str]:
    """Run ``code`` from the repository's root; its lines on stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

"""``python -m aptheory`` is the command ``aptheory``."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line, whose imports take a second in which it may be interrupted, too.

    A SIGTERM, with which queues and containers end what they run, is an interruption like Ctrl-C.
    """
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        from aptheory.cli import main as run

        run()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command begins again", file=sys.stderr)
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Python puts the working directory first; a file of the user's there, profile.py say, must not
    # stand in for a module of somebody else's.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        sys.path.append(sys.path.pop(0))
    main()

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
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
            signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        from aptheory.cli import main as run

        run()
    except SystemExit:  # all is said and written: Python's own end is not to be interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise
    except KeyboardInterrupt:
        print("\ninterrupted; the same command begins again", file=sys.stderr)
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """As Python does, but leave at once in the middle of an import: compiled libraries end the
    process with a page of their own where Python code that they call is interrupted."""
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            message = "\ninterrupted; give the same command again\n"
            os.write(2, message.encode())
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Python puts the working directory first; a file of the user's there, profile.py say, must not
    # stand in for a module of somebody else's.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        sys.path.append(sys.path.pop(0))
    main()

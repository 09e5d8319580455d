"""``python -m aptheory`` is the command ``aptheory``."""

import os
import sys


def main() -> None:
    """Run the command line, whose imports take a second in which it may be interrupted, too."""
    try:
        from aptheory.cli import main as run

        run()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command begins again", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    # Python puts the working directory first; a file of the user's there, profile.py say, must not
    # stand in for a module of somebody else's.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        sys.path.append(sys.path.pop(0))
    main()

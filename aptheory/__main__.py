"""``python -m aptheory`` is the command ``aptheory``."""

import os
import sys

# Python puts the working directory first; a file of the user's there, profile.py say, must not
# stand in for a module of somebody else's.
if sys.path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))

from aptheory.cli import main

main()

"""``python -m aptheory`` is the command ``aptheory``."""

from aptheory.cli import main

main()

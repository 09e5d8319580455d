"""The command line: thin verbs over the library's functions, a module a group of verbs.

`app` is the application, `main` runs it. ``options.py`` is the one place of the options that verbs
share. Exit codes: 0 all that was asked is done, 1 some runs failed, 2 input that cannot be used
(one sentence says why), 130 interrupted.
"""

from aptheory.cli import (  # noqa: F401 - each brings its verbs
    catalogue,
    choosing,
    features,
    models,
    networks,
    results,
    studies,
    tasks,
)
from aptheory.cli.application import app, main

__all__ = ["app", "main"]

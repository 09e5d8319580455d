"""Whose fault an error is that nobody foresaw: code of the user's, or ours."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from aptheory.errors import reason_of

_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


def users_fault(error: BaseException) -> str | None:
    """What a function or class of the user's did, and where in his file; None for an error that
    arose between this package and those that are installed."""
    folders = {Path(sysconfig.get_path(name)).resolve() for name in _INSTALLED}
    folders.add(Path(__file__).resolve().parents[1])
    places = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename).resolve()
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        if (
            file.is_file()
            and not installed
            and not any(file.is_relative_to(folder) for folder in folders)
        ):
            places.append(f"{file}:{line}")
    if isinstance(error, SystemExit):  # verbs leave by typer.Exit
        who = f"your code at {places[-1]}" if places else "something that this command called"
        return f"{who} ended the program (sys.exit, {error.code!r}); let it raise an error instead."
    if not places:
        return None
    reason = reason_of(error, kind=True)
    return f"your code at {places[-1]} failed ({reason}); mend it there (-v shows the way to it)."

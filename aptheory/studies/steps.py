"""What a long piece of work has finished, a step a line, so that a killed one goes on.

steps = Steps.of(folder / "table.steps", net, task, recipe.settings())
score = steps.value("linear probe", lambda: measured(net))   # measured once, then read
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.arguments import fits
from aptheory.checked import json_table, json_text, json_value, read_text
from aptheory.errors import InputError
from aptheory.studies.files import storage_error
from aptheory.studies.records import key_of
from aptheory.studies.sources import network_identity, task_identity, view_identity
from aptheory.version import __version__
from aptheory.writing import refuse_no_file

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.tasks import Task


class Steps:
    """Values by the names of steps, in a file that is only ever appended to.

    ``about`` is all that decides the values: lines that are about something else, or of another
    version, are passed over, and so are damaged ones. Without a path nothing is kept.
    """

    def __init__(self, path: Path | None, about: Any) -> None:
        self.path = path
        self._about = key_of([__version__, about])
        self._values: dict[str, Any] = dict(self._read(path)) if path is not None else {}

    @classmethod
    def of(cls, path: str | Path | None, net: Network, task: Task, *settings: Any) -> Steps:
        """Those of work on a network and a task, whose digests are taken where there is a path."""
        if path is None:
            return cls(None, None)
        same = [network_identity(net), task_identity(task), view_identity(net, task)]
        return cls(Path(path), [*same, *settings])

    def __contains__(self, step: str) -> bool:
        return step in self._values

    def value(
        self, step: str, work: Callable[[], Any], *, usable: Callable[[Any], bool] | None = None
    ) -> Any:
        """The value of a step: as it was kept, or what ``work`` gives, which is then kept.

        It is what JSON makes of it either way, numbers to the last bit. What is kept and is not
        ``usable``, where that is asked (see `shaped`), is passed over: anybody can compute a
        checksum.

        Raises:
            StorageError: the file cannot be written.
        """
        known = step in self._values and (usable is None or usable(self._values[step]))
        if not known:
            text = json_text(work(), default=lambda value: value.tolist())
            if self.path is not None:
                self._keep(self.path, step, text)
            self._values[step] = json.loads(text)
        return self._values[step]

    def _keep(self, path: Path, step: str, text: str) -> None:
        line = {"about": self._about, "step": step, "value": text}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a") as file:
                # The line before may have been cut short by a kill.
                file.write("\n" + json_text({**line, "checksum": key_of(line)}))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(path.parent, error) from error

    def _read(self, path: Path) -> list[tuple[str, Any]]:
        refuse_no_file(path)
        try:
            lines = read_text(path, errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                entry = json_table(line, name=str(path))
                checksum, about = entry.pop("checksum", None), entry.get("about")
                if about == self._about and checksum == key_of(entry):
                    value = json_value(str(entry["value"]), name=str(path), finite=False)
                    found.append((str(entry["step"]), value))
            except (InputError, KeyError):  # cut short by a kill, or damaged
                continue
        return found


def shaped(value: Any, shape: Mapping[str, Any]) -> bool:
    """Whether a value is a table of exactly these entries, each of the type declared for it; nan
    stands for any number."""
    return (
        isinstance(value, dict)
        and value.keys() == shape.keys()
        and all(fits(0.0 if value[n] != value[n] else value[n], shape[n]) for n in shape)
    )

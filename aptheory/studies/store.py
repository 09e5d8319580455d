"""Outcome files: one small file a run, whole or absent, believed only when it checks.

The file of a run is ``runs/<key>.json``. Runs that train together (a *batch*) finish together, so
their files must appear together: the batch is first written as one *journal* file, the run files
are made from it, and the journal is removed. A process killed in between leaves the journal, and
the next one finishes the writing instead of the training.

Who works on a batch holds ``flock`` on its claim file. The kernel drops that lock when the process
dies, however it dies, so a claim is never stale and never needs a timeout.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from aptheory.checked import json_table, json_text, read_text, require_file
from aptheory.errors import InputError
from aptheory.studies.clock import Epochs
from aptheory.studies.files import storage_error, write_atomically
from aptheory.studies.records import FORMAT, DamagedError, Record, checksum, plain
from aptheory.writing import lock, lock_file, remove_if_possible, sweep_up

_ABANDONED_SECONDS = 3600.0


MODELS = "models"
"""The folder, beside the outcomes, of what runs have learned, where that is kept."""


class Store:
    """A study's folder: ``runs/`` (outcomes), ``journal/`` and ``claims/`` (work in progress)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.runs = self.folder / "runs"
        self.journal = self.folder / "journal"
        self.claims = self.folder / "claims"

    def create(self) -> Store:
        """Make the folders and prove that they can be written and locked.

        Raises:
            StorageError, NoLocksError: they cannot; the message says why and what to do.
        """
        try:
            for folder in (self.runs, self.journal, self.claims):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.folder, error) from error
        probe = self.claims / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
        write_atomically(probe, "")
        try:
            with open(probe, "rb+") as file:
                lock(file)
            now = probe.stat().st_mtime  # by the clock that also dates the parts
        except OSError as error:
            raise storage_error(self.folder, error) from error
        finally:
            remove_if_possible(probe)
        for folder in (self.runs, self.journal):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and entry.is_dir():
                        raise InputError(
                            f"{entry.path} is a folder where a run's outcome belongs; remove it."
                        )
        for folder in (self.folder, self.runs, self.journal, self.claims):
            sweep_up(folder, older_than=now - _ABANDONED_SECONDS)
        return self

    def path(self, key: str) -> Path:
        return self.runs / f"{key}.json"

    def read(self, key: str) -> Record | None:
        """The checked record of a run, or None when there is no file.

        Raises:
            DamagedError: there is a file and it must not be believed.
        """
        path = self.path(key)
        try:
            text = read_text(path)
        except FileNotFoundError:
            return None
        except InputError as error:
            raise DamagedError(str(error)) from None
        record = Record.from_text(text, name=path.name)
        if record.key != key:
            raise DamagedError(f"{path.name} holds the outcome of another run, {record.key}")
        return record

    def believed(self, key: str) -> Record | None:
        """The record of a run, or None where there is none that checks: it will train again."""
        try:
            return self.read(key)
        except DamagedError:
            return None

    def read_all(self) -> tuple[list[Record], list[str]]:
        """Every outcome that checks, sorted by key, and a sentence for every file that does not.

        Raises:
            InputError: the folder of the outcomes cannot be read.
        """
        records, damaged = [], []
        try:
            names = os.listdir(self.runs) if os.path.isdir(self.runs) else []
        except OSError as error:
            raise InputError(
                f"{self.runs} cannot be read ({error.strerror}); let yourself read it."
            ) from error
        for path in sorted(self.runs / name for name in names if name.endswith(".json")):
            try:
                record = self.read(path.stem)
            except DamagedError as error:
                damaged.append(str(error))
                continue
            if record is not None:
                records.append(record)
        return records, damaged

    def write_batch(self, batch: str, records: Sequence[Record]) -> None:
        """Store the outcomes of runs that finished together, all of them or (for now) none.

        A run that is already done keeps the file that it has. The caller holds the batch's claim.
        """
        body = plain({"format": FORMAT, "records": [record.text() for record in records]})
        body["checksum"] = checksum(body)
        write_atomically(self.journal / f"{batch}.json", json_text(body))
        self._write_runs(batch, records)

    def _write_runs(self, batch: str, records: Sequence[Record]) -> None:
        for record in records:
            present = self.believed(record.key)
            if present is None or present.status != "done":
                write_atomically(self.path(record.key), record.text())
        # Parts too: who holds the claim knows that the writer of a part was killed.
        for path in [self.journal / f"{batch}.json", *self.journal.glob(f".{batch}.json.*.part")]:
            remove_if_possible(path)  # a journal that stays is only written once more

    def recover(self) -> int:
        """Finish the writing that killed processes left in the journal; how many batches it was."""
        finished = 0
        for path in sorted(self.journal.glob("*.json")):
            with self.claim(path.stem) as mine:
                if not mine or not path.exists():
                    continue  # its writer lives
                try:
                    body = json_table(read_text(path), name=path.name)
                    if body.pop("checksum") != checksum(body):
                        raise ValueError("the checksum differs")
                    records = [Record.from_text(text, name=path.name) for text in body["records"]]
                except (ValueError, KeyError, TypeError, AttributeError, OSError):
                    remove_if_possible(path)  # not believed: the batch trains again
                    continue
                self._write_runs(path.stem, records)
                finished += 1
        return finished

    @contextmanager
    def claim(self, batch: str) -> Iterator[bool]:
        """Yield whether this process now holds the batch; release it at the end."""
        path = self.claims / f"{batch}.lock"
        try:
            file = lock_file(path)
            if file is not None:
                about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
                file.truncate(0)
                file.write(json_text(about))
                file.flush()
        except OSError as error:
            raise storage_error(self.claims, error) from error
        if file is None:
            yield False
            return
        remove_if_possible(self.claims / f"{batch}.at")  # of a worker that was killed
        try:
            yield True
        finally:
            remove_if_possible(self.claims / f"{batch}.at")
            # Removed while still locked: whoever opened it meanwhile sees that it is gone.
            remove_if_possible(path)
            file.close()

    def tell(self, batch: str, epochs: Epochs) -> None:
        """Leave word how far a batch is; whoever holds its claim does."""
        write_atomically(self.claims / f"{batch}.at", json_text(vars(epochs)))

    def told(self, batch: str) -> Epochs | None:
        """How far a batch is, where its worker has left word."""
        try:
            told = json_table(read_text(self.claims / f"{batch}.at"), name=batch)
            return Epochs(**{field.name: told[field.name] + 0 for field in fields(Epochs)})
        except (OSError, InputError, KeyError, TypeError):
            return None

    def running(self) -> dict[str, dict[str, Any]]:
        """The batches that some living process holds, with its process id, host and start."""
        held = {}
        for path in sorted(self.claims.glob("*.lock")):
            try:
                require_file(path)
                with open(path) as file:
                    if lock(file, shared=True):
                        continue  # nobody holds it: its process died
                    text = file.read(4096)
            except (OSError, InputError):
                continue
            try:
                held[path.stem] = json_table(text, name=path.name)
            except InputError:
                held[path.stem] = {}
        return held

"""Outcome files: one small file a run, whole or absent, believed only when it checks.

A run is known by its *identity*, the values that decide its result; its key is their hash and its
file is ``runs/<key>.json``. A file holds the identity, what came out, and a checksum over both, so
a truncated, edited or renamed file is noticed when it is read and treated as absent.

Runs that train together (a *batch*) finish together, so their files must appear together: the
batch is first written as one *journal* file, the run files are made from it, and the journal is
removed. A process killed in between leaves the journal, and the next one finishes the writing
instead of the training.

Who works on a batch holds ``flock`` on its claim file. The kernel drops that lock when the process
dies, however it dies, so a claim is never stale and never needs a timeout.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptheory.errors import InputError

FORMAT = 1
_ABANDONED_SECONDS = 3600.0


class StorageError(InputError):
    """The results folder cannot be written: full, read-only, or gone. Nothing finished is lost."""


class DamagedError(ValueError):
    """An outcome file that must not be believed; the message says which and why."""


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, non-finite numbers as ``null``."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(identity: Any) -> str:
    """The 32 hexadecimal digits that name an identity: SHA-256 of its canonical text, cut."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """``value`` with tuples, numpy scalars and paths turned into what JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return _plain(value.tolist())
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} cannot be written into an outcome file")


@dataclass(frozen=True)
class Record:
    """One run's file, checked: ``status`` is ``"done"`` or ``"failed"`` (then ``reason`` says why).

    ``outcome`` is what was measured and ``made_by`` what made it (versions, device, times): only
    the first goes into tables that must be the same every time.
    """

    key: str
    identity: dict[str, Any]
    status: str
    outcome: dict[str, Any]
    made_by: dict[str, Any]
    reason: str | None = None

    def text(self) -> str:
        body = _plain(
            {
                "format": FORMAT,
                "key": self.key,
                "identity": self.identity,
                "status": self.status,
                "reason": self.reason,
                "outcome": self.outcome,
                "made_by": self.made_by,
            }
        )
        body["checksum"] = _checksum(body)
        return json.dumps(body, sort_keys=True, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, *, name: str) -> Record:
        """Read and check a record; ``name`` is its file, for messages.

        Raises:
            DamagedError: not JSON, a wrong checksum, or an identity that is not the key's.
        """
        try:
            body = json.loads(text)
        except ValueError as error:
            raise DamagedError(f"{name} is not complete JSON ({error})") from None
        if not isinstance(body, dict) or "checksum" not in body:
            raise DamagedError(f"{name} is not an outcome file: it has no checksum")
        if body.get("format") != FORMAT:
            raise DamagedError(f"{name} has format {body.get('format')!r}, expected {FORMAT}")
        claimed = body.pop("checksum")
        if claimed != _checksum(body):
            raise DamagedError(f"{name} was changed after it was written: its checksum differs")
        if body.get("key") != key_of(body.get("identity")):
            raise DamagedError(f"{name} holds a key that is not the hash of its identity")
        fields = ("key", "identity", "status", "outcome", "made_by", "reason")
        return cls(**{field: body[field] for field in fields})


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` beside ``path``, force it to the disk, rename it into place.

    A reader sees the old file or the new one, never a part; so does the next boot after a power
    cut. On failure the part is removed.

    Raises:
        StorageError: the disk is full, the folder cannot be written or is gone.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _storage_error(path.parent, error) from error


def _storage_error(folder: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space and run the same command again"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        advice = "choose a folder that you may write to"
    else:
        advice = "check the folder and run the same command again"
    return StorageError(
        f"cannot write to {folder}: {error.strerror or error}; {advice} "
        "(what is finished stays finished)"
    )


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
            StorageError: they cannot; the message says why and what to do.
        """
        try:
            for folder in (self.runs, self.journal, self.claims):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _storage_error(self.folder, error) from error
        probe = self.claims / f".probe.{os.getpid()}.{secrets.token_hex(4)}"
        write_atomically(probe, "")
        try:
            with open(probe, "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"the file system of {self.folder} cannot lock files ({error.strerror}); "
                "choose a folder on another file system"
            ) from error
        finally:
            probe.unlink(missing_ok=True)
        self._sweep_up()
        return self

    def _sweep_up(self) -> None:
        """Remove parts that a killed process left; recent ones may belong to a living writer."""
        for folder in (self.folder, self.runs, self.journal, self.claims):
            for part in folder.glob(".*.part"):
                try:
                    if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                        part.unlink()
                except OSError:
                    continue

    def path(self, key: str) -> Path:
        return self.runs / f"{key}.json"

    def read(self, key: str) -> Record | None:
        """The checked record of a run, or None when there is no file.

        Raises:
            DamagedError: there is a file and it must not be believed.
        """
        path = self.path(key)
        try:
            text = path.read_bytes().decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise DamagedError(f"{path.name} is not text") from None
        except OSError as error:
            raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from None
        record = Record.from_text(text, name=path.name)
        if record.key != key:
            raise DamagedError(f"{path.name} holds the outcome of another run, {record.key}")
        return record

    def read_all(self) -> tuple[list[Record], list[str]]:
        """Every outcome that checks, sorted by key, and a sentence for every file that does not."""
        records, damaged = [], []
        for path in sorted(self.runs.glob("*.json")):
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
        body = _plain({"format": FORMAT, "records": [record.text() for record in records]})
        body["checksum"] = _checksum(body)
        write_atomically(self.journal / f"{batch}.json", json.dumps(body))
        self._write_runs(batch, records)

    def _write_runs(self, batch: str, records: Sequence[Record]) -> None:
        for record in records:
            try:
                present = self.read(record.key)
            except DamagedError:
                present = None
            if present is None or present.status != "done":
                write_atomically(self.path(record.key), record.text())
        # Parts too: who holds the claim knows that the writer of a part was killed.
        for path in [self.journal / f"{batch}.json", *self.journal.glob(f".{batch}.json.*.part")]:
            path.unlink(missing_ok=True)

    def recover(self) -> int:
        """Finish the writing that killed processes left in the journal; how many batches it was."""
        finished = 0
        for path in sorted(self.journal.glob("*.json")):
            with self.claim(path.stem) as mine:
                if not mine or not path.exists():
                    continue  # its writer lives
                try:
                    body = json.loads(path.read_text())
                    if body.pop("checksum") != _checksum(body):
                        raise ValueError("the checksum differs")
                    records = [Record.from_text(text, name=path.name) for text in body["records"]]
                except (ValueError, KeyError, TypeError, AttributeError):
                    path.unlink(missing_ok=True)  # not believed: the batch trains again
                    continue
                self._write_runs(path.stem, records)
                finished += 1
        return finished

    @contextmanager
    def claim(self, batch: str) -> Iterator[bool]:
        """Yield whether this process now holds the batch; release it at the end."""
        path = self.claims / f"{batch}.lock"
        try:
            file = self._lock(path)
        except OSError as error:
            raise _storage_error(self.claims, error) from error
        if file is None:
            yield False
            return
        try:
            yield True
        finally:
            # Removed while still locked: whoever opened it meanwhile sees that it is gone.
            path.unlink(missing_ok=True)
            file.close()

    @staticmethod
    def _lock(path: Path) -> Any:
        while True:
            file = open(path, "a+")  # noqa: SIM115 (the lock lives as long as the file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            except OSError:
                file.close()
                raise
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:
                file.truncate(0)
                about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
                file.write(json.dumps(about))
                file.flush()
                return file
            file.close()

    def running(self) -> dict[str, dict[str, Any]]:
        """The batches that some living process holds, with its process id, host and start."""
        held = {}
        for path in sorted(self.claims.glob("*.lock")):
            try:
                with open(path) as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        text = file.read()
                    else:
                        continue  # nobody holds it: its process died
            except OSError:
                continue
            try:
                held[path.stem] = json.loads(text)
            except ValueError:
                held[path.stem] = {}
        return held

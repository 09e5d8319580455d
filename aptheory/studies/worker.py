"""What a worker does with a job: pass over, leave, or claim and train each of its batches."""

from __future__ import annotations

import math
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aptheory.errors import InputError, described
from aptheory.studies.clock import Epochs
from aptheory.studies.files import StorageError
from aptheory.studies.plan import Batch, Job
from aptheory.studies.records import Record, machine_failed
from aptheory.studies.store import Store
from aptheory.training.epochs import told_to

Outcomes = Sequence[Mapping[str, Any]]
Trainer = Callable[[Batch, Sequence[Record]], Outcomes]
"""Trains a batch: takes it and the records that it follows, gives one outcome a run, in order."""

_WAIT_SECONDS = 1.0


def finished(store: Store, batch: Batch, *, retry: bool, token: str) -> bool:
    """Whether every run of a batch has an outcome that can be believed.

    A failure counts, but not one of an earlier sweep that was the machine's, or any of an earlier
    sweep when failures are to be retried.
    """
    for key in batch.run_keys:
        record = store.believed(key)
        if record is None:
            return False
        again = retry or machine_failed(record)
        if record.status != "done" and again and record.made_by.get("sweep") != token:
            return False
    return True


def work(
    job: Job,
    *,
    folder: Path,
    trainer: Callable[[Job], Trainer] | None,
    retry: bool,
    token: str,
) -> None:
    """What a worker does with a job. It returns when each batch is finished or held by another."""
    store = Store(folder)
    if not (store.claims / f"sweep.{token}").exists():
        raise StorageError(
            f"machine {socket.gethostname()} does not see the sweep in {folder.absolute()}: the "
            "folder was moved or removed, or lies on a file system that not all machines share; "
            "put it back, or where all share it, and run the same command again"
        )
    train: Trainer | None = None
    busy = False
    for batch in job.batches:
        if finished(store, batch, retry=retry, token=token):
            continue
        with store.claim(batch.key) as mine:
            if not mine:
                busy = True
                continue
            if finished(store, batch, retry=retry, token=token):
                continue  # somebody finished it between the look and the claim
            match _lead(store, batch):
                case Waiting():
                    busy = True
                    continue
                case Blocked(reason, machine):
                    write_failure(store, batch, reason, token, machine=machine)
                    continue
                case Ready(lead):
                    pass
            start = time.time()
            try:
                if train is None:
                    train = (trainer or _real_trainer)(job)
                    start = time.time()  # loading is no part of what a batch takes
                with told_to(Teller(store, batch)):
                    outcomes = train(batch, lead)
                records = _records(batch, outcomes, made_by(start, token, outcomes))
            except (StorageError, KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # a method of the user's may raise anything
                # Before there is a trainer nothing of the run was tried: a device or a file is
                # missing, and the next sweep may find it.
                write_failure(
                    store,
                    batch,
                    described(error),
                    token,
                    trace=traceback.format_exc(),
                    start=start,
                    machine=train is None or of_the_machine(error),
                )
                continue
            store.write_batch(batch.key, records)
    if busy:
        time.sleep(_WAIT_SECONDS)  # the job comes back; do not spin


class Teller:
    """Leaves word in the store how far a batch is, about once a second."""

    def __init__(self, store: Store, batch: Batch) -> None:
        identity, runs = batch.identities[0], len(batch.identities)
        search = identity.get("search") or {}
        candidates = math.prod(max(1, len(values)) for values in search.values())
        trained = candidates + runs if identity.get("protocol") == "vtab" else candidates * runs
        self.store, self.key = store, batch.key
        self.total = trained * int(batch.recipe.get("epochs", 1))
        self.done = self.step = 0
        self.first = self.last = 0.0

    def __call__(self, epoch: int, epochs: int, runs: int) -> None:
        now = time.time()
        self.done = min(self.total, self.done + runs)
        if not self.step:
            self.step, self.first = self.done, now
        elif now - self.last < 1 and epoch < epochs:
            return
        self.last = now
        self.store.tell(
            self.key,
            Epochs(self.done, self.total, self.step, self.first, now, epoch, epochs),
        )


def _real_trainer(job: Job) -> Trainer:
    from aptheory.studies.job_trainer import JobTrainer

    return JobTrainer(job)  # imported here: tests of the machinery need no torch


@dataclass(frozen=True)
class Ready:
    """The runs that a batch follows are done; these are their records."""

    records: list[Record]


@dataclass(frozen=True)
class Waiting:
    """They are not all there yet."""


@dataclass(frozen=True)
class Blocked:
    """One of them failed, by the run's own fault or by the machine's."""

    reason: str
    machine: bool


def of_the_machine(error: BaseException) -> bool:
    """Whether a failure belongs to the machine: memory, a file, a device. It may be gone next time.

    A loss that diverges, or a setting that makes no sense, will fail again; a picture that cannot
    be read need not, one that cannot be decoded will.
    """
    if isinstance(error, InputError):
        return isinstance(error.__cause__, OSError) and error.__cause__.errno is not None
    words = ("out of memory", "can't allocate", "not enough memory", "CUDA error", "cuDNN error")
    of_memory = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return of_memory or isinstance(error, OSError | MemoryError | ImportError)


def _lead(store: Store, batch: Batch) -> Ready | Waiting | Blocked:
    """How the runs stand whose outcomes a batch needs."""
    keys = [identity.get("follows") for identity in batch.identities]
    if batch.follows is None:
        return Ready([])
    records = []
    for key in keys:
        record = store.believed(str(key))
        if record is None:
            return Waiting()
        if record.status != "done":
            reason = f"the prompt whose norm it takes failed: {record.reason}"
            return Blocked(reason, machine_failed(record))
        records.append(record)
    return Ready(records)


def _records(batch: Batch, outcomes: Outcomes, made: Mapping[str, Any]) -> list[Record]:
    if len(outcomes) != len(batch.identities):
        raise RuntimeError(f"{len(outcomes)} outcomes for {len(batch.identities)} runs")
    records = []
    for key, identity, outcome in zip(batch.run_keys, batch.identities, outcomes, strict=True):
        measured = dict(outcome)
        costs = measured.pop("costs", {})
        reason = measured.pop("failed", None)
        records.append(
            Record(
                key=key,
                identity=identity,
                status="done" if reason is None else "failed",
                reason=reason,
                outcome={**measured, "labels": batch.labels},
                made_by={**made, **costs, "batch": batch.key, "together": len(outcomes)},
            )
        )
    return records


def made_by(start: float, token: str, outcomes: Outcomes = ()) -> dict[str, Any]:
    """What made an outcome: package versions, machine, times. It enters no table of results."""
    torch = sys.modules.get("torch")
    return {
        "sweep": token,
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": platform.machine(),
        "processor": torch and torch.backends.cpu.get_cpu_capability(),
        "threads": torch and torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "batch_seconds": time.time() - start,
    }


_PACKAGES = ("aptheory", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        if name == "aptheory":
            from aptheory.version import __version__

            return __version__
        return None


def store_failure(store: Store, batch: Batch, reason: str, token: str) -> None:
    with store.claim(batch.key) as mine:
        if mine:
            write_failure(store, batch, reason, token, machine=True)


def write_failure(
    store: Store,
    batch: Batch,
    reason: str,
    token: str,
    *,
    trace: str | None = None,
    start: float | None = None,
    machine: bool = False,
) -> None:
    made = made_by(time.time() if start is None else start, token)
    fault = "machine" if machine else "run"
    records = [
        Record(
            key=key,
            identity=identity,
            status="failed",
            outcome={"labels": batch.labels},
            made_by={**made, "batch": batch.key, "traceback": trace, "fault": fault},
            reason=reason,
        )
        for key, identity in zip(batch.run_keys, batch.identities, strict=True)
    ]
    store.write_batch(batch.key, records)

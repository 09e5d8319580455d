"""What a worker does with a job: pass over, leave, or claim and train each of its batches."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aptheory.studies.files import StorageError
from aptheory.studies.plan import Batch, Job
from aptheory.studies.records import DamagedError, Record
from aptheory.studies.store import Store

Outcomes = Sequence[Mapping[str, Any]]
Trainer = Callable[[Batch, Sequence[Record]], Outcomes]
"""Trains a batch: takes it and the records that it follows, gives one outcome a run, in order."""

_WAIT_SECONDS = 1.0


def finished(store: Store, batch: Batch, *, retry: bool, token: str) -> bool:
    """Whether every run of a batch has an outcome that can be believed.

    A failure counts, but not one of an earlier sweep when failures are to be retried.
    """
    for key in batch.run_keys:
        try:
            record = store.read(key)
        except DamagedError:
            return False
        if record is None:
            return False
        if record.status != "done" and retry and record.made_by.get("sweep") != token:
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
            f"machine {socket.gethostname()} does not see the sweep's folder {folder.absolute()}; "
            "put it on a file system that all machines share"
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
            lead = _lead(store, job, batch)
            if lead is None:
                busy = True
                continue
            if isinstance(lead, str):
                write_failure(store, batch, lead, token)
                continue
            start = time.time()
            try:
                if train is None:
                    train = (trainer or _real_trainer)(job)
                outcomes = train(batch, lead)
                records = _records(batch, outcomes, made_by(start, token, outcomes))
            except StorageError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                write_failure(store, batch, reason, token, traceback.format_exc(), start)
                continue
            store.write_batch(batch.key, records)
    if busy:
        time.sleep(_WAIT_SECONDS)  # the job comes back; do not spin


def _real_trainer(job: Job) -> Trainer:
    from aptheory.studies.job_trainer import JobTrainer

    return JobTrainer(job)  # imported here: tests of the machinery need no torch


def _lead(store: Store, job: Job, batch: Batch) -> list[Record] | str | None:
    """The outcomes of the runs that a batch follows: a reason if they failed, None if not yet."""
    keys = [identity.get("follows") for identity in batch.identities]
    if batch.follows is None:
        return []
    records = []
    for key in keys:
        try:
            record = store.read(str(key))
        except DamagedError:
            return None
        if record is None:
            return None
        if record.status != "done":
            return f"the prompt whose norm it takes failed: {record.reason}"
        records.append(record)
    return records


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
            write_failure(store, batch, reason, token)


def write_failure(
    store: Store,
    batch: Batch,
    reason: str,
    token: str,
    trace: str | None = None,
    start: float | None = None,
) -> None:
    made = made_by(time.time() if start is None else start, token)
    records = [
        Record(
            key=key,
            identity=identity,
            status="failed",
            outcome={"labels": batch.labels},
            made_by={**made, "batch": batch.key, "traceback": trace},
            reason=reason,
        )
        for key, identity in zip(batch.run_keys, batch.identities, strict=True)
    ]
    store.write_batch(batch.key, records)

"""Run a study so that nothing finished is ever lost, and say at any moment how far it is.

A worker takes a job and goes through its batches: one that is finished is passed over, one that
another living process holds is left to it, any other is claimed, trained, and stored whole. What
stops a worker, a crash or ``kill -9`` included, costs the batch that it was at. Two sweeps of one
folder share the work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.arguments import Count, checked_arguments
from aptheory.studies.engines import Died, Ended, Engine, Here, Tick, make_engine
from aptheory.studies.files import write_atomically
from aptheory.studies.plan import Batch, Job, Plan
from aptheory.studies.planning import make_plan
from aptheory.studies.presence import presence
from aptheory.studies.reading_places import reading_places
from aptheory.studies.records import canonical
from aptheory.studies.status import Status, status
from aptheory.studies.store import MODELS, Store
from aptheory.studies.study import Opened, Study
from aptheory.studies.tables import export, save_table, table
from aptheory.studies.trackers import Tracker
from aptheory.studies.watching import Progress, Watch
from aptheory.studies.worker import Trainer, finished, store_failure, work

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Status", "Study", "dry_run", "execute", "export", "status", "sweep", "table"]

_log = logging.getLogger("aptheory")
DEATHS = 3
"""A batch whose process dies so often in one sweep, without finishing, is recorded as failed."""


@checked_arguments
def sweep(
    study: Study | str | Path,
    out: str | Path,
    *,
    engine: str | Engine = "processes",
    workers: Count | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    tracker: Tracker | None = None,
    save_models: bool = False,
) -> pd.DataFrame:
    """Run every run of a study that is not finished yet; the tidy table of all of them.

    Args:
        study: a `Study`, or a TOML file with one.
        out: the results folder. It comes to hold ``runs/<key>.json``, one outcome a run;
            ``plan.json``; and at the end ``accuracy.csv``, the table: sorted, without timings,
            the same bytes every time.
        engine: ``"processes"`` on this machine, ``"ray"``, or ``"here"`` in this process.
        workers: how many jobs at once; by default as many as the cores or the GPUs allow.
        address: of a Ray cluster (``"auto"``, ``"ray://…"``); None starts Ray on this machine.
        retry_failed: run again what is recorded as failed.
        tracker: called with each newly finished run, as plain values: see
            `aptheory.studies.trackers`.
        save_models: keep what each run has learned, ``models/<key>.safetensors``, for
            `aptheory.models.winner`.

    Raises:
        InputError: a study that makes no sense, or a folder that cannot be written.
    """
    if not isinstance(study, Study):
        study = Study.from_toml(study)
    from aptheory.studies.settings import (
        check_no_other_map,
        check_no_other_profile,
        record_settings,
    )

    opened = study.open()
    check_no_other_map(out, opened)
    check_no_other_profile(out, opened)
    store = Store(out)
    plan = planned(opened, store)  # a study that is refused leaves no folder
    made = engine_of(opened, engine, workers=workers, address=address)
    frame = execute_study(
        opened,
        store.create(),
        engine=made,
        plan=plan,
        retry_failed=retry_failed,
        progress=progress,
        tracker=tracker,
        save_models=save_models,
    )
    record_settings(store.folder, opened)
    return frame


def engine_of(
    opened: Opened,
    engine: str | Engine = "processes",
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Engine:
    """The engine of that name, with the threads and the device of a study."""
    runtime = opened.study.runtime
    return make_engine(
        engine, workers=workers, threads=runtime.threads, device=runtime.device, address=address
    )


def dry_run(study: Study | str | Path) -> Plan:
    """What `sweep` would run: ``plan.table()`` has a row a run with its predicted cost."""
    return make_plan(study if isinstance(study, Study) else Study.from_toml(study))


def planned(opened: Opened, store: Store) -> Plan:
    """The plan of a study, with what reads at the best place as far as its probes have ended.

    Raises:
        InputError: as `make_plan`.
    """
    plan = make_plan(opened)
    found = reading_places(plan, store) if plan.waits else {}
    for place in found.values():
        _log.info("%s", place)
    if found:
        plan = make_plan(opened, {k: place.index for k, place in found.items()})
    for sentence in plan.not_applicable:
        _log.warning("left out: %s", sentence)
    return plan


def execute_study(
    opened: Opened, store: Store, *, engine: Engine, plan: Plan | None = None, **options: Any
) -> pd.DataFrame:
    """`execute` for a study: its probes first, where they find the place that others read.

    ``plan`` is the one of `planned`, if it is made already; ``options`` are those of `execute`.
    """
    plan = plan or planned(opened, store)
    frame = execute(plan, store, engine=engine, opened=opened, **options)
    if plan.waits:
        plan = planned(opened, store)
        frame = execute(plan, store, engine=engine, opened=opened, **options)
    asked = {key for job in plan.jobs for batch in job.batches for key in batch.run_keys}
    if others := sum(path.stem not in asked for path in store.runs.glob("*.json")):
        _log.info(
            "%d other runs in %s are not asked for any more: they stay there, and no table or page "
            "has them",
            others,
            store.folder,
        )
    return frame


def execute(
    plan: Plan,
    store: Store | str | Path,
    *,
    engine: Engine,
    opened: Opened | None = None,
    trainer: Callable[[Job], Trainer] | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    tracker: Tracker | None = None,
    save_models: bool = False,
) -> pd.DataFrame:
    """`sweep` for a plan that is made already; ``trainer(job)`` gives what trains its batches.

    Jobs that run in this very process train on the networks and tasks of ``opened``.
    """
    if trainer is None and opened is not None and isinstance(engine, Here):
        from aptheory.studies.job_trainer import JobTrainer

        trainer = partial(JobTrainer, opened=opened)
    if not isinstance(store, Store):
        store = Store(store).create()
    if save_models:
        folder = str(store.folder / MODELS)
        plan = replace(plan, jobs=tuple(replace(job, models=folder) for job in plan.jobs))
    with presence(store, plan) as token:
        write_plan(plan, store, engine)
        store.recover()
        _drive(plan, store, engine, trainer, token, retry_failed, progress, tracker)
        store.recover()  # what a killed command's last worker held when this one began
    result = table(store.folder)
    if len(result):
        save_table(result, store.folder / "accuracy.csv")
    return result


def write_plan(plan: Plan, store: Store, engine: Engine) -> None:
    """Write FOLDER/plan.json: what `status` and the tables need to know of a study."""
    about = {**plan.to_dict(), "workers": engine.workers}
    write_atomically(store.folder / "plan.json", canonical(about))


def _drive(
    plan: Plan,
    store: Store,
    engine: Engine,
    trainer: Callable[[Job], Trainer] | None,
    token: str,
    retry_failed: bool,
    progress: bool,
    tracker: Tracker | None,
) -> None:
    options: dict[str, Any] = {"retry": retry_failed, "token": token}
    function = partial(work, folder=store.folder, trainer=trainer, **options)
    waiting = [job for job in plan.jobs if _left(store, job, options)]
    queue = deque(sorted(waiting, key=lambda job: -job.seconds))  # long ones first: no long tail
    deaths: dict[str, int] = {}
    watch = Watch(plan, store, workers=engine.workers, tracker=tracker)
    shown = Progress(watch, shown=progress)
    try:
        shown.show()
        with closing(engine.run(function, queue)) as events:
            for event in events:
                shown.show()
                match event:
                    case Tick():
                        continue
                    case Died(job, why):
                        _count_death(store, _left(store, job, options), deaths, why, token)
                    case Ended(job):
                        pass
                if _left(store, job, options):
                    queue.append(job)
        shown.show(last=True)
    finally:
        shown.close()


def _count_death(
    store: Store, left: list[Batch], deaths: dict[str, int], why: str, token: str
) -> None:
    """The batch that a worker was at, the first that is left, fails when it has died too often."""
    if not left:
        return
    batch = left[0]
    deaths[batch.key] = deaths.get(batch.key, 0) + 1
    if deaths[batch.key] >= DEATHS:
        reason = f"its process died {DEATHS} times; the last time: {why}"
        store_failure(store, batch, reason, token)


def _left(store: Store, job: Job, options: dict[str, Any]) -> list[Batch]:
    return [batch for batch in job.batches if not finished(store, batch, **options)]

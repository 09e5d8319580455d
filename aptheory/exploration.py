"""The main job: profile, sweep, relate and report, in one folder that can be continued.

``explore(networks, tasks, out)`` answers, for each network and task: at which layer does a prompt
help most, by how much over the controls, and do the features' global properties explain it? Each
step writes its table beside the others; a step that finds its table finished passes it over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from aptheory.arguments import Count, Seed, checked_arguments
from aptheory.checked import read_text
from aptheory.errors import InputError
from aptheory.findings.layer_map import LayerMap
from aptheory.findings.relate import TARGETS, relate
from aptheory.findings.statistics import corrected
from aptheory.profiling.massive import massive_activations, massive_words
from aptheory.profiling.profile import profile
from aptheory.profiling.watchers import check_measures
from aptheory.reporting import plots
from aptheory.reporting.report import report
from aptheory.studies.expansion import finds_reading
from aptheory.studies.files import write_atomically, write_together
from aptheory.studies.plan import Plan
from aptheory.studies.presence import presence
from aptheory.studies.reading_places import reading_places
from aptheory.studies.records import key_of
from aptheory.studies.settings import (
    check_is_about,
    check_no_other_map,
    of_study,
    record_profiled,
    record_settings,
    write_settings,
)
from aptheory.studies.sources import view_identity
from aptheory.studies.status import duration
from aptheory.studies.store import Store
from aptheory.studies.study import Opened, Study
from aptheory.studies.sweep import engine_of, execute_study, planned, write_plan
from aptheory.studies.tables import csv_text, read_csv
from aptheory.tasks import Task
from aptheory.version import __version__

log = logging.getLogger("aptheory")

MEASURES = ("attention_distance", "cka", "effective_rank", "globality")
"""What the main job measures at every layer; attention distance where there is attention."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How much of a sweep is trained."""

    layers: str
    seeds: int
    epochs: int | None


QUICK_LOOK = Look(layers="0.0,0.2,0.4,0.6,0.8,1.0", seeds=2, epochs=8)
"""What ``aptheory run`` trains unless told more: minutes for 300 images on two cores."""


DEMO = Study(
    name="demo",
    networks=["aptheory_vit_mini", "aptheory_resnet_mini"],
    tasks=[
        {"name": "digits", "train": 160, "val": 100, "test": 300},
        {"name": "orientation", "train": 160, "val": 100, "test": 300},
    ],
    methods=["ap"],
    layers="all",
    recipes=[{"name": "quick", "epochs": 6}],
    seeds=(0, 1, 2),
)
"""What ``aptheory demo`` runs: the embedded networks and tasks."""


@checked_arguments
def explore(
    study: Study,
    out: str | Path,
    *,
    measures: Sequence[str] = MEASURES,
    images: Count = 512,
    seed: Seed = 0,
    **options: Any,
) -> Path:
    """Profile, sweep, relate and report into ``out``; returns the page's path.

    Args:
        study: networks, tasks, methods, layers, recipe and seeds of the sweep.
        out: the folder of tables, plots and the page; one that exists is continued.
        measures: metrics of the profile.
        images: training images that the profile looks at, at most.
        seed: of the profile's choice of images.
        options: for `sweep`: engine, workers, address, retry_failed, progress.

    Raises:
        InputError: anything foreseeable, before the long work starts where possible.
    """
    check_measures(measures)
    folder = Path(out)
    started = time.monotonic()
    log.info("loading networks and tasks: %d and %d", len(study.networks), len(study.tasks))
    opened = study.open()
    check_no_other_map(folder, opened)
    store = Store(folder)
    plan = planned(opened, store)  # refuses what cannot run before anything is spent
    engine = engine_of(
        opened, **{word: options.pop(word) for word in _OF_ENGINE if word in options}
    )
    make_folder(folder)
    store.create()
    seconds = plan.seconds / max(1, engine.workers)
    further = ", and what reads where its probes read best" if plan.waits else ""
    log.info("%d runs, about %s (predicted)%s", len(plan), duration(seconds), further)
    with presence(store, plan):
        write_plan(plan, store, engine)  # `status` answers from now on
        with store.claim("profile"):
            profiles = profile_study(opened, folder, measures=measures, images=images, seed=seed)
        accuracy = execute_study(opened, store, engine=engine, plan=plan, **options)
        relate_tables(folder, profiles, accuracy)
        record_settings(
            folder,
            opened,
            measures=list(measures),
            images=images,
            seed=seed,
            reading=_reading(plan, store) if finds_reading(opened.study) else [],
            warnings=massive(opened, folder / "profile", seed=seed),
        )
        log.info("drawing the page")
        page = report(folder)
    log.info("finished in %.0f s", time.monotonic() - started)
    return page


_OF_ENGINE = ("engine", "workers", "address")


def _reading(plan: Plan, store: Store) -> list[str]:
    """Where each network reads best, in words."""
    return [str(place) for place in reading_places(plan, store).values()]


def profile_study(
    study: Study | Opened,
    folder: str | Path,
    *,
    measures: Sequence[str] = MEASURES,
    images: int = 512,
    seed: int = 0,
) -> pd.DataFrame:
    """Profile every network of a study on every task; writes FOLDER/profile.csv.

    Each (network, task) is kept in FOLDER/profile/ under a name that says what made it, so that a
    profile which was finished is not made again.
    """
    check_measures(measures)
    folder = Path(folder)
    kept = folder / "profile"
    make_folder(kept)
    tables = []
    opened = study if isinstance(study, Opened) else study.open()
    for network in opened.networks:
        net = network.net
        for each in opened.tasks:
            task = each.task
            identity = {
                "network": network.identity,
                "task": each.identity,
                **view_identity(net, task),
                "measures": sorted(measures),  # those that do not fit depend on the network
                "images": images,
                "seed": seed,
            }
            path = kept / f"{key_of([identity, __version__])}.csv"
            if not _stands(path, path.with_suffix(".proof"), path.stem):
                some = task
                if len(task.train) > images:
                    some = replace(task.subset(train=images, seed=seed), name=task.name)
                log.info("profiling %s on %s: %d images", net.name, task.name, len(some.train))
                table = profile(net, some, measures=measures, seed=seed)
                if table.empty:  # never kept: it would be found again for ever
                    continue
                _keep(table, path, path.with_suffix(".proof"), path.stem)
            tables.append(read_csv(path))
    if not tables:
        raise InputError(
            f"none of {', '.join(measures)} can be measured on these networks; ask for measures "
            "that they have, such as cka,effective_rank."
        )
    together = pd.concat(tables, ignore_index=True)
    _say_what_goes(folder / "profile.csv", together)
    write_table(together, folder / "profile.csv")
    record_profiled(folder, opened)  # killed between the two, a sweep is refused, and never joined
    return together


def _say_what_goes(path: Path, table: pd.DataFrame) -> None:
    """Say which networks and tasks a table held that the one in its place will not hold."""
    pair = ["network", "task"]
    try:
        before = read_csv(path)[pair].drop_duplicates()
    except (OSError, InputError, KeyError):  # none, or no table of ours
        return
    kept = set(table[pair].itertuples(index=False, name=None))
    gone = [f"{n} on {t}" for n, t in before.itertuples(index=False) if (n, t) not in kept]
    if gone:
        log.warning(
            "%s held %s too, which this call does not ask for: ask for all at once to have them "
            "in one table (what was measured is kept)",
            *(path, ", ".join(gone)),
        )


def massive(opened: Opened, kept: Path, *, images: int = 32, seed: int = 0) -> dict[str, str]:
    """The networks of a study with massive activations on its first task, and how it shows.

    ``kept`` is the folder that holds the table of a network that was looked at before.
    """
    found = {}
    for network in opened.networks:
        net, each = network.net, opened.tasks[0]
        looked_at = {
            "network": network.identity,
            "task": each.identity,
            **view_identity(net, each.task),
            "massive": [images, seed],
        }
        path = kept / f"{key_of([looked_at, __version__])}.csv"
        proof = path.with_suffix(".proof")
        if not _stands(path, proof, path.stem):
            _keep(
                massive_activations(net, each.task, limit=images, seed=seed), path, proof, path.stem
            )
        words = massive_words(read_csv(path), min(images, len(each.task.train)))
        if words:
            found[net.name] = words
    return found


def relations(profiles: pd.DataFrame, accuracy: pd.DataFrame) -> pd.DataFrame:
    """Relate every metric to AP's accuracy and to its gains over the probes; empty if too short.

    The three targets are looks at the same curves: ``q`` and ``looks`` count them all.
    """
    tables = []
    for target in TARGETS:
        try:
            tables.append(relate(profiles, accuracy, target=target))
        except InputError as error:
            log.info("%s: %s", target, error)
    return corrected(pd.concat(tables, ignore_index=True)) if tables else pd.DataFrame()


_RELATED = 2
"""Raised when `relations` gives other numbers for the same tables: those that were kept go."""


def relate_tables(folder: Path, profiles: pd.DataFrame, accuracy: pd.DataFrame) -> None:
    """Write FOLDER/relation.csv, unless the one that is there was made from these very tables."""
    made_from = folder / "profile" / "relation.key"
    tables = [profiles.to_csv(index=False), accuracy.to_csv(index=False)]
    key = key_of([*tables, __version__, _RELATED])
    path = folder / "relation.csv"
    if not _stands(path, made_from, key):
        _keep(relations(profiles, accuracy), path, made_from, key)


def _keep(table: pd.DataFrame, path: Path, proof: Path, key: str) -> None:
    """Write a table, and beside it what `_stands` knows it by."""
    write_table(table, path)
    write_atomically(proof, key_of([key, csv_text(table)]))


def _stands(path: Path, proof: Path, key: str) -> bool:
    """Whether a table is there, made from what ``key`` says, and is as it was written."""
    try:
        return read_text(proof) == key_of([key, read_text(path)])
    except (FileNotFoundError, InputError):
        return False


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A table as CSV, written beside its place and renamed into it."""
    make_folder(path.parent)
    write_atomically(path, csv_text(table))


def write_map(chart: LayerMap, task: Task, folder: Path) -> Path:
    """A map into a folder: map.csv (its cells), map_runs.csv, a picture, and the page's path.

    In the folder of a run the page then holds both, and keeps the run's settings; an older map is
    replaced.

    Raises:
        InputError: the folder is that of a run on another network or task.
    """
    if holds_run(folder):
        check_is_about(folder, chart.net, task)
    make_folder(folder)
    tables = {folder / "map.csv": chart.cells, folder / "map_runs.csv": chart.table}
    write_together({path: csv_text(table) for path, table in tables.items()})
    drawn = plots.figure(width=plots.PAGE, height=4.5)
    plots.layer_map(chart.cells, ax=drawn.axes[0])
    plots.save(drawn, folder / "map")
    if not of_study(folder):
        seeds = sorted(chart.table["seed"].unique().tolist())
        write_settings(folder, [chart.net], [task], seeds=seeds, judge=chart.judge)
    return report(folder)


def holds_run(folder: Path) -> bool:
    """Whether a profile or a sweep lies in a folder, and not a map alone."""
    return any((folder / name).is_file() for name in ("profile.csv", "accuracy.csv", "plan.json"))


def make_folder(folder: Path) -> Path:
    """The folder, made if need be.

    Raises:
        InputError: it cannot be made, or a file stands there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; choose one that you may write to"
        ) from error
    return folder

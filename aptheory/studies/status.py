"""How far a study is, told from its folder alone: it may be asked while the sweep runs."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptheory.arguments import checked_arguments
from aptheory.studies.clock import Epochs, Underway, seconds_left
from aptheory.studies.records import Record, machine_failed
from aptheory.studies.store import Store
from aptheory.studies.tables import read_plan


def duration(seconds: float) -> str:
    """A time for people: ``"45 s"``, ``"3 min"``, ``"2 h 05 min"``, ``"3 d 4 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


@dataclass(frozen=True)
class Status:
    """How far a study is: counts of runs, the reasons of failures, and an estimate.

    ``failed`` are reasons by run, ``machine`` the runs among them whose failure is the machine's;
    ``unused`` are methods that fit none of the study's networks, ``now`` is what is being done.
    """

    name: str
    total: int
    done: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    machine: Sequence[str] = ()
    running: int = 0
    seconds_left: float | None = None
    damaged: Sequence[str] = ()
    not_applicable: Sequence[str] = ()
    unused: Sequence[str] = ()
    now: Sequence[str] = ()

    @property
    def left(self) -> int:
        """Runs that are neither finished, failed nor under way."""
        return max(0, self.total - self.done - len(self.failed) - self.running)

    @property
    def failures(self) -> list[str]:
        """A sentence for every reason for which runs failed, and what becomes of them."""
        sentences = []
        for reason, count in _counted(self.failed.values()):
            sentences.append(f"failed ({count}): {reason}")
        if self.failed:
            kept = len(self.failed) - len(self.machine)
            if self.machine:
                sentences.append(
                    f"{len(self.machine)} of them by a fault of the machine: the same command "
                    "tries them again."
                )
            if kept:
                sentences.append(
                    f"{kept} of them by their own fault: the same command with --retry-failed "
                    "tries them again."
                )
        return sentences

    def text(self) -> str:
        """The summary as lines of text."""
        lines = [
            f"{self.name}: {self.done} of {self.total} runs done, {self.running} running, "
            f"{len(self.failed)} failed, {self.left} left"
        ]
        if self.seconds_left:
            lines[0] += f"; about {duration(self.seconds_left)} to go"
        lines += [f"  now: {what}" for what in self.now]
        lines += [f"  {sentence}" for sentence in self.failures]
        lines += [f"  not believed, will run again: {sentence}" for sentence in self.damaged]
        lines += [f"  does not apply: {sentence}" for sentence in self.not_applicable]
        lines += [f"  fits no network: {method}" for method in self.unused]
        return "\n".join(lines)

    def html(self) -> str:
        """The summary as a bar and its lines, for notebooks."""
        share = self.done / self.total if self.total else 0.0
        lines = "<br>".join(html.escape(line) for line in self.text().splitlines())
        return (
            f'<div><progress value="{self.done}" max="{max(1, self.total)}" '
            f'style="width:20em">{share:.0%}</progress> {share:.0%}<br>{lines}</div>'
        )

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def _counted(reasons: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for reason in reasons:
        first = reason.splitlines()[0] if reason else "no reason given"
        counts[first] = counts.get(first, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@checked_arguments
def status(folder: str | Path) -> Status:
    """How far the study in a folder is; it may be asked while the sweep runs.

    Raises:
        InputError: no study was started there.
    """
    store = Store(folder)
    plan = read_plan(store.folder)
    batches = plan["batches"]
    records, damaged = store.read_all()
    of_key = {record.key: record for record in records}
    keys = [key for batch in batches.values() for key in batch["runs"]]
    done = [key for key in keys if key in of_key and of_key[key].status == "done"]
    failed = {
        key: str(of_key[key].reason)
        for key in keys
        if key in of_key and of_key[key].status == "failed"
    }
    claims = store.running()
    held = {key: about for key, about in claims.items() if key in batches}
    running = sum(
        1 for key in held for run in batches[key]["runs"] if run not in of_key or run in failed
    )
    return Status(
        name=plan["name"],
        total=len(keys),
        done=len(done),
        failed=failed,
        machine=[key for key in failed if machine_failed(of_key[key])],
        running=running,
        seconds_left=_seconds_left(store, batches, of_key, held, plan.get("workers", 1)),
        damaged=damaged,
        not_applicable=plan["not_applicable"],
        unused=plan.get("unused", []),
        now=[*(["profiling"] if "profile" in claims else []), *_now(store, batches, held)],
    )


def _now(store: Store, batches: Mapping[str, Any], held: Mapping[str, Any]) -> list[str]:
    return [doing(batches[key]["labels"], store.told(key)) for key in held]


def doing(labels: Mapping[str, str], epochs: Epochs | None) -> str:
    """What a batch trains, and how far it is: "ap at layer 5 (blocks.4), epoch 3 of 8"."""
    what = labels.get("method", "a batch")
    if "place" in labels:
        what += f" at {labels['place']}"
    return f"{what}, epoch {epochs.epoch} of {epochs.epochs}" if epochs else what


def measured_seconds(record: Record) -> float:
    """What the batch of a run took."""
    seconds = record.made_by.get("batch_seconds", 0)
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _seconds_left(
    store: Store,
    batches: Mapping[str, Any],
    records: Mapping[str, Record],
    held: Mapping[str, Any],
    workers: int,
) -> float:
    """Of `clock.seconds_left`: what the records and the claims of a folder tell it."""
    finished, underway, waiting = [], [], []
    for key, batch in batches.items():
        known = [records[run] for run in batch["runs"] if run in records]
        if len(known) == len(batch["runs"]):
            if all(record.status == "done" for record in known):
                finished.append(
                    (batch["seconds"], max(measured_seconds(record) for record in known))
                )
        elif key in held:
            underway.append(under_way(batch["seconds"], held[key], store.told(key)))
        else:
            waiting.append(batch["seconds"])
    return seconds_left(finished, underway, waiting, workers=workers)


def under_way(predicted: float, about: Mapping[str, Any], epochs: Epochs | None) -> Underway:
    """A batch that somebody holds, as the clock sees it."""
    now, since = time.time(), about.get("since")
    elapsed = max(0.0, now - since) if isinstance(since, int | float) else 0.0
    if epochs is None or epochs.each is None:
        return Underway(predicted, elapsed)
    return Underway(predicted, elapsed, epochs.remaining(now), epochs.each * epochs.total)

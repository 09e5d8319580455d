"""What a sweep shows while its workers write: one bar on a terminal, a line a minute in a log file.

Both have the one clock of `aptheory.studies.clock`.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from aptheory.studies.clock import seconds_left
from aptheory.studies.plan import Plan
from aptheory.studies.records import DamagedError
from aptheory.studies.status import doing, duration, measured_seconds, under_way
from aptheory.studies.store import Store

MINUTE = 60.0


class Watch:
    """Follows a folder while workers write into it: how many are new, and how long it will take."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        workers: int = 1,
        tracker: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.store, self.workers, self.tracker = store, workers, tracker
        self.batches = {batch.key: batch for batch in plan.batches}
        self.runs = {key: batch.run_keys for key, batch in self.batches.items()}
        self.total = len(plan)
        self.keys = set(plan.run_keys)
        self.finished: dict[str, tuple[float, float]] = {}
        self.present = self._present()
        self.before = set(self.present)

    def _present(self) -> set[str]:
        return {path.stem for path in self.store.runs.glob("*.json")} & self.keys

    def look(self) -> int:
        """How many runs were finished since the last look; each is told to the tracker."""
        new = self._present() - self.present
        for key in sorted(new):
            if self.tracker is not None:
                _tell(self.tracker, self.store, key)
        self.present |= new
        return len(new)

    def words(self) -> str:
        """The time that is left, and what is being done."""
        finished, underway, waiting, now = [], [], [], []
        held = self.store.running()
        for key, runs in self.runs.items():
            predicted = self.batches[key].seconds
            if self.present.issuperset(runs):
                if not self.before.issuperset(runs):
                    finished.append((predicted, self._measured(key, predicted)))
            elif key in held:
                epochs = self.store.told(key)
                underway.append(under_way(predicted, held[key], epochs))
                labels = {**self.batches[key].labels, "place": self.batches[key].layer}
                now.append(doing(labels, epochs))
            else:
                waiting.append(predicted)
        left = seconds_left(finished, underway, waiting, workers=self.workers)
        guess = (
            "" if finished or any(run.remaining is not None for run in underway) else ", a guess"
        )
        sentence = f"about {duration(left)} left{guess}"
        return f"{sentence}; {'; '.join(now)}" if now else sentence

    def _measured(self, key: str, predicted: float) -> float:
        if key not in self.finished:
            seconds = predicted
            try:
                record = self.store.read(self.runs[key][0])
                seconds = measured_seconds(record) if record else predicted
            except DamagedError:
                pass
            self.finished[key] = predicted, seconds
        return self.finished[key][1]


class Progress:
    """Shows a watch: a bar where somebody looks, else a line at the start, each minute, the end."""

    def __init__(self, watch: Watch, *, shown: bool = True) -> None:
        self.watch, self.shown, self.bar = watch, shown, None
        self.next = 0.0
        if shown and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            from tqdm.auto import tqdm

            form = "{percentage:3.0f}% {bar} {n_fmt} of {total_fmt} runs, {postfix}"
            self.bar = tqdm(total=watch.total, initial=len(watch.present), bar_format=form)

    def show(self, *, last: bool = False) -> None:
        """Look at the folder and show what came of it."""
        new = self.watch.look()
        if self.bar is not None:
            self.bar.set_postfix_str(self.watch.words(), refresh=False)
            self.bar.update(new)
            self.bar.refresh()
        elif self.shown and (last or time.monotonic() >= self.next):
            self.next = time.monotonic() + MINUTE
            count = f"{len(self.watch.present)} of {self.watch.total} runs"
            print(f"{count}, {self.watch.words()}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def _tell(tracker: Callable[[dict[str, Any]], None], store: Store, key: str) -> None:
    try:
        record = store.read(key)
        if record is not None:
            tracker(vars(record).copy())
    except Exception as error:
        warnings.warn(f"the tracker failed for run {key}: {type(error).__name__}: {error}")

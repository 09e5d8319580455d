"""What a sweep shows while its workers write: one bar on a terminal, a line a minute in a log file.

Both have the one clock of `aptheory.studies.clock`.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from aptheory.errors import described
from aptheory.studies.clock import seconds_left
from aptheory.studies.plan import Plan
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
        self.measured: dict[str, float | None] = {}
        self.present = self._present()

    def _present(self) -> set[str]:
        return {path.stem for path in self.store.runs.glob("*.json")} & self.keys

    def look(self) -> None:
        """Tell the tracker each run that was finished since the last look."""
        new = self._present() - self.present
        for key in sorted(new):
            if self.tracker is not None:
                _tell(self.tracker, self.store, key)
        self.present |= new

    def outlook(self) -> tuple[float, str]:
        """The share of the work that is done; the time that is left and what is being done."""
        finished, underway, waiting, now = [], [], [], []
        held = self.store.running()
        for key, runs in self.runs.items():
            batch = self.batches[key]
            if self.present.issuperset(runs):
                measured = self._measured(key)
                if measured is not None:
                    finished.append((batch.seconds, measured))
            elif key in held:
                epochs = self.store.told(key)
                underway.append(under_way(batch.seconds, held[key], epochs))
                now.append(doing({**batch.labels, "place": batch.layer}, epochs))
            else:
                waiting.append(batch.seconds)
        left = seconds_left(finished, underway, waiting, workers=self.workers)
        spent = sum(took for _, took in finished) + sum(batch.elapsed for batch in underway)
        whole = spent + left * self.workers
        timed = finished or any(batch.remaining is not None for batch in underway)
        words = f"{len(self.present)} of {self.total} runs, about {duration(left)} left"
        words += "" if timed or not whole else ", as predicted"
        return spent / whole if whole else 1.0, "; ".join([words, *now])

    def _measured(self, key: str) -> float | None:
        """What a finished batch took; None where it failed or its record is damaged."""
        if key not in self.measured:
            record = self.store.believed(self.runs[key][0])
            if record is not None and record.status == "done":
                self.measured[key] = measured_seconds(record)
            else:
                self.measured[key] = None
        return self.measured[key]


class Progress:
    """Shows a watch: a bar where somebody looks, else a line at the start, each minute, the end."""

    def __init__(self, watch: Watch, *, shown: bool = True) -> None:
        self.watch, self.shown, self.bar = watch, shown, None
        self.next = 0.0
        if shown and (sys.stderr.isatty() or _in_notebook()):
            from tqdm.auto import tqdm

            self.bar = tqdm(total=100, bar_format="{percentage:3.0f}% {bar} {postfix}")

    def show(self, *, last: bool = False) -> None:
        """Look at the folder and show what came of it."""
        self.watch.look()
        due = self.bar is not None or last or time.monotonic() >= self.next
        if not (self.shown and due):
            return
        share, words = self.watch.outlook()
        if self.bar is not None:
            self.bar.n = round(100 * share)
            self.bar.set_postfix_str(words)
            return
        self.next = time.monotonic() + MINUTE
        print(words, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows bars."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _tell(tracker: Callable[[dict[str, Any]], None], store: Store, key: str) -> None:
    try:
        record = store.read(key)
        if record is not None:
            tracker(vars(record).copy())
    except Exception as error:
        warnings.warn(f"the tracker failed for run {key}: {described(error)}")

"""Weights & Biases: each finished run of a study becomes one of its runs."""

from __future__ import annotations

from typing import Any

from aptheory.studies.trackers import Tracker, curve, name_of, scores, settings


def tracker(project: str = "aptheory") -> Tracker:
    """A tracker that writes to ``project``; WANDB_MODE=offline keeps everything on this machine.

    Raises:
        ImportError: wandb is not installed.
    """
    import wandb

    def track(record: dict[str, Any]) -> None:
        run = wandb.init(
            project=project,
            id=record["key"][:16],
            name=name_of(record),
            config=settings(record),
            resume="allow",
        )
        for epoch, numbers in curve(record):
            run.log(numbers, step=epoch)
        run.summary.update(scores(record))
        run.finish(exit_code=0 if record["status"] == "done" else 1)

    return track

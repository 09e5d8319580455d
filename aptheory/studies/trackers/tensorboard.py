"""TensorBoard: each finished run of a study becomes a folder of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aptheory.studies.trackers import Tracker, curve, name_of, scores, settings


def tracker(folder: str | Path = "runs/tensorboard") -> Tracker:
    """A tracker that writes below ``folder``; `tensorboard --logdir FOLDER` shows it.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    from torch.utils.tensorboard import SummaryWriter

    def track(record: dict[str, Any]) -> None:
        name = name_of(record).replace("/", "_")
        with SummaryWriter(str(Path(folder) / name)) as writer:
            for epoch, numbers in curve(record):
                for measure, value in numbers.items():
                    writer.add_scalar(measure, value, epoch)
            plain = {key: str(value) for key, value in settings(record).items()}
            writer.add_hparams(plain, scores(record), run_name=".")

    return track

"""MLflow: each finished run of a study becomes one of its runs."""

from __future__ import annotations

import os
from typing import Any

from aptheory.studies.trackers import Tracker, curve, scores, settings

ADVICE = (
    "name a server or a database with the variable MLFLOW_TRACKING_URI (a database needs the "
    "package mlflow, the slim mlflow-skinny has none)"
)

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own would have a study wait for minutes for a server that does not answer; whoever wants
that sets these variables."""


def tracker(experiment: str = "aptheory", *, uri: str | None = None) -> Tracker:
    """A tracker that writes to ``experiment``; ``uri`` is MLflow's tracking URI, or its own.

    Raises:
        ImportError: MLflow is not installed.
    """
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if known is None else known.experiment_id

    def track(record: dict[str, Any]) -> None:
        run = client.create_run(number, run_name=record["key"][:8]).info.run_id
        metrics = [Metric(name, value, 0, 0) for name, value in scores(record).items()]
        for epoch, numbers in curve(record):
            metrics += [Metric(name, value, 0, epoch) for name, value in numbers.items()]
        client.log_batch(
            run,
            metrics=metrics,
            params=[Param(name, str(value)) for name, value in settings(record).items()],
            tags=[RunTag("run", record["key"]), RunTag("status", record["status"])],
        )
        client.set_terminated(run, "FINISHED" if record["status"] == "done" else "FAILED")

    return track

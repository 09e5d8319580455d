"""Telling finished runs to a user's own experiment tracker.

A tracker is any callable that takes one finished run as plain values (the fields of
`aptheory.studies.store.Record`): ``sweep(study, out, tracker=mlflow_tracker("my study"))``. It is
called in the process that started the sweep, once a run; what it raises becomes a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aptheory.errors import InputError


def mlflow_tracker(
    experiment: str = "aptheory", *, uri: str | None = None
) -> Callable[[dict[str, Any]], None]:
    """A tracker that makes an MLflow run of each finished run of a study.

    Parameters are what decided the result (network, task, method and its settings, layer, recipe,
    seed, learning rate, weight decay); metrics are its accuracies, number of parameters, seconds
    and peak memory, and the curve by epoch. ``uri`` is MLflow's tracking URI, by default its own.

    Raises:
        InputError: MLflow is not installed.
    """
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError(
            "the MLflow tracker needs MLflow; install it with: pip install 'aptheory[mlflow]'"
        ) from None
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if known is None else known.experiment_id

    def track(record: dict[str, Any]) -> None:
        outcome, made = record["outcome"], record["made_by"]
        run = client.create_run(number, run_name=record["key"][:8]).info.run_id
        metrics = [
            Metric(word, float(value), 0, 0)
            for word, value in {**made, **outcome}.items()
            if word in _METRICS and isinstance(value, int | float)
        ]
        for point in outcome.get("curve", ()):
            metrics += [
                Metric(f"epoch_{word}", float(value), 0, int(point["epoch"]))
                for word, value in point.items()
                if word != "epoch" and isinstance(value, int | float)
            ]
        client.log_batch(
            run,
            metrics=metrics,
            params=[Param(word, str(value)) for word, value in flat(record).items()],
            tags=[RunTag("run", record["key"]), RunTag("status", record["status"])],
        )
        client.set_terminated(run, "FINISHED" if record["status"] == "done" else "FAILED")

    return track


_METRICS = (
    *("train_accuracy", "val_accuracy", "test_accuracy", "parameters", "prompt_norm"),
    *("seconds", "peak_memory"),
)


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decided a run's result, as one level of names and values."""
    identity, outcome = record["identity"], record["outcome"]
    values = {
        "network": identity["network"]["name"],
        "task": identity["task"]["name"],
        "seed": identity["seed"],
        **{f"layer_{word}": value for word, value in identity["layer"].items()},
        **identity["method"],
        **{f"recipe_{word}": value for word, value in identity.get("recipe", {}).items()},
    }
    values |= {word: outcome[word] for word in ("lr", "weight_decay") if word in outcome}
    return values

"""Each tracker is told of every finished run, with its settings, scores and curve."""

import os
import sys

import pytest

from aptheory.errors import InputError
from aptheory.studies import trackers
from aptheory.studies.engines import Here
from aptheory.studies.sweep import execute
from tests.studies import sweep_fakes as fakes


def train(tmp_path, tracker):
    execute(
        fakes.plan(tasks=1, layers=1, seconds=0.0),
        tmp_path / "out",
        engine=Here(),
        trainer=fakes.trainer,
        progress=False,
        tracker=tracker,
    )


def test_an_unknown_tracker_is_refused():
    with pytest.raises(InputError, match=r"no tracker 'tensorbord'; choose one of tensorboard"):
        trackers.named("tensorbord")


@pytest.mark.parametrize("name", trackers.NAMES)
def test_a_tracker_whose_package_is_missing_says_how_to_bring_it(name, monkeypatch):
    for package in ("mlflow", "mlflow.entities", "torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install 'aptheory\[{name}\]'"):
        trackers.named(name)


def test_mlflow_gets_each_run(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from aptheory.studies.trackers import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the slim MLflow has no database
    uri = (tmp_path / "mlruns").as_uri()
    train(tmp_path, mlflow.tracker("mine", uri=uri))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mine")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4
    assert {run.data.params["method"] for run in runs} == {"ap", "random_perturbation"}
    assert all(0 <= run.data.metrics["test_accuracy"] <= 1 for run in runs)


def test_a_server_of_mlflow_that_does_not_answer_is_told_at_once(monkeypatch):
    pytest.importorskip("mlflow")
    from aptheory.studies.trackers.mlflow import PATIENCE

    for name in PATIENCE:
        monkeypatch.setenv(name, "")  # so that it is as before when the test is over
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="mlflow cannot be used .*MLFLOW_TRACKING_URI"):
        trackers.named("mlflow")  # MLflow's own patience is minutes
    assert {name: os.environ[name] for name in PATIENCE} == PATIENCE
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="mlflow cannot be used"):
        trackers.named("mlflow")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"  # a user's own stays


def test_tensorboard_gets_each_run(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, trackers.named(f"tensorboard:{tmp_path / 'board'}"))
    folders = sorted(path for path in (tmp_path / "board").iterdir())
    assert len(folders) == 4
    for folder in folders:
        events = EventAccumulator(str(folder)).Reload()
        (accuracy,) = events.Scalars("test_accuracy")
        assert 0 <= accuracy.value <= 1


class FakeRun:
    def __init__(self, config):
        self.config, self.logged, self.summary, self.ended = config, [], {}, None

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self, exit_code):
        self.ended = exit_code


def test_wandb_gets_each_run(tmp_path, monkeypatch):
    """wandb is large and asks a server: what it is told is what is tested."""
    runs = []

    class Wandb:
        @staticmethod
        def init(**options):
            runs.append(FakeRun(options["config"]))
            return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    train(tmp_path, trackers.named("wandb:mine"))
    assert len(runs) == 4
    assert {run.ended for run in runs} == {0}
    assert all(0 <= run.summary["test_accuracy"] <= 1 for run in runs)


def test_a_tracker_that_refuses_is_told_before_anything_is_trained(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no such store:\nsqlite")

    monkeypatch.setattr("aptheory.studies.trackers.tensorboard.tracker", refuse)
    with pytest.raises(InputError, match="tensorboard:x cannot be used .no such store: sqlite.;"):
        trackers.named("tensorboard:x")

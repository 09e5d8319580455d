"""The winner of a sweep as a model, without training it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aptheory.choosing.ranking import ranking
from aptheory.errors import InputError
from aptheory.methods import attach_saved
from aptheory.methods.registry import METHODS
from aptheory.models.fitting import make_card
from aptheory.models.model import Model
from aptheory.networks.network import Network
from aptheory.studies.records import Record, key_of
from aptheory.studies.store import MODELS, Store
from aptheory.tasks import Task


def winner(folder: str | Path, net: Network, task: Task) -> Model:
    """The best of what a sweep with ``save_models`` trained on one network and task.

    Controls do not take part. Methods, layers and recipes are compared by their mean validation
    accuracy over seeds, ties by the loss; of the best one's seeds the best is taken. Test images
    decide nothing.

    Raises:
        InputError: no run of this network and task is finished, or its models were not kept.
    """
    store = Store(folder)
    records, _ = store.read_all()
    runs: dict[str, list[Record]] = {}
    controls = 0
    for record in records:
        identity = record.identity
        ours = (identity["network"]["name"], identity["task"]["name"]) == (net.name, task.name)
        if not ours or record.status != "done":
            continue
        if _is_control(identity["method"]["method"]):
            controls += 1
        else:
            settings = {name: value for name, value in identity.items() if name != "seed"}
            runs.setdefault(key_of(settings), []).append(record)
    if not runs:
        raise InputError(
            f"{folder} holds no finished run of {net.name} on {task.name} but of controls, which "
            "are no choice: run a method with them."
            if controls
            else f"{folder} holds no finished run of {net.name} on {task.name}."
        )
    groups = list(runs.values())
    best = groups[_best([_mean_of(group) for group in groups], task.name)]
    chosen = best[_best([_score(record) for record in best], task.name)]
    path = Path(folder) / MODELS / f"{chosen.key}.safetensors"
    if not path.is_file():
        raise InputError(
            f"{folder} does not hold what its best run has learned, because it was trained without "
            "keeping models: name another folder, or train the one model with `aptheory fit`."
        )
    outcome = chosen.outcome
    training = {name: outcome.get(name) for name in ("lr", "weight_decay", "epochs", "parameters")}
    identity = chosen.identity
    card = make_card(
        net,
        task,
        method=identity["method"],
        training={
            **training,
            "recipe": identity["recipe"],
            "seed": identity["seed"],
            "seconds": chosen.made_by.get("seconds"),
            "stopped": outcome.get("stopped_reason"),
            "layer_chosen": f"the best of {len(groups)} on validation images, in {folder}",
        },
        scores={name: value for name, value in outcome.items() if name in _SCORES},
    )
    return Model(attach_saved(net, path), card, precision=identity["recipe"]["precision"])


_SCORES = ("train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss")


def _is_control(name: str) -> bool:
    return name in METHODS and METHODS[name].role == "control"


def _score(record: Record) -> tuple[float, float]:
    return float(record.outcome["val_accuracy"]), float(record.outcome["val_loss"])


def _mean_of(group: Sequence[Record]) -> tuple[float, float]:
    accuracies, losses = zip(*map(_score, group), strict=True)
    return sum(accuracies) / len(group), sum(losses) / len(group)


def _best(scores: Sequence[tuple[float, float]], about: str) -> int:
    accuracies, losses = zip(*scores, strict=True)
    return int(ranking(accuracies, losses, key=about)[0])

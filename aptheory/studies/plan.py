"""From a study to the list of its runs: who trains with whom, on which worker, at what cost.

The plan depends on the study alone. Whatever is finished already, however many workers there are
and wherever they run, the same runs train together, because the rounding of a batched product
depends on what else is in the batch.

- A *run* is one row of the final table, known by its identity.
- A *batch* is runs that differ in the seed alone; they train as one stack.
- A *job* is batches of one network and task at neighbouring layers: one worker walks through
  them and carries the kept activations from layer to layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aptheory.errors import InputError
from aptheory.studies.expansion import Choice, methods_of, unusual
from aptheory.studies.records import key_of
from aptheory.studies.sources import (
    load_network,
    load_task,
    network_identity,
    task_identity,
    view_identity,
)
from aptheory.studies.study import Study

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.studies.prediction import Predictor
    from aptheory.tasks import Task
    from aptheory.training.recipe import Recipe

IDENTITY_FORMAT = 1
_ROUNDING_ONLY = ("name", "keep", "together")
"""Settings of a recipe that change how a result is computed, not what it is."""


@dataclass(frozen=True)
class Batch:
    """Runs that train as one stack: one identity each, the same but for the seed.

    ``labels`` are for tables: what to call the method and the recipe, and unusual settings.
    ``follows`` is the key of the batch whose learned prompts give this one its norm. ``place`` is
    the first place that feels what is learned: what comes before is kept. ``seconds`` and
    ``operations`` (2 a multiply-add) are predictions.
    """

    identities: tuple[dict[str, Any], ...]
    recipe: dict[str, Any]
    place: int
    labels: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    follows: str | None = None
    seconds: float = 1.0
    operations: float = 0.0

    @property
    def run_keys(self) -> tuple[str, ...]:
        return tuple(key_of(identity) for identity in self.identities)

    @property
    def key(self) -> str:
        return key_of(self.run_keys)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(identity["seed"] for identity in self.identities)


@dataclass(frozen=True)
class Job:
    """What one worker does in one go. ``network`` and ``task`` are specs or the objects."""

    network: Any
    task: Any
    batches: tuple[Batch, ...]
    threads: int = 1
    device: str = "auto"
    together: int = 4

    @property
    def key(self) -> str:
        return key_of([batch.key for batch in self.batches])

    @property
    def seconds(self) -> float:
        return sum(batch.seconds for batch in self.batches)


@dataclass(frozen=True)
class Plan:
    """Every run of a study, and the combinations that make no sense with the reason why."""

    name: str
    jobs: tuple[Job, ...]
    not_applicable: tuple[str, ...] = ()
    study: dict[str, Any] = field(default_factory=dict)

    @property
    def batches(self) -> Iterator[Batch]:
        return (batch for job in self.jobs for batch in job.batches)

    def __len__(self) -> int:
        return sum(len(batch.identities) for batch in self.batches)

    @property
    def run_keys(self) -> list[str]:
        return [key for batch in self.batches for key in batch.run_keys]

    @property
    def seconds(self) -> float:
        """Predicted time of all runs, one after the other."""
        return sum(job.seconds for job in self.jobs)

    def to_dict(self) -> dict[str, Any]:
        """What `status` needs to know without loading a network."""
        batches = {
            batch.key: {
                "runs": list(batch.run_keys),
                "seconds": batch.seconds,
                "labels": batch.labels,
            }
            for batch in self.batches
        }
        return {
            "name": self.name,
            "study": self.study,
            "batches": batches,
            "not_applicable": list(self.not_applicable),
        }

    def table(self) -> Any:
        """One row a run: what it is, its key and batch, the predicted seconds and operations."""
        import pandas as pd

        rows = []
        for number, job in enumerate(self.jobs):
            for batch in job.batches:
                share = 1 / len(batch.identities)
                for identity, key in zip(batch.identities, batch.run_keys, strict=True):
                    rows.append(
                        {
                            "network": identity["network"]["name"],
                            "task": identity["task"]["name"],
                            "method": batch.labels.get("method", identity["method"]["method"]),
                            "layer": identity["layer"]["index"],
                            "layer_name": identity["layer"]["name"],
                            "settings": batch.labels.get("settings", ""),
                            "recipe": batch.labels.get("recipe", ""),
                            "seed": identity["seed"],
                            "parameters": batch.parameters,
                            "seconds": batch.seconds * share,
                            "operations": batch.operations * share,
                            "job": number,
                            "batch": batch.key,
                            "run": key,
                        }
                    )
        return pd.DataFrame(rows)


def make_plan(study: Study) -> Plan:
    """Load each network and task of a study once and lay out its runs.

    Raises:
        InputError: an unknown network, task, method, recipe or layer, told in a sentence.
    """
    from aptheory.studies.prediction import Predictor

    recipes = [_recipe(item) for item in study.recipes]
    if study.protocol == "vtab" and any(recipe.redraw for recipe in recipes):
        raise InputError(
            "the vtab protocol trains on all training and validation images, so nothing is left to "
            "redraw; leave redraw out of the recipe, or use protocol = 'standard'"
        )
    loaded = [(spec, load_task(spec)) for spec in study.tasks]
    identities = [task_identity(task) for _, task in loaded]
    _distinct("task", [identity["name"] for identity in identities])
    jobs: list[Job] = []
    refused: dict[str, None] = {}
    names: list[str] = []
    for spec in study.networks:
        net = load_network(spec)
        predictor = Predictor(net)
        about = network_identity(net)
        names.append(net.name)
        for (task_spec, task), task_about in zip(loaded, identities, strict=True):
            batches: dict[str, Batch] = {}
            identity = {"network": about, "task": task_about, **view_identity(net, task)}
            place = _Where(study, net, task, identity, predictor)
            for choice in methods_of(study, net, len(task.classes)):
                for recipe in recipes:
                    for batch in _batches(place, choice, recipe, refused):
                        batches[batch.key] = batch
            for part in _cut(list(batches.values()), study.layers_together):
                jobs.append(
                    Job(
                        network=spec,
                        task=task_spec,
                        batches=tuple(part),
                        threads=study.threads,
                        device=study.device,
                        together=study.together,
                    )
                )
    _distinct("network", names)
    if not jobs:
        raise InputError(
            "no run of this study makes sense: "
            + ("; ".join(refused) or "it has no method that fits its networks")
        )
    return Plan(study.name, tuple(jobs), tuple(refused), describe(study))


def _distinct(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two {kind}s of the study are called {name!r}; give each a label of its own"
            )


def describe(study: Study) -> dict[str, Any]:
    """The study as plain values for people to read; objects by their names."""
    plain = {}
    for word, value in vars(study).items():
        if word == "out":
            continue
        if word in ("networks", "tasks"):
            value = [item if isinstance(item, Mapping) else item.name for item in value]
        elif word in ("methods", "recipes"):
            value = [item.settings() if hasattr(item, "settings") else item for item in value]
        plain[word] = value
    return plain


def _recipe(item: Any) -> Recipe:
    from aptheory.training.recipe import Recipe

    if isinstance(item, Recipe):
        return item
    values = {"name": item} if isinstance(item, str) else dict(item)
    base = values.pop("base", None) or values.get("name", "quick")
    name = values.pop("name", base)
    return Recipe.named(base, **values).but(name=name)


@dataclass(frozen=True)
class _Where:
    """One network and task of a study, with what is known about them."""

    study: Study
    net: Network
    task: Task
    identity: dict[str, Any]
    predictor: Predictor


def _batches(
    where: _Where, choice: Choice, recipe: Recipe, refused: dict[str, None]
) -> Iterator[Batch]:
    """The batches of one method with one recipe, or a line in ``refused`` when it does not fit."""
    study, net, method = where.study, where.net, choice.method
    try:
        adapted = method.attach(net, classes=len(where.task.classes))
    except InputError as error:
        refused[f"{net.name}, {method.name}: {error}"] = None
        return
    layer = net.layers[adapted.first_layer]
    same: dict[str, Any] = {
        "format": IDENTITY_FORMAT,
        **where.identity,
        "method": method.settings(),
        "layer": {
            "index": layer.index,
            "name": layer.name,
            "depth": layer.index / (len(net.layers) - 1),
        },
        "recipe": {
            word: value for word, value in recipe.settings().items() if word not in _ROUNDING_ONLY
        },
        "search": {word: list(values) for word, values in study.search.items()},
        "protocol": study.protocol,
    }
    if study.protocol == "vtab":
        same["search_seed"] = study.search_seed
    led: list[Batch | None] = []
    if choice.follows is not None:
        led = list(_batches(where, Choice(choice.follows, ""), recipe, refused))
        same["method"] = {**same["method"], "norm": "learned"}
    candidates = 1
    for values in study.search.values():
        candidates *= len(values)
    size = study.together if study.protocol == "vtab" else max(1, study.together // candidates)
    for number, start in enumerate(range(0, len(study.seeds), size)):
        seeds = study.seeds[start : start + size]
        leader = led[number] if led else None
        identities = []
        for position, seed in enumerate(seeds):
            identity = {**same, "seed": seed}
            if leader is not None:
                identity["follows"] = leader.run_keys[position]
            identities.append(identity)
        seconds, operations = where.predictor.of(adapted, where.task, recipe, study, len(seeds))
        yield Batch(
            identities=tuple(identities),
            recipe=recipe.settings(),
            place=adapted.first_layer,
            labels={
                "method": choice.label,
                "recipe": recipe.name,
                "settings": unusual(method),
            },
            parameters=adapted.count(head=False),
            seconds=seconds,
            operations=operations,
            follows=leader.key if leader is not None else None,
        )


def _cut(batches: list[Batch], width: int) -> Iterator[list[Batch]]:
    """Batches in the order of their places, cut into jobs of ``width`` neighbouring layers.

    A control that follows a prompt stays in its job, behind it. Many methods at one place make
    a job of their own for each eight.
    """
    order = sorted(
        batches,
        key=lambda batch: (batch.place, batch.follows is not None, batch.key),
    )
    for _, group in itertools.groupby(order, key=lambda batch: batch.place // width):
        members = list(group)
        leaders = [batch for batch in members if batch.follows is None]
        followers: dict[str, list[Batch]] = {}
        for batch in members:
            if batch.follows is not None:
                followers.setdefault(batch.follows, []).append(batch)
        part: list[Batch] = []
        for batch in leaders:
            part += [batch, *followers.get(batch.key, [])]
            if len(part) >= 4 * width:
                yield part
                part = []
        if part:
            yield part

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
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from aptheory.errors import InputError
from aptheory.outcomes import key_of
from aptheory.sources import load_network, load_task, network_identity, task_identity
from aptheory.study import Study

if TYPE_CHECKING:
    from aptheory.methods import Method
    from aptheory.network import Network
    from aptheory.recipe import Recipe

IDENTITY_FORMAT = 1
_ROUNDING_ONLY = ("name", "keep", "together")
"""Settings of a recipe that change how a result is computed, not what it is."""


@dataclass(frozen=True)
class Batch:
    """Runs that train as one stack: one identity each, the same but for the seed.

    ``labels`` are for tables: the recipe's name, and the method's settings that are not the usual.
    ``follows`` is the key of the batch whose learned prompts give this one its norm. ``place`` is
    the first place that feels what is learned: what comes before is kept. ``seconds`` and
    ``flops`` are predictions.
    """

    identities: tuple[dict[str, Any], ...]
    recipe: dict[str, Any]
    place: int
    labels: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    follows: str | None = None
    seconds: float = 1.0
    flops: float = 0.0

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
        """One row a run: what it is, its key, its batch, and the predicted seconds and FLOPs."""
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
                            "method": identity["method"]["method"],
                            "layer": identity["layer"]["index"],
                            "layer_name": identity["layer"]["name"],
                            "settings": batch.labels.get("settings", ""),
                            "recipe": batch.labels.get("recipe", ""),
                            "seed": identity["seed"],
                            "parameters": batch.parameters,
                            "seconds": batch.seconds * share,
                            "flops": batch.flops * share,
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
    from aptheory.prediction import Prediction

    recipes = [_recipe(item) for item in study.recipes]
    loaded = [(spec, load_task(spec)) for spec in study.tasks]
    identities = [task_identity(task) for _, task in loaded]
    jobs: list[Job] = []
    refused: dict[str, None] = {}
    for spec in study.networks:
        net = load_network(spec)
        prediction = Prediction(net)
        about = network_identity(net)
        for (task_spec, task), task_about in zip(loaded, identities, strict=True):
            batches: dict[str, Batch] = {}
            classes = len(task.classes)
            for method, follows in _methods(study, net, classes, refused):
                for recipe in recipes:
                    made = _batches(
                        study,
                        net,
                        method,
                        recipe,
                        {"network": about, "task": task_about},
                        classes,
                        follows,
                        refused,
                    )
                    for batch in made:
                        batches[batch.key] = prediction.of(batch, task, study)
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
    if not jobs:
        raise InputError(
            "no run of this study makes sense: "
            + ("; ".join(refused) or "it has no method that fits its networks")
        )
    return Plan(study.name, tuple(jobs), tuple(refused), describe(study))


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
    from aptheory.recipe import Recipe

    if isinstance(item, Recipe):
        return item
    values = {"name": item} if isinstance(item, str) else dict(item)
    base = values.pop("base", None) or values.get("name", "quick")
    name = values.pop("name", base)
    return Recipe.named(base, **values).but(name=name)


def _methods(
    study: Study, net: Network, classes: int, refused: dict[str, None]
) -> Iterator[tuple[Method, Method | None]]:
    """Each method at each of its layers, with the prompt whose norm it takes (a control only)."""
    from aptheory.methods import LayerProbe, LinearProbe, RandomPerturbation

    places = _places(study, net)
    seen: dict[str, None] = {}
    swept_prompt = False
    target: int | None = None
    templates = list(_templates(study, net, refused))
    for number, (template, fixed) in enumerate(templates):
        chosen: Sequence[int | None] = [None] if fixed else places
        prompts = template.name == "ap" and not fixed and study.controls
        if prompts:
            swept_prompt = True
            last = len(net.layers) - 1
            chosen = sorted({*(p for p in chosen if p is not None), last})
        if study.equal and number == 0:
            target = _target(template, places, fixed, net, classes)
        for place in chosen:
            method = template if place is None else replace(template, layer=place)  # type: ignore[call-arg]
            if study.equal and number and target is not None:
                from aptheory.compare import sized

                method = sized(method, net, classes=classes, parameters=target)
            if key_of(method.settings()) in seen:
                continue
            seen[key_of(method.settings())] = None
            yield method, None
            if prompts and place is not None:
                yield RandomPerturbation(layer=place), method
    if not swept_prompt:
        return
    controls: list[Method] = [LinearProbe(), *(LayerProbe(layer=place) for place in places)]
    for control in controls:
        if key_of(control.settings()) not in seen:
            yield control, None


def _target(
    template: Method, places: Sequence[int], fixed: bool, net: Network, classes: int
) -> int:
    """Parameters without head of the study's first method, at the middle one of its layers."""
    middle = places[len(places) // 2]
    method = template if fixed else replace(template, layer=middle)  # type: ignore[call-arg]
    return method.attach(net, classes=classes).count(head=False)


def _templates(
    study: Study, net: Network, refused: dict[str, None]
) -> Iterator[tuple[Method, bool]]:
    """(method, whether its layer is given or it has none) for each entry of the study."""
    from aptheory.methods import Method, applicable, from_settings, parse

    for entry in study.methods:
        if entry == "all":
            for method in applicable(net):
                if method.name != "random_perturbation":  # the controls bring it, with its norm
                    yield method, not hasattr(method, "layer")
            continue
        if isinstance(entry, Method):
            yield entry, True
            continue
        if isinstance(entry, type) and issubclass(entry, Method):
            entry = entry.name
        if isinstance(entry, Mapping):
            values = {"method" if key == "name" else key: item for key, item in entry.items()}
            swept = _has_layer(values["method"]) and "layer" not in values
            yield from_settings({**values, "layer": 0} if swept else values), not swept
            continue
        text = str(entry).replace(" ", "")
        swept = _has_layer(text.partition(":")[0]) and "layer=" not in text
        if swept:
            text += ("," if ":" in text else ":") + "layer=0"
        yield parse(text), not swept


def _has_layer(name: str) -> bool:
    """Whether the method of that name acts at a layer that can be chosen."""
    from aptheory.methods import METHODS

    return name in METHODS and any(item.name == "layer" for item in fields(METHODS[name]))


def _places(study: Study, net: Network) -> list[int]:
    last = len(net.layers) - 1
    if study.layers == "all":
        return list(range(last + 1))
    chosen = set()
    for layer in study.layers:
        if isinstance(layer, float):
            chosen.add(round(layer * last))
        elif -last - 1 <= layer <= last:
            chosen.add(layer % (last + 1))
        else:
            raise InputError(f"{net.name} has places 0 to {last}; the study asks for {layer}")
    return sorted(chosen)


def _batches(
    study: Study,
    net: Network,
    method: Method,
    recipe: Recipe,
    where: dict[str, Any],
    classes: int,
    follows: Method | None,
    refused: dict[str, None],
) -> Iterator[Batch]:
    """The batches of one method with one recipe, or a line in ``refused`` when it does not fit."""
    try:
        adapted = method.attach(net, classes=classes)
    except InputError as error:
        refused[f"{net.name}, {method.name}: {error}"] = None
        return
    layer = net.layers[adapted.first_layer]
    same: dict[str, Any] = {
        "format": IDENTITY_FORMAT,
        **where,
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
    if follows is not None:
        led = list(_batches(study, net, follows, recipe, where, classes, None, refused))
        same["method"] = {**same["method"], "norm": "learned"}
    candidates = 1
    for values in study.search.values():
        candidates *= len(values)
    size = max(1, study.together // candidates)
    for number, start in enumerate(range(0, len(study.seeds), size)):
        seeds = study.seeds[start : start + size]
        leader = led[number] if led else None
        identities = []
        for position, seed in enumerate(seeds):
            identity = {**same, "seed": seed}
            if leader is not None:
                identity["follows"] = leader.run_keys[position]
            identities.append(identity)
        yield Batch(
            identities=tuple(identities),
            recipe=recipe.settings(),
            place=adapted.first_layer,
            labels={"recipe": recipe.name, "settings": _unusual(method)},
            parameters=adapted.count(head=True),
            follows=leader.key if leader is not None else None,
        )


def _unusual(method: Method) -> str:
    """The settings that differ from the method's own defaults, its layer aside: ``tokens=5``."""
    told = []
    for item in fields(method):
        value = getattr(method, item.name)
        if value != item.default and item.name not in ("layer", "norm"):
            told.append(f"{item.name}={value}")
    return ",".join(told)


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

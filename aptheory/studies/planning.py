"""From a study to its plan: who trains with whom, on which worker, at what cost."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.studies.expansion import Choice, finds_reading, methods_of, reads_best, unusual
from aptheory.studies.plan import Batch, Job, Plan
from aptheory.studies.records import key_of
from aptheory.studies.sources import view_identity
from aptheory.studies.study import Opened, OpenNetwork, OpenTask, Study

if TYPE_CHECKING:
    from aptheory.methods import Adapted, Method
    from aptheory.networks.layer import Layer
    from aptheory.networks.network import Network
    from aptheory.training.recipe import Recipe

IDENTITY_FORMAT = 1
_ROUNDING_ONLY = ("name", "keep", "together")
"""Settings of a recipe that change how a result is computed, not what it is."""


def make_plan(study: Study | Opened, reads: Mapping[tuple[str, str], int] | None = None) -> Plan:
    """Lay out the runs of a study, on its loaded networks and tasks.

    ``reads`` tells, of a network's name and a task's, the place that a method with ``read=best``
    reads; where it does not, these methods are left out.

    Raises:
        InputError: an unknown network, task, method, recipe or layer, told in a sentence.
    """
    opened = study if isinstance(study, Opened) else study.open()
    study = opened.study
    recipes = [_recipe(item) for item in study.recipes]
    if study.protocol == "vtab" and any(recipe.redraw for recipe in recipes):
        raise InputError(
            "the vtab protocol trains on all training and validation images, so nothing is left to "
            "redraw; leave redraw out of the recipe, or use protocol = 'standard'"
        )
    beside = tuple(str(Path(folder).absolute()) for folder in (*study.beside, Path.cwd()))
    jobs: list[Job] = []
    refused: dict[str, None] = {}
    waits = False
    fitting: set[int | None] = set()
    astray: dict[int | None, str] = {}
    for network in opened.networks:
        for task in opened.tasks:
            pair = _Pair(study, network, task, refused)
            read = (reads or {}).get((network.net.name, task.task.name))
            waits |= read is None and finds_reading(study)
            for choice in methods_of(study, network.net, pair.classes, pair.attach, read):
                astray[choice.number] = _astray(network.net, choice.method)
                laid = [choice.again or pair.lay_out(choice, recipe) for recipe in recipes]
                if all(laid):
                    fitting.add(choice.number)
            for part in _cut(pair.batches, study.runtime.layers_together):
                jobs.append(
                    Job(
                        network=network.spec,
                        task=task.spec,
                        batches=tuple(part),
                        runtime=study.runtime,
                        beside=beside,
                        classes=tuple(pair.unreachable),
                    )
                )
    if not jobs:
        raise InputError(
            "no run of this study makes sense: "
            + ("; ".join(refused) or "it has no method that fits its networks")
        )
    unused = tuple(_unused(study, fitting, astray, waits))
    return Plan(study.name, tuple(jobs), tuple(refused), describe(study), waits, unused)


def _unused(
    study: Study, fitting: Container[int | None], astray: Mapping[int | None, str], waits: bool
) -> Iterator[str]:
    """The methods of the study that fit none of its networks.

    Raises:
        InputError: one is run nowhere by mistake: ``astray`` says that a network lacks the place
            that it names, or says nothing, since all layers lie behind the place that it reads.
    """
    for number, entry in enumerate(study.methods):
        if entry == "all" or number in fitting or (waits and reads_best(entry)):
            continue
        told = shown(entry.settings() if hasattr(entry, "settings") else entry)
        behind = "every layer of the study lies behind the place that it reads; name others."
        if astray.get(number, behind):
            raise InputError(f"{told} is run nowhere: {astray.get(number, behind)}")
        yield told


def _astray(net: Network, method: Method) -> str:
    """In words, that a network lacks a place that a method names; nothing where it has all."""
    try:
        for word in ("read", "layer"):
            place = getattr(method, word, None)
            if place is not None and not (isinstance(place, str) and ".." in place):
                net.places(place)
    except InputError as error:
        return str(error)
    return ""


def describe(study: Study) -> dict[str, Any]:
    """The study as plain values for people to read; objects by their names."""
    plain = {}
    for word, value in {**vars(study), **vars(study.runtime)}.items():
        if word in ("base", "runtime"):
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
    try:
        return Recipe.named(base, **values).but(name=name)
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"the recipe {shown(item)} makes no sense ({error}); mend its values."
        ) from error


class _Pair:
    """One network and task of a study while its batches are laid out.

    ``batches`` has each once, in the order in which they came; ``refused`` gathers a sentence for
    every method that does not fit; ``unreachable`` are the classes that only this process has.
    """

    def __init__(
        self, study: Study, network: OpenNetwork, task: OpenTask, refused: dict[str, None]
    ) -> None:
        self.study, self.network, self.task, self.refused = study, network, task, refused
        self.net = network.net
        self.classes = len(task.task.classes)
        self.unreachable: dict[type, None] = {}
        self._batches: dict[str, Batch] = {}
        self._leaders: dict[str, list[Batch]] = {}

        # A prompt is attached for its control and for its extent, one after the other.
        @lru_cache(maxsize=2)
        def attached(kind: type, method: Method) -> Adapted:
            return method.attach(self.net, classes=self.classes)

        self.attach: Callable[[Method], Adapted] = lambda method: attached(
            type(method),  # type: ignore[arg-type]  # mypy asks an instance for its hash
            method,
        )

    @property
    def batches(self) -> list[Batch]:
        return list(self._batches.values())

    def lay_out(self, choice: Choice, recipe: Recipe) -> bool:
        """Add the batches of one method with one recipe, or a line in ``refused``; whether it
        fits."""
        method, predictor = choice.method, self.network.predictor
        if type(method).__module__ == "__main__":
            self.unreachable[type(method)] = None
        try:
            extent = predictor.extent(method, self.classes, self.attach)
        except InputError as error:
            self.refused[f"{self.net.name}, {method.name}: {str(error).rstrip('.')}"] = None
            return False
        same = self._identity(method, recipe, self.net.layers[extent.acts_at])
        leaders: list[Batch] = []
        if choice.follows is not None:
            leaders = self._leaders[key_of([choice.follows.settings(), recipe.settings()])]
            if "norm" in same["method"]:
                same["method"] = {**same["method"], "norm": "learned"}
        batches = []
        for number, seeds in enumerate(self._stacks()):
            leader = leaders[number] if leaders else None
            identities = []
            for position, seed in enumerate(seeds):
                identity = {**same, "seed": seed}
                if leader is not None:
                    identity["follows"] = leader.run_keys[position]
                identities.append(identity)
            seconds, operations = predictor.of(
                extent,
                self.task.task,
                recipe,
                runs=len(seeds),
                candidates=self.study.candidates,
                protocol=self.study.protocol,
            )
            batches.append(
                Batch(
                    identities=tuple(identities),
                    recipe=recipe.settings(),
                    place=extent.place,
                    labels={
                        "method": choice.label,
                        "role": method.role,
                        "recipe": recipe.name,
                        "settings": unusual(method, follows=choice.follows is not None),
                    },
                    parameters=extent.parameters,
                    seconds=seconds,
                    operations=operations,
                    follows=leader.key if leader is not None else None,
                    reads_best=choice.reads_best,
                )
            )
        self._leaders[key_of([method.settings(), recipe.settings()])] = batches
        self._batches |= {batch.key: batch for batch in batches}
        return True

    def _identity(self, method: Method, recipe: Recipe, layer: Layer) -> dict[str, Any]:
        """What the runs of a method with a recipe share; the seed makes them different."""
        settings = recipe.settings()
        same: dict[str, Any] = {
            "format": IDENTITY_FORMAT,
            "network": self.network.identity,
            "task": self.task.identity,
            **view_identity(self.net, self.task.task),
            "method": method.settings(),
            "layer": {
                "index": layer.index,
                "name": layer.name,
                "depth": layer.index / (len(self.net.layers) - 1),
            },
            "recipe": {word: v for word, v in settings.items() if word not in _ROUNDING_ONLY},
            "search": {word: list(values) for word, values in self.study.search.items()},
            "protocol": self.study.protocol,
        }
        if self.study.protocol == "vtab":
            same["search_seed"] = self.study.search_seed
        return same

    def _stacks(self) -> Iterator[tuple[int, ...]]:
        """The seeds that train as one batch, batch by batch; a search takes its share of room."""
        size = self.study.runtime.together
        if self.study.protocol != "vtab":
            size = max(1, size // self.study.candidates)
        for start in range(0, len(self.study.seeds), size):
            yield tuple(self.study.seeds[start : start + size])


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

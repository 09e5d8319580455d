"""A study: networks × tasks × methods × layers × recipes × seeds, as a short file of values.

A study says everything that decides its results and nothing about the machine that computes them
(how many processes, which cluster): the same file gives the same table on a laptop and on a
cluster. It is a TOML file or this dataclass; an unknown key is refused, with the near ones named.

    name = "where"
    networks = ["aptheory_vit_mini", { name = "vit_tiny_patch16_224", weights = "vit.safetensors" }]
    tasks = ["digits", { name = "textures", train = 200, val = 100, test = 500 }]
    methods = ["ap", "ap:shape=channel", "vpt:tokens=5"]
    layers = "all"            # or [0, 3, 7], or fractions of the depth [0.0, 0.5, 1.0]
    recipe = "quick"          # or a table: { name = "quick", epochs = 10 }
    seeds = [0, 1, 2]
    search = { lr = [0.1, 0.01], weight_decay = [0.0, 1e-4] }
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aptheory.arguments import fits
from aptheory.checked import read_text, shown, toml_table
from aptheory.errors import InputError
from aptheory.studies import entries
from aptheory.studies.runtime import Runtime, check_runtime

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.studies.prediction import Predictor
    from aptheory.tasks import Task

_LARGEST_FILE = 2**20


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is run. One *run* is one (network, task, method, layer, recipe, seed).

    Attributes:
        networks: timm names; tables with ``name``, ``weights`` ("pretrained", "random" or a file),
            ``seed`` (of random weights), `load`'s other arguments, and ``options`` for timm; tables
            with a ``factory``, ``"module:function"``, that returns a torch module and takes the
            ``options``; in Python also `Network` objects. ``label`` is its name in tables.
        tasks: names as `aptheory.task` takes them; tables with ``name``, ``seed``, ``resize``,
            ``group`` and the sizes ``train``, ``val``, ``test`` of a class-balanced subset; in
            Python also `Task` objects. ``label`` is its name in tables: two subsets of one task
            need different ones.
        methods: ``"ap"``, ``"vpt:tokens=5,deep=true"``, tables, in Python also `Method` objects and
            classes, or ``"all"`` that fit. One that has a layer and does not fix it is run at every
            one of ``layers``, as far as the place that its head reads. ``"ap:read=best"`` reads, on
            each network and task, at the place whose own probe is best on the validation split:
            probes of all blocks are trained first, and what reads there follows.
        layers: ``"all"`` places, ``"blocks"``, or some: their indices (negative: from the end),
            names, or fractions of the depth (0.0 the image, 1.0 the classifier's input).
        recipes: recipe names or tables; the runs of all methods share each of them.
        seeds: each decides a run's initialisation and the order of its batches.
        search: hyperparameters tried for every run, ``lr`` and ``weight_decay``. The best accuracy
            on the validation split decides, for each run by itself; test images never take part.
        protocol: ``"standard"`` trains on the training split. ``"vtab"`` selects on the validation
            split after training on the training split, once, with seed ``search_seed``; then trains
            on both together with every seed, and reports the last epoch's test accuracy.
        controls: add to every activation prompt that is swept over layers the linear probe, the
            prompt at the last layer (which must equal it), at each layer the linear classifier on
            that layer's features, and a random perturbation of the norm that the learned prompt of
            the same layer and seed came to.
        equal: ``"parameters"`` sets each method's size so that it trains as nearly as possible as
            many parameters as the first of ``methods``; ``None`` leaves the sizes as they are.
        runtime: what decides rounding and nothing else; in a file its words stand at the top.
        base: the folder of the study's file, where ``module:name`` is looked for too.
    """

    networks: Sequence[Any]
    tasks: Sequence[Any]
    methods: Sequence[Any] = ("ap",)
    layers: Any = "all"
    recipes: Sequence[Any] = ("quick",)
    seeds: Sequence[int] = (0, 1, 2)
    search: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = "standard"
    search_seed: int = 0
    controls: bool = True
    equal: str | None = None
    runtime: Runtime = field(default_factory=Runtime)
    name: str = "study"
    base: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for word, value in _checked(vars(self)).items():
            object.__setattr__(self, word, value)

    @property
    def beside(self) -> tuple[Path, ...]:
        """Folders in which the modules that the study names may lie."""
        return () if self.base is None else (Path(self.base),)

    @property
    def candidates(self) -> int:
        """How many settings of the searched hyperparameters each run tries."""
        count = 1
        for values in self.search.values():
            count *= len(values)
        return count

    def open(self) -> Opened:
        """Load each network and task, once, for planning, profiling, training and settings.

        The networks lie on the study's device, so that all of these happen there.

        Raises:
            InputError: an unknown network or task, or two of one name.
        """
        from aptheory.devices import device_of
        from aptheory.studies.sources import load_network, load_task

        device = device_of(self.runtime.device)
        tasks = tuple(OpenTask(spec, load_task(spec)) for spec in self.tasks)
        _distinct("task", [each.task.name for each in tasks])
        networks = tuple(
            OpenNetwork(spec, load_network(spec, beside=self.beside).to(device))
            for spec in self.networks
        )
        _distinct("network", [each.net.name for each in networks])
        return Opened(self, networks, tasks)

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """Read a study file; paths in it are relative to the file's own folder.

        Raises:
            InputError: no such file, not TOML, or a key that a study does not have.
        """
        path = Path(path)
        try:
            text = read_text(path, most=_LARGEST_FILE)
        except FileNotFoundError:
            raise InputError(f"cannot read the study {path}: there is no such file.") from None
        values = toml_table(text, name=str(path))
        try:
            return cls.from_dict(values, base=path.parent)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: Path | None = None) -> Study:
        """A study from plain values, as they come out of a TOML file.

        ``recipe``, ``network``, ``task``, ``method`` and ``seed`` may stand for the plural with
        one entry, and the words of `Runtime` at the top. ``base`` is the folder that relative file
        names start from.
        """
        values = dict(values)
        for many in _PLURALS:
            single = many.removesuffix("s")
            if single in values:
                if many in values:
                    raise InputError(f"the study has both {single} and {many}; keep one of them.")
                values[many] = [values.pop(single)]
        of_runtime = [item.name for item in fields(Runtime)]
        of_study = [item.name for item in fields(cls) if item.name not in ("runtime", "base")]
        for word in values:
            if word not in (*of_study, *of_runtime):
                near = entries.near(word, [*of_study, *of_runtime])
                from aptheory.training.recipe import Recipe  # which imports torch

                if word in [item.name for item in fields(Recipe)]:
                    near = f"it belongs to the recipe: recipe = {{ {word} = ... }}."
                raise InputError(f"a study has no {shown(word)}; {near}")
        for word in ("networks", "tasks"):
            if word not in values:
                raise InputError(f"the study has no {word}; add a line {word} = [...].")
        if base is not None:
            for word in ("networks", "tasks"):
                listed = values[word] if isinstance(values[word], list | tuple) else [values[word]]
                values[word] = [entries.rebased(item, word, base) for item in listed]
        of_runtime_only = {word: values.pop(word) for word in of_runtime if word in values}
        check_runtime(of_runtime_only)
        return cls(**_checked(values), runtime=Runtime(**of_runtime_only), base=base)


_PLURALS = ("networks", "tasks", "methods", "recipes", "seeds")
_NAME = re.compile(r"[\w .+-]{1,100}")


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a study, each as it is kept, of the words that are there.

    Raises:
        InputError: one that a study cannot hold.
    """
    checked = dict(values)
    for word, check in _CHECKS.items():
        if word in checked:
            checked[word] = check(
                _several(word, checked[word]) if word in _PLURALS else checked[word]
            )
    return checked


def _several(word: str, value: Any) -> Sequence[Any]:
    """The entries of a field that may also be given as one."""
    if word == "seeds" and isinstance(value, int):
        raise InputError(f"seeds is {value}; give a list: [{value}] is that seed, [0, 1, 2] three.")
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        value = (value,)
    if not value:
        raise InputError(f"the study has no {word}; give at least one.")
    if word != "seeds" and len(value) > entries.MOST_ENTRIES:
        raise InputError(
            f"the study has {len(value)} {word}; expected {entries.MOST_ENTRIES} at most."
        )
    return value


def _one_of(word: str, check: Callable[[Any], bool], expected: str) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if not check(value):
            raise InputError(f"{word} is {shown(value)}; expected {expected}.")
        return value

    return checked


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "networks": lambda several: tuple(
        entries.source(each, "network", entries.NETWORK) for each in several
    ),
    "tasks": lambda several: tuple(entries.source(each, "task", entries.TASK) for each in several),
    "methods": lambda several: tuple(map(entries.method, several)),
    "recipes": lambda several: tuple(map(entries.recipe, several)),
    "seeds": entries.seeds,
    "layers": entries.layers,
    "search": entries.search,
    "search_seed": lambda seed: entries.seeds([seed])[0],
    "protocol": _one_of(
        "protocol", lambda v: fits(v, Literal["standard", "vtab"]), "'standard' or 'vtab'"
    ),
    "equal": _one_of(
        "equal", lambda v: fits(v, Literal["parameters"] | None), "'parameters' or nothing"
    ),
    "runtime": _one_of("runtime", lambda v: isinstance(v, Runtime), "a Runtime, such as Runtime()"),
    "base": _one_of(
        "base",
        lambda v: v is None or (fits(v, str | Path) and os.path.isdir(v)),
        "a folder that is there, or None",
    ),
    "controls": _one_of("controls", lambda v: isinstance(v, bool), "true or false"),
    "name": _one_of(
        "name",
        lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v)) and bool(v.strip(". ")),
        "letters, digits, spaces, '-', '_' and '.', 100 at most and not dots alone",
    ),
}
"""What becomes of each word of a study: the value as it is kept, or a sentence."""


def _distinct(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two {kind}s of the study are called {name!r}; give each a label of its own in a "
                "study file (--save-study writes one of a command for one of the two), or name one "
                "otherwise."
            )


# ------------------------------------------------------------------- its networks and tasks, loaded


@dataclass(frozen=True)
class OpenNetwork:
    """A network of a study: how the study names it, and the network; digests are remembered."""

    spec: Any
    net: Network

    @cached_property
    def identity(self) -> dict[str, Any]:
        from aptheory.studies.sources import network_identity

        return network_identity(self.net)

    @cached_property
    def predictor(self) -> Predictor:
        from aptheory.studies.prediction import Predictor

        return Predictor(self.net)


@dataclass(frozen=True)
class OpenTask:
    """A task of a study: how the study names it, and the task."""

    spec: Any
    task: Task

    @cached_property
    def identity(self) -> dict[str, Any]:
        from aptheory.studies.sources import task_identity

        return task_identity(self.task)


@dataclass(frozen=True)
class Opened:
    """A study with its networks and tasks: what every step of the main job is handed."""

    study: Study
    networks: tuple[OpenNetwork, ...]
    tasks: tuple[OpenTask, ...]

    def net(self, spec: Any) -> Network:
        """The loaded network of an entry of ``study.networks``."""
        return next(each.net for each in self.networks if _same(each.spec, spec))

    def task(self, spec: Any) -> Task:
        """The loaded task of an entry of ``study.tasks``."""
        return next(each.task for each in self.tasks if _same(each.spec, spec))


def _same(spec: Any, other: Any) -> bool:
    return spec is other or (isinstance(spec, Mapping) and spec == other)

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

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aptheory.errors import InputError

_NETWORK_WORDS = (
    *("name", "label", "factory", "weights", "seed", "granularity", "input_shape"),
    *("mean", "std", "crop", "resize", "interpolation", "options"),
)
_TASK_WORDS = ("name", "label", "seed", "train", "val", "test", "subset_seed", "resize")
_SEARCHED = ("lr", "weight_decay")


@dataclass(kw_only=True)
class Study:
    """What is run. One *run* is one (network, task, method, layer, recipe, seed).

    Attributes:
        networks: timm names; tables with ``name``, ``weights`` ("pretrained", "random" or a file),
            ``seed`` (of random weights), `load`'s other arguments, and ``options`` for timm; tables
            with a ``factory``, ``"module:function"``, that returns a torch module and takes the
            ``options``; in Python also `Network` objects. ``label`` is its name in tables.
        tasks: names as `aptheory.task` takes them; tables with ``name``, ``seed``, ``resize``
            and the sizes ``train``, ``val``, ``test`` of a class-balanced subset; in Python also
            `Task` objects. ``label`` is its name in tables: two subsets of one task need different
            ones.
        methods: ``"ap"``, ``"vpt:tokens=5,deep=true"``, tables, in Python also `Method` objects and
            classes, or ``"all"`` that fit. One that has a layer and does not fix it is run at every
            one of ``layers``.
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
        together: how many runs train as one batch at most. It is part of the study because it
            decides rounding, so that a study that was interrupted gives the same bits.
        layers_together: how many neighbouring layers one worker walks through, keeping activations.
        threads: of each worker, for the same reason part of the study.
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``.
        out: the folder that `sweep` last wrote to; decides nothing.
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
    together: int = 4
    layers_together: int = 4
    threads: int = 1
    device: str = "auto"
    name: str = "study"
    out: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for word in ("networks", "tasks", "methods", "recipes", "seeds"):
            value = getattr(self, word)
            if isinstance(value, str | bytes) or not isinstance(value, Sequence):
                value = (value,)
            if not value:
                raise InputError(f"the study has no {word}; give at least one")
            setattr(self, word, tuple(value))
        self.networks = tuple(_spec(item, "network", _NETWORK_WORDS) for item in self.networks)
        self.tasks = tuple(_spec(item, "task", _TASK_WORDS) for item in self.tasks)
        self.methods = tuple(
            getattr(m, "name", m) if isinstance(m, type) else m for m in self.methods
        )
        self._check_numbers()
        self.layers = _layers(self.layers)
        self.search = _search(self.search)
        if self.protocol not in ("standard", "vtab"):
            raise InputError(f"protocol is {self.protocol!r}; expected 'standard' or 'vtab'")
        if self.equal not in (None, "parameters"):
            raise InputError(f"equal is {self.equal!r}; expected 'parameters' or nothing")

    def _check_numbers(self) -> None:
        for seed in (*self.seeds, self.search_seed):
            if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
                raise InputError(f"a seed is {seed!r}; expected whole numbers from 0 up")
        if len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)} name one twice; expected different ones")
        for word in ("together", "layers_together", "threads"):
            value = getattr(self, word)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{word} is {value!r}; expected a whole number from 1 up")

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """Read a study file; paths in it are relative to the file's own folder.

        Raises:
            InputError: no such file, not TOML, or a key that a study does not have.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the study {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}") from None
        try:
            return cls.from_dict(values, base=path.parent)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: Path | None = None) -> Study:
        """A study from plain values, as they come out of a TOML file.

        ``recipe``, ``network``, ``task``, ``method`` and ``seed`` may stand for the plural with
        one entry. ``base`` is the folder that relative file names start from.
        """
        values = dict(values)
        for one in ("network", "task", "method", "recipe", "seed"):
            many = one + "s"
            if one in values:
                if many in values:
                    raise InputError(f"the study has both {one} and {many}; keep one of them")
                values[many] = [values.pop(one)]
        known = [item.name for item in fields(cls)]
        for word in values:
            if word not in known:
                raise InputError(f"a study has no {word!r}; {_near(word, known)}")
        for word in ("networks", "tasks"):
            if word not in values:
                raise InputError(f"the study has no {word}; add a line {word} = [...]")
        if base is not None:
            values["networks"] = [_rebase(item, base) for item in _several(values["networks"])]
            values["tasks"] = [_rebase(item, base) for item in _several(values["tasks"])]
        return cls(**values)


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"


def _spec(item: Any, kind: str, words: Sequence[str]) -> Any:
    """A table of plain values for a name or a table; objects (networks, tasks) stay themselves."""
    if isinstance(item, str):
        return {"name": item}
    if not isinstance(item, Mapping):
        return item
    for word in item:
        if word not in words:
            raise InputError(f"a {kind} has no {word!r}; {_near(word, words)}")
    if not any(word in item for word in ("name", "factory")):
        raise InputError(f"a {kind} has no name: {dict(item)!r}")
    return dict(item)


def _rebase(item: Any, base: Path) -> Any:
    """The same entry with its file names made relative to ``base`` instead of to nothing."""
    if isinstance(item, str):
        kind, colon, rest = item.partition(":")
        if colon and kind in ("folder", "npz"):
            return f"{kind}:{_path(rest, base)}"
        return item
    if not isinstance(item, Mapping):
        return item
    item = dict(item)
    if isinstance(item.get("name"), str):
        item["name"] = _rebase(item["name"], base)
    weights = item.get("weights")
    if isinstance(weights, str) and weights not in ("pretrained", "random"):
        item["weights"] = _path(weights, base)
    return item


def _path(text: str, base: Path) -> str:
    path = Path(text).expanduser()
    return str(path if path.is_absolute() else base / path)


def _layers(layers: Any) -> Any:
    """Text, or a tuple of what may name a place; which network has it is seen in the plan."""
    if isinstance(layers, str):
        return layers
    chosen = tuple(layers) if isinstance(layers, Sequence) else (layers,)
    for layer in chosen:
        if isinstance(layer, bool) or not isinstance(layer, int | float | str):
            raise InputError(
                f"layers has {layer!r}; expected 'all', 'blocks', or places: indices, names, "
                "fractions of the depth from 0.0 to 1.0"
            )
    if not chosen:
        raise InputError("layers is empty; give 'all', 'blocks', or some places")
    return chosen


def _search(search: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    grid = {}
    for word, values in dict(search).items():
        if word not in _SEARCHED:
            raise InputError(f"search has no {word!r}; {_near(word, _SEARCHED)}")
        numbers = tuple(values) if isinstance(values, Sequence) else (values,)
        if not numbers or not all(isinstance(n, int | float) and n >= 0 for n in numbers):
            raise InputError(f"search.{word} is {values!r}; expected a list of numbers from 0 up")
        grid[word] = tuple(float(number) for number in numbers)
    return grid

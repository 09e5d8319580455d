"""The options that verbs share: their types, and the groups that go together.

A verb that takes a group (``options: NetworkOptions``) has all of its options; `app.with_groups`
takes the group apart for the command line.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from aptheory.checked import expanded, shown
from aptheory.errors import InputError
from aptheory.writing import only_writer, refuse_no_file

_log = logging.getLogger("aptheory")

_NETWORK = "a timm model name, or module:function that returns a torch module"
Network = Annotated[str, typer.Argument(metavar="NETWORK", help=_NETWORK)]
Networks = Annotated[list[str], typer.Argument(metavar="NETWORK...", help=_NETWORK)]
Tasks = Annotated[
    list[str], typer.Option("--task", "-t", help="a task's name, folder:PATH or npz:PATH; repeat")
]
Task = Annotated[
    str, typer.Option("--task", "-t", help="a task's name, folder:PATH, npz:PATH or another place")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder of the results; continued if there")]
Layers = Annotated[
    str, typer.Option(help="all, indices such as 0,3,7, or fractions such as 0.0,0.5,1.0")
]
Methods = Annotated[
    list[str], typer.Option("--method", "-m", help="such as ap, vpt:tokens=5, norm_tuning; repeat")
]
Measures = Annotated[str | None, typer.Option(help="metrics, by commas")]
Seed = Annotated[int, typer.Option(min=0, max=2**62)]
Images = Annotated[int, typer.Option(min=1, help="training images that the profile looks at")]


@dataclass(kw_only=True)
class NetworkOptions:
    """How a network is loaded."""

    weights: Annotated[
        str, typer.Option(help="pretrained, random, or a safetensors or state-dict file")
    ] = "pretrained"
    granularity: Annotated[str, typer.Option(help="block or stage")] = "block"
    input_shape: Annotated[
        str | None, typer.Option(help="channels,height,width of the image, such as 3,224,224")
    ] = None
    mean: Annotated[str | None, typer.Option(help="of the pixels, a channel each: 0.5,0.5,0.5")] = (
        None
    )
    std: Annotated[str | None, typer.Option(help="as --mean")] = None
    classifier: Annotated[
        str | None, typer.Option(help="name of the module that is the classifier, or none")
    ] = None
    blocks: Annotated[
        str | None, typer.Option(help="name of the list of blocks, or the blocks' names by commas")
    ] = None
    prefix: Annotated[
        int | None, typer.Option(help="tokens in front that are no positions; -1: one behind")
    ] = None
    layout: Annotated[str | None, typer.Option(help="map, map_last or tokens")] = None
    output: Annotated[
        str | None, typer.Option(help="which field of what the network returns: name or index")
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(help="key=value, an argument of timm's or of the function; repeat"),
    ] = None

    def spec(self, name: str) -> dict[str, Any]:
        """The entry of ``Study.networks`` for a name or ``module:function``."""
        from aptheory.studies.sources import maker

        values = {
            "input_shape": _numbers("--input-shape", self.input_shape, int),
            "mean": _numbers("--mean", self.mean, float),
            "std": _numbers("--std", self.std, float),
            "classifier": self.classifier,
            "blocks": self.blocks.split(",") if self.blocks else None,
            "prefix": self.prefix,
            "layout": self.layout,
            "output": self.output,
            "options": _pairs(self.option) if self.option else None,
        }
        chosen = {key: value for key, value in values.items() if value is not None}
        return {**maker(name), "weights": self.weights, "granularity": self.granularity, **chosen}


def _numbers(option: str, text: str | None, kind: type) -> list[Any] | None:
    """The numbers between commas."""
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is {text!r}; give numbers such as 3,224,224.") from None


def _pairs(texts: list[str]) -> dict[str, Any]:
    pairs = [_pair(text) for text in texts]
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"--option sets {shown(twice[0])} twice; give it once.")
    return dict(pairs)


def _pair(text: str) -> tuple[str, Any]:
    """A key and its value: a number, True, a tuple, or else the text itself."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--option is {text!r}; give key=value.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


@dataclass(kw_only=True)
class DeviceOptions:
    """Where the arithmetic happens."""

    device: Annotated[
        str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 or mps")
    ] = "auto"
    precision: Annotated[
        str,
        typer.Option(help="float32, bfloat16, float16, or auto: bfloat16 where it is faster here"),
    ] = "float32"

    def recipe(self, name: str = "quick", **changes: Any) -> Any:
        """The recipe of that name in this precision."""
        from aptheory.training.recipe import Recipe

        return Recipe.named(name, precision=self.precision, **changes)

    def measured(self, net: Any) -> DeviceOptions:
        """The same with a precision that was measured on ``net``, where it is "auto"."""
        if self.precision != "auto":
            return self
        from aptheory.training.pace import fastest_precision

        precision, ratio = fastest_precision(net)
        _log.info(
            "precision %s: bfloat16 takes %.2f of float32's time on %s, as measured now",
            *(precision, ratio, net.device),
        )
        return replace(self, precision=precision)

    def measured_on(self, spec: Any) -> DeviceOptions:
        """As `measured`, on the network that ``spec`` names, which is loaded if it must be."""
        if self.precision != "auto":
            return self
        from aptheory.devices import device_of
        from aptheory.studies.sources import load_network

        return self.measured(load_network(spec).to(device_of(self.device)))

    def placed(self, planned: Any) -> Any:
        """A study on this device, where one was named."""
        if self.device == "auto":
            return planned
        return replace(planned, runtime=replace(planned.runtime, device=self.device))


DecodingThreads = Annotated[
    int | None, typer.Option("--workers", min=1, help="threads that decode pictures")
]


@dataclass(kw_only=True)
class TaskOptions:
    """Which images of a task are used."""

    subset: Annotated[
        str | None,
        typer.Option("--subset", help="train,val,test sizes of a seeded, balanced subset"),
    ] = None
    group: Annotated[
        str | None,
        typer.Option(help="column of a table; rows of one value stay on one side of every split"),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(help="network, center, squash or border, instead of the task's own way"),
    ] = None

    def spec(self, name: str) -> dict[str, Any]:
        """The entry of ``Study.tasks`` for a name or place."""
        chosen = {"group": self.group, "resize": self.resize}
        spec: dict[str, Any] = {
            "name": name,
            **{word: value for word, value in chosen.items() if value},
        }
        if self.subset is not None:
            sizes = self.subset.split(",")
            if len(sizes) != 3 or not all(re.fullmatch("[0-9]{1,9}", size) for size in sizes):
                raise InputError(f"--subset is {self.subset!r}; give three numbers: 500,200,500.")
            spec |= dict(zip(("train", "val", "test"), map(int, sizes), strict=True))
        return spec


Redraw = Annotated[
    bool, typer.Option("--redraw", help="each seed draws its own training and validation images")
]


@dataclass(kw_only=True)
class TrainingOptions:
    """How the runs of a study are trained."""

    layers: Layers = "all"
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="how many seeds, from 0 up")] = 3
    recipe: Annotated[str, typer.Option(help="quick, paper_ap, vpt or vapt")] = "quick"
    epochs: Annotated[
        int | None, typer.Option(min=1, help="instead of the recipe's own number")
    ] = None
    redraw: Redraw = False

    def recipe_of(self, precision: str) -> Any:
        """The `Recipe` that the options describe."""
        from aptheory.training.recipe import Recipe

        return Recipe.named(self.recipe, precision=precision, **self.changes())

    def changes(self) -> dict[str, Any]:
        """What of the recipe is not its own."""
        epochs = {} if self.epochs is None else {"epochs": self.epochs}
        return {**epochs, **({"redraw": True} if self.redraw else {})}


Tracker = Annotated[
    str | None,
    typer.Option(help="tensorboard[:FOLDER], mlflow[:EXPERIMENT] or wandb[:PROJECT]"),
]


@dataclass(kw_only=True)
class EngineOptions:
    """Who trains the runs of a study; decides no result."""

    engine: Annotated[str, typer.Option(help="processes, ray, or here (this process)")] = (
        "processes"
    )
    workers: Annotated[int | None, typer.Option(min=1, help="jobs at once")] = None
    address: Annotated[str | None, typer.Option(help="of a Ray cluster")] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="run again what failed before")
    ] = False
    tracker: Tracker = None

    def __post_init__(self) -> None:
        self._untold: list[str] = []

    def settings(self) -> dict[str, Any]:
        """The options as `sweep` takes them; refuses a tracker that is not there."""
        from aptheory.studies.trackers import named

        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.tracker is None:
            return chosen
        tell = named(self.tracker)

        def told(record: dict[str, Any]) -> None:
            try:
                tell(record)
            except Exception:  # becomes a warning, and decides how the command ends
                self._untold.append(record["key"])
                raise

        return {**chosen, "tracker": told}

    def exit_if_untold(self) -> None:
        """End with exit code 1 where the tracker was not told of every run."""
        if self._untold:
            runs = f"{len(self._untold)} run{'s' if len(self._untold) > 1 else ''}"
            _log.warning("%s was not told of %s; the results are kept", self.tracker, runs)
            raise typer.Exit(1)


def study(
    networks: list[str],
    tasks: list[str],
    network_options: NetworkOptions,
    task_options: TaskOptions,
    on: DeviceOptions,
    training: TrainingOptions | None = None,
    methods: list[str] | None = None,
) -> Any:
    """The `Study` that the options describe."""
    from aptheory.studies.runtime import Runtime
    from aptheory.studies.study import Study

    training = training or TrainingOptions()
    on = on.measured_on(network_options.spec(networks[0]))
    changes = training.changes()
    if on.precision != "float32":
        changes["precision"] = on.precision
    recipe: Any = {"name": training.recipe, **changes} if changes else training.recipe
    return Study(
        name="run",
        networks=[network_options.spec(name) for name in networks],
        tasks=[task_options.spec(name) for name in tasks],
        methods=methods or ["ap"],
        layers=places(training.layers),
        recipes=[recipe],
        seeds=range(training.seeds),
        runtime=Runtime(device=on.device),
    )


def places(text: str) -> Any:
    """ "all", "blocks", or the places between commas."""
    return text if "," not in text else [part.strip() for part in text.split(",")]


def sources(*tasks: str) -> list[Path]:
    """The files and folders that these tasks are read from."""
    from aptheory.tasks.catalogue import source_of

    return [path for path in map(source_of, tasks) if path is not None]


WRITTEN = (".csv", ".json", ".toml", ".html", ".safetensors", ".pt2", ".onnx", ".steps")
"""Files of a folder of data that an earlier command may have left there."""


def spare(path: Path, reads: Iterable[Path], option: str = "--out") -> None:
    """Refuse to write over what is read.

    Raises:
        InputError: the file is one of ``reads``, or lies in a folder among them and is no such as
            a command writes; it is called as a picture is.
    """
    from aptheory.tasks.readers.suffixes import suffix_of

    place = os.path.realpath(path)
    for read in map(os.path.realpath, map(expanded, reads)):
        within = os.path.isdir(read) and place.startswith(os.path.join(read, ""))
        of_data = within and os.path.exists(place) and suffix_of(place) not in WRITTEN
        if place == read or of_data:
            raise InputError(
                f"{option} {path} is a file that this command reads; name another file."
            )
    if _is_picture(place):
        raise InputError(
            f"{option} {path} is called as a picture is; name a file of another suffix."
        )


def _is_picture(place: str) -> bool:
    from aptheory.tasks.readers.suffixes import PLUGINS, SUFFIXES, suffix_of

    return suffix_of(place) in {*SUFFIXES, *PLUGINS}


@contextlib.contextmanager
def reserved(path: Path | None, *reads: Path, also: Iterable[Path] = ()) -> Iterator[None]:
    """Keep the place of a file for this command, before anything is spent on what goes there.

    ``also`` are written beside it.

    Raises:
        InputError: one is among what is read, cannot be written, or another command is writing it.
    """
    with contextlib.ExitStack() as stack:
        if path is not None:
            for target in (path, *also):
                refuse_no_file(target)
                spare(target, reads)
            try:
                folder = path.absolute().parent
                made = [each for each in (folder, *folder.parents) if not each.exists()]
                stack.push(lambda kind, *_: _remove_empty(made) if kind else None)
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(only_writer(path))
            except OSError as error:
                raise InputError(f"{path} cannot be written ({_why(path, error)}).") from error
        yield


def _why(path: Path, error: OSError) -> str:
    above = next((each for each in path.absolute().parents if os.path.lexists(each)), None)
    if above is not None and not above.is_dir():
        return f"{above} is no folder; name another"
    return f"{error.strerror}; name another"


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove what a refused command made and put nothing into: folders, the inner ones first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for each in (*folder.iterdir(), folder):
                if each.is_dir():
                    each.rmdir()

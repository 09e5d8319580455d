"""The options that verbs share: their types, and the groups that go together.

A verb that takes a group (``options: NetworkOptions``) has all of its options; `app.with_groups`
takes the group apart for the command line.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from aptheory.errors import InputError

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

    def spec(self, name: str) -> dict[str, Any]:
        """The entry of ``Study.networks`` for a name or ``module:function``."""
        kind = "factory" if ":" in name else "name"
        return {kind: name, "weights": self.weights, "granularity": self.granularity}


@dataclass(kw_only=True)
class DeviceOptions:
    """Where the arithmetic happens."""

    device: Annotated[
        str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 or mps")
    ] = "auto"
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32"


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

    def spec(self, name: str) -> dict[str, Any]:
        """The entry of ``Study.tasks`` for a name or place."""
        spec: dict[str, Any] = {"name": name}
        if self.subset is not None:
            sizes = self.subset.split(",")
            if len(sizes) != 3 or not all(re.fullmatch("[0-9]{1,9}", size) for size in sizes):
                raise InputError(f"--subset is {self.subset!r}; give three numbers: 500,200,500.")
            spec |= dict(zip(("train", "val", "test"), map(int, sizes), strict=True))
        return spec


@dataclass(kw_only=True)
class TrainingOptions:
    """How the runs of a study are trained."""

    layers: Layers = "all"
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="how many seeds, from 0 up")] = 3
    recipe: Annotated[str, typer.Option(help="quick, paper_ap, vpt or vapt")] = "quick"
    epochs: Annotated[
        int | None, typer.Option(min=1, help="instead of the recipe's own number")
    ] = None

    def recipe_of(self, precision: str) -> Any:
        """The `Recipe` that the options describe."""
        from aptheory.training.recipe import Recipe

        changes = {} if self.epochs is None else {"epochs": self.epochs}
        return Recipe.named(self.recipe, precision=precision, **changes)


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


def study(
    networks: list[str],
    tasks: list[str],
    network_options: NetworkOptions,
    task_options: TaskOptions,
    training: TrainingOptions | None = None,
    methods: list[str] | None = None,
) -> Any:
    """The `Study` that the options describe."""
    from aptheory.studies.study import Study

    training = training or TrainingOptions()
    recipe: Any = training.recipe
    if training.epochs is not None:
        recipe = {"name": recipe, "epochs": training.epochs}
    return Study(
        name="run",
        networks=[network_options.spec(name) for name in networks],
        tasks=[task_options.spec(name) for name in tasks],
        methods=methods or ["ap"],
        layers=places(training.layers),
        recipes=[recipe],
        seeds=range(training.seeds),
    )


def places(text: str) -> Any:
    """ "all", "blocks", or the places between commas."""
    return text if "," not in text else [part.strip() for part in text.split(",")]

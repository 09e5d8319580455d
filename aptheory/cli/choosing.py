"""Verbs that choose the layer to prompt and the layer to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aptheory.cli.application import echo, verb
from aptheory.cli.options import (
    DeviceOptions,
    Layers,
    Network,
    NetworkOptions,
    Seed,
    Task,
    TaskOptions,
    TrainingOptions,
    places,
    reserved,
    sources,
)


@verb
def recommend(
    network: Network,
    task: Task,
    options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    images: Annotated[int, typer.Option(min=10, help="labelled images that are looked at")] = 256,
    budget: Annotated[
        float | None,
        typer.Option(
            max=1, help="share of a full sweep's cost to spend on trials, above 0, such as 0.1"
        ),
    ] = None,
    read: Annotated[
        bool,
        typer.Option(
            "--read/--no-read",
            help="choose the place to read as well, from trained layer probes and a few prompts",
        ),
    ] = False,
    seed: Seed = 0,
) -> None:
    """Name the layer to prompt without a sweep, and where to prompt and read for a small one."""
    from aptheory.choosing.places import recommend_places
    from aptheory.choosing.recommend import recommend_layer
    from aptheory.devices import device_of
    from aptheory.studies.sources import load_network, load_task

    net = load_network(options.spec(network)).to(device_of(on.device))
    opened = load_task(images_of.spec(task))
    recipe = on.recipe()
    echo(recommend_layer(net, opened, images=images, budget=budget, recipe=recipe, seed=seed))
    if read:
        places_to_use = recommend_places(net, opened, recipe=recipe, seed=seed)
        echo(f"\nPrompt here and read there:\n{places_to_use}")


MAP_FILES = ("map_runs.csv", "map.steps", "settings.json", "report.html")
"""What a map writes beside its table and its picture."""


@dataclass(kw_only=True)
class MapOptions(TrainingOptions):
    """How the cells of a map are trained."""

    layers: Layers = "blocks"


@verb
def map(
    network: Network,
    task: Task,
    options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    training: MapOptions,
    reads: Annotated[
        str | None, typer.Option(help="places that are read, as --layers; those by default")
    ] = None,
    halving: Annotated[
        bool,
        typer.Option("--halving/--all-cells", help="drop bad cells early, or train all to the end"),
    ] = True,
    judge: Annotated[
        str | None,
        typer.Option(help="what is better on validation images: accuracy or loss"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="folder that gets the tables, the picture and the page"),
    ] = None,
) -> None:
    """Draw the map of a network and a task: accuracy over the prompted and the read layer.

    With --out, the same command goes on where it was interrupted.
    """
    from aptheory.devices import device_of
    from aptheory.exploration import holds_run, write_map
    from aptheory.findings.layer_map import layer_map
    from aptheory.studies.settings import check_is_about
    from aptheory.studies.sources import load_network, load_task

    steps = None if out is None else out / "map.steps"
    written = [] if out is None else [out / name for name in MAP_FILES]
    with reserved(out and out / "map.csv", *sources(task), also=written):
        net = load_network(options.spec(network)).to(device_of(on.device))
        images = load_task(images_of.spec(task))
        if out is not None and holds_run(out):
            check_is_about(out, net, images)
        chart = layer_map(
            net,
            images,
            layers=places(training.layers),
            reads=None if reads is None else places(reads),
            recipe=training.recipe_of(on.measured(net).precision),
            seeds=range(training.seeds),
            halving=halving,
            judge=judge,
            steps=steps,
        )
        echo(chart)
        if out is not None:
            echo(f"\n{write_map(chart, images, out)}")


@dataclass(kw_only=True)
class NormOptions:
    """At which places, at which rates and how long prompts and norms are trained."""

    layers: Layers = "blocks"
    lr: Annotated[
        list[float] | None, typer.Option(help="learning rates, validation chooses; repeat")
    ] = None
    recipe: Annotated[str, typer.Option(help="quick, paper_ap, vpt or vapt")] = "quick"
    epochs: Annotated[
        int | None, typer.Option(min=1, help="instead of the recipe's own number")
    ] = None


@verb
def compare_norm(
    network: Network,
    task: Task,
    options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    training: NormOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder of the three tables")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Compare prompts with the normalisation at the same places, and say what they share.

    With --out, the same command goes on where it was interrupted.
    """
    from aptheory.devices import device_of
    from aptheory.findings.norm_and_prompt import RATES, compare_norm
    from aptheory.studies.files import write_together
    from aptheory.studies.sources import load_network, load_task
    from aptheory.studies.tables import csv_text

    names = ("table", "parts", "backwards")
    tables = [] if out is None else [out / f"{name}.csv" for name in names]
    steps = None if out is None else out / "table.steps"
    written = [*tables, steps] if steps else []
    with reserved(tables[0] if tables else None, *sources(task), also=written):
        changes = {} if training.epochs is None else {"epochs": training.epochs}
        comparison = compare_norm(
            load_network(options.spec(network)).to(device_of(on.device)),
            load_task(images_of.spec(task)),
            layers=places(training.layers),
            recipe=on.recipe(training.recipe, **changes),
            lrs=training.lr or RATES,
            seed=seed,
            steps=steps,
        )
        echo(comparison)  # what was measured is told, whatever becomes of the files
        if tables:
            texts = (csv_text(getattr(comparison, name)) for name in names)
            write_together(dict(zip(tables, texts, strict=True)))

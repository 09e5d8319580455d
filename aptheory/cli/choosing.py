"""Verbs that choose the layer to prompt."""

from typing import Annotated

import typer

from aptheory.cli.app import verb
from aptheory.cli.options import DeviceOptions, Network, NetworkOptions, Seed, Task, TaskOptions


@verb
def recommend(
    network: Network,
    task: Task,
    options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    images: Annotated[int, typer.Option(min=10, help="labelled images that are looked at")] = 256,
    budget: Annotated[
        float | None, typer.Option(help="share of a full sweep's cost to spend on trials")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Name the layer to prompt without a sweep: a ranked table with its reasons."""
    from aptheory.choosing.recommend import recommend_layer
    from aptheory.devices import device_of
    from aptheory.studies.sources import load_network, load_task

    net = load_network(options.spec(network)).to(device_of(on.device))
    chosen = recommend_layer(
        net,
        load_task(images_of.spec(task)),
        images=images,
        budget=budget,
        recipe=on.recipe(),
        seed=seed,
    )
    typer.echo(chosen)

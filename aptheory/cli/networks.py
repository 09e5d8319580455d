"""Verbs that look at a network: its layers, what they measure, what methods on it cost."""

from pathlib import Path
from typing import Annotated

import typer

from aptheory.cli.application import echo, verb
from aptheory.cli.options import (
    DeviceOptions,
    Images,
    Measures,
    Network,
    NetworkOptions,
    Networks,
    Out,
    Seed,
    Task,
    TaskOptions,
    Tasks,
    reserved,
    sources,
    study,
)


@verb
def layers(network: Network, options: NetworkOptions) -> None:
    """Print a network as the list of its layers."""
    from aptheory.studies.sources import load_network

    echo(load_network(options.spec(network)))


@verb
def profile(
    networks: Networks,
    task: Tasks,
    out: Out,
    options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    measures: Measures = None,
    images: Images = 512,
    seed: Seed = 0,
) -> None:
    """Measure every metric at every layer, in one pass over the images."""
    from aptheory.devices import autocast, device_of
    from aptheory.exploration import MEASURES, profile_study
    from aptheory.studies.settings import check_belongs

    with reserved(out / "profile.csv", *sources(*task)):
        wanted = tuple(measures.split(",")) if measures else MEASURES
        on = on.measured_on(options.spec(networks[0]))
        opened = study(networks, task, options, images_of, on).open()
        check_belongs(out, opened)
        with autocast(device_of(on.device), on.precision):
            table = profile_study(opened, out, measures=wanted, images=images, seed=seed)
        echo(f"{len(table)} values in {out / 'profile.csv'}")


@verb
def shift(
    network: Network,
    task: Task,
    options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    reference: Annotated[
        str | None,
        typer.Option(help="a task of images like the pretraining's; needed without BatchNorm"),
    ] = None,
    images: Images = 512,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder of the table")] = None,
    seed: Seed = 0,
) -> None:
    """Measure layer by layer how far a task lies from the pretraining, without labels."""
    from aptheory.devices import autocast, device_of
    from aptheory.exploration import write_table
    from aptheory.profiling.profile import profile
    from aptheory.studies.sources import load_network, load_task

    with reserved(out and out / "shift.csv", *sources(task)):
        net = load_network(options.spec(network)).to(device_of(on.device))
        pictures = load_task(images_of.spec(task))
        with autocast(net.device, on.precision):
            table = profile(
                net,
                pictures,
                measures=("moment_shift",),
                reference=None if reference is None else load_task({"name": reference}),
                limit=images,
                seed=seed,
            )
        if out is not None:
            write_table(table, out / "shift.csv")
    shown = table[["layer", "layer_name", "depth", "value", "low", "high"]]
    origin = "BatchNorm's running moments" if reference is None else f"the images of {reference}"
    echo(
        f"{net.name} on {task}: shift of each channel from {origin}, in standard deviations there "
        f"(0: the same mean and spread), of {min(images, len(pictures.train))} training images; "
        "low and high: 95 %\n"
        + shown.rename(columns={"value": "shift"}).to_string(
            index=False, float_format="{:.3f}".format
        )
    )


@verb
def cost(
    network: Network,
    methods: Annotated[list[str], typer.Argument(help="such as ap:layer=3, vpt:tokens=10")],
    options: NetworkOptions,
    on: DeviceOptions,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    classes: Annotated[int, typer.Option(min=1)] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder of the table")] = None,
) -> None:
    """Predict and measure what methods cost: parameters, FLOPs, time, memory, throughput."""
    from aptheory.devices import device_of
    from aptheory.exploration import write_table
    from aptheory.methods import parse
    from aptheory.studies.sources import load_network
    from aptheory.training.cost import cost as measure

    with reserved(out and out / "cost.csv"):
        net = load_network(options.spec(network)).to(device_of(on.device))
        table = measure(
            net,
            [parse(method) for method in methods],
            batch_size=batch_size,
            classes=classes,
            precision=on.measured(net).precision,
        )
        if out is not None:
            write_table(table, out / "cost.csv")
        echo(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))

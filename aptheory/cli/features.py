"""The verb of those who want features and nothing else."""

from pathlib import Path
from typing import Annotated, Any

import typer

from aptheory.cli.application import echo, verb
from aptheory.cli.options import (
    DeviceOptions,
    Layers,
    Network,
    NetworkOptions,
    Task,
    TaskOptions,
    places,
    reserved,
    sources,
)
from aptheory.errors import InputError


@verb
def extract(
    network: Network,
    task: Task,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the files")],
    network_options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    layers: Layers = "all",
    split: Annotated[str, typer.Option(help="train, val, test or all")] = "all",
    pooled: Annotated[str, typer.Option(help="mean, class, all, or none: as they are")] = "mean",
    form: Annotated[str, typer.Option("--format", help="npz or parquet")] = "npz",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """Write the features of layers to files, a batch at a time."""
    from aptheory.devices import autocast, device_of
    from aptheory.profiling.extraction import FORMATS, SPLITS, extract_to
    from aptheory.studies.sources import load_network, load_task

    if split not in (*SPLITS, "all"):
        raise InputError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}, all.")
    if form not in FORMATS:
        raise InputError(f"--format is {form!r}; expected one of {', '.join(FORMATS)}.")
    how: Any = None if pooled == "none" else pooled
    splits = SPLITS if split == "all" else (split,)
    files = [out / f"{name}.{form}" for name in splits]
    with reserved(out / "features.json", *sources(task), also=files):
        net = load_network(network_options.spec(network)).to(device_of(on.device))
        with autocast(net.device, on.measured(net).precision):
            files = extract_to(
                net,
                load_task(images_of.spec(task)),
                out,
                layers=places(layers),
                splits=splits,
                pooled=how,
                form=form,
                batch_size=batch_size,
                progress=True,
            )
        for file in files:
            echo(file)

"""Verbs that list what there is, a line each, and say what this machine has."""

import os
import platform
from typing import Annotated

import typer

from aptheory.cli.application import echo, verb

SHOWN = 40


@verb
def networks(
    pattern: Annotated[
        str, typer.Argument(help="a part of the name, or as 'resnet*' and '*vit*small*'")
    ] = "",
) -> None:
    """List the networks by name: packaged, of timm, torchvision, open_clip and Hugging Face."""
    from aptheory.networks.sources import list_networks

    table = list_networks(pattern or None)
    packaged = table["source"] == "aptheory"
    for name in table["name"][packaged]:
        echo(f"{name}: packaged with its weights, small")
    others = table[~packaged]
    if pattern:
        for row in others.itertuples():
            weights = "pretrained" if row.pretrained else "no weights"
            echo(f"{row.name}: {row.source}, {weights}")
    else:
        counts = others.groupby("source", sort=False).size()
        echo(
            f"and {', '.join(f'{count:,} of {source}' for source, count in counts.items())}: give "
            "a pattern such as resnet*, or torchvision:"
        )
    if table.empty:
        echo(f"no network matches {pattern!r}; `aptheory networks` says which there are")
        raise typer.Exit(1)


@verb
def methods() -> None:
    """List the methods, with their settings."""
    from dataclasses import fields

    from aptheory.methods import METHODS

    for name, method in METHODS.items():
        summary = (method.__doc__ or "").strip().split("\n")[0].rstrip(".")
        settings = ", ".join(field.name for field in fields(method))
        echo(f"{name}: {summary}" + (f" ({settings})" if settings else ""))


@verb
def recipes() -> None:
    """List the recipes, with what they train with."""
    from aptheory.training.recipe import Recipe, recipe_names

    for name in recipe_names():
        recipe = Recipe.named(name)
        echo(
            f"{name}: {recipe.optimizer}, lr {recipe.lr:g}, {recipe.epochs} epochs, batches of "
            f"{recipe.batch_size}, {recipe.schedule}, weight decay {recipe.weight_decay:g}"
        )


@verb
def measures() -> None:
    """List what a profile can measure at every layer."""
    from aptheory.metrics.registry import MEASURES
    from aptheory.profiling.watchers import known_measures

    for name in known_measures():
        if name not in MEASURES:
            echo(name)
            continue
        measure = MEASURES[name]
        unit = f" ({measure.unit})" if measure.unit else ""
        echo(f"{name}{unit}: greater means {measure.greater_means}; {measure.source}")


@verb
def env() -> None:
    """Say what this machine has: versions, devices, threads, caches."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from aptheory.devices import device_name, device_of
    from aptheory.tasks.cache import cache_folder, data_folder
    from aptheory.version import __version__

    echo(f"aptheory {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pandas"):
        try:
            echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            echo(f"{package} is not installed")
    echo(f"device: {device_name(device_of('auto'))} ({torch.cuda.device_count()} GPUs)")
    echo(f"threads: {torch.get_num_threads()} of {os.cpu_count()} cores")
    echo(f"data sets: {data_folder()}")
    echo(f"cache: {cache_folder()}")

"""How a module's publisher prepares its pictures: read from what the module carries with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from aptheory.errors import InputError
from aptheory.preprocessing import Transform

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ASSUMED = "assumed, since the module has no configuration: say mean=, std=, crop=, interpolation="

Configuration = dict[str, Any]
"""``input_size`` (channels, height, width), ``mean``, ``std``, ``crop``, ``resize``,
``interpolation``, ``source``; what is not known is left out."""


def configuration(module: nn.Module) -> Configuration:
    """The configuration that a module, or the outermost of its parts that has one, carries; {}
    where none does. A wrapper changes neither the pictures nor who published the network."""
    for name, part in module.named_modules():
        for read in READERS:
            values = read(part)
            if values:
                of = f", of its part {name}" if name else ""
                return {**values, "source": values["source"] + of}
    return {}


def transform_for(
    configured: Mapping[str, Any], shape: tuple[int, int, int], given: Mapping[str, Any]
) -> Transform:
    """The transform of a network for images of ``shape``: the configuration's, but for what was
    ``given`` by hand (None: not given)."""
    chosen = {name: value for name, value in given.items() if value is not None}
    values = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "source": ASSUMED, **configured, **chosen}
    values.pop("input_size", None)
    for name in ("mean", "std"):
        values[name] = _per_channel(name, values[name], shape[0])
    return Transform(size=shape[1:], chosen=frozenset(chosen), **values)


def _per_channel(name: str, values: Sequence[float] | float, channels: int) -> tuple[float, ...]:
    """One value a channel; their mean for images of another number of channels."""
    each = tuple(values) if isinstance(values, Sequence) else (values,)
    if not each or not all(isinstance(n, int | float) for n in each):
        raise InputError(f"{name} is {values!r}; expected one number for each channel.")
    return each if len(each) == channels else (sum(each) / len(each),) * channels


def _timm(part: nn.Module) -> Configuration:
    if not getattr(part, "pretrained_cfg", None):
        return {}
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(part)
    return {
        "input_size": config["input_size"],
        "mean": config["mean"],
        "std": config["std"],
        "crop": config["crop_pct"],
        "resize": config["crop_mode"],
        "interpolation": config["interpolation"],
        "source": "timm's configuration",
    }


def _open_clip(part: nn.Module) -> Configuration:
    config = getattr(part, "preprocess_cfg", None)
    if not isinstance(config, Mapping) or "mean" not in config:
        return {}
    sides = config.get("size", 224)
    height, width = (sides, sides) if isinstance(sides, int) else sides
    resize = {"squash": "squash", "longest": "border"}.get(config.get("resize_mode", ""), "center")
    return {
        "input_size": (3, height, width),
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "resize": resize,
        "interpolation": config.get("interpolation", "bicubic"),
        "source": "open_clip's configuration",
    }


READERS: tuple[Callable[[nn.Module], Configuration], ...] = (_timm, _open_clip)

"""How a module's publisher prepares its pictures: read from what the module carries with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.preprocessing import Transform, check_scaling

PREPROCESSOR = "preprocessor_config.json"
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
        if name in chosen and np.size(chosen[name]) not in (1, shape[0]):
            raise InputError(
                f"{name} is {shown(chosen[name])} for images of {shape[0]} channels; give one "
                "number for each channel."
            )
    check_scaling(values["mean"], values["std"])
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


def torchvisions(weights: Any) -> Configuration:
    """The configuration of one of torchvision's published weights, from their own transforms."""
    preset = weights.transforms()
    (side,), (scaled,) = preset.crop_size, preset.resize_size
    return {
        "input_size": (3, side, side),
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "crop": _crop(side, scaled),
        "resize": "center",
        "interpolation": preset.interpolation.value,
        "source": f"torchvision's {weights}",
    }


def _given(part: nn.Module) -> Configuration:
    """What a source of networks by name has left with the module."""
    return getattr(part, "configuration", None) or {}


PUBLISHED = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "hiera"), ("center", 256, "bicubic", 0)),
    **dict.fromkeys(("convnext", "convnextv2", "resnet"), ("center", 256, "bicubic", 0)),
    **dict.fromkeys(("swin", "swinv2"), ("squash", 224, "bicubic", 0)),
    **dict.fromkeys(("vit", "beit"), ("squash", 224, "bilinear", 1)),
    **dict.fromkeys(("siglip", "siglip_vision_model"), ("squash", 224, "bicubic", 1)),
    **dict.fromkeys(("clip", "clip_vision_model"), ("center", 224, "bicubic", 2)),
    "deit": ("squash", 256, "bicubic", 0),
    "vit_mae": ("squash", 224, "bilinear", 0),
    "dinov3_vit": ("squash", 224, "bilinear", 0),
}
"""By kind of a Hugging Face model: resize, scaled side for an image of 224, interpolation, and
which of `NORMALS` its first checkpoints were published with."""
NORMALS = (
    (IMAGENET_MEAN, IMAGENET_STD),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
)
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbers of its filters, which Hugging Face's files hold."""


def _transformers(part: nn.Module) -> Configuration:
    """A Hugging Face model: the file beside its weights, or else what its kind comes with."""
    config = getattr(part, "config", None)
    kind = getattr(config, "model_type", None)
    if not isinstance(kind, str) or not type(part).__module__.startswith("transformers."):
        return {}
    published = _preprocessor_file(str(getattr(config, "name_or_path", "") or ""))
    if published:
        return published
    if kind not in PUBLISHED:
        return {}
    resize, scaled, interpolation, normal = PUBLISHED[kind]
    mean, std = NORMALS[normal]
    return {
        "input_size": (3, 224, 224),
        "mean": mean,
        "std": std,
        "crop": _crop(224, scaled),
        "resize": resize,
        "interpolation": interpolation,
        "source": f"as Hugging Face's {kind} networks are published",
    }


def _preprocessor_file(name: str) -> Configuration:
    """preprocessor_config.json of a folder, or of a repository that is in the cache."""
    if not name:
        return {}
    path: Any = Path(name) / PREPROCESSOR
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            path = try_to_load_from_cache(name, PREPROCESSOR)
        except HFValidationError:
            return {}
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return _from_preprocessor(values) if isinstance(path, str | Path) else {}
    except (OSError, TypeError, ValueError, KeyError, IndexError):
        return {}


def _from_preprocessor(values: Mapping[str, Any]) -> Configuration:
    size = values["size"]
    crop = values.get("crop_size") if values.get("do_center_crop") else None
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if "crop_pct" in values:  # ConvNeXt's: the side is that of the image, not of the scaled picture
        side = edge or (size if isinstance(size, int) else size["height"])
        fraction, resize = (
            values["crop_pct"] if side < 384 else 1.0,
            "center" if side < 384 else "squash",
        )
    else:
        scaled = edge or (size if isinstance(size, int) else size["height"])
        side = scaled if crop is None else crop if isinstance(crop, int) else crop["height"]
        fraction, resize = _crop(side, scaled), "center" if edge else "squash"
    return {
        "input_size": (3, side, side),
        "mean": tuple(values["image_mean"]),
        "std": tuple(values["image_std"]),
        "crop": fraction,
        "resize": resize,
        "interpolation": _RESAMPLE[values.get("resample", 2)],
        "source": "Hugging Face's preprocessor_config.json",
    }


def _crop(side: int, scaled: int) -> float:
    """``side / scaled``, to the last bit so that side / crop is not below ``scaled``."""
    crop = side / scaled
    return crop if math.floor(side / crop) == scaled else math.nextafter(crop, 0)


READERS: tuple[Callable[[nn.Module], Configuration], ...] = (
    _given,
    _timm,
    _open_clip,
    _transformers,
)

"""What may enter a network: looked at before it runs, or explained where torch stops at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.networks.layer import Layer


def check_image(x: Any, name: str, shape: Sequence[int]) -> None:
    """Refuse what is no batch of images of ``shape``, which the network called ``name`` takes."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            f"{name} takes images as a floating-point tensor; `normalize` makes one of bytes."
        )
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(shape):
        raise InputError(
            f"{name} takes images of (batch, {', '.join(map(str, shape))}), not "
            f"{tuple(x.shape)}; resize them, or load it with input_shape="
        )


def check_evaluating(module: nn.Module, name: str) -> None:
    """Refuse a network in training mode: its BatchNorm statistics would move with every image, for
    good, and its dropout would be drawn."""
    if any(part.training for part in module.modules()):
        raise InputError(
            f"{name} is in training mode, in which BatchNorm moves and dropout is drawn; call "
            "net.eval() first (what training changed before, loading it anew brings back)."
        )


def check_gradients(module: nn.Module, name: str) -> None:
    """Refuse to train where torch's inference mode is on, or was when the tensors were made."""
    if torch.is_inference_mode_enabled():
        raise InputError("training needs gradients; call it outside of torch.inference_mode.")
    if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
        raise InputError(
            f"{name} was made under torch.inference_mode, and no gradient passes through its "
            "tensors; load it outside of it."
        )


def check_weights(module: nn.Module, name: str) -> None:
    """Refuse a network on torch's meta device, where tensors have a shape and no numbers."""
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise InputError(f"{name} is on the meta device, without numbers; load the network anew.")
    check_default_device()


def check_default_device() -> None:
    """Refuse to make tensors where torch's default device holds no numbers."""
    if torch.get_default_device().type == "meta":
        raise InputError("torch's default device is meta, which holds no numbers; set another.")


def check_pixels(images: Any, name: str, channels: int) -> None:
    """Refuse what is no batch of pictures of as many channels as the network's images have."""
    if isinstance(images, Tensor) and not images.is_complex() and images.dtype != torch.bool:
        given: Any = tuple(images.shape)
        if len(given) == 4 and given[1] == channels:
            return
    else:
        given = getattr(images, "dtype", type(images).__name__)
    raise InputError(
        f"{name} normalises a tensor of (batch, {channels}, height, width), not {given}; make "
        "one of it first."
    )


def explain(error: RuntimeError, x: Tensor, layer: Layer, name: str, weight: Tensor) -> None:
    """Refuse what entered a place, where torch stopped at it: by then it is known that the network
    called ``name`` does not cast it to its ``weight``, and that it is no prompt's longer sequence.

    Raises:
        InputError: what entered is of another shape, kind, device or type than the place takes;
            otherwise nothing is said, and the fault is the network's.
    """
    if x.ndim != len(layer.shape) + 1 or layer.channels not in x.shape[1:]:
        raise InputError(
            f"place {layer.index} of {name} takes (batch, {', '.join(map(str, layer.shape))}), "
            f"not {tuple(x.shape)}."
        ) from error
    if x.layout != torch.strided:
        raise InputError(f"{name} takes dense tensors, not {x.layout}.") from error
    if x.device.type != weight.device.type:
        raise InputError(
            f"{name} is on {weight.device} and was given a tensor on {x.device}; move one."
        ) from error
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        given, own = (str(kind).removeprefix("torch.") for kind in (x.dtype, weight.dtype))
        raise InputError(
            f"{name} has weights of {own} and was given {given}; cast one to the other "
            "(x.to(net.dtype)), or run under torch.autocast."
        ) from error

"""Which modules of a network run on the samples, and along which axis the samples lie.

Most modules get (samples, ...). Blocks that run on (tokens, samples, width), as torch's own
transformers do unless told otherwise, have them on the second axis.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.networks.fast_path import fast_path_off

if TYPE_CHECKING:
    from aptheory.networks.network import Network


def last_axis_only(module: nn.Module) -> bool:
    """Whether a module treats every vector along the last axis alike, wherever the samples lie."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.Linear):
        return True
    timm_layers = sys.modules.get("timm.layers")  # not loaded: then nothing is of it
    return timm_layers is not None and isinstance(module, timm_layers.Mlp)


class AnyAxis(nn.Module):
    """A stand-in that treats the samples on whatever ``axis`` it is told that they lie."""

    axis: int = 0


_axes: WeakKeyDictionary[Network, dict[str, int]] = WeakKeyDictionary()


def sample_axes(net: Network) -> Mapping[str, int]:
    """Module name -> axis of the samples, for modules whose own forward runs on the samples.

    Some attention modules read the weights of a linear layer without calling it; whatever stands
    in for such a layer would silently do nothing. Others work out position biases from a table:
    there is nothing of one sample's, or one run's, in what they read. Found once a network, with
    one image and with two: the axis of the samples becomes twice as long.
    """
    if net not in _axes:
        one, two = (_shapes_seen(net, images) for images in (1, 2))
        axes = {name: _doubled(shapes, two[name]) for name, shapes in one.items()}
        _axes[net] = {name: axis for name, axis in axes.items() if axis is not None}
    return _axes[net]


def put_samples_first(module: nn.Module, inner: nn.Module, axis: int) -> None:
    """Let ``module``, which stands for ``inner``, see its samples on the first axis.

    InputError where ``inner`` is not `last_axis_only`: it may mix the other axes.
    """
    if not last_axis_only(inner):
        raise InputError(
            f"a {type(inner).__name__} that has the samples on axis {axis} cannot hold several "
            "runs at once: attach with runs=1, once a run, or fit with together=1 in the recipe."
        )
    module.register_forward_pre_hook(partial(_swap_input, axis=axis))
    module.register_forward_hook(partial(_swap_output, axis=axis))


def _swap_input(_: nn.Module, args: tuple[Any, ...], *, axis: int) -> tuple[Any, ...]:
    return (args[0].transpose(0, axis), *args[1:])


def _swap_output(_: nn.Module, __: Any, y: Tensor, *, axis: int) -> Tensor:
    return y.transpose(0, axis)


def _doubled(one: list[torch.Size], two: list[torch.Size]) -> int | None:
    """The axis that is twice as long in ``two``, the same in all calls; None: there is none."""
    if len(one) != len(two):
        return None
    axes = {_doubled_axis(*shapes) for shapes in zip(one, two, strict=True)}
    return axes.pop() if len(axes) == 1 else None


def _doubled_axis(one: torch.Size, two: torch.Size) -> int | None:
    if len(one) != len(two):
        return None
    changed = [axis for axis, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    doubled = len(changed) == 1 and two[changed[0]] == 2 * one[changed[0]]
    return changed[0] if doubled else None


def _shapes_seen(net: Network, images: int) -> dict[str, list[torch.Size]]:
    """Module name -> the shape of what it gave, call by call."""
    seen: dict[str, list[torch.Size]] = defaultdict(list)

    def note(_: Any, __: Any, output: Any, *, name: str) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        seen[name].append(first.shape if isinstance(first, Tensor) else torch.Size())

    handles = [
        module.register_forward_hook(partial(note, name=name))
        for name, module in net.module.named_modules()
    ]
    try:
        with torch.no_grad(), fast_path_off():
            net(torch.zeros(images, *net.input_shape).to(next(net.parameters())))
    finally:
        for handle in handles:
            handle.remove()
    return seen

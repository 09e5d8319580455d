"""Split a model into layers, and refuse the result unless it is the model itself.

The trace runs on shapes without numbers, so it costs no arithmetic; the finished chain is then run
beside the model itself and refused on the smallest difference.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.networks import trace as graph
from aptheory.networks.chain import TooFewLayers, classifier_names, find_chain
from aptheory.networks.layer import Layer
from aptheory.networks.overrides import Overrides
from aptheory.networks.pieces import Piece, Rerun, build_piece


@dataclass
class Split:
    """What a network is made of: its places, what runs between them, and which enter a block."""

    layers: list[Layer]
    pieces: list[Piece]
    block_layers: list[int]


def split(
    module: nn.Module,
    name: str,
    shape: tuple[int, int, int],
    granularity: str,
    overrides: Overrides,
) -> Split:
    """Cut a model into layers and check the result against the model itself.

    Raises:
        InputError: the model cannot be split; names it and says why.
    """
    try:
        found = _analyse(module, shape, granularity)
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise InputError(
            f"{name} cannot be split into layers: {reason}; use another model of its family"
        ) from error
    _verify(module, found, name, shape)
    return found


def _analyse(module: nn.Module, shape: tuple[int, int, int], granularity: str) -> Split:
    parameter = next(module.parameters(), torch.zeros(()))
    unrolled = any(isinstance(m, nn.RNNBase) for m in module.modules())  # slow without numbers
    if not unrolled:
        try:  # shapes alone, on the meta device; a copy, as some models keep what they computed
            twin = structural_copy(module).to("meta")
            images = [
                torch.empty(count, *shape, dtype=parameter.dtype, device="meta") for count in (3, 5)
            ]
            return _cut(twin, images, granularity, keep_constants=None)
        except TooFewLayers:
            raise
        except Exception:  # the forward looks at numbers, or makes constants: give it real ones
            pass
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(5, *shape, generator=generator).to(parameter.device, parameter.dtype)
    return _cut(structural_copy(module), [batch[:3], batch], granularity, keep_constants=module)


def structural_copy(module: nn.Module) -> nn.Module:
    """New modules, new frozen parameters that alias the same storage, buffers copied."""
    known: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()
    }
    return copy.deepcopy(module, known)


def _cut(
    module: nn.Module, images: list[Tensor], granularity: str, keep_constants: nn.Module | None
) -> Split:
    classifiers = classifier_names(module)
    before = set(module._buffers)
    chain = find_chain(module, images[0], classifiers)
    constants = set(module._buffers) - before
    if constants and keep_constants is None:
        raise graph.SplitError("its forward makes constants")
    places, block_layers = chain.places(granularity)
    other = Rerun(module, chain.trace, images[1])
    end = graph.Cut((chain.trace.result,), len(chain.trace.nodes) - 1, ())
    cuts = [cut for cut, _ in places]
    pieces = [
        build_piece(chain.trace, other, start, stop)
        for start, stop in zip(cuts, [*cuts[1:], end], strict=True)
    ]
    for constant in constants & {a for piece in pieces for a in piece.attributes}:
        assert keep_constants is not None
        keep_constants.register_buffer(constant, module._buffers[constant], persistent=False)
    return Split(_describe(module, places), pieces, block_layers)


def _describe(module: nn.Module, places: list[tuple[graph.Cut, str]]) -> list[Layer]:
    shapes = [(math.prod(c.shape),) if c.flat else c.shape for c, _ in places]
    image = shapes[0]
    declared = getattr(module, "output_fmt", None)
    declared_last = str(getattr(declared, "value", declared)) == "NHWC"
    layers = []
    for index, (shape, (_, name)) in enumerate(zip(shapes, places, strict=True)):
        layout: Literal["map", "map_last", "tokens", "vector"]
        prefix, grid = 0, None
        if len(shape) == 1:
            layout = "vector"
        elif len(shape) == 2:
            layout = "tokens"
            prefix, grid = token_grid(shape[0], getattr(module, "num_prefix_tokens", 0), image)
        else:
            like_image = math.isclose(shape[1] / shape[2], image[1] / image[2], rel_tol=0.2)
            last_like_image = math.isclose(shape[0] / shape[1], image[1] / image[2], rel_tol=0.2)
            last = index > 0 and (not like_image or (last_like_image and declared_last))
            layout = "map_last" if last else "map"
            grid = (shape[0], shape[1]) if last else (shape[1], shape[2])
        layers.append(Layer(index, name, shape, layout, prefix, grid))
    return layers


def token_grid(count: int, declared: int, image: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """How many prefix tokens, and the grid of the others, told from the image's own proportions."""
    for prefix in dict.fromkeys((declared, 0, 1, 2, 5)):
        spatial = count - prefix
        if spatial <= 0:
            continue
        height = round(math.sqrt(spatial * image[1] / image[2]))
        if height and spatial % height == 0:
            width = spatial // height
            if math.isclose(height / width, image[1] / image[2], rel_tol=0.2):
                return prefix, (height, width)
    return 0, (1, count)


def _verify(module: nn.Module, found: Split, name: str, shape: tuple[int, int, int]) -> None:
    """Run piece by piece beside the model itself; note which pieces write to their input."""
    parameter = next(module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=generator).to(parameter.device, parameter.dtype)
    with torch.no_grad():
        expected = module(images.clone())
        if not expected.isfinite().all():
            raise InputError(
                f"{name} gives numbers that are not finite for random images: its weights are "
                "unusable, load it with others"
            )
        x = images
        for i, piece in enumerate(found.pieces):
            kept = x.clone()
            y = piece(module, x)
            if not torch.equal(kept, x):
                piece.writes_input = True
            if i + 1 < len(found.layers) and tuple(y.shape[1:]) != found.layers[i + 1].shape:
                raise InputError(
                    f"{name} cannot be split into layers: the shape of what enters "
                    f"{found.layers[i + 1].name} is not fixed; use another model of its family"
                )
            x = y
    if x.shape != expected.shape or not torch.equal(x, expected):
        raise InputError(
            f"{name} cannot be split into layers: its pieces do not give what its forward gives; "
            "use another model of its family"
        )

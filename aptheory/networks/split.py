"""Split a model into layers, and refuse the result unless it is the model itself.

The trace of a large model runs on shapes without numbers, so it costs no arithmetic; the finished
chain is then run beside the model itself, on batches of several sizes and scales, and refused on
the smallest difference.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.networks import trace as graph
from aptheory.networks.classifier import (
    Classifier,
    chosen_classifier,
    declared_classifiers,
    find_classifier,
)
from aptheory.networks.copying import structural_copy
from aptheory.networks.geometry import Axes, Reader, Responses
from aptheory.networks.layer import Layer
from aptheory.networks.opening import TooFewLayers, find_chain, reason_of
from aptheory.networks.outputs import Pick, tensors_of
from aptheory.networks.overrides import HEADLESS, Overrides
from aptheory.networks.pieces import Piece, build_piece
from aptheory.networks.tracer import SplitError, ValueBranch

SMALL = 2**31
"""Parameters times pixels of an image, below which a trace with numbers is the quicker one."""

MIXED = 1e-5
"""Of the largest activation: what rounding may move in one image through its neighbours."""


@dataclass
class Split:
    """What a network is made of: its places, what runs between them, and which enter a block.

    ``notes`` say what was found and could be otherwise, a sentence each.
    """

    layers: list[Layer]
    pieces: list[Piece]
    block_layers: list[int]
    pick: Pick
    notes: list[str] = field(default_factory=list)


@dataclass
class _Cuts:
    """Where a traced model is cut: the chosen moments with their names."""

    traced: graph.Trace
    places: list[tuple[graph.Cut, str]]
    block_layers: list[int]
    classifier: Classifier

    def pieces(self) -> list[Piece]:
        end = graph.Cut((self.traced.result,), len(self.traced.nodes) - 1, ())
        cuts = [cut for cut, _ in self.places]
        return [
            build_piece(self.traced, start, stop)
            for start, stop in zip(cuts, [*cuts[1:], end], strict=True)
        ]


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
        cuts = _analyse(module, shape, granularity, overrides)
        found = _describe(module, cuts, shape, overrides)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a forward may end the program
        _try_forward(module, name, shape)
        raise InputError(f"{name} cannot be split into layers: {reason_of(error)}.") from error
    _verify(module, found, name, shape)
    return found


def _try_forward(module: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Raises InputError where the forward itself fails on three images, or draws numbers."""
    parameter = next(module.parameters(), torch.zeros(()))
    images = torch.zeros(3, *shape, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad(), _nothing_drawn(name, lambda: module(images)):
            module(images)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever a forward may raise
        reason = reason_of(error, f"its forward fails on three images of {shape}")
        raise InputError(
            f"{name} cannot be used: {reason}; give another input_shape= (--input-shape), or a "
            "module whose forward takes any number of such images."
        ) from error


@contextmanager
def _nothing_drawn(name: str, forward: Callable[[], Any]) -> Iterator[None]:
    """Raises InputError where random numbers are drawn inside: by torch, Python or NumPy.

    A step that is seldom taken or seldom left out may look the same in a few trials. Another thread
    draws from the same generators, but not during each of many runs of ``forward``.
    """
    before = _random_states()
    yield
    if _random_states() != before and all(_draws(forward) for _ in range(FORWARDS)):
        raise InputError(
            f"{name} cannot be split into layers: its forward draws random numbers in evaluation "
            "mode, and need not be the same network twice: draw them while self.training alone."
        )


FORWARDS = 20
"""Runs of a forward: that numbers are drawn in each of them is the network's doing."""


def _draws(forward: Callable[[], Any]) -> bool:
    before = _random_states()
    forward()
    return _random_states() != before


def _random_states() -> tuple[Any, ...]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = [state.numpy().tobytes() for state in (torch.get_rng_state(), *devices)]
    shared: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # what others draw from
    numbers = shared["state"]["key"].tobytes(), shared["state"]["pos"], shared["has_gauss"]
    return (*states, random.getstate(), *numbers)


# ------------------------------------------------------------------------------- the analysis


def _analyse(
    module: nn.Module, shape: tuple[int, int, int], granularity: str, overrides: Overrides
) -> _Cuts:
    parameter = next(module.parameters(), torch.zeros(()))
    unrolled = any(isinstance(m, nn.RNNBase) for m in module.modules())  # slow without numbers
    if not unrolled and not _is_small(module, shape):
        try:  # shapes alone, on the meta device; a copy, as some models keep what they computed
            twin = structural_copy(module).to("meta")
            images = [
                torch.empty(count, *shape, dtype=parameter.dtype, device="meta")
                for count in graph.BATCHES
            ]
            return _cut(twin, images, granularity, overrides, keep_constants=None)
        except (TooFewLayers, ValueBranch):
            raise
        except Exception:  # the forward looks at numbers, or makes constants: give it real ones
            pass
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(5, *shape, generator=generator).to(parameter.device, parameter.dtype)
    twin = structural_copy(module)
    return _cut(twin, [batch[:3], batch], granularity, overrides, keep_constants=module)


def _is_small(module: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether arithmetic costs less than the rules by which the meta device follows shapes."""
    numbers = sum(parameter.numel() for parameter in module.parameters())
    return numbers * math.prod(shape[1:]) < SMALL


def _cut(
    module: nn.Module,
    images: list[Tensor],
    granularity: str,
    overrides: Overrides,
    keep_constants: nn.Module | None,
) -> _Cuts:
    pick = Pick(overrides.output)
    before = set(module._buffers)

    def retrace(opened: set[str], batch: Tensor = images[0]) -> graph.Trace:
        return graph.trace(module, opened, batch, pick)

    if overrides.classifier in (None, HEADLESS):
        declared = () if overrides.classifier else declared_classifiers(module)
        classifier = find_classifier(module, retrace, declared)
        if overrides.classifier == HEADLESS and classifier.present:
            classifier = Classifier(("output",), False, frozenset({""}))
    else:
        classifier = chosen_classifier(module, str(overrides.classifier))
    chain = find_chain(module, retrace, classifier, overrides.block_names)
    graph.compare(chain.trace, retrace(chain.trace.opened, images[1]))
    chain = chain.again()
    places, block_layers = chain.places(granularity)
    cuts = _Cuts(chain.trace, places, block_layers, classifier)
    constants = set(module._buffers) - before
    if constants and keep_constants is None:
        raise SplitError("its forward makes constants")
    for constant in constants & {a for piece in cuts.pieces() for a in piece.attributes}:
        assert keep_constants is not None
        keep_constants.register_buffer(constant, module._buffers[constant], persistent=False)
    return cuts


# ---------------------------------------------------------------------------- the description


def _describe(
    module: nn.Module, cuts: _Cuts, image: tuple[int, int, int], overrides: Overrides
) -> Split:
    shapes = [(math.prod(c.shape),) if c.flat else c.shape for c, _ in cuts.places]
    reader = Reader(
        module,
        Responses(module, cuts.pieces(), image),
        image,
        prefix=overrides.prefix,
        layout=overrides.layout,
    )
    axes_of = [reader.read(place, shape) for place, shape in enumerate(shapes)]
    cuts.places = [
        (replace(cut, turned=reading.transposed), name)
        for (cut, name), reading in zip(cuts.places, axes_of, strict=True)
    ]
    layers = [
        _layer(index, name, shape, reading)
        for index, ((_, name), shape, reading) in enumerate(
            zip(cuts.places, shapes, axes_of, strict=True)
        )
    ]
    _check_used(layers[1:], overrides)
    notes = _notes(layers, cuts.classifier, overrides, reader.unknown)
    return Split(layers, cuts.pieces(), cuts.block_layers, Pick(overrides.output), notes)


def _check_used(layers: list[Layer], overrides: Overrides) -> None:
    """Raises SplitError where what the user says of tokens or axes holds at no place."""
    prefix, layout = overrides.prefix, overrides.layout
    ends = {(layer.prefix, layer.suffix) for layer in layers if layer.layout == "tokens"}
    if prefix is not None and (max(prefix, 0), max(-prefix, 0)) not in ends:
        has = f"there are {sorted(front - back for front, back in ends)}" if ends else "no tokens"
        raise SplitError(f"prefix={prefix} fits none of its places ({has}); leave it out")
    layouts = sorted({layer.layout for layer in layers})
    if layout is not None and layout not in layouts:
        raise SplitError(
            f"layout={layout!r} fits none of its places (they are {', '.join(layouts)}); leave it "
            "out"
        )


def _layer(index: int, name: str, shape: tuple[int, ...], reading: Axes) -> Layer:
    shape = shape[::-1] if reading.transposed else shape
    return Layer(
        index, name, shape, reading.layout, reading.prefix, reading.grid, suffix=reading.suffix
    )


def _notes(
    layers: list[Layer], classifier: Classifier, overrides: Overrides, unknown: list[int]
) -> list[str]:
    notes = []
    if not classifier.present:
        notes.append(
            "headless: no linear map gives the output, which is taken for the features; "
            "classifier= names another place"
        )
    elif not classifier.declared and overrides.classifier is None:
        notes.append(
            f"classifier {classifier.names[0]}: the last linear map whose output is the "
            "network's; classifier= names another"
        )
    if layers[-1].layout != "vector":
        what = "tokens" if layers[-1].layout == "tokens" else "a map"
        notes.append(
            f"{layers[-1].name} reads {what}: the features are the mean over its positions"
        )
    if unknown:
        names = ", ".join(layers[place].name for place in unknown[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        notes.append(
            f"the positions of {names}{more} have no known order in the image: prefix= says how "
            "many tokens are no positions, layout= which axes are"
        )
    return notes


# ---------------------------------------------------------------------------- the verification


def _verify(module: nn.Module, found: Split, name: str, shape: tuple[int, int, int]) -> None:
    """Run piece by piece beside the model itself; note which pieces write to their input.

    On an image behind one of large values, as pixels are, and on one image in [0, 1], which is then
    put behind the large one and behind one like itself: that must change nothing.
    """
    parameter = next(module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    large, image, noise = torch.randn(3, *shape, generator=generator)
    pair = torch.stack([128 + 64 * large, image]).to(parameter.device, parameter.dtype)
    one = torch.rand(1, *shape, generator=generator)
    like = (one + noise / 4).clamp(0, 1)
    one, like = (images.to(parameter.device, parameter.dtype) for images in (one, like))
    try:
        with torch.no_grad(), _nothing_drawn(name, lambda: module(pair.clone())):
            returned = module(pair.clone())
            _note_output(found, returned)
            _check_output(found.pick(returned), name)
            reason = (
                _differs(module, found, pair, returned)
                or _mixes(module, found, torch.cat([pair[:1], one]), torch.cat([like, one]))
                or _differs(module, found, one, module(one.clone()))
            )
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever it may raise on so few images
        reason = reason_of(error, "its forward fails on one image or two")
    if reason:
        raise InputError(f"{name} cannot be split into layers: {reason}.")


def _note_output(found: Split, returned: Any) -> None:
    if isinstance(returned, Tensor):
        return
    key = found.pick.key(returned)
    others = [str(field) for field in tensors_of(returned) if field != key]
    if others and found.pick.which is None:
        found.notes.append(f"output {key}: it also returns {', '.join(others)}; output= chooses")


def _check_output(output: Tensor, name: str) -> None:
    if not output.is_floating_point():
        raise InputError(
            f"{name} returns {str(output.dtype).removeprefix('torch.')} and no logits or features: "
            "give the module whose output they are."
        )
    if not output.ndim or 0 in output.shape:
        what = "a tensor without numbers" if output.ndim else "a single number"
        raise InputError(
            f"{name} returns {what}, of shape {tuple(output.shape)}, for two images: give a module "
            "that returns logits or features, a row an image."
        )
    if not output[-1].isfinite().all():
        raise InputError(
            f"{name} gives numbers that are not finite for random images: mend its "
            "forward, or load it with other weights."
        )


def _of_one_image(expected: Tensor, count: int) -> Tensor:
    """Put the batch axis back where a forward squeezes it away for one image."""
    return expected[None] if count == 1 and expected.shape[:1] != (1,) else expected


def _differs(module: nn.Module, found: Split, x: Tensor, returned: Any) -> str | None:
    """Why the pieces are not the model on these images; None where they are."""
    images = x
    x = x.clone()  # which a piece may write to
    expected = _of_one_image(found.pick(returned), len(x))
    many = f"{len(x)} image{'s' * (len(x) > 1)}"
    for i, piece in enumerate(found.pieces):
        kept = x.clone()
        y = piece(module, x)
        if not _same(kept, x):
            piece.writes_input = True
        if i + 1 < len(found.layers):
            layer = found.layers[i + 1]
            if tuple(y.shape[1:]) != layer.shape or len(y) != len(kept):
                return (
                    f"with {many}, what enters {layer.name} is {tuple(y.shape)} and not "
                    f"{(len(kept), *layer.shape)}, since its forward drops or mixes the batch "
                    "axis (as .squeeze() without an axis does)"
                )
        x = y
    if x.shape == expected.shape and _same(x, expected):
        return None
    return (
        _other_reason(module, found, images, expected)
        or f"its pieces do not give what its forward gives for {many}"
    )


def _mixes(module: nn.Module, found: Split, pair: Tensor, beside: Tensor) -> str | None:
    """Where the last image of two batches first changes with the other one."""
    names = [*(f"what enters {layer.name}" for layer in found.layers[1:]), "its output"]
    for what, piece in zip(names, found.pieces, strict=True):
        pair, beside = piece(module, pair), piece(module, beside)
        size = float(pair[-1].abs().max())
        if not torch.allclose(pair[-1], beside[-1], rtol=0, atol=MIXED * size, equal_nan=True):
            norm = _batch_norm(module, piece)
            return (
                f"its forward mixes the images of a batch{norm}: {what} changes for an image with "
                "the others, and no image has features of its own"
            )
    return None


def _batch_norm(module: nn.Module, piece: Piece) -> str:
    """A norm in a piece that looks at the batch in evaluation too, in brackets."""
    for leaf in piece.modules:
        for name, part in module.get_submodule(leaf).named_modules(prefix=leaf):
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
                return f" ({name} normalises by the batch's own statistics)"
    return ""


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal bit for bit; what is no number equals itself."""
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def _other_reason(module: nn.Module, found: Split, x: Tensor, expected: Tensor) -> str | None:
    """What in the model itself makes two computations differ."""
    again = _of_one_image(found.pick(module(x.clone())), len(x))
    if again.shape == expected.shape and not _same(again, expected):
        return (
            "its output is not the same twice for the same images: its forward draws random "
            "numbers in evaluation mode, or changes the module"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        return "hooks run around its forward: remove them, and load it again"
    return None

"""Find a model's layers: which modules are its blocks, and where the chain is cut.

Nothing here knows a family by name. A block is a leaf of the trace that holds at least two weight
matrices or kernels; a place is a cut that enters a block, or the final norm or pooling, or the
classifier. The trace runs on fake tensors (shapes without numbers), so it costs no arithmetic;
the finished chain is then run beside the model itself and refused on the smallest difference.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from aptheory import graph
from aptheory.errors import InputError
from aptheory.layer import Layer

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Split:
    """What a network is made of: its places, what runs between them, and which enter a block."""

    layers: list[Layer]
    pieces: list[graph.Piece]
    block_layers: list[int]


def split(module: nn.Module, name: str, shape: tuple[int, int, int], granularity: str) -> Split:
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
    from torch._subclasses.fake_tensor import FakeTensorMode

    parameter = next(module.parameters(), torch.zeros(()))
    kind = {"device": parameter.device, "dtype": parameter.dtype}
    twin = structural_copy(module)  # because some models keep what they computed
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            images = [torch.empty(count, *shape, **kind) for count in (3, 5)]
            return _cut(twin, images, granularity, keep_constants=None)
    except Exception:  # the forward looks at numbers, or makes constants: run it on real ones
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(3, *shape, generator=generator).to(**kind)
        twin = structural_copy(module)
        return _cut(twin, [image[:2], image], granularity, keep_constants=module)


def structural_copy(module: nn.Module) -> nn.Module:
    """New modules, new frozen parameters that alias the same storage, buffers copied."""
    known: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()
    }
    return copy.deepcopy(module, known)


def _cut(
    module: nn.Module, images: list[Tensor], granularity: str, keep_constants: nn.Module | None
) -> Split:
    classifier = classifier_name(module)
    before = set(module._buffers)
    traced = find_leaves(module, images[0], classifier)
    constants = set(module._buffers) - before
    if constants and keep_constants is None:
        raise graph.SplitError("its forward makes constants")
    other = graph.interpret(module, traced, images[1])
    nodes, names, blocks = _choose(module, traced, classifier, granularity)
    pieces = [
        graph.build_piece(traced, other, start, stop)
        for start, stop in zip(nodes, [*nodes[1:], traced.result], strict=True)
    ]
    for constant in constants & {a for piece in pieces for a in piece.attributes}:
        assert keep_constants is not None
        keep_constants.register_buffer(constant, module._buffers[constant], persistent=False)
    layers = _describe(module, names, [traced.values[node] for node in nodes])
    return Split(layers, pieces, blocks)


# --------------------------------------------------------------------------- choosing leaves


def weights_in(module: nn.Module) -> int:
    """How many weight matrices or kernels a module holds."""
    return sum(p.ndim >= 2 for p in module.parameters())


def is_blocklike(module: nn.Module) -> bool:
    """A residual or transformer block, as opposed to one convolution with its norm."""
    return weights_in(module) >= 2


def _lists_blocks(module: nn.Module) -> bool:
    return any(
        isinstance(m, CONTAINERS) and any(is_blocklike(child) for child in m.children())
        for m in module.modules()
    )


def find_leaves(root: nn.Module, example: Tensor, classifier: str | None) -> tuple[Trace, set[str]]:
    """Open the modules that hold lists of blocks; return the final trace and what was opened."""
    from timm.layers import get_notrace_modules

    closed_classes = tuple(get_notrace_modules())
    opened = {""}
    if classifier:
        parts = classifier.split(".")
        opened |= {".".join(parts[:i]) for i in range(1, len(parts))}
    current = graph.trace(root, opened, example)
    refused: set[str] = set()
    while True:
        candidates = [
            node.target
            for node in current.nodes
            if node.op == "call_module"
            and node.target not in refused
            and not isinstance(root.get_submodule(node.target), closed_classes)
            and _lists_blocks(root.get_submodule(node.target))
        ]
        if not candidates:
            return current
        known = len(current.cuts())
        for name in dict.fromkeys(candidates):
            try:
                attempt = graph.trace(root, opened | {name}, example)
            except Exception:  # what cannot be traced stays a leaf
                refused.add(name)
                continue
            if len(attempt.cuts()) > known or isinstance(root.get_submodule(name), CONTAINERS):
                opened.add(name)
                current, known = attempt, len(attempt.cuts())
            else:
                refused.add(name)


def classifier_name(module: nn.Module) -> str | None:
    """Dotted name of the classifier: timm's own word for it, otherwise the last linear layer."""
    found = module.get_classifier() if hasattr(module, "get_classifier") else None
    if isinstance(found, nn.Module):
        return next((name for name, child in module.named_modules() if child is found), None)
    linear = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    return linear[-1] if linear and found is None else None


def _choose(
    module: nn.Module, traced: graph.Trace, classifier: str | None, granularity: str
) -> tuple[list[fx.Node], list[str], list[int]]:
    """Choose among the possible cuts: image, one a block, the final norm or pooling, the head."""
    cuts = traced.cuts()
    values = traced.values
    if not cuts or cuts[0] is not traced.image:
        raise graph.SplitError("no cut follows the image")
    position = {node: i for i, node in enumerate(traced.nodes)}
    head = None  # index in `cuts` of the classifier's input
    if classifier is not None:
        calls = [n for n in traced.nodes if n.op == "call_module" and n.target == classifier]
        if calls:
            head = max(i for i, c in enumerate(cuts) if position[c] < position[calls[0]])
    if head is None:
        head = max(i for i, c in enumerate(cuts))
    if cuts[head] is not traced.result and cuts[-1] is traced.result:
        cuts = cuts[:-1]
    cuts = cuts[: head + 1]

    def leaves(i: int) -> list[fx.Node]:
        stop = position[cuts[i + 1]] if i + 1 < len(cuts) else len(traced.nodes) - 1
        return [n for n in traced.nodes[position[cuts[i]] + 1 : stop + 1] if n.op == "call_module"]

    def weight(i: int) -> int:
        return max([weights_in(module.get_submodule(n.target)) for n in leaves(i)], default=0)

    def spatial(i: int) -> bool:
        shape = values[cuts[i]].shape
        return len(shape) > 2 and not (len(shape) == 4 and shape[2] == shape[3] == 1)

    inner = range(head)  # segment i runs from cut i to cut i + 1
    blocks = [i for i in inner if weight(i) >= 2 and spatial(i + 1) and i > 0]
    if len(blocks) < 4:
        blocks = [i for i in inner if weight(i) >= 1 and spatial(i + 1) and i > 0]
    if not blocks:
        raise graph.SplitError("no single activation is found between the image and the classifier")
    chosen = [0]
    block_cuts = []
    previous = None
    for i in blocks:
        at = i
        if previous is not None:  # what lies between two blocks belongs to the later one
            at = previous + 1
            while (
                at < i and not weight(at) and values[cuts[at]].shape == values[cuts[at + 1]].shape
            ):
                at += 1  # but a norm or an activation belongs to the earlier one
        chosen.append(at)
        block_cuts.append(at)
        previous = i
    last = max(
        i for i in inner if i >= blocks[-1] and (i == blocks[-1] or (weight(i) and spatial(i + 1)))
    )
    if last > blocks[-1]:
        chosen.append(blocks[-1] + 1)
        block_cuts.append(blocks[-1] + 1)
    if last + 1 < head:
        chosen.append(last + 1)
    if granularity == "stage":
        kept = [chosen[0]]
        for here, after in zip(chosen[1:], [*chosen[2:], head], strict=True):
            changes = values[cuts[here]].shape != values[cuts[after]].shape
            if here == chosen[1] or here not in block_cuts or changes:
                kept.append(here)
        chosen = kept
    chosen.append(head)
    chosen = list(dict.fromkeys(chosen))

    def label(i: int) -> str:
        if i == 0:
            return "image"
        if i == head:
            return classifier or "head"
        for j in range(i, head):
            if leaves(j):
                return str(leaves(j)[0].target)
        return "pool"

    nodes = [cuts[i] for i in chosen]
    return (
        nodes,
        [label(i) for i in chosen],
        [k for k, i in enumerate(chosen) if i in block_cuts and i != head],
    )


def _describe(module: nn.Module, names: list[str], values: list[Tensor]) -> list[Layer]:
    image = values[0].shape[1:]
    ratio = image[1] / image[2]
    declared = getattr(module, "output_fmt", None)
    declared_last = str(getattr(declared, "value", declared)) == "NHWC"
    layers = []
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        shape = tuple(value.shape[1:])
        layout: Literal["map", "map_last", "tokens", "vector"]
        prefix, grid = 0, None
        if len(shape) == 1:
            layout = "vector"
        elif len(shape) == 2:
            layout = "tokens"
            prefix, grid = _token_grid(shape[0], getattr(module, "num_prefix_tokens", 0), image)
        else:
            first = math.isclose(shape[1] / shape[2], ratio, rel_tol=0.2)
            last = math.isclose(shape[0] / shape[1], ratio, rel_tol=0.2)
            is_last = index > 0 and ((last and not first) or (last and first and declared_last))
            layout = "map_last" if is_last else "map"
            grid = (shape[0], shape[1]) if is_last else (shape[1], shape[2])
        layers.append(Layer(index, name, shape, layout, prefix, grid))
    return layers


def _token_grid(count: int, declared: int, image: Sequence[int]) -> tuple[int, tuple[int, int]]:
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

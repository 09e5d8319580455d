"""Trace a network into nodes, and see where it can be cut: torch.fx, blocks as leaves.

The forward of a model is traced with every submodule as a leaf. A leaf that holds a list of blocks
(a stage) is then opened, and so on, until the leaves are the model's own blocks. Since each
operation also runs on an example, the values that are alive between two operations are known. Where
exactly one of them depends on the image, the graph can be cut: what runs before and after the cut
needs nothing else. A second trace on a batch of another size tells which numbers follow the batch.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from aptheory.networks.tracer import (
    SplitError,
    Tracer,
    einops_scopes,
    line_text,
    traced_functions,
)

BATCHES = (7, 11)  # images of the two examples: seldom the size of anything else


@dataclass(frozen=True)
class Cut:
    """A moment at which little is alive, and how that becomes one tensor.

    ``nodes`` are the living values that depend on the image: one, or several that are laid side
    by side along ``axis``. ``position`` is the index of the node after which the moment comes.
    ``flat`` says that (C, 1, 1) is told as (C,); ``turned`` that (C, N) is told as (N, C);
    ``batch`` which axis counts the images: outside it is always the first.
    """

    nodes: tuple[fx.Node, ...]
    position: int
    shape: tuple[int, ...]  # without the batch, before flattening
    axis: int | None = None
    widths: tuple[int, ...] = ()
    flat: bool = False
    turned: bool = False
    batch: int = 0


@dataclass
class Trace:
    """A traced module: its nodes in order, what each gave, and which depend on the image."""

    nodes: list[fx.Node]
    values: dict[fx.Node, Any]
    image: fx.Node
    result: fx.Node
    live: dict[fx.Node, bool]
    opened: set[str]
    answers: list[tuple[Any, str, int]] = field(default_factory=list)
    other: dict[fx.Node, Any] = field(default_factory=dict)  # values at the other batch size

    @property
    def samples(self) -> int:
        """Images in the example."""
        return self.values[self.image].shape[0]

    def cuts(self) -> list[Cut]:
        """Every moment at which exactly one living value depends on the image.

        Several vectors count as one (the class and the distillation token of a distilled model).
        """
        place = {node: i for i, node in enumerate(self.nodes)}
        last_use = dict.fromkeys(self.nodes, -1)
        for node in self.nodes:
            for source in node.all_input_nodes:
                last_use[source] = place[node]
        last_use[self.result] = len(self.nodes)
        found: dict[tuple[fx.Node, ...], Cut] = {}
        alive: list[fx.Node] = []
        for i, node in enumerate(self.nodes):
            alive = [n for n in alive if last_use[n] > i]
            if self.live[node] and last_use[node] > i:
                alive.append(node)
            if alive and tuple(alive) not in found:
                cut = self._cut(tuple(alive), i)
                if cut:
                    found[tuple(alive)] = cut
        return list(found.values())

    def _batch_axis(self, node: fx.Node) -> int | None:
        """Which axis of a value counts the images; None where it is no activation."""
        value = self.values[node]
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2):
            return None
        axes = (0, 1) if value.ndim == 3 else (0,)  # also (tokens, images, width)
        return next((axis for axis in axes if self._follows_batch(node, axis)), None)

    def _follows_batch(self, node: fx.Node, axis: int) -> bool:
        other = self.other.get(node)
        counts = self.values[node].shape[axis] == self.samples
        return counts and (other is None or other.shape[axis] != self.samples)

    def _cut(self, alive: tuple[fx.Node, ...], position: int) -> Cut | None:
        axes = [self._batch_axis(n) for n in alive]
        if None in axes:
            return None
        values = [self.values[n] for n in alive]
        if len(alive) == 1:
            axis = axes[0] or 0
            shape = values[0].shape
            return Cut(alive, position, (*shape[:axis], *shape[axis + 1 :]), batch=axis)
        if any(axes) or any(value.ndim != 2 for value in values):
            return None
        widths = tuple(value.shape[1] for value in values)
        return Cut(alive, position, (sum(widths),), 1, widths)


@contextmanager
def _returning(root: nn.Module, pick: Callable[[Any], Any]) -> Iterator[None]:
    """Let the root's forward take the images alone, and return one tensor."""
    kind, original = type(root), root.forward
    own = vars(root).pop("forward", None)
    root.__class__ = type(kind.__name__, (kind,), {"forward": lambda self, x: pick(original(x))})
    try:
        yield
    finally:
        root.__class__ = kind
        if own is not None:
            vars(root)["forward"] = own


def trace(root: nn.Module, opened: set[str], example: Tensor, pick: Callable[[Any], Any]) -> Trace:
    """Trace ``root`` on ``example``; raises whatever the model's own forward raises.

    ``pick`` takes the one tensor out of what the forward returns.
    """
    tracer = Tracer(opened, example)
    before = set(vars(root)) | set(root._buffers)
    scope = getattr(inspect.unwrap(root.forward), "__globals__", {})
    functions = traced_functions(tracer._autowrap_function_ids, scope, *einops_scopes())
    with torch.no_grad(), functions, _returning(root, pick):
        graph = tracer.trace(root)
    constants = (set(vars(root)) | set(root._buffers)) - before
    for name in constants:  # tensors made in forward: they must follow .to(device)
        if isinstance(vars(root).get(name), Tensor):
            value = vars(root).pop(name)
            root.register_buffer(name, value, persistent=False)
    _follow_writes(tracer, list(graph.nodes))
    *nodes, end = graph.nodes
    result = end.args[0]
    if not isinstance(result, fx.Node) or not isinstance(tracer.values[result], Tensor):
        raise SplitError("its forward does not return a tensor that depends on the images")
    if not tracer.content[result]:
        raise SplitError(
            "no step of its forward leads from the images to its output: give a module that does "
            "not read activations as hooks collect them"
        )
    nodes = _felt(nodes, result, tracer.written)
    return Trace(nodes, tracer.values, nodes[0], result, tracer.content, opened, tracer.answers)


def _felt(nodes: list[fx.Node], result: fx.Node, written: dict[fx.Node, Any]) -> list[fx.Node]:
    """The nodes that the result feels: heads whose answers are dropped, as auxiliary ones, are no
    part of the network. What writes in place stays."""
    wanted = {nodes[0], result, *(node for node in nodes if written[node])}
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    return [node for node in nodes if node in wanted]


def _follow_writes(tracer: Tracer, nodes: list[fx.Node]) -> None:
    """Let whoever reads a tensor behind a step that writes to it read that step's answer, as of
    ``self.relu(x)`` in place whose answer is dropped."""
    place = {node: i for i, node in enumerate(nodes)}
    for node in nodes[:-1]:
        for source in tracer.written[node]:
            if tracer.values[node] is tracer.values[source]:
                behind = {user for user in source.users if place[user] > place[node]}
                source.replace_all_uses_with(node, behind.__contains__)


def compare(traced: Trace, other: Trace) -> None:
    """Learn from a trace on another batch size which numbers follow it.

    Fills ``traced.other``. A number that Python was told, and that follows the batch, becomes a
    multiple of the batch size again.

    Raises:
        SplitError: the forward takes other steps for other batch sizes.
    """
    alike = len(traced.nodes) == len(other.nodes) and all(
        a.op == b.op and (a.target == b.target or a.op == "get_attr")
        for a, b in zip(traced.nodes, other.nodes, strict=True)
    )
    if _tensors_read(traced) != _tensors_read(other):
        raise SplitError(
            "its forward reads activations that it does not hand on itself, as hooks collect them: "
            "give a module without that"
        )
    if not alike:
        raise SplitError(
            f"its forward takes other steps for other batch sizes{_told(traced, other)}"
        )
    twins = dict(zip(traced.nodes, other.nodes, strict=True))
    traced.other = {a: other.values[b] for a, b in twins.items()}
    samples, more = traced.samples, other.samples
    graph = traced.image.graph
    made: dict[int, fx.Node] = {}

    def multiple(count: int) -> fx.Node:
        """A node that is ``count`` times the batch size."""
        if count not in made:
            with graph.inserting_after(traced.image):
                size = graph.call_method("size", (traced.image, 0))
            with graph.inserting_after(size):
                made[count] = graph.call_function(operator.mul, (size, count))
            traced.nodes[1:1] = [size, made[count]]
            traced.live |= {size: False, made[count]: False}
            traced.values |= {size: samples, made[count]: samples * count}
            traced.other |= {size: more, made[count]: more * count}
        return made[count]

    def joined(a: Any, b: Any) -> Any:
        if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)) and len(a) == len(b):
            parts = [joined(u, v) for u, v in zip(a, b, strict=True)]
            return type(a)(*parts) if hasattr(a, "_fields") else type(a)(parts)
        if isinstance(a, dict) and isinstance(b, dict):
            return {key: joined(value, b[key]) for key, value in a.items()}
        if isinstance(a, slice) and isinstance(b, slice):
            return slice(*(joined(getattr(a, k), getattr(b, k)) for k in ("start", "stop", "step")))
        if isinstance(a, fx.Node) or a == b or (a != a and b != b):  # nan twice is no change
            return a
        if isinstance(a, int) and a % samples == 0 and a // samples * more == b:
            return multiple(a // samples)
        raise SplitError(
            f"a number in its forward is {a} when it runs on {samples} images and {b} when it then "
            f"runs on {more}, which does not follow from their sizes{_told(traced, other)}"
        )

    for a, b in twins.items():
        a.args, a.kwargs = joined(tuple(a.args), tuple(b.args)), joined(dict(a.kwargs), b.kwargs)


def _tensors_read(traced: Trace) -> list[tuple[int, ...]]:
    """Shapes of the parameters, buffers and other tensors that a forward reads by itself."""
    values = [traced.values[node] for node in traced.nodes if node.op == "get_attr"]
    return [tuple(value.shape) for value in values if isinstance(value, Tensor)]


def _told(traced: Trace, other: Trace) -> str:
    """The first line that was told another number for another batch size."""
    for (a, filename, number), (b, *_) in zip(traced.answers, other.answers, strict=False):
        if a != b:
            return f" ({line_text(filename, number)})"
    return ""

"""Trace a network into nodes, and see where it can be cut: torch.fx, blocks as leaves.

The forward of a model is traced with every submodule as a leaf. A leaf that holds a list of blocks
(a stage) is then opened, and so on, until the leaves are the model's own blocks. While tracing,
each operation also runs on an example, so that control flow follows the example and the values
that are alive between two operations are known. Where exactly one of them depends on the image,
the graph can be cut: what runs before and after the cut needs nothing else.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn


class SplitError(Exception):
    """This module cannot be cut; the message says why, without naming the model."""


# --------------------------------------------------------------------------------- tracing


class _Proxy(fx.Proxy):
    """A proxy that answers Python's questions (how long? true? which number?) from the example."""

    tracer: _Tracer

    def __index__(self) -> int:
        return self.tracer.values[self.node].__index__()

    def __int__(self) -> int:
        return int(self.tracer.values[self.node])

    def __float__(self) -> float:
        return float(self.tracer.values[self.node])

    def __len__(self) -> int:
        return len(self.tracer.values[self.node])


class _Tracer(fx.Tracer):
    """Trace a module while running it on an example.

    ``opened`` names the modules whose forward is traced through; all others are leaves.
    ``values`` maps each node to what it gave on the example.
    """

    proxy_buffer_attributes = True

    def __init__(self, opened: set[str], example: Tensor):
        from timm.layers import get_notrace_functions

        super().__init__(
            autowrap_modules=(math,), autowrap_functions=tuple(get_notrace_functions())
        )
        self.opened = opened
        self.example = example
        self.values: dict[fx.Node, Any] = {}
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def call_module(self, m: nn.Module, forward: Callable, args: Any, kwargs: Any) -> Any:
        if self._running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: Any,
        kwargs: Any,
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if kind != "output":
            self._running = True
            try:
                self.values[node] = self._value(kind, target, args, kwargs)
            finally:
                self._running = False
        return node

    def create_proxy(self, kind: str, target: Any, *rest: Any, **more: Any) -> Any:
        proxy = super().create_proxy(kind, target, *rest, **more)
        absent = target is operator.getitem and self.values[proxy.node] is None
        return None if absent else proxy  # "is None" cannot be asked of a proxy

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            first = not any(n.op == "placeholder" for n in self.values)
            return self.example if first else (args[0] if args else None)
        return run_node(self.root, kind, target, *self._concrete((args, kwargs)))

    def _concrete(self, what: Any) -> Any:
        if isinstance(what, fx.Node):
            return self.values[what]
        if isinstance(what, list):  # fx keeps lists that refuse to be changed; a forward may not
            return [self._concrete(item) for item in what]
        if isinstance(what, tuple):
            items = [self._concrete(item) for item in what]
            return type(what)(*items) if hasattr(what, "_fields") else tuple(items)
        if isinstance(what, dict):
            return {key: self._concrete(item) for key, item in what.items()}
        if isinstance(what, slice):
            return slice(*self._concrete((what.start, what.stop, what.step)))
        return what

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.values[obj.node])

    def iter(self, obj: fx.Proxy) -> Iterator:
        return iter([obj[i] for i in range(len(self.values[obj.node]))])  # type: ignore[index]


FACTORIES = ("arange", "zeros", "ones", "full", "empty", "linspace", "eye")


@contextmanager
def _traced_factories() -> Iterator[None]:
    """Let ``torch.arange(x.shape[1])`` be traced: factories do not know proxies by themselves."""

    def wrap(factory: Callable) -> Callable:
        def traced(*args: Any, **kwargs: Any) -> Any:
            found: list[fx.Proxy] = []

            def note(value: Any) -> Any:
                if isinstance(value, fx.Proxy):
                    found.append(value)
                return value

            fx.node.map_aggregate((args, kwargs), note)
            if not found:
                return factory(*args, **kwargs)
            return found[0].tracer.create_proxy("call_function", factory, args, kwargs)

        return traced

    known = {name: getattr(torch, name) for name in FACTORIES}
    try:
        for name, factory in known.items():
            setattr(torch, name, wrap(factory))
        yield
    finally:
        for name, factory in known.items():
            setattr(torch, name, factory)


def run_node(root: nn.Module, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
    """Do one node's work on concrete arguments."""
    if kind == "get_attr":
        value: Any = root
        for part in target.split("."):
            value = getattr(value, part)
        return value
    if kind == "call_module":
        return root.get_submodule(target)(*args, **kwargs)
    if kind == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)


@dataclass(frozen=True)
class Cut:
    """A moment at which little is alive, and how that becomes one tensor.

    ``nodes`` are the living values that depend on the image: one, or several that are laid side
    by side along ``axis``. ``position`` is the index of the node after which the moment comes.
    ``flat`` says that (C, 1, 1) is told as (C,).
    """

    nodes: tuple[fx.Node, ...]
    position: int
    shape: tuple[int, ...]  # without the batch, before flattening
    axis: int | None = None
    widths: tuple[int, ...] = ()
    flat: bool = False


@dataclass
class Trace:
    """A traced module: its nodes in order, what each gave, and which depend on the image."""

    nodes: list[fx.Node]
    values: dict[fx.Node, Any]
    image: fx.Node
    result: fx.Node
    live: dict[fx.Node, bool] = field(default_factory=dict)

    def cuts(self, *, side_by_side: bool = False) -> list[Cut]:
        """Every moment at which exactly one living value depends on the image.

        Several vectors count as one (the class and the distillation token of a distilled
        model); with ``side_by_side`` several maps of one resolution do too.
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
                cut = self._cut(tuple(alive), i, side_by_side)
                if cut:
                    found[tuple(alive)] = cut
        return list(found.values())

    def _cut(self, alive: tuple[fx.Node, ...], position: int, side_by_side: bool) -> Cut | None:
        values = [self.values[n] for n in alive]
        samples = self.values[self.image].shape[0]
        if not all(
            isinstance(v, Tensor)
            and v.is_floating_point()
            and v.ndim >= 2
            and v.shape[0] == samples
            for v in values
        ):
            return None
        shape = tuple(values[0].shape[1:])
        if len(alive) == 1:
            return Cut(alive, position, shape)
        if any(v.shape[2:] != values[0].shape[2:] for v in values):
            return None
        if len(shape) == 1 or (side_by_side and len(shape) == 3):
            widths = tuple(v.shape[1] for v in values)
            return Cut(alive, position, (sum(widths), *shape[1:]), 1, widths)
        return None


def trace(root: nn.Module, opened: set[str], example: Tensor) -> Trace:
    """Trace ``root`` on ``example``; raises whatever the model's own forward raises."""
    parameters = list(inspect.signature(root.forward).parameters.values())
    defaults = {
        p.name: p.default
        for p in parameters[1:]
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.default is not inspect.Parameter.empty
    }
    tracer = _Tracer(opened, example)
    before = set(vars(root)) | set(root._buffers)
    with torch.no_grad(), _traced_factories():
        graph = tracer.trace(root, concrete_args=defaults or None)
    constants = (set(vars(root)) | set(root._buffers)) - before
    for name in constants:  # tensors made in forward: they must follow .to(device)
        if isinstance(vars(root).get(name), Tensor):
            value = vars(root).pop(name)
            root.register_buffer(name, value, persistent=False)
    nodes = list(graph.nodes)
    result = nodes[-1].args[0]
    if not isinstance(result, fx.Node) or not isinstance(tracer.values[result], Tensor):
        raise SplitError("its forward does not return one tensor")
    traced = Trace(nodes[:-1], tracer.values, nodes[0], result)
    for node in traced.nodes:
        from_image = node is traced.image or any(traced.live[n] for n in node.all_input_nodes)
        traced.live[node] = from_image and not is_plain(traced.values[node])
    return traced


def is_plain(value: Any) -> bool:
    """True of numbers, shapes, devices and the like: what is known without the image's content."""
    if isinstance(value, (tuple, list)):
        return all(is_plain(v) for v in value)
    return isinstance(value, (int, float, bool, str, torch.dtype, torch.device, torch.layout))

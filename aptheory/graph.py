"""Cut a network into a chain of pieces: torch.fx, blocks as leaves, cuts where one tensor is alive.

The forward of a model is traced with every submodule as a leaf. A leaf that holds a list of blocks
(a stage) is then opened, and so on, until the leaves are the model's own blocks. While tracing,
each operation also runs on an example, so that control flow follows the example and the values
that are alive between two operations are known. Where exactly one of them depends on the image,
the graph can be cut: what runs before and after the cut needs nothing else.

A piece is the source of a function ``forward(self, x)`` whose ``self`` is the whole module: it
looks submodules up when it is called, so replacing one is felt at once.
"""

from __future__ import annotations

import inspect
import linecache
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SHAPE_PRESERVING_TARGETS = ("dropout",)


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

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            first = not any(n.op == "placeholder" for n in self.values)
            return self.example if first else (args[0] if args else None)
        return run_node(self.root, kind, target, *self._concrete((args, kwargs)))

    def _concrete(self, what: Any) -> Any:
        return fx.node.map_arg(what, lambda n: self.values[n])

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.values[obj.node])

    def iter(self, obj: fx.Proxy) -> Iterator:
        return iter([obj[i] for i in range(len(self.values[obj.node]))])


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


@dataclass
class Trace:
    """A traced module: its nodes in order, what each gave, and which depend on the image."""

    nodes: list[fx.Node]
    values: dict[fx.Node, Any]
    image: fx.Node
    result: fx.Node
    live: dict[fx.Node, bool] = field(default_factory=dict)

    def cuts(self) -> list[fx.Node]:
        """Nodes that are, at some moment, the only living value that depends on the image."""
        place = {node: i for i, node in enumerate(self.nodes)}
        last_use = dict.fromkeys(self.nodes, -1)
        for node in self.nodes:
            for source in node.all_input_nodes:
                last_use[source] = max(last_use.get(source, -1), place[node])
        last_use[self.result] = len(self.nodes)
        found, alive = [], []
        for i, node in enumerate(self.nodes):
            alive = [n for n in alive if last_use[n] > i]
            if self.live[node] and last_use[node] > i:
                alive.append(node)
            if len(alive) == 1 and alive[0] not in found and _is_activation(self, alive[0]):
                found.append(alive[0])
        return found


def _is_activation(trace: Trace, node: fx.Node) -> bool:
    value = trace.values[node]
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim >= 2
        and value.shape[0] == trace.values[trace.image].shape[0]
    )


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
    with torch.no_grad():
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


# --------------------------------------------------------------------------------- pieces


@dataclass
class Piece:
    """What runs between two places, as source; called with the whole module and an activation."""

    source: str
    names: dict[str, Any]
    modules: tuple[str, ...]  # leaf modules, in the order in which they run
    attributes: tuple[str, ...]  # parameters and buffers read directly
    writes_input: bool = False
    _function: Callable[[nn.Module, Tensor], Tensor] | None = None

    def __call__(self, root: nn.Module, x: Tensor) -> Tensor:
        if self._function is None:
            self._function = _compile(self.source, self.names)
        return self._function(root, x)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_function": None}

    def __deepcopy__(self, memo: dict) -> Piece:
        return self  # never changed after it is built


_compiled = 0


def _compile(source: str, names: dict[str, Any]) -> Callable[[nn.Module, Tensor], Tensor]:
    global _compiled
    _compiled += 1
    filename = f"<piece {_compiled}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    scope = dict(names)
    exec(compile(source, filename, "exec"), scope)
    return scope["forward"]


def build_piece(traced: Trace, other: dict[fx.Node, Any], start: fx.Node, stop: fx.Node) -> Piece:
    """Make the piece that turns the value of ``start`` into that of ``stop``.

    ``other`` holds the values at another batch size: numbers that a later piece needs are written
    into it, and those that grow with the batch are read off its input.
    """
    graph = fx.Graph()
    env: dict[fx.Node, Any] = {start: graph.placeholder("x")}
    samples, more = traced.values[traced.image].shape[0], other[traced.image].shape[0]

    def number(a: Any, b: Any) -> Any:
        if isinstance(a, (tuple, list)):
            return tuple(number(u, v) for u, v in zip(a, b, strict=True))
        if a == b:
            return a
        if isinstance(a, int) and a % samples == 0 and a // samples * more == b:
            size = graph.call_method("size", (env[start], 0))
            return size if a == samples else size * (a // samples)
        raise SplitError(f"a number that follows the batch size crosses a cut ({a} and {b})")

    def resolve(node: fx.Node) -> Any:
        if node not in env:
            if traced.live[node]:
                raise SplitError(f"{node} crosses a cut")
            if is_plain(traced.values[node]):
                env[node] = number(traced.values[node], other[node])
            else:
                env[node] = copy_node(node)
        return env[node]

    def copy_node(node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), resolve)
        if "training" in kwargs and isinstance(kwargs["training"], bool):
            kwargs = {**kwargs, "training": graph.create_node("get_attr", "training")}
        return graph.create_node(node.op, node.target, args, kwargs)

    inside = traced.nodes[traced.nodes.index(start) + 1 : traced.nodes.index(stop) + 1]
    within = set(inside)
    for node in inside:
        if traced.live[node]:
            env[node] = copy_node(node)
        elif is_plain(traced.values[node]) and any(
            n in env and (n in within or n is start) for n in node.all_input_nodes
        ):
            env[node] = copy_node(node)  # a shape read inside the piece stays symbolic
    graph.output(env[stop])
    graph.eliminate_dead_code(
        is_impure_node=lambda n: (
            n.op in ("placeholder", "output")
            or bool(n.op in ("call_module", "call_method", "call_function") and _may_write(n))
        )
    )
    code = graph.python_code("self")
    return Piece(
        source=code.src,
        names=dict(code.globals),
        modules=tuple(n.target for n in graph.nodes if n.op == "call_module"),
        attributes=tuple(
            n.target for n in graph.nodes if n.op == "get_attr" and n.target != "training"
        ),
    )


def _may_write(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return node.op == "call_module" or name == "setitem" or name.endswith("_")


def interpret(root: nn.Module, traced: Trace, image: Tensor) -> dict[fx.Node, Any]:
    """Run the traced nodes on another image batch and return what each gave."""
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in traced.nodes:
            if node.op == "placeholder":
                values[node] = image if node is traced.image else traced.values[node]
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = run_node(root, node.op, node.target, args, kwargs)
    return values

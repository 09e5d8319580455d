"""What runs between two cuts of a traced network, as the source of a function.

A piece is the source of ``forward(self, x)`` whose ``self`` is the whole module: it looks
submodules up when it is called, so replacing one is felt at once. A number that the trace took from
the example (a batch, a length) is written as what it was read from: a second example tells which
numbers those are.
"""

from __future__ import annotations

import inspect
import linecache
import operator
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx, nn

from aptheory.networks.trace import Cut, Trace
from aptheory.networks.tracer import SplitError, is_plain


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
        # Python cannot pickle modules, and code refers to torch by name
        names = {
            k: _Module(v.__name__) if inspect.ismodule(v) else v for k, v in self.names.items()
        }
        return {**self.__dict__, "names": names, "_function": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = state["names"].items()
        state["names"] = {
            k: import_module(v.name) if isinstance(v, _Module) else v for k, v in names
        }
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Piece:
        return self  # never changed after it is built


@dataclass(frozen=True)
class _Module:
    """A Python module, by name."""

    name: str


_compiled = 0


def _compile(source: str, names: dict[str, Any]) -> Callable[[nn.Module, Tensor], Tensor]:
    global _compiled
    _compiled += 1
    filename = f"<piece {_compiled}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    scope = dict(names)
    exec(compile(source, filename, "exec"), scope)
    return scope["forward"]


def build_piece(traced: Trace, start: Cut, stop: Cut) -> Piece:
    """Make the piece that turns what is alive at ``start`` into what is alive at ``stop``.

    Numbers that a later piece needs are written into it; those that grow with the batch, as the
    trace at another batch size tells, are read off its input.
    """
    graph = fx.Graph()
    x = graph.placeholder("x")
    env = _unpack(graph, x, start)
    samples, more = traced.samples, traced.other[traced.image].shape[0]

    def number(a: Any, b: Any) -> Any:
        if isinstance(a, (tuple, list)):
            return tuple(number(u, v) for u, v in zip(a, b, strict=True))
        if isinstance(a, (torch.device, torch.dtype)):
            kind = "device" if isinstance(a, torch.device) else "dtype"
            if a == getattr(traced.values[start.nodes[0]], kind):
                return graph.call_function(getattr, (x, kind))
        if a == b:
            return a
        if isinstance(a, int) and a % samples == 0 and a // samples * more == b:
            size = graph.call_method("size", (x, 0))
            return graph.call_function(operator.mul, (size, a // samples))
        raise SplitError(f"a number that follows the batch size crosses a cut ({a} and {b})")

    def resolve(node: fx.Node) -> Any:
        if node not in env:
            if traced.live[node]:
                raise SplitError(f"{node} crosses a cut")
            if is_plain(traced.values[node]):
                env[node] = number(traced.values[node], traced.other[node])
            else:
                env[node] = copy_node(node)
        return env[node]

    def copy_node(node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), resolve)
        if _squeezes_all(node):
            args = (args[0], _single_axes(traced.values[node.all_input_nodes[0]]))
        if kwargs.get("training") is False:  # traced in evaluation; True is always on
            kwargs = {**kwargs, "training": graph.create_node("get_attr", "training")}
        return graph.create_node(node.op, node.target, args, kwargs)

    inside = traced.nodes[start.position + 1 : stop.position + 1]
    local = set(inside) | set(start.nodes)
    for node in inside:
        is_shape = is_plain(traced.values[node]) and any(
            n in env and n in local for n in node.all_input_nodes
        )
        if traced.live[node] or is_shape:  # a shape read inside the piece stays symbolic
            env[node] = copy_node(node)
    graph.output(_pack(graph, [resolve(node) for node in stop.nodes], stop))
    graph.eliminate_dead_code(is_impure_node=_may_write)
    code = graph.python_code("self")
    return Piece(
        source=code.src,
        names=dict(code.globals),
        modules=tuple(str(n.target) for n in graph.nodes if n.op == "call_module"),
        attributes=tuple(
            str(n.target) for n in graph.nodes if n.op == "get_attr" and n.target != "training"
        ),
    )


def _unpack(graph: fx.Graph, x: fx.Node, cut: Cut) -> dict[fx.Node, Any]:
    if cut.flat:
        size = graph.call_method("size", (x, 0))
        x = graph.call_method("reshape", (x, size, *cut.shape))
    if cut.turned:
        x = graph.call_method("transpose", (x, 1, 2))
    if cut.batch:
        x = graph.call_method("transpose", (x, 0, cut.batch))
    if cut.axis is None:
        return {cut.nodes[0]: x}
    parts = graph.call_method("split", (x, list(cut.widths), cut.axis))
    return {n: graph.call_function(operator.getitem, (parts, i)) for i, n in enumerate(cut.nodes)}


def _pack(graph: fx.Graph, values: list[Any], cut: Cut) -> fx.Node:
    z = values[0] if cut.axis is None else graph.call_function(torch.cat, (values, cut.axis))
    if cut.batch:
        z = graph.call_method("transpose", (z, 0, cut.batch))
    if cut.turned:
        z = graph.call_method("transpose", (z, 1, 2))
    return graph.call_method("flatten", (z, 1)) if cut.flat else z


def _squeezes_all(node: fx.Node) -> bool:
    """``x.squeeze()``: of one image alone it would take the batch away too."""
    squeeze = node.target in ("squeeze", torch.squeeze)
    return squeeze and len(node.args) == 1 and not node.kwargs


def _single_axes(value: Tensor) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(value.shape) if size == 1)


def _may_write(node: fx.Node) -> bool:
    if node.op in ("placeholder", "output", "call_module"):
        return True
    if node.op == "get_attr":
        return False
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return name == "setitem" or name.endswith("_") or name in ("iadd", "imul", "isub", "itruediv")

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
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
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

    def __deepcopy__(self, memo: dict) -> Piece:
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


@dataclass
class Rerun:
    """What the traced nodes give on another batch, found when it is first asked for."""

    root: nn.Module
    traced: Trace
    image: Tensor

    @cached_property
    def values(self) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in self.traced.nodes:
                if node.op == "placeholder":
                    first = node is self.traced.image
                    values[node] = self.image if first else self.traced.values[node]
                    continue
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
                values[node] = run_node(self.root, node.op, node.target, args, kwargs)
        return values


def build_piece(traced: Trace, other: Rerun, start: Cut, stop: Cut) -> Piece:
    """Make the piece that turns what is alive at ``start`` into what is alive at ``stop``.

    ``other`` gives the values at another batch size: numbers that a later piece needs are written
    into it, and those that grow with the batch are read off its input.
    """
    graph = fx.Graph()
    x = graph.placeholder("x")
    env = _unpack(graph, x, start)
    samples, more = traced.values[traced.image].shape[0], other.image.shape[0]

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
                env[node] = number(traced.values[node], other.values[node])
            else:
                env[node] = copy_node(node)
        return env[node]

    def copy_node(node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), resolve)
        if "training" in kwargs and isinstance(kwargs["training"], bool):
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
    if cut.axis is None:
        return {cut.nodes[0]: x}
    parts = graph.call_method("split", (x, list(cut.widths), cut.axis))
    return {n: graph.call_function(operator.getitem, (parts, i)) for i, n in enumerate(cut.nodes)}


def _pack(graph: fx.Graph, values: list[Any], cut: Cut) -> fx.Node:
    z = values[0] if cut.axis is None else graph.call_function(torch.cat, (values, cut.axis))
    return graph.call_method("flatten", (z, 1)) if cut.flat else z


def _may_write(node: fx.Node) -> bool:
    if node.op in ("placeholder", "output", "call_module"):
        return True
    if node.op == "get_attr":
        return False
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return name == "setitem" or name.endswith("_") or name in ("iadd", "imul", "isub", "itruediv")

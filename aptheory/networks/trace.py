"""Trace a network into nodes, and see where it can be cut: torch.fx, blocks as leaves.

The forward of a model is traced with every submodule as a leaf. A leaf that holds a list of blocks
(a stage) is then opened, and so on, until the leaves are the model's own blocks. While tracing,
each operation also runs on an example, so that control flow follows the example and the values
that are alive between two operations are known. Where exactly one of them depends on the image,
the graph can be cut: what runs before and after the cut needs nothing else.

Shapes may steer a forward; what the images contain may not, since the trace would follow the
example for ever: such a forward is refused, and the line is named. A second trace on a batch of
another size tells which numbers follow the batch.
"""

from __future__ import annotations

import inspect
import linecache
import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import jaxtyping
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from aptheory.networks.wrappers import inner_module

BATCHES = (7, 11)  # images of the two examples: seldom the size of anything else
# What stands between a forward and its own lines: torch, this file, run-time type checks.
_INTERNAL = (
    *(str(Path(torch.__file__).parent), __file__),
    *(str(Path(jaxtyping.__file__).parent), "<@beartype"),
)


class SplitError(Exception):
    """This module cannot be cut; the message says why, without naming the model."""


class ValueBranch(SplitError):
    """What the images contain decides what the forward does."""


def _line(filename: str, number: int) -> str:
    text = linecache.getline(filename, number).strip()
    return f"{filename}, line {number}" + (f": {text}" if text else "")


def _place_in_forward() -> tuple[str, int]:
    """File and line of the forward that is being traced, and not of torch or of this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def where_raised(traceback: TracebackType | None) -> str | None:
    """File, line and text of the innermost line of a forward in which an error was raised."""
    found = None
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not filename.startswith((str(Path(__file__).parent), *_INTERNAL)):
            found = _line(filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


# --------------------------------------------------------------------------------- tracing


def _autocast() -> tuple[bool, ...]:
    """Whether arithmetic runs in another precision than its tensors', on each kind of device."""
    return tuple(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))


class _Proxy(fx.Proxy):
    """A proxy that answers Python's questions (how long? true? which number?) from the example."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> Any:  # an attribute, or None
        # What the example lacks, or has as None, a forward may ask for with a default.
        absent = getattr(self.tracer.values[self.node], name) is None
        return None if absent else _Attribute(self, name)

    def __index__(self) -> int:
        return self.tracer.number(self.node).__index__()

    def __int__(self) -> int:
        return int(self.tracer.number(self.node))

    def __float__(self) -> float:
        return float(self.tracer.number(self.node))

    def __len__(self) -> int:
        return self.tracer.answer(len(self.tracer.values[self.node]))


class _Attribute(fx.proxy.Attribute, _Proxy):
    """``x.shape`` and the like, which answers too."""


class _Tracer(fx.Tracer):
    """Trace a module while running it on an example.

    ``opened`` names the modules whose forward is traced through; all others are leaves.
    ``values`` maps each node to what it gave on the example, ``content`` whether that depends on
    what the image contains (and not on its shape alone).
    """

    proxy_buffer_attributes = True

    def __init__(self, opened: set[str], example: Tensor):
        from timm.layers import get_notrace_functions

        einops = [f for scope in _einops() for name, f in scope.items() if name in EINOPS]
        super().__init__(
            autowrap_modules=(math,), autowrap_functions=(*get_notrace_functions(), *einops)
        )
        self.opened = opened
        self.example = example
        self.values: dict[fx.Node, Any] = {}
        self.content: dict[fx.Node, bool] = {}
        self.written: dict[fx.Node, list[fx.Node]] = {}  # which of its inputs a node writes to
        self.answers: list[tuple[Any, str, int]] = []  # numbers that Python was told, and where
        self.autocast = _autocast()
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._running:
            return forward(*args, **kwargs)
        inner = inner_module(m)
        if inner is not None:
            return inner(*args, **kwargs)
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
        if _autocast() != self.autocast:
            line = _line(*_place_in_forward())
            raise SplitError(
                f"its forward switches autocast on or off ({line}): leave that to its caller"
            )
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if kind != "output":
            before = self._versions(node)
            self._running = True
            try:
                self.values[node] = self._value(kind, target, args, kwargs)
            finally:
                self._running = False
            after = self._versions(node)
            self.written[node] = [n for n in before if after[n] != before[n]]
            self.content[node] = self._reads_content(node)
        return node

    def _versions(self, node: fx.Node) -> dict[fx.Node, int]:
        """How often each tensor that a node reads has been written to."""
        read = {n: self.values[n] for n in node.all_input_nodes}
        return {
            n: v._version for n, v in read.items() if isinstance(v, Tensor) and not v.is_inference()
        }

    def _reads_content(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return True
        sources = [n for n in node.all_input_nodes if self.content[n]]
        if not is_plain(self.values[node]):
            return bool(sources)
        name = node.target if isinstance(node.target, str) else node.target.__name__
        reads = bool(sources) and name in READERS
        return reads or any(is_plain(self.values[n]) for n in sources)

    def number(self, node: fx.Node) -> Any:
        """A number that Python asks for: of a shape, say, but never of an image's content."""
        if self.content[node]:
            line = _line(*_place_in_forward())
            raise ValueBranch(f"what the images contain decides what its forward does ({line})")
        return self.answer(self.values[node])

    def answer(self, value: Any) -> Any:
        """The same value, noted with the line that asked for it."""
        self.answers.append((value, *_place_in_forward()))
        return value

    def create_proxy(self, kind: str, target: Any, *rest: Any, **more: Any) -> Any:
        proxy = super().create_proxy(kind, target, *rest, **more)
        absent = target in (operator.getitem, getattr) and self.values[proxy.node] is None
        return None if absent else proxy  # "is None" cannot be asked of a proxy

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.example
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
        return bool(self.number(obj.node))

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        count = self.answer(len(self.values[obj.node]))
        return iter([obj[i] for i in range(count)])  # type: ignore[index]  # fx adds it later


READERS = ("item", "tolist", "equal", "allclose", "is_nonzero")
"""What turns a tensor's content into a plain value; any other plain value is of its shape."""


EINOPS = ("rearrange", "reduce", "repeat", "einsum", "pack", "unpack")


def _einops() -> list[dict[str, Any]]:
    """Where einops' functions are looked up, once it is imported: they refuse proxies."""
    return [vars(sys.modules[name]) for name in ("einops.einops", "einops") if name in sys.modules]


FACTORIES = ("arange", "zeros", "ones", "full", "empty", "linspace", "eye")


@contextmanager
def _traced_functions(functions: set[int], *scopes: dict[str, Any]) -> Iterator[None]:
    """Let ``torch.arange(x.shape[1])`` be traced: factories do not know proxies by themselves.

    So it goes with those of ``functions``, by their ids, that stand in ``scopes``, as the root's
    own file; fx sees to the files of the modules below.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*args: Any, **kwargs: Any) -> Any:
            leaves = tree_leaves((args, kwargs))
            proxy = next((leaf for leaf in leaves if isinstance(leaf, fx.Proxy)), None)
            if proxy is None:
                return function(*args, **kwargs)
            return proxy.tracer.create_proxy("call_function", function, args, kwargs)

        return traced

    factories = {name: getattr(torch, name) for name in FACTORIES}
    imported = [{n: f for n, f in scope.items() if id(f) in functions} for scope in scopes]
    try:
        for name, function in factories.items():
            setattr(torch, name, wrap(function))
        for scope, known in zip(scopes, imported, strict=True):
            scope |= {name: wrap(function) for name, function in known.items()}
        yield
    finally:
        for name, function in factories.items():
            setattr(torch, name, function)
        for scope, known in zip(scopes, imported, strict=True):
            scope |= known


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
    tracer = _Tracer(opened, example)
    before = set(vars(root)) | set(root._buffers)
    scope = getattr(inspect.unwrap(root.forward), "__globals__", {})
    functions = _traced_functions(tracer._autowrap_function_ids, scope, *_einops())
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


def _follow_writes(tracer: _Tracer, nodes: list[fx.Node]) -> None:
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
        if isinstance(a, fx.Node) or a == b:
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
            return f" ({_line(filename, number)})"
    return ""


def is_plain(value: Any) -> bool:
    """True of numbers, shapes, devices and the like: what is known without the image's content."""
    if isinstance(value, (tuple, list)):
        return all(is_plain(v) for v in value)
    return isinstance(value, (int, float, bool, str, torch.dtype, torch.device, torch.layout))

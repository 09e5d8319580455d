"""Run a forward on an example while torch.fx writes down its steps.

The tracer answers what a forward asks of its numbers and shapes from the example, so that control
flow follows it, and knows of each step what it gave, whether that depends on what the images
contain, and what it wrote in place. Shapes may steer a forward; what the images contain may not,
since the trace would follow the example for ever: such a forward is refused, and the line is named.
"""

from __future__ import annotations

import linecache
import math
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jaxtyping
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from aptheory.networks.wrappers import inner_module

# What stands between a forward and its own lines: torch, tracing itself, run-time type checks.
_INTERNAL = (
    *(str(Path(torch.__file__).parent), __file__, str(Path(__file__).with_name("trace.py"))),
    *(str(Path(jaxtyping.__file__).parent), "<@beartype"),
)


class SplitError(Exception):
    """This module cannot be cut; the message says why, without naming the model."""


class ValueBranch(SplitError):
    """What the images contain decides what the forward does."""


def line_text(filename: str, number: int) -> str:
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
            found = line_text(filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _autocast() -> tuple[bool, ...]:
    """Whether arithmetic runs in another precision than its tensors', on each kind of device."""
    return tuple(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))


class _Proxy(fx.Proxy):
    """A proxy that answers Python's questions (how long? true? which number?) from the example."""

    tracer: Tracer

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


class Tracer(fx.Tracer):
    """Trace a module while running it on an example.

    ``opened`` names the modules whose forward is traced through; all others are leaves.
    ``values`` maps each node to what it gave on the example, ``content`` whether that depends on
    what the image contains (and not on its shape alone).
    """

    proxy_buffer_attributes = True

    def __init__(self, opened: set[str], example: Tensor):
        from timm.layers import get_notrace_functions

        einops = [f for scope in einops_scopes() for name, f in scope.items() if name in EINOPS]
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
        self._thread = threading.get_ident()

    def _bystands(self) -> bool:
        """Whether a module is just run: for a node's value, or by another thread, as fx changes
        the calls of all modules while it traces one."""
        return self._running or threading.get_ident() != self._thread

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._bystands():
            return forward(*args, **kwargs)
        inner = inner_module(m)
        if inner is not None:
            return inner(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._bystands():
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
            line = line_text(*_place_in_forward())
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
            line = line_text(*_place_in_forward())
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


def einops_scopes() -> list[dict[str, Any]]:
    """Where einops' functions are looked up, once it is imported: they refuse proxies."""
    return [vars(sys.modules[name]) for name in ("einops.einops", "einops") if name in sys.modules]


FACTORIES = ("arange", "zeros", "ones", "full", "empty", "linspace", "eye")


@contextmanager
def traced_functions(functions: set[int], *scopes: dict[str, Any]) -> Iterator[None]:
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


def is_plain(value: Any) -> bool:
    """True of numbers, shapes, devices and the like: what is known without the image's content."""
    if isinstance(value, (tuple, list)):
        return all(is_plain(v) for v in value)
    return isinstance(value, (int, float, bool, str, torch.dtype, torch.device, torch.layout))

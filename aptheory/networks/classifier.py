"""The classifier of a network, found by what is executed and not by what is declared.

It is the last linear map (a linear layer, a 1x1 convolution, or the same as a function) whose
output is the network's output. Between the two may stand what changes no feature: reshaping,
pooling, a softmax, a constant factor; and several such maps may be joined, as the two heads of a
distilled model are. Where the way back from the output meets anything else first, such as a
nonlinearity, a norm or a residual sum, there is no classifier: the output is the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from aptheory.networks.trace import Trace
from aptheory.networks.tracer import SplitError

PASSING_MODULES = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout),
    *(nn.Flatten, nn.Unflatten, nn.Softmax, nn.LogSoftmax, nn.Sigmoid),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AvgPool1d, nn.AvgPool2d),
)
PASSING = frozenset(
    (
        *("getattr", "getitem", "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"),
        *("permute", "transpose", "swapaxes", "movedim", "t", "contiguous", "clone", "detach"),
        *("to", "float", "double", "half", "bfloat16", "type", "type_as"),
        *("mean", "sum", "amax", "max", "select", "narrow", "chunk", "split", "unbind"),
        *("softmax", "log_softmax", "sigmoid", "dropout", "rearrange", "reduce"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool2d"),
    )
)
JOINING = frozenset(("add", "iadd", "sub", "isub", "cat", "concat", "concatenate", "stack"))
SCALING = frozenset(
    ("mul", "imul", "multiply", "div", "truediv", "itruediv", "divide", "neg", *JOINING)
)
MAPPING = frozenset(("linear", "matmul", "mm", "addmm", "conv1d", "conv2d", "einsum"))


@dataclass(frozen=True)
class Classifier:
    """Where the classifier runs.

    ``names`` are the modules (or the weights of a function) that it consists of, ``opened`` the
    modules around them. A headless network has ``present=False``; its name is that of the identity
    which stands in the classifier's place.
    """

    names: tuple[str, ...]
    present: bool
    opened: frozenset[str]
    declared: tuple[str, ...] = ()
    chosen: bool = False

    def position(self, root: nn.Module, traced: Trace) -> int | None:
        """Index of the first of its nodes; None where the output itself is the last place."""
        if self.chosen:
            return _last_call(root, traced, self.names[0])
        walk = _Walk(root, traced, self.declared, set())
        try:
            walk.back(traced.result)
        except Headless:
            walk.maps = []
        if self.present and walk.maps:
            return min(traced.nodes.index(node) for node in walk.maps)
        called = {str(n.target): i for i, n in enumerate(traced.nodes) if n.op == "call_module"}
        return min((called[name] for name in self.names if name in called), default=None)


class Headless(Exception):
    """The way back from the output meets something that is no linear map."""


def is_linear(module: nn.Module) -> bool:
    """A linear layer, or a convolution that looks at single positions."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return module.groups == 1 and {*module.kernel_size, *module.stride} == {1}
    return isinstance(module, nn.Linear)


def find_classifier(
    root: nn.Module, retrace: Callable[[set[str]], Trace], declared: tuple[str, ...] = ()
) -> Classifier:
    """Walk back from the output, opening the modules on the way.

    ``retrace`` traces with a set of opened modules. ``declared`` are the names of heads by the
    model's own word: one that reads a vector and holds the linear map is the classifier itself.
    """
    opened = set(_above(list(declared)))
    closed: set[str] = set()
    traced = retrace(opened)
    while True:
        walk = _Walk(root, traced, declared, closed)
        try:
            names = walk.back(traced.result)
        except Headless:
            names = []
        if walk.opens is None:
            break
        try:
            traced = retrace(opened | {walk.opens})
            opened |= {walk.opens}
        except Exception:  # what cannot be traced stays a leaf
            closed.add(walk.opens)
    if names and not walk.one_after_another():
        return Classifier(tuple(dict.fromkeys(names)), True, _above(names), declared)
    identity = [walk.identity] if walk.identity else []
    return Classifier(tuple(identity) or ("output",), False, _above(identity))


def _above(names: list[str]) -> frozenset[str]:
    """The modules that must be opened for these to be seen."""
    parts = [name.split(".") for name in names]
    return frozenset({"", *(".".join(p[:k]) for p in parts for k in range(1, len(p)))})


class _Walk:
    """One walk back through a trace."""

    def __init__(
        self, root: nn.Module, traced: Trace, declared: tuple[str, ...], closed: set[str]
    ) -> None:
        self.root, self.traced, self.declared, self.closed = root, traced, declared, closed
        self.opens: str | None = None  # the leaf that must be opened to go on
        self.identity: str | None = None
        self.maps: list[fx.Node] = []

    def back(self, node: fx.Node) -> list[str]:
        """Names of the linear maps that a value comes from; `Headless` where it does not."""
        sources = [n for n in node.all_input_nodes if self.traced.live[n]]
        if node.op == "call_module":
            return self._module(node, sources)
        if node.op not in ("call_function", "call_method") or not sources:
            raise Headless
        word = node.target if isinstance(node.target, str) else node.target.__name__
        word = word.strip("_")
        if len(sources) == 1:
            if word in MAPPING:
                return self._function(node)
            if word in PASSING | SCALING:
                return self.back(sources[0])
        elif word in JOINING and not self._residual(sources):
            return [name for source in sources for name in self.back(source)]
        raise Headless

    def _module(self, node: fx.Node, sources: list[fx.Node]) -> list[str]:
        name = str(node.target)
        module = self.root.get_submodule(name)
        value = self.traced.values[sources[0]] if sources else None
        if is_linear(module) or (name in self.declared and _holds_one_map(module, value)):
            self.maps.append(node)
            return [name]
        if isinstance(module, nn.Identity) and self.identity is None:
            self.identity = name
        if isinstance(module, PASSING_MODULES) and sources:
            return self.back(sources[0])
        library = type(module).__module__.startswith("torch.nn.modules.")
        containers = (nn.Sequential, nn.ModuleList)
        if name not in self.closed and (not library or isinstance(module, containers)):
            self.opens = name
        raise Headless

    def _function(self, node: fx.Node) -> list[str]:
        """A linear map written as a function: named after its weight."""
        weights = [n for n in node.all_input_nodes if not self.traced.live[n]]
        matrix = next((w for w in weights if _is_matrix(self.traced.values[w])), None)
        if matrix is None:
            raise Headless
        self.maps.append(node)
        while matrix.op != "get_attr":  # .t(), a cast, a normalisation
            inner = matrix.all_input_nodes
            if not inner:
                return ["head"]
            matrix = inner[0]
        name = str(matrix.target)
        return [name.removesuffix(".weight")]

    def _residual(self, sources: list[fx.Node]) -> bool:
        """Whether one of several values was made from another."""
        return any(a is not b and a in _ancestors(b) for a in sources for b in sources)

    def one_after_another(self) -> bool:
        """Whether one of the maps that were met feeds another."""
        return self._residual(self.maps)


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    left = [node]
    while left:
        for source in left.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                left.append(source)
    return seen


def _is_matrix(value: Any) -> bool:
    """A matrix, or a kernel that looks at single positions."""
    if not isinstance(value, Tensor) or value.ndim < 2:
        return False
    return value.ndim == 2 or all(n == 1 for n in value.shape[2:])


def _holds_one_map(module: nn.Module, value: Any) -> bool:
    """Whether a head that reads a vector is a linear map with what belongs to it."""
    reads_vector = isinstance(value, Tensor) and value[0].numel() == max(value.shape[1:])
    return reads_vector and any(is_linear(part) for part in module.modules())


def declared_classifiers(module: nn.Module) -> tuple[str, ...]:
    """The heads by timm's own word, as dotted names."""
    ask: Any = getattr(module, "get_classifier", None)
    if ask is None:
        return ()
    answer = ask()
    heads = list(answer) if isinstance(answer, (tuple, list, nn.ModuleList)) else [answer]
    return tuple(
        name
        for head in heads
        for name, child in module.named_modules()
        if name and isinstance(head, nn.Module) and child is head
    )


def chosen_classifier(root: nn.Module, name: str) -> Classifier:
    """The classifier that the user names.

    Raises:
        SplitError: there is no such module.
    """
    try:
        named = root.get_submodule(name)
    except AttributeError:
        named = root
    if named is root:
        raise SplitError(f"it has no module {name!r} to be its classifier; {last_linear(root)}")
    return Classifier((name,), True, _above([name]), chosen=True)


def last_linear(root: nn.Module) -> str:
    """In words, what might be meant by its classifier."""
    names = [name for name, module in root.named_modules() if is_linear(module)]
    return f"its last linear layers are {', '.join(names[-3:]) or 'none'}"


def _last_call(root: nn.Module, traced: Trace, name: str) -> int:
    calls = [
        i for i, n in enumerate(traced.nodes) if n.op == "call_module" and str(n.target) == name
    ]
    if calls:
        return calls[-1]
    inside = any(str(node.target).startswith(f"{name}.") for node in traced.nodes)
    reason = "runs in parts" if inside else "never runs"
    raise SplitError(f"{name!r} {reason}, and cannot be its classifier; {last_linear(root)}")

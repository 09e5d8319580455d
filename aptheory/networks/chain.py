"""The chain of a network: which modules are its blocks, and which cuts are its places.

Nothing here knows a family by name. A block is a leaf of the trace that holds at least two weight
matrices or kernels; a place is a cut that enters a block, or the final norm or pooling, or the
classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from aptheory.networks import trace as graph
from aptheory.networks.classifier import Classifier
from aptheory.networks.outputs import tensors_of
from aptheory.networks.tracer import SplitError, where_raised

Retrace = Callable[[set[str]], graph.Trace]
"""Traces the network with these modules opened."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
WHOLE = (nn.MultiheadAttention, nn.RNNBase)  # return several tensors, and hold no blocks
EMPTY = (nn.Identity, nn.Dropout)
WANTED = 6  # below this many layers, finer cuts are tried
GATE = 1 / 8  # a map of attention over positions is smaller than this share of the activation
FEWEST = 4  # image, one block, its output, the classifier: below this there is nothing to compare


class TooFewLayers(SplitError):
    """Traced, but the activations do not form a chain."""


# --------------------------------------------------------------------------- choosing leaves


def weights_in(module: nn.Module) -> int:
    """How many weight matrices or kernels a module holds."""
    return sum(p.ndim >= 2 for p in module.parameters())


def is_blocklike(module: nn.Module) -> bool:
    """A residual or transformer block, as opposed to one convolution with its norm."""
    return weights_in(module) >= 2


def _is_plain_list(module: nn.Module) -> bool:
    """A container that adds nothing of its own."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def listed_blocks(module: nn.Module) -> set[str]:
    """Names of the outermost blocks that stand in a list inside a module.

    A list is a container, or a module whose children are all blocks of one class.
    """
    children = list(module.named_children())
    uniform = len({type(c) for _, c in children}) == 1 and len(children) > 1
    is_list = isinstance(module, CONTAINERS) or (
        uniform and all(is_blocklike(child) for _, child in children)
    )
    found = set()
    for name, child in children:
        if is_list and is_blocklike(child):
            found.add(name)
        else:
            found |= {f"{name}.{inner}" for inner in listed_blocks(child)}
    return found


def _gives_several(value: Any) -> bool:
    return len(tensors_of(value)) > 1


def find_chain(
    root: nn.Module,
    retrace: Retrace,
    classifier: Classifier,
    blocks: Sequence[str] = (),
) -> Chain:
    """Trace a model, opening what hides a list of blocks, until the leaves are its blocks.

    Where that gives fewer than six layers, plain sequences of single convolutions are opened too,
    and blocks that return more than a tensor. ``blocks`` names the blocks instead.

    Raises:
        TooFewLayers: it is no chain; says what stands in the way.
    """
    if blocks:
        return _named_chain(root, retrace, classifier, blocks)
    failures: dict[str, str] = {}
    attempt = partial(_try, retrace, failures)
    opened = set(classifier.opened)
    traced = retrace(opened)
    traced, opened = _open(root, traced, opened, attempt, _open_lists)
    chain = Chain(root, traced, classifier)
    if chain.count() < WANTED:
        finer, opened = _open(root, traced, opened, attempt, _open_sequences)
        chain = max(chain, Chain(root, finer, classifier), key=Chain.count)
    if chain.count() < WANTED:
        finer, opened = _open(root, chain.trace, opened, attempt, _open_packed)
        chain = max(chain, Chain(root, finer, classifier), key=Chain.count)
    if chain.count() < FEWEST:
        raise TooFewLayers(_why_too_few(root, chain, failures))
    return chain


def _why_too_few(root: nn.Module, chain: Chain, failures: dict[str, str]) -> str:
    for name, reason in failures.items():
        if weights_in(root.get_submodule(name)) > 1:
            return f"{name} cannot be opened, since {reason}"
    runs = [n for leaves in chain.leaves for n in leaves if weights_in(root.get_submodule(n))]
    with_weights = sum(any(True for _ in m.parameters(recurse=False)) for m in root.modules())
    segments = [i for i in range(1, chain.head) if chain.weights[i]]
    if len(segments) > 1 and not any(_is_spatial(chain.cuts[i].shape) for i in segments):
        return (
            "all that stands between its layers are vectors, without positions, so that there are "
            "no maps or tokens to compare"
        )
    alone = len(chain.cuts) > 1  # somewhere between the image and the output
    if (len(set(runs)) < FEWEST - 1 or not alone) and with_weights >= FEWEST:
        return (
            "between its layers no activation stands alone with the images along one axis, so that "
            "it is no chain"
        )
    if len(set(runs)) < FEWEST - 1:
        return (
            "fewer than two layers with weights run between the image and the classifier, so that "
            "there are no places to compare"
        )
    return "several activations live side by side nearly all the way, so that it is no chain"


def _named_chain(
    root: nn.Module, retrace: Retrace, classifier: Classifier, blocks: Sequence[str]
) -> Chain:
    """The chain of the blocks that the user names: a list of them, or each."""
    names: list[str] = []
    for name in blocks:
        try:
            module = root.get_submodule(name)
        except AttributeError:
            lists = [n for n, m in root.named_modules() if isinstance(m, CONTAINERS) and n]
            raise TooFewLayers(
                f"it has no module {name!r} to be its blocks; its lists are "
                f"{', '.join(lists) or 'none'}"
            ) from None
        parts = [f"{name}.{inner}" for inner, _ in module.named_children()]
        names += parts if len(blocks) == 1 and isinstance(module, CONTAINERS) else [name]
    above = {
        ".".join(parts[:k]) for parts in (n.split(".") for n in names) for k in range(1, len(parts))
    }
    chain = Chain(root, retrace(set(classifier.opened) | above), classifier, named=names)
    if not chain.blocks:
        raise TooFewLayers(f"the activation is never alone between the blocks {', '.join(blocks)}")
    return chain


def _open(
    root: nn.Module,
    traced: graph.Trace,
    opened: set[str],
    attempt: Callable[[set[str], str], graph.Trace | None],
    rule: Callable[[nn.Module, graph.Trace, str], set[str]],
) -> tuple[graph.Trace, set[str]]:
    """Open leaves as long as ``rule`` names any and opening them helps."""
    from timm.layers import get_notrace_modules

    closed = (*WHOLE, *get_notrace_modules())
    refused: set[str] = set()
    classes: set[type] = set()  # of which one turned out not to be a chain of blocks
    while True:
        for name in dict.fromkeys(str(n.target) for n in traced.nodes if n.op == "call_module"):
            module = root.get_submodule(name)
            if name in refused or isinstance(module, closed) or type(module) in classes:
                continue
            inner = rule(module, traced, name)
            if not inner:
                refused.add(name)
                continue
            better = _opened_further(root, traced, opened, name, inner, attempt)
            if better:
                traced, opened = better
                break
            refused.add(name)
            if len(listed_blocks(module)) > 1 and not isinstance(module, CONTAINERS):
                classes.add(type(module))
        else:
            return traced, opened


def _opened_further(
    root: nn.Module,
    traced: graph.Trace,
    opened: set[str],
    name: str,
    inner: set[str],
    attempt: Callable[[set[str], str], graph.Trace | None],
) -> tuple[graph.Trace, set[str]] | None:
    """Open one leaf, and what more it takes to see its blocks; None where that does not help."""
    module = root.get_submodule(name)
    new = attempt(opened | inner, name)
    if new is None:
        return None
    if _is_plain_list(module) or _helps(root, traced, new, name):
        return new, opened | inner
    several = {  # perhaps what returns several tensors hides the chain
        str(n.target)
        for n in new.nodes
        if n.op == "call_module"
        and str(n.target).startswith(name + ".")
        and _gives_several(new.values[n])
    }
    paths = [block.split(".") for block in listed_blocks(module)]
    above = {  # or the blocks lie deeper
        f"{name}.{'.'.join(path[:k])}" for path in paths for k in range(1, len(path))
    }
    for more in (several, several | above):
        new = attempt(opened | inner | more, name)
        if new is not None and _helps(root, traced, new, name):
            return new, opened | inner | more
    return None


def _open_lists(module: nn.Module, traced: graph.Trace, name: str) -> set[str]:
    """A stage: open it and the plain lists directly inside. Also what returns several tensors of
    which more than one is read."""
    several = any(
        _gives_several(traced.values[n]) and len(n.users.keys() & set(traced.nodes)) > 1
        for n in traced.nodes
        if n.op == "call_module" and n.target == name
    )
    if not listed_blocks(module) and not several:
        return set()
    return {name} | {
        f"{name}.{inner}"
        for inner, child in module.named_modules()
        if inner
        and _is_plain_list(child)
        and listed_blocks(child)
        and all(
            _is_plain_list(module.get_submodule(inner[:k]))
            for k, letter in enumerate(inner)
            if letter == "."
        )
    }


def _open_sequences(module: nn.Module, traced: graph.Trace, name: str) -> set[str]:
    """A plain sequence, whatever it holds."""
    return {name} if _is_plain_list(module) and len(list(module.children())) > 1 else set()


def _open_packed(module: nn.Module, traced: graph.Trace, name: str) -> set[str]:
    """What returns a tensor with other things, in which the next block finds it."""
    values = [traced.values[n] for n in traced.nodes if n.op == "call_module" and n.target == name]
    packed = any(not isinstance(value, Tensor) and tensors_of(value) for value in values)
    return {name} if packed else set()


def _try(
    retrace: Retrace, failures: dict[str, str], opened: set[str], name: str
) -> graph.Trace | None:
    try:
        return retrace(opened)
    except Exception as error:  # what cannot be traced stays a leaf
        failures[name] = reason_of(error)
        return None


def reason_of(error: Exception, failed: str = "torch.fx cannot follow its forward") -> str:
    """Why a trace failed, in words that go after "since": where it happened, and what."""
    if isinstance(error, SplitError):
        return str(error).rstrip(".")
    lines = str(error).strip().splitlines()
    what = type(error).__name__ + (f": {lines[0].rstrip('.')}" if lines else "")
    where = where_raised(error.__traceback__)
    return f"{failed} ({where or 'no line of it'}; {what})"


def _helps(root: nn.Module, old: graph.Trace, new: graph.Trace, name: str) -> bool:
    """Whether at least two of a stage's blocks are now on either side of a cut."""
    cuts = new.cuts()
    blocks = [f"{name}.{inner}" for inner in listed_blocks(root.get_submodule(name))]
    if not blocks:
        return len(cuts) > len(old.cuts())
    segments = {
        sum(cut.position < i for cut in cuts)
        for i, node in enumerate(new.nodes)
        if node.op == "call_module"
        and any(
            node.target == block or str(node.target).startswith(block + ".") for block in blocks
        )
        and weights_in(root.get_submodule(str(node.target)))
    }
    return len(segments) > 1


# --------------------------------------------------------------------------- choosing places


def _is_spatial(shape: Sequence[int]) -> bool:
    """More than one position."""
    return not (
        len(shape) == 1
        or (len(shape) == 2 and shape[0] == 1)
        or (len(shape) == 3 and shape[1] == shape[2] == 1)
    )


class Chain:
    """The possible cuts of a trace up to the classifier, and the choice among them.

    Segment ``i`` runs from cut ``i`` to cut ``i + 1``; the last one is the classifier.
    """

    def __init__(
        self,
        root: nn.Module,
        traced: graph.Trace,
        classifier: Classifier,
        *,
        named: Sequence[str] = (),
    ):
        self.root = root
        self.trace = traced
        self.named = named
        self.classifier = classifier
        cuts = traced.cuts()
        begins = classifier.position(root, traced)
        if begins is not None:
            cuts = [cut for cut in cuts if cut.position < begins]
        # several vectors count as one only where they are the classifiers' input
        self.cuts = [c for c in cuts if c is cuts[-1] or c.axis is None or len(c.shape) > 1]
        self.head_name = classifier.names[0]
        self.leaves: list[list[str]] = []
        for cut, after in zip(self.cuts, [*[c.position for c in self.cuts[1:]], None], strict=True):
            stop = len(traced.nodes) if after is None else after + 1
            nodes = traced.nodes[cut.position + 1 : stop]
            self.leaves.append(
                [str(n.target) for n in nodes if n.op == "call_module" and traced.live[n]]
            )
        self.head = len(self.cuts) - 1
        self.weights = [
            0
            if self._weighs_only(i)
            else sum(weights_in(root.get_submodule(name)) for name in leaves)
            for i, leaves in enumerate(self.leaves)
        ]
        if named:
            self.blocks = [i for i in range(1, self.head) if set(self.leaves[i]) & set(named)]
            return
        self.blocks = self._blocks(2)
        if len(self.blocks) < 4:
            self.blocks = self._blocks(1)

    def _weighs_only(self, i: int) -> bool:
        """Whether a segment's weights give a number a position alone, as an attention pooling
        does, which the activation is multiplied with: nothing there makes new features."""
        if i >= self.head:
            return False
        whole = math.prod(self.cuts[i + 1].shape) * self.trace.samples
        start, stop = self.cuts[i].position + 1, self.cuts[i + 1].position + 1
        sizes = [
            sum(v.numel() for v in tree_leaves(self.trace.values[node]) if isinstance(v, Tensor))
            for node in self.trace.nodes[start:stop]
            if node.op == "call_module" and weights_in(self.root.get_submodule(str(node.target)))
        ]
        return bool(sizes) and self._keeps_shape(i) and max(sizes) <= GATE * whole

    def _blocks(self, fewest: int) -> list[int]:
        return [
            i
            for i in range(1, self.head)
            if self.weights[i] >= fewest and _is_spatial(self.cuts[i + 1].shape)
        ]

    def again(self) -> Chain:
        """The same chain of the same trace, after more has become known of the trace."""
        return Chain(self.root, self.trace, self.classifier, named=self.named)

    def count(self) -> int:
        """How many places there would be."""
        return len(self._chosen()[0]) if self.blocks else 0

    def _chosen(self) -> tuple[list[int], set[int]]:
        """Indices of the chosen cuts, and which of them enter a block."""
        chosen, enters, previous = [0], set(), None
        for i in self.blocks:
            at = i
            if previous is not None:  # what lies between two blocks belongs to the later one,
                at = previous + 1  # but a norm or an activation to the earlier one
                while at < i and not self.weights[at] and self._keeps_shape(at):
                    at += 1
            chosen.append(at)
            enters.add(at)
            previous = i
        last = self.blocks[-1]
        for i in range(last + 1, self.head):  # a convolution after the last block is a place
            if self.weights[i] and _is_spatial(self.cuts[i + 1].shape):
                chosen.append(last + 1)
                enters.add(last + 1)
                last = i
        if last + 1 < self.head:  # the final norm or pooling
            chosen.append(last + 1)
        chosen.append(self.head)
        return list(dict.fromkeys(chosen)), enters - {self.head}

    def _keeps_shape(self, i: int) -> bool:
        return self.cuts[i].shape == self.cuts[i + 1].shape

    def places(self, granularity: str) -> tuple[list[tuple[graph.Cut, str]], list[int]]:
        """The chosen cuts with their names, and which of them enter a block."""
        chosen, enters = self._chosen()
        if granularity == "stage":
            kept = []
            for here, after in zip(chosen, [*chosen[1:], self.head], strict=True):
                inner = here in enters and here != chosen[1]
                if not inner or self.cuts[here].shape != self.cuts[after].shape:
                    kept.append(here)
            chosen = kept
        places = []
        for here, after in zip(chosen, [*chosen[1:], self.head], strict=True):
            cut = self.cuts[here]
            if here == self.head and len(cut.shape) > 1 and math.prod(cut.shape) == max(cut.shape):
                cut = replace(cut, flat=True)
            places.append((cut, self._label(here, after)))
        return places, [k for k, i in enumerate(chosen) if i in enters]

    def _label(self, here: int, after: int) -> str:
        """The module that is entered: a block's name, or the stage's whose beginning this is."""
        if here == 0:
            return "image"
        if here == self.head:
            return self.head_name
        leaves = [name for i in range(here, max(after, here + 1)) for name in self.leaves[i]]
        weighty = [name for name in leaves if weights_in(self.root.get_submodule(name))]
        real = [n for n in leaves if not isinstance(self.root.get_submodule(n), EMPTY)]
        if len(weighty) == 1 and here in self._chosen()[1]:
            return weighty[0]
        if not real:
            return leaves[0] if leaves else "pool"
        parts = real[0].split(".") if here in self._chosen()[1] else []
        for k in range(1, len(parts)):  # the outermost module that begins here
            name = ".".join(parts[:k])
            inside = [n for n in self._all_leaves() if n.startswith(name + ".")]
            if inside[0] in leaves and not _is_plain_list(self.root.get_submodule(name)):
                return name
        return real[0]

    def _all_leaves(self) -> list[str]:
        return [name for leaves in self.leaves for name in leaves]

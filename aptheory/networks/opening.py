"""Which modules are opened until the leaves of a network's trace are its blocks, and the reason
where no opening makes it a chain.

A leaf runs as a whole; an opened module shows what runs inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from aptheory.networks.blocks import CONTAINERS, is_plain_list, listed_blocks, weights_in
from aptheory.networks.chain import Chain, is_spatial
from aptheory.networks.classifier import Classifier, last_linear
from aptheory.networks.outputs import tensors_of
from aptheory.networks.trace import Trace
from aptheory.networks.tracer import SplitError, where_raised

Retrace = Callable[[set[str]], Trace]
"""Traces the network with these modules opened."""

WHOLE = (nn.MultiheadAttention, nn.RNNBase)  # return several tensors, and hold no blocks
WANTED = 6  # below this many layers, finer cuts are tried
FEWEST = 4  # image, one block, its output, the classifier: below this there is nothing to compare


class TooFewLayers(SplitError):
    """Traced, but the activations do not form a chain."""


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
    head = chain.classifier
    if head.chosen and (at := head.position(root, chain.trace)) is not None:
        later = [n for n in chain.trace.nodes[at + 1 :] if n.op == "call_module"]
        if any(weights_in(root.get_submodule(str(n.target))) for n in later):
            return f"{head.names[0]!r} runs too early to be its classifier; {last_linear(root)}"
    for name, reason in failures.items():
        if weights_in(root.get_submodule(name)) > 1:
            return f"{name} cannot be opened, since {reason}"
    runs = [n for leaves in chain.leaves for n in leaves if weights_in(root.get_submodule(n))]
    with_weights = sum(any(True for _ in m.parameters(recurse=False)) for m in root.modules())
    segments = [i for i in range(1, chain.head) if chain.weights[i]]
    if len(segments) > 1 and not any(is_spatial(chain.cuts[i].shape) for i in segments):
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
    traced = retrace(set(classifier.opened) | above)
    _check_named(traced, names)
    chain = Chain(root, traced, classifier, named=names)
    if not chain.blocks:
        raise TooFewLayers(f"the activation is never alone between the blocks {', '.join(blocks)}")
    return chain


def _check_named(traced: Trace, names: Sequence[str]) -> None:
    """Refuse blocks that are no list of what runs, each once and in order.

    Raises:
        TooFewLayers: one is named twice, lies within another, never runs, or runs before one that
            is named earlier.
    """
    calls = [str(node.target) for node in traced.nodes if node.op == "call_module"]
    before, at = "", -1
    for name in names:
        if name == before:
            raise TooFewLayers(f"{name!r} is named twice among its blocks; name it once")
        outer = next((other for other in names if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise TooFewLayers(f"its block {name!r} lies within its block {outer!r}; name one")
        first = next((i for i, call in enumerate(calls) if f"{call}.".startswith(f"{name}.")), None)
        if first is None:
            raise TooFewLayers(f"its block {name!r} never runs; leave it out")
        if first < at:
            raise TooFewLayers(f"its block {name!r} runs before {before!r}; name them in order")
        before, at = name, first


def _open(
    root: nn.Module,
    traced: Trace,
    opened: set[str],
    attempt: Callable[[set[str], str], Trace | None],
    rule: Callable[[nn.Module, Trace, str], set[str]],
) -> tuple[Trace, set[str]]:
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
    traced: Trace,
    opened: set[str],
    name: str,
    inner: set[str],
    attempt: Callable[[set[str], str], Trace | None],
) -> tuple[Trace, set[str]] | None:
    """Open one leaf, and what more it takes to see its blocks; None where that does not help."""
    module = root.get_submodule(name)
    new = attempt(opened | inner, name)
    if new is None:
        return None
    if is_plain_list(module) or _helps(root, traced, new, name):
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


def _open_lists(module: nn.Module, traced: Trace, name: str) -> set[str]:
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
        and is_plain_list(child)
        and listed_blocks(child)
        and all(
            is_plain_list(module.get_submodule(inner[:k]))
            for k, letter in enumerate(inner)
            if letter == "."
        )
    }


def _gives_several(value: Any) -> bool:
    return len(tensors_of(value)) > 1


def _open_sequences(module: nn.Module, traced: Trace, name: str) -> set[str]:
    """A plain sequence, whatever it holds."""
    return {name} if is_plain_list(module) and len(list(module.children())) > 1 else set()


def _open_packed(module: nn.Module, traced: Trace, name: str) -> set[str]:
    """What returns a tensor with other things, in which the next block finds it."""
    values = [traced.values[n] for n in traced.nodes if n.op == "call_module" and n.target == name]
    packed = any(not isinstance(value, Tensor) and tensors_of(value) for value in values)
    return {name} if packed else set()


def _try(retrace: Retrace, failures: dict[str, str], opened: set[str], name: str) -> Trace | None:
    try:
        return retrace(opened)
    except Exception as error:  # what cannot be traced stays a leaf
        failures[name] = reason_of(error)
        return None


def reason_of(error: BaseException, failed: str = "torch.fx cannot follow its forward") -> str:
    """Why a trace failed, in words that go after "since": where it happened, and what."""
    if isinstance(error, SplitError):
        return str(error).rstrip(".")
    lines = str(error).strip().splitlines()
    what = type(error).__name__ + (f": {lines[0].rstrip('.')}" if lines else "")
    where = where_raised(error.__traceback__)
    return f"{failed} ({where or 'no line of it'}; {what})"


def _helps(root: nn.Module, old: Trace, new: Trace, name: str) -> bool:
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

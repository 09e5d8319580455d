"""The chain of a network: which cuts of its trace are its places.

A place is a cut that enters a block, or the final norm or pooling, or the classifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from aptheory.networks.blocks import is_plain_list, weights_in
from aptheory.networks.classifier import Classifier
from aptheory.networks.trace import Cut, Trace

EMPTY = (nn.Identity, nn.Dropout)
GATE = 1 / 8  # a map of attention over positions is smaller than this share of the activation


def is_spatial(shape: Sequence[int]) -> bool:
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
        traced: Trace,
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
            if self.weights[i] >= fewest and is_spatial(self.cuts[i + 1].shape)
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
            if self.weights[i] and is_spatial(self.cuts[i + 1].shape):
                chosen.append(last + 1)
                enters.add(last + 1)
                last = i
        if last + 1 < self.head:  # the final norm or pooling
            chosen.append(last + 1)
        chosen.append(self.head)
        return list(dict.fromkeys(chosen)), enters - {self.head}

    def _keeps_shape(self, i: int) -> bool:
        return self.cuts[i].shape == self.cuts[i + 1].shape

    def places(self, granularity: str) -> tuple[list[tuple[Cut, str]], list[int]]:
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
            if inside[0] in leaves and not is_plain_list(self.root.get_submodule(name)):
                return name
        return real[0]

    def _all_leaves(self) -> list[str]:
        return [name for leaves in self.leaves for name in leaves]

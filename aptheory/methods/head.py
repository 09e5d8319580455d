"""The classifier that every method trains, and what blocks may give it beside the features."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.methods.per_run import PerRun, by_run, merged, normal


class Head(nn.Module):
    """One linear classifier a run on standardised features: W (f - shift) / scale + b.

    ``shift`` and ``scale`` (runs, width) are not trained; they are 0 and 1 until training sets them
    from each run's clean training features. Weights start at N(0, 0.01^2), the bias at 0.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, runs: int, width: int, classes: int, *, like: Tensor) -> None:
        super().__init__()
        self.runs = runs
        self.weight = PerRun(runs, (classes, width), normal(0.01), like=like)
        self.bias = PerRun(runs, (classes,), like=like)
        self.register_buffer("shift", like.new_zeros(runs, width))
        self.register_buffer("scale", like.new_ones(runs, width))

    def forward(self, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples classes"]:
        each = by_run(features, self.runs)
        standard = (each - self.shift.unsqueeze(1)) / self.scale.unsqueeze(1)
        standard = standard.to(self.shift.dtype)  # of a network of two kinds of numbers
        logits = torch.baddbmm(self.bias().unsqueeze(1), standard, self.weight().transpose(1, 2))
        return merged(logits)

    def folded(self) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
        """The same classifier on raw features: W / scale and b - W (shift / scale), one run."""
        weight = self.weight.values[0].detach().double() / self.scale[0].double()
        bias = self.bias.values[0].detach().double() - weight @ self.shift[0].double()
        return weight, bias


@dataclass
class Summaries:
    """What blocks give the head beside what it reads, in the order in which they run.

    ``width`` counts the numbers of an image; ``shares`` says what it costs: the piece behind each
    place -> the share of its tokens that run through it once more.
    """

    width: int = 0
    shares: dict[int, float] = field(default_factory=dict)
    given: list[Tensor] = field(default_factory=list)

    def expect(self, width: int, *, piece: int, share: float) -> None:
        """A block behind place ``piece`` will give ``width`` numbers an image."""
        self.width += width
        self.shares[piece] = self.shares.get(piece, 0.0) + share

    def give(self, summary: Float[Tensor, "samples width"]) -> None:
        self.given.append(summary.float() if summary.element_size() < 4 else summary)

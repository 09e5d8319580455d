"""The data of the two-layer theory: tokens drawn from four patterns, and bounded noise.

Model. A sample is ``tokens`` places on a ring. Each place holds one of four orthonormal patterns
plus noise bounded by ``noise`` in every coordinate. Patterns 0 and 1 are *discriminative*: a
sample of label +1 holds ``round(fraction * tokens)`` copies of pattern 0, one of label −1 as many
of pattern 1, at random places. Every other place holds pattern 2 or 3, which says nothing about
the label. Only the span of the patterns matters to the networks here, so a token is written in
the four coordinates that the patterns span.

Marks. Four patterns, bounded noise, some of them discriminative and some not: [2nd]. How many
tokens carry which pattern and how the rest is shared out: [rebuilt]; two readings are kept,
``nuisance="independent"`` (each token tosses a fair coin, so the excess of pattern 2 over 3 is of
order √tokens) and ``nuisance="shared"`` (one coin per sample decides the proportion, so the excess
is of order tokens). Results that hold for one of them only are reported as such.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aptheory.errors import InputError

PATTERNS = 4
"""Number of patterns, and of the coordinates of a token."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Drawn samples. Leading dimensions are runs, then samples.

    kinds : which pattern each place holds, 0..3.
    noise : what is added to the pattern, in pattern coordinates.
    labels : +1 or −1.
    """

    kinds: UInt8[Tensor, "*batch tokens"]
    noise: Float[Tensor, "*batch tokens 4"]
    labels: Float[Tensor, "*batch"]

    @property
    def values(self) -> Float[Tensor, "*batch tokens 4"]:
        """The tokens: pattern plus noise."""
        return torch.nn.functional.one_hot(self.kinds.long(), PATTERNS).to(self.noise) + self.noise

    def take(self, index: tuple[Tensor | slice, ...]) -> Samples:
        """Samples at an index into the leading dimensions."""
        return Samples(self.kinds[index], self.noise[index], self.labels[index])


@dataclass(frozen=True)
class Patterns:
    """The distribution of the samples (see the module).

    tokens : places of a sample, P.
    fraction : part of the places that is discriminative, in (0, 1); at least one place is.
    noise : bound of the noise in each coordinate; patterns have norm 1.
    nuisance : "independent" or "shared" (see the module).
    """

    tokens: int
    fraction: float = 0.25
    noise: float = 0.1
    nuisance: Literal["independent", "shared"] = "shared"

    def __post_init__(self) -> None:
        if self.tokens < 4:
            raise InputError(f"a sample needs at least 4 tokens, got {self.tokens}")
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction must lie in (0, 1), got {self.fraction}")
        if self.noise < 0:
            raise InputError(f"noise is a bound and cannot be negative, got {self.noise}")
        if self.nuisance not in ("independent", "shared"):
            raise InputError(f"nuisance must be 'independent' or 'shared', got {self.nuisance!r}")

    @property
    def discriminative(self) -> int:
        """Number of discriminative places in every sample."""
        return min(self.tokens - 1, max(1, round(self.fraction * self.tokens)))

    @property
    def signal(self) -> float:
        """Part of the places that is discriminative, after rounding."""
        return self.discriminative / self.tokens

    @property
    def nuisance_deviation(self) -> float:
        """Standard deviation of (count of pattern 2 − count of pattern 3) / tokens."""
        rest = 1 - self.signal
        if self.nuisance == "independent":
            return math.sqrt(rest / self.tokens)
        # proportion u uniform on [0, 1]: Var((2u − 1)) = 1/3, plus the coin tosses given u
        return math.sqrt(rest**2 / 3 + rest / self.tokens * (2 / 3))

    def draw(self, runs: int, samples: int, generator: torch.Generator) -> Samples:
        """Draw `samples` samples for each of `runs` runs, on the generator's device."""
        shape, device = (runs, samples), generator.device

        def uniform(*last: int) -> Tensor:
            return torch.rand(*shape, *last, generator=generator, device=device)

        coin = torch.randint(0, 2, shape, generator=generator, device=device)
        proportion = torch.full((*shape, 1), 0.5, device=device)
        if self.nuisance == "shared":
            proportion = uniform(1)
        kinds = 2 + (uniform(self.tokens) < proportion).long()
        chosen = uniform(self.tokens).argsort(-1)[..., : self.discriminative]
        kinds.scatter_(2, chosen, coin[..., None].expand_as(chosen))
        noise = uniform(self.tokens, PATTERNS).mul_(2).sub_(1)
        return Samples(kinds.to(torch.uint8), noise * self.noise, 1.0 - 2.0 * coin)


def head_weights(data: Patterns, *, nuisance: float = 1.5) -> Float[Tensor, " patterns"]:
    """Head of a frozen network that still listens to the patterns that now mean nothing.

    The logit is the mean over places of the head times the features. Discriminative patterns get
    ±2 / signal, so that they alone give the logit ±2 (outside the hinge's margin of 1); the other
    two get opposite weights such that what they add has standard deviation 2 · `nuisance`. The
    untouched network then errs on about Φ(−1 / nuisance) of the samples: a quarter at 1.5, for
    every number of tokens (more for few tokens, where the counts are coarse). [rebuilt]
    """
    strength = 2 / data.signal
    disturbance = 2 * nuisance / data.nuisance_deviation
    return torch.tensor([strength, -strength, disturbance, -disturbance])

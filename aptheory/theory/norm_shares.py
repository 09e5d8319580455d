"""How much of a prompt is a shift of the norm behind it? Exact shares, from tensors alone.

Notation: z is an activation with positions p and channels c, delta a prompt added to it, N the next
normalisation with scale gamma and shift beta. u = N(z) is what the norm gives without the prompt
and d = N(z + delta) − u what the prompt changes there.

**What beta expresses exactly, for every input.** Batch normalisation in evaluation mode divides by
constants: d = gamma · delta / t, at each position its own amount. A change of beta is the same at
every position. So beta expresses exactly the mean of delta over positions, channel by channel; the
rest of delta has mean 0 over positions and is orthogonal to it, and the squares of the norms add
up: |delta|² = P · |mean|² + |rest|² with P positions. Layer normalisation takes the mean of the
channels out of every position and divides by that position's own spread. A delta that is equal in
all channels of a position changes nothing at all; any other changes each input by its own amount,
and beta expresses none of it exactly.

**What gamma and beta imitate over the data.** A changed pair gives N'(z) = u + a · u + b with one a
and one b a channel (gamma' = (1 + a) gamma, beta' = (1 + a) beta + b). The best pair is least
squares over all inputs and positions, a regression of d on u and a constant for each channel:

    a = cov(u, d) / var(u),    b = mean(d) − a · mean(u).

With beta alone the best is b = mean(d). The fits are nested, and so their energies add up:

    Σ d² = Σ mean(d)²  +  Σ a² (u − mean(u))²  +  Σ (d − a u − b)²
           (beta)          (gamma besides)          (left)

**Backwards.** A tuned norm changes what enters the next place by e(x). The best prompt there is the
mean of e over inputs (a full one), or over inputs and positions (one number a channel), and its
share of the energy of e is the share of the tuning that is a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError

TINY = 1e-12
"""Of a channel's mean square: a spread below it is rounding, and has no slope."""


@dataclass(frozen=True)
class PromptShares:
    """Shares of |delta|², which add up to 1; nan for a prompt that is zero.

    ``beta``: what a changed beta of the next norm expresses exactly, for every input; ``nothing``:
    what changes no output of the norm; ``rest``: all other.
    """

    beta: float
    nothing: float
    rest: float


def prompt_shares(
    delta: Float[Tensor, "positions channels"], norm: Literal["batch", "layer"]
) -> PromptShares:
    """What of a prompt right before a norm its beta expresses exactly: see the module.

    Raises:
        InputError: another kind of norm.

    >>> prompt_shares(torch.ones(4, 3), "batch")
    PromptShares(beta=1.0, nothing=0.0, rest=0.0)
    """
    values = delta.detach().double()
    whole = float(values.square().sum())
    if norm not in ("batch", "layer"):
        raise InputError(f"the norm is {norm!r}; expected batch or layer.")
    if whole == 0:
        return PromptShares(float("nan"), float("nan"), float("nan"))
    if norm == "layer":
        nothing = float(values.mean(1).square().sum()) * values.shape[1] / whole
        return PromptShares(0.0, nothing, 1 - nothing)
    beta = float(values.mean(0).square().sum()) * values.shape[0] / whole
    return PromptShares(beta, 0.0, 1 - beta)


@dataclass(frozen=True, eq=False)
class NormFit:
    """The change d of a norm's output, split: shares of its energy, and the best a and b.

    ``shift_alone`` is b where gamma stays. The shares add up to 1; nan where nothing changes.
    """

    beta: float
    gamma: float
    left: float
    scale: Float[Tensor, " channels"]
    shift: Float[Tensor, " channels"]
    shift_alone: Float[Tensor, " channels"]


class NormRegression:
    """Streaming regression of the change d on the norm's own output u, channel by channel.

    What is kept are means and co-moments of each channel, in float64 (Chan et al. 1983).
    """

    def __init__(self) -> None:
        self.count = 0
        self.means: Tensor | None = None  # of u and d: (2, channels)
        self.moments: Tensor | None = None  # Σ u², Σ ud, Σ d² about the means: (3, channels)

    def update(
        self,
        output: Float[Tensor, "images positions channels"],
        change: Float[Tensor, "images positions channels"],
    ) -> None:
        """Add a batch of u and d."""
        u, d = (values.detach().double().flatten(0, -2) for values in (output, change))
        means = torch.stack([u.mean(0), d.mean(0)])
        u, d = u - means[0], d - means[1]
        moments = torch.stack([(u * u).sum(0), (u * d).sum(0), (d * d).sum(0)])
        if self.means is None or self.moments is None:
            self.count, self.means, self.moments = len(u), means, moments
            return
        total = self.count + len(u)
        gap = means - self.means
        products = torch.stack([gap[0] ** 2, gap[0] * gap[1], gap[1] ** 2])
        self.moments = self.moments + moments + products * (self.count * len(u) / total)
        self.means = self.means + gap * (len(u) / total)
        self.count = total

    def fit(self) -> NormFit:
        """The best a and b, and how the energy of d splits.

        Raises:
            InputError: nothing was seen.
        """
        if self.means is None or self.moments is None:
            raise InputError("no activation has been seen: call update before fit.")
        uu, ud, dd = self.moments
        size = uu + self.count * self.means[0] ** 2
        scale = torch.where(uu > TINY * size, ud / uu.clamp_min(1e-300), 0.0)
        alone = self.means[1]
        beta = self.count * float(alone.square().sum())
        whole = beta + float(dd.sum())
        gamma = float((scale * ud).sum())
        shares = (float("nan"), float("nan"), float("nan"))
        if whole > 0:
            shares = (beta / whole, gamma / whole, 1 - (beta + gamma) / whole)
        return NormFit(*shares, scale, alone - scale * self.means[0], alone)


def explained(change: Float[Tensor, "images k"], part: Float[Tensor, "images k"]) -> float:
    """Share of the energy of a change (of logits, say) that a part of its cause reproduces.

    1 − |change − part|² / |change|²: 1 for the same change, 0 for none, below 0 for one that makes
    it worse; nan where nothing changes.
    """
    whole = float(change.double().square().sum())
    left = float((change.double() - part.double()).square().sum())
    return 1 - left / whole if whole > 0 else float("nan")


@dataclass(frozen=True)
class CommonShare:
    """Share of a change's energy that is the same for every input, as a prompt would make it.

    ``full``: the mean over inputs, at each position its own; ``channel``: over positions too.
    """

    full: float
    channel: float


def common_share(change: Float[Tensor, "images positions channels"]) -> CommonShare:
    """How much of a change e(x) a prompt at its place makes: see the module; nan for no change.

    The mean of n inputs holds 1/n of what differs between them even where they share nothing; that
    is taken off, so the share is unbiased and may come out a little below 0.

    Raises:
        InputError: fewer than two images.
    """
    if len(change) < 2:
        raise InputError("one image tells nothing about what images share: give two or more.")
    values = change.detach().double()
    whole = float(values.square().sum())
    if whole == 0:
        return CommonShare(float("nan"), float("nan"))
    full = _energy_of_mean(values.flatten(1)) / whole
    positions = values.shape[1]
    return CommonShare(full, positions * _energy_of_mean(values.mean(1)) / whole)


def _energy_of_mean(values: Float[Tensor, "images k"]) -> float:
    """n |mean|², less the part that n different inputs leave in it by chance."""
    mean = values.mean(0)
    count = len(values)
    return float(count * mean.square().sum() - (values - mean).square().sum() / (count - 1))

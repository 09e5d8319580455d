"""How far the activations of a task lie from those of the pretraining: no labels, no gradients.

Channel by channel an activation, over all images and positions, is summarised by its mean μ and
standard deviation s, the pretraining's by m and t. Between the two normal distributions with these
moments the squared Wasserstein (here also Fréchet) distance is (μ − m)² + (s − t)² (Dowson and
Landau 1982); in units of t, and as the root of its mean over C channels,

    shift = √( 1/C Σ_c [ ((μ_c − m_c)/t_c)² + (s_c/t_c − 1)² ] ).

It is 0 where all moments agree. Adding δ·t to every activation gives |δ|, multiplying their
deviations from m by a gives |a − 1|. BatchNorm divides by √(running variance + eps), and that is
the t of its running moments; elsewhere the moments are measured on images of a reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Level
from aptheory.errors import InputError
from aptheory.metrics.inputs import Groups, arrays
from aptheory.metrics.intervals import Estimate, deal, group_jackknife, merged
from aptheory.metrics.registry import INFINITE, measure

FLOOR = 1e-6
"""Added to a measured reference's variances, as a share of their mean: a channel that never varies
there must not outweigh all others."""


@measure(
    "reference",
    0,
    INFINITE,
    unchanged_by={"image order"},
    greater_means="more unlike the pretraining",
    source="Dowson & Landau 1982, channel by channel",
    unit="standard deviations",
)
@arrays
def moment_shift(
    features: Float[Tensor, "images channels"], reference: Float[Tensor, "others channels"]
) -> float:
    """The shift of ``features`` from the moments of ``reference``, in its standard deviations.

    Raises:
        InputError: other channels, non-finite values, or a reference that never varies.

    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> round(moment_shift(x + 2 * x.std(0, correction=0), x), 4)
    2.0
    """
    before, after = ChannelMoments(groups=1), ChannelMoments(groups=1)
    before.update(reference[:, None])
    after.update(features[:, None])
    return float(shift_from(after, *before.reference()).value)


class ChannelMoments:
    """Streaming mean and variance of each channel over images and positions, in groups."""

    @arrays
    def __init__(self, *, groups: Groups = 8) -> None:
        self.groups = groups
        self.images = 0
        self.sums: dict[int, tuple[int, Tensor, Tensor]] = {}  # values, mean, Σ (x − mean)²

    @arrays
    def update(self, features: Float[Tensor, "images positions channels"]) -> None:
        """Add one batch."""
        if features.ndim != 3:
            raise InputError(
                f"features have shape {tuple(features.shape)}; expected (images, positions, "
                "channels)."
            )
        work = features.detach()
        if work.dtype not in (torch.float32, torch.float64):
            work = work.float()
        # One pass over the positions (Welford's, in the activation's own precision), then float64.
        variances, means = torch.var_mean(work, dim=1, correction=0)
        variances, means = variances.to(torch.float64), means.to(torch.float64)
        for group, part in deal(len(work), self.images, self.groups):
            mean = means[part].mean(0)
            around = (variances[part] + (means[part] - mean).square()).sum(0)
            positions = work.shape[1]
            self._join(group, (positions * len(means[part]), mean, positions * around))
        self.images += len(work)

    def _join(self, group: int, more: tuple[int, Tensor, Tensor]) -> None:
        self.sums[group] = joined(self.sums[group], more) if group in self.sums else more

    @arrays
    def merge(self, other: ChannelMoments) -> None:
        """Take over what ``other`` has seen."""
        for group, sums in merged(other.sums, self.images, self.groups):
            self._join(group, sums)
        self.images += other.images

    @arrays
    def compute(self, left_out: int | None = None) -> tuple[Tensor, Tensor]:
        """(mean, variance) of each channel, (channels,) each, perhaps without one group.

        Raises:
            InputError: no image, or values that are not finite.
        """
        parts = [sums for group, sums in self.sums.items() if group != left_out]
        if not parts:
            raise InputError("no image has been seen: call update before compute.")
        total = parts[0]
        for part in parts[1:]:
            total = joined(total, part)
        count, mean, squares = total
        if not bool(mean.isfinite().all() and squares.isfinite().all()):
            raise InputError("the features are not finite; look at the images and the network.")
        return mean, squares / count

    def reference(self) -> tuple[Tensor, Tensor]:
        """(mean, variance) to measure a shift from: see `FLOOR`.

        Raises:
            InputError: as `compute`, and features that never vary.
        """
        mean, variance = self.compute()
        if not float(variance.mean()) > 0:
            raise InputError("the reference never varies: give more of its images, or others.")
        return mean, variance + FLOOR * variance.mean()


def joined(
    a: tuple[int, Tensor, Tensor], b: tuple[int, Tensor, Tensor]
) -> tuple[int, Tensor, Tensor]:
    """The sums of two sets of values as those of one (Chan et al. 1983)."""
    count = a[0] + b[0]
    gap = b[1] - a[1]
    squares = a[2] + b[2] + gap.square() * (a[0] * b[0] / count)
    return count, a[1] + gap * (b[0] / count), squares


@arrays
def side_by_side(moments: Sequence[ChannelMoments]) -> ChannelMoments:
    """The channels of several moments of the same images, such as the norms of a block, as one.

    Where they saw other numbers of positions, each channel keeps its own mean and variance.

    Raises:
        InputError: anything but a few moments.
    """
    if not isinstance(moments, list | tuple) or not moments:
        raise InputError("side_by_side puts moments together; give a list of ChannelMoments.")
    both = ChannelMoments(groups=moments[0].groups)
    both.images = moments[0].images
    for group in moments[0].sums:
        parts = [each.sums[group] for each in moments]
        count = parts[0][0]
        squares = [squares * (count / own) for own, _, squares in parts]
        both.sums[group] = (count, torch.cat([mean for _, mean, _ in parts]), torch.cat(squares))
    return both


@arrays
def shift_from(
    seen: ChannelMoments,
    mean: Float[Tensor, " channels"],
    variance: Float[Tensor, " channels"],
    *,
    level: Level = 0.95,
) -> Estimate:
    """The shift of what was ``seen`` from given moments, with a jackknife interval over images.

    Raises:
        InputError: other channels, no image, or values that are not finite.
    """
    if mean.shape != seen.compute()[0].shape:
        raise InputError(
            f"the reference has {len(mean)} channels and the features {len(seen.compute()[0])}; "
            "they must be those of the same place."
        )

    def value(left_out: int | None = None) -> Tensor:
        mu, s2 = seen.compute(left_out)
        t = variance.to(mu).sqrt()
        moved = (mu - mean.to(mu)) / t
        return (moved.square() + (s2.sqrt() / t - 1).square()).mean().sqrt().cpu()

    groups = sorted(seen.sums)
    without = [value(group) for group in groups] if len(groups) > 1 else []
    return group_jackknife(value(), without, images=seen.images, level=level)

"""Globality: how much of what a layer says is said for the whole image at once?

The share of a feature map's variance that its spatial mean carries. Over all images and positions
the variance of a channel splits exactly into the variance of the image's spatial mean (between
images) and the variance of the positions around it (within an image); summed over channels,

    globality = between / (between + within),     0 (means say nothing) to 1 (positions all agree).

Positions that are independent and equal in law give 1 / positions, not 0: a mean of 196 numbers
still varies. It does not change when channels are rotated, features scaled, or a constant added.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Level
from aptheory.errors import InputError
from aptheory.metrics.inputs import Groups, arrays
from aptheory.metrics.intervals import Estimate, deal, group_jackknife, merged
from aptheory.metrics.registry import FREE, measure


@measure(
    "tokens",
    0,
    1,
    unchanged_by=FREE,
    greater_means="more global",
    source="analysis of variance",
)
@arrays
def globality(features: Float[Tensor, "images positions channels"]) -> float:
    """Share of the features' variance carried by the mean over positions.

    Raises InputError for one image, for features that never vary, and for non-finite ones.

    >>> globality(torch.arange(4.0).reshape(4, 1, 1).expand(4, 9, 2))  # one value an image
    1.0
    """
    accumulator = Globality(groups=1)
    accumulator.update(features)
    return float(accumulator.compute().value)


class _Sums:
    """Sums of one group: images, mean of image means (channels,), their scatter, within scatter."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.positions = 0
        self.mean = torch.zeros(channels, dtype=torch.float64, device=device)
        self.between = torch.zeros((), dtype=torch.float64, device=device)
        self.within = torch.zeros((), dtype=torch.float64, device=device)

    def join(self, other: "_Sums") -> None:
        if other.count == 0:
            return
        total = self.count + other.count
        gap = other.mean.to(self.mean.device) - self.mean
        shift = gap.square().sum() * (self.count * other.count / total)
        self.between = self.between + other.between.to(gap.device) + shift
        self.within = self.within + other.within.to(gap.device)
        self.mean = self.mean + gap * (other.count / total)
        self.count, self.positions = total, other.positions


class Globality:
    """Streaming `globality`, with a jackknife interval over ``groups`` groups of images."""

    @arrays
    def __init__(self, *, groups: Groups = 8) -> None:
        self.groups = groups
        self.sums: dict[int, _Sums] = {}
        self.images = 0
        self.rounding = 0.0

    @arrays
    def update(self, features: Float[Tensor, "images positions channels"]) -> None:
        """Add one batch; prefix tokens are no positions and must be left out by the caller."""
        if features.ndim != 3:
            raise InputError(
                f"Features have shape {tuple(features.shape)}; expected (images, positions, "
                "channels)."
            )
        positions = features.shape[1]
        if any(each.positions not in (0, positions) for each in self.sums.values()):
            raise InputError(f"A batch with {positions} positions after batches with others.")
        work = features.detach()
        if work.dtype not in (torch.float32, torch.float64):
            work = work.float()
        means = work.mean(1)
        eps = torch.finfo(work.dtype).eps
        # Σ (x - m)²: the difference is taken before the square, so a large mean costs no digits.
        within = torch.linalg.vector_norm(work - means[:, None], dim=(1, 2), dtype=torch.float64)
        size = torch.linalg.vector_norm(means, dim=1, dtype=torch.float64) * positions**0.5
        within = within.where(within > 4 * eps * size, 0.0).square()
        exact = means.to(torch.float64)
        for group, part in deal(len(features), self.images, self.groups):
            some = _Sums(features.shape[2], features.device)
            some.count, some.positions = len(exact[part]), positions
            some.mean = exact[part].mean(0)
            some.between = (exact[part] - some.mean).square().sum()
            some.within = within[part].sum()
            self._group(group, some).join(some)
        self.images += len(features)
        self.rounding = max(self.rounding, 4 * eps)

    def _group(self, group: int, like: _Sums) -> _Sums:
        if group not in self.sums:
            self.sums[group] = _Sums(len(like.mean), like.mean.device)
        return self.sums[group]

    @arrays
    def merge(self, other: "Globality") -> None:
        """Take over what ``other`` has seen."""
        for group, sums in merged(other.sums, self.images, self.groups):
            self._group(group, sums).join(sums)
        self.images += other.images
        self.rounding = max(self.rounding, other.rounding)

    def _value(self, groups: list[int]) -> tuple[Tensor, int]:
        first = self.sums[groups[0]]
        total = _Sums(len(first.mean), first.mean.device)
        for group in groups:
            total.join(self.sums[group])
        between = total.between * total.positions
        level = total.mean.square().sum() * (total.count * total.positions)
        between = between.where(between > self.rounding**2 * level, 0.0)  # equal, but for rounding
        return (between / (between + total.within)).cpu(), total.count

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """The share, a scalar, with its interval."""
        if not self.sums:
            raise InputError("No image has been seen: call update before compute.")
        groups = sorted(self.sums)
        value, count = self._value(groups)
        if count < 2:
            raise InputError("One image has no variance between images: globality needs two.")
        if not bool(value.isfinite()):
            raise InputError("Features never vary (or are not finite): globality is undefined.")
        without = []
        if len(groups) > 1:
            without = [self._value([g for g in groups if g != left])[0] for left in groups]
        return group_jackknife(value, without, images=count, level=level)

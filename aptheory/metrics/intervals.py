"""Intervals: how far would a measure move with other images of the same kind?

Three estimators, each where it is sound. A measure that is a *mean over images* has the jackknife
in closed form (it is the t interval of the mean), so its running sums are all that must be kept.
A measure that is a *smooth function of sums* (CKA, globality, the rank family) gets the
delete-a-group jackknife: images (for CKA, batches) are dealt into a fixed number of groups, and the
measure is computed again without each, so memory does not grow with the images. The *bootstrap*
draws images with replacement; it suits means and accuracies, and is wrong for ranks and for the
neighbour overlap, where a repeated image is a new fact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Between, Level, Seed, Whole
from aptheory.errors import InputError
from aptheory.metrics.inputs import arrays

Part = TypeVar("Part")


class Estimate(NamedTuple):
    """A value with its interval; ``images`` is the number of images behind it.

    The fields ``value``, ``low`` and ``high`` are float64 tensors of one shape. Where no interval
    can be given (one image, one group) ``low`` and ``high`` are NaN, and only they.
    """

    value: Tensor
    low: Tensor
    high: Tensor
    images: int


def _student_t(level: float, freedom: int) -> float:
    from scipy.stats import t  # scipy.stats takes a while to import

    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1, for example 0.95.")
    return float(t.ppf(0.5 + level / 2, freedom))


class RunningMean:
    """Mean over images of a vector of numbers per image, with its interval.

    Welford's update in float64 (Chan et al. 1983 for a batch at a time): no sum of squares is ever
    subtracted from another, so a large mean does not eat the spread.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    @arrays
    def update(self, values: Float[Tensor, "images *dims"]) -> None:
        """Add a batch: ``values`` is (images, ...), one row an image."""
        if values.shape[0] == 0:
            return
        values = values.detach().to(torch.float64)  # stays on its device: no wait for the GPU
        mean = values.mean(0)
        self._join(values.shape[0], mean, (values - mean).square().sum(0))

    @arrays
    def merge(self, other: "RunningMean") -> None:
        """Take over what ``other`` has seen, as if both had seen all images."""
        if other.mean is not None and other.squares is not None:
            self._join(other.count, other.mean, other.squares)

    def _join(self, count: int, mean: Tensor, squares: Tensor) -> None:
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean.clone(), squares.clone()
            return
        total = self.count + count
        mean, squares = mean.to(self.mean.device), squares.to(self.mean.device)
        gap = mean - self.mean
        self.mean = self.mean + gap * (count / total)
        self.squares = self.squares + squares + gap.square() * (self.count * count / total)
        self.count = total

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """The mean and its ``level`` interval; raises InputError before the first update."""
        if self.mean is None or self.squares is None:
            raise InputError("No image has been seen: call update before compute.")
        mean, squares = self.mean.cpu(), self.squares.cpu()
        if self.count < 2:
            unknown = torch.full_like(mean, float("nan"))
            return Estimate(mean, unknown, unknown.clone(), self.count)
        error = (squares / (self.count - 1) / self.count).sqrt()
        half = _student_t(level, self.count - 1) * error
        return Estimate(mean, mean - half, mean + half, self.count)


def deal(count: int, seen: int, groups: int) -> Iterator[tuple[int, slice]]:
    """Deal a batch's images to groups in turn, as cards: (group, the images of the batch in it).

    ``seen`` images came before. Every group fills from the first batch on, so that what is kept
    does not grow later; the groups do not depend on the batch size.
    """
    for group in range(groups):
        first = (group - seen) % groups
        if first < count:
            yield group, slice(first, None, groups)


def merged(groups: Mapping[int, Part], seen: int, count: int) -> Iterator[tuple[int, Part]]:
    """(group here, part) of another accumulator's groups, which were dealt from 0 on.

    Here ``seen`` images (or batches) came before them: moved on by so many, the groups are those
    that one pass over everything would have dealt, so the interval is that of the whole, too.
    """
    for group, part in groups.items():
        yield (group + seen) % count, part


@arrays
def group_jackknife(
    value: Tensor,
    without: Sequence[Tensor],
    *,
    images: Whole,
    level: Level = 0.95,
    unbiased: bool = False,
) -> Estimate:
    """Delete-a-group jackknife interval around ``value``.

    Args:
        value: the measure on everything, any shape.
        without: the measure with one group left out, a tensor of that shape a group.
        images: the number of images behind ``value``.
        level: coverage of the interval.
        unbiased: take off the bias that the jackknife sees, (G-1)(mean θ_g - θ), from the value
            and from both bounds (Quenouille 1956). Without it the interval is for the expected
            value *with so many images*; a measure that still grows with their number (a rank) has
            a population value that it need not cover.

    The variance is (G-1)/G Σ_g (θ_g - mean θ)², with Student's t on G-1 degrees of freedom
    (Efron & Stein 1981). Fewer than two groups: the bounds are NaN.
    """
    groups = len(without)
    if any(each.shape != value.shape for each in without):
        raise InputError(f"the values without a group must have the value's shape {value.shape}.")
    if groups < 2:
        unknown = torch.full_like(value, float("nan"))
        return Estimate(value, unknown, unknown.clone(), images)
    stacked = torch.stack(list(without))
    variance = (groups - 1) / groups * (stacked - stacked.mean(0)).square().sum(0)
    half = _student_t(level, groups - 1) * variance.sqrt()
    if unbiased:
        value = groups * value - (groups - 1) * stacked.mean(0)
    return Estimate(value, value - half, value + half, images)


@arrays
def bootstrap(
    statistic: Callable[[np.ndarray], float],
    count: Annotated[int, Between(0, 10**9)],
    *,
    resamples: Annotated[int, Between(1, 10**7)] = 1000,
    level: Level = 0.95,
    seed: Seed = 0,
) -> tuple[float, float]:
    """Percentile bootstrap over images: ``statistic`` takes an array of image indices.

    Returns the (low, high) bounds. Sound for means, accuracies and ratios of means; not for ranks
    and neighbour overlaps (see the note at the top of this file).

    >>> values = np.arange(100.0)
    >>> low, high = bootstrap(lambda index: values[index].mean(), 100, seed=0)
    >>> 40 < low < 49.5 < high < 60
    True
    """
    if count < 2:
        raise InputError(f"A bootstrap over {count} image says nothing: give at least two.")
    generator = np.random.default_rng(seed)
    draws = np.array([statistic(generator.integers(0, count, count)) for _ in range(resamples)])
    if draws.ndim != 1 or draws.dtype.kind not in "fiub":
        raise InputError("statistic gave no number; expected a function of indices to a number.")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

"""How many directions do the features use? One name a formula, from one spectrum.

"Effective rank" names at least four formulas (singular values or their squares; mean removed or
not; divided by log D or not), which give 11.2, 1.2, 61.7 and 4.9 on one matrix. Here, for a matrix
of n rows (images, or tokens) and d columns with singular values σ:

| name                     | formula                     | matrix           |
|--------------------------|-----------------------------|------------------|
| `effective_rank`         | exp(-Σ p log p), p = σ / Σσ | as it is         |
| `effective_rank_centred` | the same                    | mean row removed |
| `stable_rank`            | Σσ² / max σ²                | as it is         |
| `stable_rank_centred`    | the same                    | mean row removed |
| `participation_ratio`    | (Σσ²)² / Σσ⁴                | mean row removed |
| `numerical_rank`         | #{σ > tolerance × max σ}    | as it is         |

``effective_rank`` is that of Roy & Vetterli 2007, which Garrido et al. 2023 call RankMe. All lie
between 1 and min(n, d) (min(n - 1, d) with the mean removed), and are 0 for a matrix of zeros: no
direction carries anything. They are blind to rotations and to scale.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Level, Whole
from aptheory.errors import InputError
from aptheory.metrics.gram import rows
from aptheory.metrics.inputs import LARGEST, Groups, arrays
from aptheory.metrics.intervals import Estimate, deal, group_jackknife, merged
from aptheory.metrics.registry import FREE, INFINITE, TURNED, measure

# Singular values below this share of the largest cannot be told from 0 when they come from a matrix
# of second moments in float64 (the square root of its rounding), nor from float32 features.
TOLERANCE = 1e-6


@arrays
def singular_values(
    features: Float[Tensor, "rows *dims"], *, centred: bool = False
) -> Float[Tensor, "values"]:
    """Singular values, largest first, float64, from the smaller of the n × n and d × d products.

    A million columns cost an n × n matrix. Values below ``TOLERANCE`` × the largest are set to 0.
    """
    matrix = _finite(rows(features))
    count, width = matrix.shape
    if centred and count < 2:
        raise InputError("One row has no variance: a centred rank needs at least two.")
    product = torch.zeros(min(count, width), min(count, width), dtype=torch.float64)
    product = product.to(matrix.device)
    if width <= count:
        wide = matrix.to(torch.float64)
        if centred:
            wide = _centre(wide)
        product = wide.T @ wide
    else:
        for start in range(0, width, 65536):  # a piece of columns in float64 at a time
            piece = matrix[:, start : start + 65536].to(torch.float64)
            if centred:
                piece = _centre(piece)
            product += piece @ piece.T
    return _roots(product, min(count - centred, width))


def _centre(matrix: Tensor) -> Tensor:
    mean = matrix.mean(0)
    gap = matrix - mean
    # A constant column must give exactly zero, and mean() rounds.
    return gap.where(gap.abs() > 4 * torch.finfo(torch.float64).eps * mean.abs(), 0.0)


def _roots(product: Tensor, rank: int) -> Tensor:
    """Singular values from a positive semidefinite product of known greatest rank."""
    scale = product.diagonal().sum()
    if not bool(scale > 0):
        return torch.zeros(rank, dtype=torch.float64)
    values = torch.linalg.eigvalsh(product / scale).flip(0)[:rank].clamp_min(0).sqrt()
    values = values.where(values > TOLERANCE * values[0], 0.0)
    return (values * scale.sqrt()).cpu()


def _finite(matrix: Tensor) -> Tensor:
    if not bool(matrix.isfinite().all()):
        raise InputError("Features hold NaN or infinity, so they have no rank.")
    if matrix.numel() and bool(matrix.abs().max() > LARGEST):
        raise InputError(
            f"Features hold numbers beyond {LARGEST:.0e}, whose squares overflow; divide them."
        )
    return matrix


def entropy_rank(values: Float[Tensor, "values"]) -> Tensor:
    """exp of the entropy of σ / Σσ."""
    total = values.sum()
    if total == 0:
        return torch.zeros((), dtype=torch.float64)
    share = values / total
    return torch.exp(-torch.xlogy(share, share).sum())


def norm_ratio(values: Float[Tensor, "values"]) -> Tensor:
    """Σσ² / max σ²."""
    if not values.numel() or values[0] == 0:
        return torch.zeros((), dtype=torch.float64)
    return (values / values[0]).square().sum()


def moment_ratio(values: Float[Tensor, "values"]) -> Tensor:
    """(Σσ²)² / Σσ⁴."""
    if not values.numel() or values[0] == 0:
        return torch.zeros((), dtype=torch.float64)
    squares = (values / values[0]).square()
    return squares.sum().square() / squares.square().sum()


def count_above(values: Float[Tensor, "values"], *, tolerance: float = TOLERANCE) -> Tensor:
    """#{σ > tolerance × max σ}."""
    if not values.numel() or values[0] == 0:
        return torch.zeros((), dtype=torch.float64)
    return (values > tolerance * values[0]).sum().to(torch.float64)


# name -> (formula on singular values, whether the mean row is removed first)
FORMULAS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "effective_rank": (entropy_rank, False),
    "effective_rank_centred": (entropy_rank, True),
    "stable_rank": (norm_ratio, False),
    "stable_rank_centred": (norm_ratio, True),
    "participation_ratio": (moment_ratio, True),
    "numerical_rank": (count_above, False),
}


@measure(
    "features",
    0,
    INFINITE,
    unchanged_by=TURNED,
    greater_means="more directions in use",
    source="Roy & Vetterli 2007",
)
@arrays
def effective_rank(features: Float[Tensor, "rows *dims"]) -> float:
    """exp(-Σ p log p) with p = σ / Σσ, of the matrix as it is (Roy & Vetterli 2007; RankMe).

    >>> effective_rank(torch.eye(5))
    5.0
    """
    return round_off(entropy_rank(singular_values(features)))


@measure(
    "features",
    0,
    INFINITE,
    unchanged_by=FREE,
    greater_means="more directions in use",
    source="Roy & Vetterli 2007",
)
@arrays
def effective_rank_centred(features: Float[Tensor, "rows *dims"]) -> float:
    """`effective_rank` after removing the mean row."""
    return round_off(entropy_rank(singular_values(features, centred=True)))


@measure(
    "features",
    0,
    INFINITE,
    unchanged_by=TURNED,
    greater_means="more directions in use",
    source="Rudelson & Vershynin 2007",
)
@arrays
def stable_rank(features: Float[Tensor, "rows *dims"]) -> float:
    """‖A‖²_F / ‖A‖²₂ of the matrix as it is.

    >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0])))
    1.5
    """
    return round_off(norm_ratio(singular_values(features)))


@measure(
    "features",
    0,
    INFINITE,
    unchanged_by=FREE,
    greater_means="more directions in use",
    source="Rudelson & Vershynin 2007",
)
@arrays
def stable_rank_centred(features: Float[Tensor, "rows *dims"]) -> float:
    """`stable_rank` after removing the mean row."""
    return round_off(norm_ratio(singular_values(features, centred=True)))


@measure(
    "features",
    0,
    INFINITE,
    unchanged_by=FREE,
    greater_means="more directions in use",
    source="second moment of the covariance spectrum",
)
@arrays
def participation_ratio(features: Float[Tensor, "rows *dims"]) -> float:
    """(Σλ)² / Σλ² of the eigenvalues λ of the covariance, that is with the mean row removed."""
    return round_off(moment_ratio(singular_values(features, centred=True)))


@measure(
    "features",
    0,
    INFINITE,
    unchanged_by=TURNED,
    greater_means="more directions in use",
    source="singular values above 1e-6 of the largest",
)
@arrays
def numerical_rank(features: Float[Tensor, "rows *dims"], *, tolerance: float = TOLERANCE) -> int:
    """Number of singular values above ``tolerance`` × the largest, of the matrix as it is.

    ``tolerance`` may not be below 1e-6: smaller singular values are lost in the rounding of the
    products they come from, and of float32 features.
    """
    if not TOLERANCE <= tolerance < 1:
        raise InputError(f"tolerance is {tolerance}; it must lie between {TOLERANCE} and 1.")
    return int(count_above(singular_values(features), tolerance=tolerance))


def round_off(value: Tensor) -> float:
    """A float without the last few digits, which are rounding (4.999999999999999 is 5)."""
    return float(f"{float(value):.12g}")


class Rank:
    """Streaming rank family: the mean and the second moments of a stream of rows.

    Width d up to ``widest`` keeps a d × d matrix of second moments in float64 (8 d² bytes) that
    does not grow with the rows. Wider features keep the rows themselves, in float32, as long as
    they fit in ``budget`` bytes, for the n × n product; beyond that an InputError says so. (The
    formulas need every singular value, so there is no third way that is exact.)

    ``groups`` > 1 deals images into groups for a jackknife interval of the smooth formulas, at
    ``groups`` times the memory; the numerical rank has no interval: it is a count.

    A rank grows with the number of images, so the interval is for *this number of images*: where
    another sample of as many would lie. The rank of the population lies above it, far above with
    64 images of 768 features. ``compute(unbiased=True)`` takes off the bias that the groups show,
    which brings it nearer, all the way only where images are several times the rank.
    """

    @arrays
    def __init__(
        self, *, widest: Whole = 4096, budget: Whole = 2 * 1024**3, groups: Groups = 1
    ) -> None:
        self.widest, self.budget, self.groups = widest, budget, groups
        self.count = 0
        self.images = 0
        self.moments: dict[int, Moments] = {}
        self.kept: list[Tensor] = []
        self.width: int | None = None

    @arrays
    def update(self, features: Float[Tensor, "images *dims"]) -> None:
        """Add one batch of features, (images, width): one row an image."""
        self._add(rows(features)[:, None])

    @arrays
    def update_tokens(self, tokens: Float[Tensor, "images positions width"]) -> None:
        """Add one batch of token features: every position of every image is a row."""
        self._add(tokens)

    def _add(self, each: Tensor) -> None:
        """(images, rows of an image, width)."""
        images, more, width = each.shape
        if self.width is None:
            self.width = width
        if width != self.width:
            raise InputError(f"Features of width {width} after width {self.width}.")
        self.count += images * more
        if self.width > self.widest:
            self._hold(each.flatten(0, 1))
        else:
            for group, part in deal(images, self.images, self.groups):
                moments = self.moments.setdefault(group, Moments())
                moments.update(each[part].flatten(0, 1))
        self.images += images

    def _hold(self, matrix: Tensor) -> None:
        self.kept.append(matrix.detach().to("cpu", torch.float32).clone())
        needed = self.count * matrix.shape[1] * 4
        if needed > self.budget:
            raise InputError(
                f"{self.count} rows of width {self.width} need {needed / 1e9:.1f} GB, more than "
                f"the budget of {self.budget / 1e9:.1f} GB, and a {self.width} × {self.width} "
                f"matrix of second moments more still: pool the features, or raise budget."
            )

    @arrays
    def merge(self, other: "Rank") -> None:
        """Take over what ``other`` has seen."""
        if other.width is None:
            return
        if self.width not in (None, other.width):
            raise InputError(f"Features of width {other.width} cannot join width {self.width}.")
        self.width = other.width
        for group, moments in merged(other.moments, self.images, self.groups):
            self.moments.setdefault(group, Moments()).merge(moments)
        self.kept += other.kept
        self.count += other.count
        self.images += other.images

    @arrays
    def compute(
        self,
        measures: tuple[str, ...] = tuple(FORMULAS),
        *,
        level: Level = 0.95,
        unbiased: bool = False,
    ) -> dict[str, Estimate]:
        """The named measures of ``FORMULAS``, each a scalar with its interval (NaN if not kept).

        ``unbiased`` takes off the jackknife's estimate of the bias, where there are groups.
        """
        if self.width is None:
            raise InputError("No features have been seen: call update before compute.")
        unknown = set(measures) - set(FORMULAS)
        if unknown:
            raise InputError(f"Unknown rank {sorted(unknown)}; known are {sorted(FORMULAS)}.")
        everything = self._values(measures, leave_out=None)
        groups = sorted(self.moments)
        if len(groups) < 2 or any(self.count - self.moments[g].count < 2 for g in groups):
            groups = []  # too few rows for any to be left out
        without = [self._values(measures, leave_out=group) for group in groups]
        result = {}
        for name in measures:
            smooth = name != "numerical_rank"
            left = [each[name] for each in without] if smooth else []
            result[name] = group_jackknife(
                everything[name], left, images=self.images, level=level, unbiased=unbiased
            )
        return result

    def _values(self, measures: tuple[str, ...], *, leave_out: int | None) -> dict[str, Tensor]:
        spectra = {}
        for centred in {FORMULAS[name][1] for name in measures}:
            if self.kept:
                spectra[centred] = singular_values(torch.cat(self.kept), centred=centred)
                continue
            joined = Moments()
            for group, moments in self.moments.items():
                if group != leave_out:
                    joined.merge(moments)
            spectra[centred] = joined.singular_values(centred=centred)
        return {name: FORMULAS[name][0](spectra[FORMULAS[name][1]]) for name in measures}


class Moments:
    """Count, mean and centred second moments of a stream of rows, float64, merged as by Chan."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, matrix: Float[Tensor, "rows width"]) -> None:
        """Add rows. Many rows (tokens) are multiplied in float32 after their mean is removed."""
        if len(matrix) == 0:
            return
        precise = matrix.dtype == torch.float64 or len(matrix) <= 1024
        work = matrix.detach().to(torch.float64 if precise else torch.float32)
        mean = work.mean(0, dtype=torch.float64)
        gap = work - mean.to(work.dtype)
        rounding = 4 * torch.finfo(work.dtype).eps
        still = gap.abs().amax(0) <= rounding * mean.abs()  # a constant column, up to rounding
        gap = gap.masked_fill(still, 0)
        self._join(len(matrix), mean, (gap.T @ gap).to(torch.float64))

    def merge(self, other: "Moments") -> None:
        """Take over what ``other`` has seen."""
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self.count == 0:
            with torch.inference_mode(False):  # may be written to in either mode from now on
                self.count, self.mean, self.scatter = count, mean.clone(), scatter.clone()
            return
        mean, scatter = mean.to(self.mean.device), scatter.to(self.mean.device)
        total = self.count + count
        gap = mean - self.mean
        self.scatter.add_(scatter).addr_(gap, gap, alpha=self.count * count / total)
        self.mean.add_(gap, alpha=count / total)
        self.count = total

    @arrays
    def singular_values(self, *, centred: bool) -> Float[Tensor, "values"]:
        """Singular values of all rows together, largest first."""
        width = len(self.mean)
        if centred:
            if self.count < 2:
                raise InputError("One row has no variance: a centred rank needs at least two.")
            product = self.scatter
            level = self.count * self.mean.square().sum()
            if product.diagonal().sum() <= (1e-13) ** 2 * level:
                product = torch.zeros_like(product)  # equal rows: what is left is rounding
        else:
            product = self.scatter + self.count * torch.outer(self.mean, self.mean)
        if not bool(product.isfinite().all()):
            raise InputError("Features hold NaN or infinity, so they have no rank.")
        return _roots(product, min(self.count - centred, width))

"""Intervals and p-values over units: seeds, networks, layers; each says what it leaves out.

A number has as many intervals as there are things that could have been drawn otherwise.
`mean_interval` over seeds holds the **training** (seeds redraw the training pictures and their
order); what is said of *networks* has networks as its units (`clustered_mean`): tasks of one
network share it and are no further evidence. Intervals that hold the test pictures as well stand
in `aptheory.findings.pictures`.

    value, low, high, n = clustered_mean(gains, networks, tasks)

``benchmarks/coverage.py`` simulates what each of these promises and prints what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Num
from scipy import stats

from aptheory.errors import InputError

Curve = Float[np.ndarray, " layers"]
Numbers = Sequence[float] | Num[np.ndarray, " n"] | pd.Series

NAN = float("nan")
SAME = 1e-12
"""Values that differ by less than this share of their size are equal but for rounding."""


def ranks(values: Curve) -> Curve:
    """Ranks from 1, ties at their mean rank; values that are equal but for rounding are ties.

    Three seeds' accuracies of 0.8 have a mean that is not always the 0.8 of three others, and a
    difference of means is still further off: to the last bit they would be ranked by rounding.
    Where a value is no finite number none are tied so, and a nan makes all ranks nan.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        return np.asarray(stats.rankdata(values), dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order]) > SAME * np.abs(values).max(initial=0.0)
    level = np.empty(len(values))
    level[order] = np.concatenate([[0], np.cumsum(steps)])[: len(values)]
    return np.asarray(stats.rankdata(level), dtype=np.float64)


@dataclass(frozen=True)
class Interval:
    """A value, its bounds, and what they stand on; it prints itself.

    ``n`` counts the ``unit``s behind the bounds. Where nothing can be said (one unit, no spread)
    the bounds are nan, and ``note`` says why; a value that is nan prints as "unknown". ``spread``
    is False where the units are all the same: nothing was drawn anew. ``errors`` are standard
    errors by source, where several were told apart.

    >>> gain = Interval(0.067, 0.012, 0.122, n=3, unit="seeds")
    >>> f"{gain.times(100):+.1f points}"
    '+6.7 points [+1.2, +12.2]'
    """

    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    unit: str = ""
    note: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)
    spread: bool = True

    @property
    def known(self) -> bool:
        """Whether there are bounds."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def sources(self) -> str:
        """How far each source moves the value, as standard errors: "test pictures 2.1, …"."""
        return ", ".join(f"{source} {error:.2g}" for source, error in self.errors.items())

    def times(self, factor: float) -> Interval:
        """The same in another unit, such as points for fractions."""
        bounds = sorted((factor * self.low, factor * self.high))
        errors = {source: abs(factor) * error for source, error in self.errors.items()}
        return replace(
            self, value=factor * self.value, low=bounds[0], high=bounds[1], errors=errors
        )

    def __iter__(self) -> Iterator[float]:
        return iter((self.value, self.low, self.high, self.n))

    def __format__(self, spec: str) -> str:
        """A number's format, then perhaps a space and a unit: ``.1f %`` or ``+.1f points``.

        A bound just below zero keeps its minus, whatever the format: [-0.00, 0.34] holds zero.
        """
        number, _, unit = (spec or ".3g").partition(" ")
        if np.isnan(self.value):
            return f"unknown ({self.note})" if self.note else "unknown"
        value = f"{self.value:{number}}" + (f" {unit}" if unit else "")
        if self.known:
            number = number.replace("z", "")
            value += f" [{self.low:{number}}, {self.high:{number}}]"
        return f"{value} ({self.note})" if self.note else value

    def __str__(self) -> str:
        return format(self)


# Means ------------------------------------------------------------------------------------------


def mean_over(
    values: Numbers,
    *,
    unit: str = "seeds",
    confidence: float = 0.95,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Mean of independent values with Student's t interval; nan values are left out.

    ``within`` is what the mean cannot leave, such as (0, 1) for accuracies: no bound lies beyond.

    One value has no interval. Neither have values that are all the same: that is no evidence that
    the next would be the same too, but a sign that nothing was drawn anew.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    count = len(numbers)
    if count == 0:
        return Interval(NAN, unit=unit, note=f"no {unit}")
    value = float(numbers.mean())
    if count == 1:
        return Interval(value, n=1, unit=unit, note=f"one of {unit}: no spread is known")
    if np.ptp(numbers) <= SAME * np.abs(numbers).max():
        note = f"no spread: the {count} {unit} agree"
        return Interval(value, n=count, unit=unit, note=note, spread=False)
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * stats.sem(numbers)
    low, high = max(float(value - half), within[0]), min(float(value + half), within[1])
    return Interval(value, low, high, count, unit)


def mean_interval(
    values: Numbers,
    *,
    confidence: float = 0.95,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """The bounds of `mean_over`; (nan, nan) for one value and for values that are all the same."""
    interval = mean_over(values, confidence=confidence, within=within)
    return interval.low, interval.high


def clustered_mean(
    values: Numbers,
    networks: Iterable[object],
    tasks: Iterable[object] | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Mean over networks of their means over tasks, networks as the units.

    Values of one (network, task), such as seeds, are averaged first, then the tasks of a network,
    then networks; Student's t over the networks' means with networks − 1 degrees of freedom. Two
    networks give a very wide interval, which is what two networks say of a third.

    With one network its tasks are the units and ``note`` says that other networks are not spoken
    of. nan values are left out.

    >>> value, low, high, n = clustered_mean([1, 2, 5, 6], ["a", "a", "b", "b"], list("xyxy"))
    >>> value, n
    (3.5, 2)
    """
    numbers = np.asarray(values, dtype=np.float64)
    units = list(range(len(numbers)) if tasks is None else tasks)
    frame = pd.DataFrame({"value": numbers, "network": list(networks), "task": units})
    cells = frame.dropna(subset=["value"]).groupby(["network", "task"], sort=False)["value"].mean()
    means = cells.groupby("network", sort=False).mean()
    if len(means) != 1:
        return mean_over(means.to_numpy(), unit="networks", confidence=confidence)
    interval = mean_over(cells.to_numpy(), unit="tasks", confidence=confidence)
    note = "one network: nothing is said of others"
    return replace(interval, note="; ".join(filter(None, (interval.note, note))))


def mean_correlation(
    correlations: Numbers,
    networks: Iterable[object] | None = None,
    tasks: Iterable[object] | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Mean of correlations by Fisher's z = artanh r, with Student's t over the units' z.

    The units are networks as in `clustered_mean`; without ``networks`` each correlation is one.
    On z the spread does not depend on the correlation, and the bounds stay inside [−1, 1]. A
    correlation over a dozen layers cannot tell 1 from 0.99, and z of 1 is infinite: values beyond
    ±0.99 count as ±0.99.
    """
    rs = np.asarray(correlations, dtype=np.float64)
    if np.nanmax(np.abs(rs), initial=0) > 1 + 1e-9:
        raise InputError("a correlation lies beyond ±1; give correlations between -1 and 1.")
    units = np.arange(len(rs)).astype(str) if networks is None else networks
    z = clustered_mean(fisher_z(rs), units, tasks, confidence=confidence)
    value, low, high = np.tanh([z.value, z.low, z.high])
    return replace(z, value=float(value), low=float(low), high=float(high))


def correlation_over(
    x: Numbers, y: Numbers, *, unit: str = "networks", confidence: float = 0.95
) -> Interval:
    """Spearman's rank correlation over independent units, such as networks.

    Fisher's z with the variance (1 + r²/2) / (n − 3) (Bonett and Wright 2000), the normal quantile.
    Below four units, and where a value is the same for all, there are no bounds.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (x, y))
    count = len(first)
    if count < 4 or np.ptp(ranks(first)) == 0 or np.ptp(ranks(second)) == 0:
        return Interval(NAN, n=count, unit=unit, note=f"{count} {unit}, or no spread")
    r = float(stats.pearsonr(ranks(first), ranks(second)).statistic)
    quantile = stats.norm.ppf((1 + confidence) / 2)
    half = float(quantile * np.sqrt((1 + r**2 / 2) / (count - 3)))
    z = float(fisher_z(np.array([r]))[0])
    return Interval(r, float(np.tanh(z - half)), float(np.tanh(z + half)), count, unit)


def fisher_z(correlations: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """artanh of correlations, which count as ±0.99 beyond it."""
    return np.arctanh(np.clip(correlations, -0.99, 0.99))


def mean_p(values: Numbers) -> float:
    """Two-sided p of Student's t for a mean of 0; nan for one value, or without any spread."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2 or not mean_over(numbers).known:
        return NAN
    return float(stats.ttest_1samp(numbers, 0).pvalue)


# Curves over layers -----------------------------------------------------------------------------


def shifted(x: Curve, statistic: Callable[[Curve], float]) -> Float[np.ndarray, " shifts"]:
    """The statistic of all 2n circular shifts of the curve followed by its mirror image.

    The first is that of the curve itself. A layer curve does not end where it began: plain rotation
    tears it, the torn copies correlate less with a smooth curve than an untorn independent one
    would, and a test on them rejects up to four times too often. The reflected curve has no tear.
    """
    ring = np.concatenate([x, x[::-1]])
    turned = (np.roll(ring, shift)[: len(x)] for shift in range(len(ring)))
    return np.array([statistic(curve) for curve in turned], dtype=np.float64)


def circular_shift_p(x: Curve, statistic: Callable[[Curve], float]) -> float:
    """Two-sided p of a statistic of ``x`` under all circular shifts of the reflected curve.

    A shift keeps the curve's smoothness and breaks only its alignment with what the statistic
    compares it with. The identity is one of the 2n shifts, so p is at least 1/(2n).
    """
    values = np.abs(shifted(x, statistic))
    if np.isnan(values[0]):
        return NAN
    return float(np.mean(~(values < values[0] - 1e-12)))


def correlation_interval(
    x: Curve, statistic: Callable[[Curve], float], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Bounds of a correlation of two smooth curves over few layers.

    Neighbouring layers are not independent: the correlation of two unrelated smooth curves
    scatters as if there were only ν + 2 of them. The scatter is seen in the circular shifts of one
    curve, 1/(ν + 1) their mean square; with Student's t on ν degrees of freedom it becomes a
    half-width of Fisher's z. That estimate of ν is itself noisy over a dozen layers, so half-widths
    are drawn towards a constant: ``SHRINK`` holds both numbers, calibrated in
    ``benchmarks/coverage.py``. Resampling blocks of layers instead covers 80 % for 95.

    Returns (nan, nan) where the correlation is undefined.
    """
    values = shifted(x, statistic)
    if np.isnan(values[0]):
        return NAN, NAN
    freedom = max(1 / np.nanmean(values**2) - 2, 0.3)
    student = stats.t.ppf((1 + confidence) / 2, freedom)
    half = SHRINK[0] + SHRINK[1] * np.arctanh(student / np.sqrt(student**2 + freedom))
    limit = 1 - 6 / (len(x) * (len(x) ** 2 - 1))  # half-way from 1 to the next rank correlation
    z = np.arctanh(np.clip(values[0], -limit, limit))
    return min(np.tanh(z - half), values[0]), max(np.tanh(z + half), values[0])


SHRINK = (0.9, 0.15)
"""The constant and the slope of `correlation_interval`'s half-width in Fisher's z."""


# Many looks -------------------------------------------------------------------------------------


def corrected(table: pd.DataFrame, *, level: float = 0.05) -> pd.DataFrame:
    """The same rows with ``looks``, how many were tested, and ``q``, p corrected over all of them.

    Benjamini and Hochberg 1995. A row whose ``smallest_p`` (where there is such a column) no
    correction could leave below ``level`` is not a look and has no q: Tarone's (1990) rule, which
    asks what a test can show and not what it showed; its ``note`` says so. Tables that are read
    together are corrected together: ``corrected(pd.concat(tables))``.
    """
    table = table.copy()
    tested = table["p"].notna()
    if "smallest_p" in table:
        smallest = table["smallest_p"].where(tested)
        possible = can_show(smallest.to_numpy(np.float64), level=level)
        silent = tested & ~possible
        notes = [f"not tested: the smallest p here is 1/{1 / p:.0f}" for p in smallest[silent]]
        table.loc[silent, "note"] = notes
        tested &= possible
    table["looks"] = int(tested.sum())
    table["q"] = np.nan
    if tested.any():
        table.loc[tested, "q"] = stats.false_discovery_control(table.loc[tested, "p"])
    return table


def can_show(
    smallest: Float[np.ndarray, " tests"], *, level: float = 0.05
) -> Bool[np.ndarray, " tests"]:
    """Which tests could be significant at all, given the smallest p that each can have.

    Tarone 1990: the least K such that at most K tests can reach level / K; those tests. nan is no
    test.
    """
    for looks in range(1, len(smallest) + 1):
        possible = smallest <= level / looks + 1e-12
        if possible.sum() <= looks:
            return possible
    return np.zeros(len(smallest), dtype=bool)

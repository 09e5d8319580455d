"""Does each interval hold what it promises, and is each p level? Simulated, nominal against found.

    python -m benchmarks.coverage [--quick]

Every row draws data with a known truth many times, and counts how often the 95 % interval holds
the truth, or how often p falls at or below its level when nothing is there. ``setting`` says what
was drawn. The last line names the 95 % interval that is farthest from its promise.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.special import expit

from aptheory import metrics
from aptheory.choosing.ranking import ranking
from aptheory.findings.pictures import mcnemar, paired_pictures, two_source_interval
from aptheory.findings.relate import partial_spearman, spearman
from aptheory.findings.statistics import (
    circular_shift_p,
    clustered_mean,
    correlation_interval,
    mean_correlation,
    mean_over,
)

Generator = np.random.Generator
Row = tuple[str, str, float, list[bool]]

SMOOTHNESS = (1.0, 1.5, 2.0, 3.0)
"""Length-scales of layer curves, in layers: a Gaussian process of each is drawn as often."""

LAYERS = (8, 10, 12)


def means(generator: Generator, draws: int) -> Iterator[Row]:
    """Student's t over few seeds, and over networks that share nothing but their tasks' number."""
    for seeds in (3, 5):
        held = [holds(mean_over(generator.normal(0.7, 0.02, seeds)), 0.7) for _ in range(draws)]
        yield "mean over seeds", f"{seeds} seeds", 0.95, held
    networks, tasks = zip(*product("abcd", "vwxyz"), strict=True)
    held = []
    for _ in range(draws):
        gains = np.repeat(generator.normal(2, 1, 4), 5) + generator.normal(0, 2, 20)
        held.append(holds(clustered_mean(gains, networks, tasks), 2))
    yield "mean over networks", "4 networks of 5 tasks", 0.95, held


def predictions(
    generator: Generator, runs: int, pictures: int, ease: float, training: float, count: int = 1
) -> list[np.ndarray]:
    """Whether ``count`` methods are right: logits of pictures and of runs add up."""
    hard = generator.normal(0, 1.5, pictures)
    return [
        generator.random((runs, pictures))
        < expit(ease + hard + generator.normal(0, training, (runs, 1)))
        for _ in range(count)
    ]


def accuracy(ease: float, training: float) -> float:
    """The share of right predictions over all pictures and runs, by quadrature."""
    return float(stats.norm(ease, np.hypot(1.5, training)).expect(expit))


def pictures(generator: Generator, draws: int) -> Iterator[Row]:
    """Accuracy of a few runs on few or many test pictures, and differences of two methods."""
    for count, ease, training in ((60, 1.5, 0.1), (60, 3.5, 0.1), (400, 1.5, 0.1), (400, 1.5, 0.4)):
        truth = accuracy(ease, training)
        setting = f"3 runs, {count} pictures, {100 * truth:.0f} %, runs differ by {training}"
        held = [
            holds(two_source_interval(*predictions(generator, 3, count, ease, training)), truth)
            for _ in range(draws)
        ]
        yield "accuracy, both sources", setting, 0.95, held
    truth = accuracy(1.5, 0)
    held = []
    for _ in range(draws):
        (run,) = predictions(generator, 1, 60, 1.5, 0)
        held.append(holds(two_source_interval(np.repeat(run, 3, axis=0)), truth))
    yield "accuracy, equal runs", "3 times one run, 60 pictures", 0.95, held
    for runs, count in ((1, 60), (3, 60), (3, 400)):
        held = [
            holds(paired_pictures(*predictions(generator, runs, count, 1.5, 0.1, 2)), 0)
            for _ in range(draws)
        ]
        yield "difference of two methods", f"{runs} runs, {count} pictures", 0.95, held
    for level in (0.05, 0.1):
        low = [
            mcnemar(*(one[0] for one in predictions(generator, 1, 200, 1.5, 0, 2))) <= level
            for _ in range(draws)
        ]
        yield "McNemar's p", "200 pictures, equal methods", level, low


def curve(generator: Generator, layers: int, scale: float) -> np.ndarray:
    """A smooth curve over layers: a Gaussian process of this length-scale."""
    return root(int(layers), float(scale)) @ generator.normal(size=layers)


@cache
def root(layers: int, scale: float) -> np.ndarray:
    """Cholesky factor of the process's covariance."""
    at = np.arange(layers)
    covariance = np.exp(-0.5 * ((at[:, None] - at) / scale) ** 2) + 1e-6 * np.eye(layers)
    return np.linalg.cholesky(covariance)


def related(generator: Generator, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """A metric and an accuracy over layers, three seeds averaged, of this Pearson correlation."""
    layers, scale = generator.choice(LAYERS), generator.choice(SMOOTHNESS)
    x, other = curve(generator, layers, scale), curve(generator, layers, scale)
    y = strength * x + np.sqrt(1 - strength**2) * other
    return x, y + generator.normal(0, 0.3, (3, layers)).mean(0)


def population(strength: float) -> float:
    """Spearman's correlation of normal variables of this Pearson correlation."""
    return float(6 / np.pi * np.arcsin(strength / 2))


def relations(generator: Generator, draws: int) -> Iterator[Row]:
    """relate's low and high, its p, and the mean over networks."""
    smooth = "smooth curves, 8 to 12 layers, 3 seeds"
    for strength in (0, 0.6, 0.85):
        held = []
        for _ in range(draws):
            x, y = related(generator, strength)
            low, high = correlation_interval(x, lambda curve, y=y: spearman(curve, y))
            held.append(low <= population(strength) <= high)
        setting = f"{smooth}, true {population(strength):.2f}"
        yield "relate's correlation", setting, 0.95, held
    held, rejected, levels = [], [], []
    for _ in range(draws):
        x, y = related(generator, 0)
        depth = np.arange(len(x), dtype=float)
        low, high = correlation_interval(
            x, lambda curve, y=y, depth=depth: partial_spearman(curve, y, depth)
        )
        held.append(low <= 0 <= high)
        levels.append(np.floor(0.1 * 2 * len(x)) / (2 * len(x)))  # the next that p can reach
        p = circular_shift_p(x, lambda curve, y=y: spearman(curve, y))
        rejected.append(p <= levels[-1] + 1e-9)
    yield "relate's correlation given depth", f"{smooth}, true 0", 0.95, held
    yield "relate's p", f"{smooth}, true 0", float(np.mean(levels)), rejected
    for networks, strength, spread in ((5, 0, 0.3), (5, 0.85, 0.3), (8, 0.6, 0.1)):
        held = []
        for _ in range(draws):
            z = np.arctanh(population(strength)) + generator.normal(0, spread, networks)
            rs = [spearman(*related(generator, 2 * np.sin(np.pi / 6 * np.tanh(one)))) for one in z]
            held.append(holds(mean_correlation(rs), population(strength)))
        setting = f"{networks} networks of {smooth}, true {population(strength):.2f}"
        yield "across, Fisher's z", setting, 0.95, held


def ranks(generator: Generator, draws: int) -> Iterator[Row]:
    """Jackknife intervals, against the mean over samples of as many images."""
    scale = np.arange(16, 0, -1) ** 0.5
    for name, images in product(("effective_rank", "participation_ratio"), (64, 256)):
        estimates = []
        for _ in range(draws):
            rank = metrics.Rank(groups=8)
            rank.update(torch.as_tensor(generator.normal(size=(images, 16)) * scale))
            estimates.append(rank.compute((name,))[name])
        expected = np.mean([float(one.value) for one in estimates])
        held = [bool(one.low <= expected <= one.high) for one in estimates]
        yield f"{name.replace('_', ' ')} of as many images", f"{images} images", 0.95, held


def choices(generator: Generator, draws: int) -> Iterator[Row]:
    """The shallowest layer is chosen as often as any other when all are equally good."""
    for images, share in ((60, 0.8), (400, 0.95)):
        shallowest = []
        for _ in range(5 * draws):
            right = generator.binomial(images, share, (3, 8)).mean(0) / images
            shallowest.append(ranking(right)[0] == 0)
        yield "choice of layer 0 of 8", f"flat truth, {images} images", 1 / 8, shallowest


PARTS: tuple[Callable[[Generator, int], Iterator[Row]], ...] = (
    means,
    pictures,
    relations,
    ranks,
    choices,
)


def holds(interval: tuple[float, ...] | object, truth: float) -> bool:
    """Whether an interval has the truth between its bounds."""
    _, low, high, _ = interval  # type: ignore[misc]
    return bool(low <= truth <= high)


def coverage(*, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """``promise, setting, nominal, found, error`` (two standard errors of the simulation)."""
    rows = []
    for number, part in enumerate(PARTS):
        for promise, setting, nominal, held in part(np.random.default_rng([seed, number]), draws):
            found = float(np.mean(held))
            error = 2 * np.sqrt(nominal * (1 - nominal) / len(held))
            rows.append((promise, setting, nominal, found, error))
    return pd.DataFrame(rows, columns=["promise", "setting", "nominal", "found", "error"])


def worst(table: pd.DataFrame) -> pd.Series:
    """The 95 % interval that is farthest from what it promises."""
    intervals = table[table["nominal"] == 0.95]
    return intervals.loc[(intervals["found"] - 0.95).abs().idxmax()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 draws a row instead of 1000")
    table = coverage(draws=100 if parser.parse_args().quick else 1000)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    row = worst(table)
    print(f"worst coverage: {row['found']:.3f} ({row['promise']}; {row['setting']})")


if __name__ == "__main__":
    main()

"""Separability: how much of the labels can be read off a layer, and how plainly?

``probe_accuracy`` asks a linear classifier on held-out images; ``class_distance_ratio`` compares
distances between class means with distances within a class, and streams; ``logme`` (You et al.
2021) is the evidence of a Bayesian linear model, with nothing to tune.
"""

import warnings
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from aptheory.arguments import Between, Count, Level, Positive, Whole
from aptheory.errors import InputError
from aptheory.metrics.gram import rows
from aptheory.metrics.inputs import LARGEST, Groups, arrays
from aptheory.metrics.intervals import Estimate, deal, group_jackknife, merged
from aptheory.metrics.registry import FREE, INFINITE, TURNED, measure

MANY_CLASSES = "The number of unique classes is greater"
"""How scikit-learn's guess begins that classes of one picture are numbers to be regressed."""


def _labelled(features: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    matrix = rows(features).detach().to("cpu", torch.float64).numpy()
    classes = _whole(labels)
    if classes.shape != (len(matrix),):
        raise InputError(
            f"{len(matrix)} images but labels of shape {classes.shape}: give one label an image."
        )
    if not np.isfinite(matrix).all():
        raise InputError("Features hold NaN or infinity, so nothing can be read off them.")
    if matrix.size and np.abs(matrix).max() > LARGEST:
        raise InputError(
            f"Features hold numbers beyond {LARGEST:.0e}, whose squares overflow; divide them."
        )
    if len(np.unique(classes)) < 2:
        raise InputError("All images have one label: separability needs at least two classes.")
    return matrix, classes


def _whole(labels: Any) -> np.ndarray:
    """Labels as whole numbers; others name no class."""
    classes = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if classes.dtype.kind not in "iub" and not (
        classes.dtype.kind == "f" and bool((classes == np.floor(classes)).all())
    ):
        raise InputError(
            "labels hold what is no whole number; give the number of its class for each image."
        )
    return classes.astype(np.int64)


def _narrow(matrix: np.ndarray) -> np.ndarray:
    """Columns no more than rows, by a rotation: a ridge penalty cannot tell the difference."""
    count, width = matrix.shape
    if width <= count:
        return matrix
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    return vectors * np.sqrt(values.clip(min=0))


class Probe(NamedTuple):
    """Accuracy of a linear probe with its Wilson interval, over ``images`` held-out images."""

    accuracy: float
    low: float
    high: float
    images: int


@measure(
    "labelled",
    0,
    1,
    unchanged_by={"scaling", "translation", "channel order"},
    greater_means="more separable",
    source="Alain & Bengio 2017",
    streams=False,
)
@arrays
def probe_accuracy(
    features: Float[Tensor, "images *dims"],
    labels: Shaped[Tensor, "same_images"],
    *,
    folds: Annotated[int, Between(2)] = 5,
    strength: Positive = 1.0,
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0,
    level: Level = 0.95,
) -> Probe:
    """Cross-validated accuracy of logistic regression on standardised features.

    Every image is held out once, in ``folds`` stratified folds shuffled by ``seed``; mean and
    deviation come from the other folds. ``strength`` is scikit-learn's C, fixed beforehand:
    nothing is chosen by looking at held-out images.

    Raises:
        InputError: one class, a class with fewer images than folds, non-finite features.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    matrix, classes = _labelled(features, labels)
    rarest = int(np.unique(classes, return_counts=True)[1].min())
    if rarest < folds:
        raise InputError(
            f"A class has {rarest} image(s), fewer than the {folds} folds: give more images or "
            "fewer folds."
        )
    right = 0
    for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(matrix, classes):
        mean, spread = matrix[fit].mean(0), matrix[fit].std(0)
        still = spread <= 1e-9 * np.abs(mean)  # constant but for rounding
        ready = (matrix - mean) / np.where(still, 1.0, spread)
        ready[:, still] = 0.0
        ready = _narrow(ready)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", MANY_CLASSES)
            model = LogisticRegression(C=strength, max_iter=5000).fit(ready[fit], classes[fit])
        right += int((model.predict(ready[held]) == classes[held]).sum())
    low, high = wilson(right, len(classes), level=level)
    return Probe(right / len(classes), low, high, len(classes))


@arrays
def wilson(right: Whole, count: Count, *, level: Level = 0.95) -> tuple[float, float]:
    """Wilson's interval for a share of ``count``; it does not shrink to a point at 0 or 1."""
    from scipy.stats import binomtest

    interval = binomtest(right, count).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


@measure(
    "labelled",
    -INFINITE,
    INFINITE,
    unchanged_by=TURNED,
    greater_means="more separable",
    source="You et al. 2021",
    streams=False,
)
@arrays
def logme(features: Float[Tensor, "images *dims"], labels: Shaped[Tensor, "same_images"]) -> float:
    """Log of the maximum evidence per image, mean over classes (You et al. 2021); larger is better.

    Each class's indicator y is modelled as y = F w + noise, w ~ N(0, 1/α), noise ~ N(0, 1/β); α and
    β maximise the evidence by MacKay's fixed point. The features are used as they are, so the value
    depends on a shift but not on a rotation or a scale.

    Raises:
        InputError: one class, features that are all zero or not finite.
    """
    matrix, classes = _labelled(features, labels)
    count, width = matrix.shape
    scale = np.abs(matrix).max()
    if scale == 0:
        raise InputError("Features are all zero: a linear model of them has no evidence.")
    matrix = matrix / scale
    if width > count:
        values, left = np.linalg.eigh(matrix @ matrix.T)
    else:
        values, right = np.linalg.eigh(matrix.T @ matrix)
        left = (matrix @ right) / np.sqrt(values.clip(min=1e-300))
    real = values > 1e-12 * values[-1]
    squares, left = values[real], left[:, real]
    evidence = []
    for each in np.unique(classes):
        target = (classes == each).astype(np.float64)
        evidence.append(_evidence(squares, left.T @ target, target, width))
    return float(np.mean(evidence))


def _evidence(squares: np.ndarray, inside: np.ndarray, target: np.ndarray, width: int) -> float:
    """Largest log evidence per image. ``inside``: the target's part in the features' span."""
    count = len(target)
    outside = float(target @ target - inside @ inside)
    if outside <= 1e-12 * float(target @ target):
        outside = 0.0  # what rounding leaves would be multiplied by a large β
    alpha, beta = 1.0, 1.0
    for _ in range(1000):
        shrink = alpha / (alpha + beta * squares)
        used = float((1 - shrink).sum())
        weights = float(((beta * np.sqrt(squares) * inside / (alpha + beta * squares)) ** 2).sum())
        residual = float(((shrink * inside) ** 2).sum()) + outside
        # A target that the features explain not at all, or perfectly, has its maximum at infinity.
        new_alpha = min(used / max(weights, 1e-300), 1e12)
        new_beta = min(max(count - used, 1e-9) / max(residual, 1e-300), 1e12)
        moved = abs(np.log(new_alpha / alpha)) + abs(np.log(new_beta / beta))
        alpha, beta = new_alpha, new_beta
        if moved < 1e-8:
            break
    return log_evidence(alpha, beta, squares, inside, outside, count, width)


def log_evidence(
    alpha: float,
    beta: float,
    squares: np.ndarray,
    inside: np.ndarray,
    outside: float,
    count: int,
    width: int,
) -> float:
    """Log evidence per image at (α, β), as You et al. 2021 write it, from the spectrum."""
    curve = alpha + beta * squares
    residual = float(((alpha / curve * inside) ** 2).sum()) + outside
    weights = float(((beta * np.sqrt(squares) * inside / curve) ** 2).sum())
    determinant = float(np.log(curve).sum()) + (width - len(squares)) * np.log(alpha)
    total = count * np.log(beta) + width * np.log(alpha) - count * np.log(2 * np.pi)
    return float((total - beta * residual - alpha * weights - determinant) / 2 / count)


@measure(
    "labelled",
    -INFINITE,
    INFINITE,
    unchanged_by=FREE,
    greater_means="more separable",
    source="analysis of variance",
)
@arrays
def class_distance_ratio(
    features: Float[Tensor, "images *dims"], labels: Shaped[Tensor, "same_images"]
) -> float:
    """Squared distance between class means over squared distance within a class.

    Mean over pairs of classes of ‖μ_a - μ_b‖², without what the sampling of the means adds to it,
    over the mean over classes of E‖x - x'‖² for two images x, x' of a class. 0 (on average) for
    labels that mean nothing, 1 when classes lie as far apart as their images.

    Raises:
        InputError: one class, no class with two images, no variation within any class.
    """
    accumulator = ClassDistanceRatio(groups=1)
    numbers = _whole(labels)
    if (numbers >= 0).all():  # those that do not occur need no room
        numbers = np.unique(numbers, return_inverse=True)[1]
    accumulator.update(rows(features), torch.as_tensor(numbers))
    return float(accumulator.compute().value)


MOST_CLASSES = 100_000
"""Of a streaming ratio, which keeps a mean for every number below the largest label."""


class _Classes:
    """Count (classes,), mean (classes, width) and scatter (classes,) of each class, float64."""

    def __init__(self, classes: int, width: int, device: torch.device) -> None:
        kind: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros(classes, **kind)
        self.mean = torch.zeros(classes, width, **kind)
        self.scatter = torch.zeros(classes, **kind)

    @classmethod
    def of(cls, features: Tensor, labels: Tensor) -> "_Classes":
        """Of some images with their labels."""
        each = cls(int(labels.max()) + 1, features.shape[1], features.device)
        each.count.index_add_(0, labels, torch.ones_like(features[:, 0]))
        each.mean.index_add_(0, labels, features)
        each.mean /= each.count.clamp_min(1)[:, None]
        gap = (features - each.mean[labels]).square().sum(1)
        each.scatter.index_add_(0, labels, gap)
        return each

    def grow(self, classes: int) -> None:
        more = classes - len(self.count)
        if more > 0:
            self.count = torch.nn.functional.pad(self.count, (0, more))
            self.mean = torch.nn.functional.pad(self.mean, (0, 0, 0, more))
            self.scatter = torch.nn.functional.pad(self.scatter, (0, more))

    def join(self, other: "_Classes") -> None:
        self.grow(len(other.count))
        other.grow(len(self.count))
        total = self.count + other.count
        share = other.count / total.clamp_min(1)
        gap = other.mean.to(self.mean.device) - self.mean
        self.scatter = self.scatter + other.scatter + gap.square().sum(1) * self.count * share
        self.mean = self.mean + gap * share[:, None]
        self.count = total

    def ratio(self) -> Tensor:
        seen = self.count > 0
        count, mean, scatter = self.count[seen], self.mean[seen], self.scatter[seen]
        classes = len(count)
        many = count > 1
        each = scatter / (count - 1).clamp_min(1)  # E‖x - x'‖² of a class is twice this
        variance = each[many].mean()
        each = torch.where(many, each, variance)  # of a class with one image, the others' mean
        middle = mean - mean.mean(0)
        pairs = 2 * classes * middle.square().sum() / (classes * (classes - 1))
        noise = 2 * (each / count).mean()  # its own, as classes differ in size and spread
        return ((pairs - noise) / (2 * variance)).cpu()


class ClassDistanceRatio:
    """Streaming `class_distance_ratio`, jackknife interval over groups of images."""

    @arrays
    def __init__(self, *, groups: Groups = 8) -> None:
        self.groups = groups
        self.sums: dict[int, _Classes] = {}
        self.images = 0

    @arrays
    def update(
        self, features: Float[Tensor, "images width"], labels: Shaped[Tensor, "same_images"]
    ) -> None:
        """Add one batch with its labels, which count from 0."""
        work = features.detach().to(torch.float64)
        labels = torch.as_tensor(_whole(labels), device=work.device)
        if labels.shape != (len(work),) or bool((labels < 0).any()):
            raise InputError("Give one label an image, counting from 0.")
        if bool((labels >= MOST_CLASSES).any()):
            raise InputError(
                f"label {int(labels.max())} would be class {int(labels.max()) + 1:,}; classes "
                f"count from 0 and are at most {MOST_CLASSES:,}."
            )
        for group, part in deal(len(work), self.images, self.groups):
            batch = _Classes.of(work[part], labels[part])
            self._group(group, batch).join(batch)
        self.images += len(work)

    def _group(self, group: int, like: _Classes) -> _Classes:
        if group not in self.sums:
            self.sums[group] = _Classes(len(like.count), like.mean.shape[1], like.mean.device)
        return self.sums[group]

    @arrays
    def merge(self, other: "ClassDistanceRatio") -> None:
        """Take over what ``other`` has seen."""
        for group, sums in merged(other.sums, self.images, self.groups):
            self._group(group, sums).join(sums)
        self.images += other.images

    def _ratio(self, leave_out: int | None) -> Tensor:
        first = next(iter(self.sums.values()))
        total = _Classes(len(first.count), first.mean.shape[1], first.mean.device)
        for group, sums in self.sums.items():
            if group != leave_out:
                total.join(sums)
        return total.ratio()

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """The ratio, a scalar, with its interval."""
        if not self.sums:
            raise InputError("No image has been seen: call update before compute.")
        value = self._ratio(None)
        if not bool(value.isfinite()):
            raise InputError(
                "The ratio needs two classes, one with two images, and features that vary within "
                "a class and are finite."
            )
        without = [self._ratio(group) for group in self.sums] if len(self.sums) > 1 else []
        return group_jackknife(value, without, images=self.images, level=level)

"""How good a model is on labelled pictures: scores with intervals, class by class, and mistakes.

Intervals of shares are Wilson's, that of a mean of shares is Price and Bonett's; those of the other
scores are percentile bootstraps over pictures. The scores are counted here: scikit-learn's
functions, which the tests hold them against, check their input for longer than they compute, at
each of some hundred resamples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64

from aptheory.arguments import Between, Count, checked_arguments
from aptheory.checked import spelt
from aptheory.errors import InputError
from aptheory.metrics.intervals import bootstrap
from aptheory.models.card import preprocessing_of
from aptheory.preprocessing import Size
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.catalogue import task as open_task
from aptheory.tasks.pictures import Scale
from aptheory.tasks.readers.files import scale_of, with_scale
from aptheory.tasks.resizing import view

if TYPE_CHECKING:
    from aptheory.models.model import Model
    from aptheory.tasks import Task

Labels = Int64[np.ndarray, " images"]
Shares = Float[np.ndarray, "images classes"]
Score = Callable[[Labels, Shares], float]
_BINS = 15
FEWEST = 5
"""Pictures of a class below which draws of them say nothing of its spread."""
_log = logging.getLogger("aptheory")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's answers on one split of a task, and what they come to.

    Attributes:
        model, task, split: names, in words.
        classes: names, in the order of the columns of ``shares``.
        labels: the true class of each picture.
        shares: probability of each class for each picture, float64.
        names: what to call each picture.
        resamples: of the bootstrap behind the intervals of the scores.
    """

    model: str
    task: str
    split: str
    classes: tuple[str, ...]
    labels: Labels
    shares: Shares
    names: tuple[str, ...]
    resamples: int = 500

    @cached_property
    def predicted(self) -> Labels:
        """The most probable class of each picture."""
        return self.shares.argmax(1)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row a score: measure, value, low, high (95 %); fractions, log loss in nats.

        Wilson's interval for the accuracy; Price and Bonett's for the balanced accuracy, which a
        class of one picture makes wide; the bootstrap over pictures for the others, within each
        class for the mean F1. That is nan where it has no spread, as when every answer is right,
        and for the mean F1 where a class has fewer than five pictures: it knows nothing then.
        """
        rows = []
        for name, score in _scores(len(self.classes)).items():
            value = score(self.labels, self.shares)
            low, high = np.nan, np.nan
            if name == "accuracy" and len(self.labels):
                _, low, high = _wilson(int((self.predicted == self.labels).sum()), len(self.labels))
            elif name == "balanced accuracy" and len(self.labels):
                low, high = self._of_recalls(value)
            elif len(self.labels) > 1 and np.isfinite(value):
                if name == "macro F1":
                    low, high = self._within_classes(score)
                else:
                    of = self._of(score)
                    low, high = bootstrap(of, len(self.labels), resamples=self.resamples)
                if low == high:
                    low, high = np.nan, np.nan
            rows.append({"measure": name, "value": value, "low": low, "high": high})
        return pd.DataFrame(rows)

    def _of_recalls(self, value: float) -> tuple[float, float]:
        """Price and Bonett's interval of a mean of shares, "An improved confidence interval for a
        linear function of binomial proportions", Computational Statistics & Data Analysis 45
        (2004): p_i = (right + 2/k) / (true + 4/k) of k classes, mean p ± 1.96
        sqrt(Σ p_i (1 - p_i) / (true + 4/k)) / k. Simulated, it covers 95 % from ten pictures a
        class on, 89 % of a hundred classes of three, and 84 % of ten classes of one."""
        right, true, _ = _counts(self.labels, self.shares)
        right, true = right[true > 0], true[true > 0]
        count = len(true)
        share = (right + 2 / count) / (true + 4 / count)
        half = 1.959964 * math.sqrt((share * (1 - share) / (true + 4 / count)).sum()) / count
        low, high = float(share.mean()) - half, float(share.mean()) + half
        return max(0.0, min(low, value)), min(1.0, max(high, value))

    def _within_classes(self, score: Score) -> tuple[float, float]:
        """The percentile bootstrap with as many pictures of each class as there are: a draw that
        lacks a class has another mean over classes."""
        counts = np.bincount(self.labels)
        if counts[counts > 0].min() < FEWEST:
            return np.nan, np.nan
        order = np.argsort(self.labels, kind="stable")
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        generator, draws = np.random.default_rng(0), []
        for _ in range(self.resamples):
            index = order[starts + generator.integers(0, np.repeat(counts, counts))]
            draws.append(score(self.labels[index], self.shares[index]))
        low, high = np.quantile(draws, [0.025, 0.975])
        return float(low), float(high)

    def _of(self, score: Score) -> Callable[[np.ndarray], float]:
        return lambda index: score(self.labels[index], self.shares[index])

    @cached_property
    def by_class(self) -> pd.DataFrame:
        """A row a class: images, and recall and precision with Wilson's 95 % interval, F1."""
        rows = []
        counts = _counts(self.labels, self.shares).T.tolist()
        for name, (right, true, predicted) in zip(self.classes, counts, strict=True):
            row = {"class": name, "images": true}
            for measure, among in (("recall", true), ("precision", predicted)):
                names = (measure, f"{measure}_low", f"{measure}_high")
                row |= dict(zip(names, _wilson(right, among), strict=True))
            both = true + predicted
            rows.append({**row, "f1": 2 * right / both if both else np.nan})
        return pd.DataFrame(rows)

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Numbers of pictures: a row a true class, a column a predicted one."""
        from sklearn.metrics import confusion_matrix

        counts = confusion_matrix(self.labels, self.predicted, labels=range(len(self.classes)))
        return pd.DataFrame(counts, index=list(self.classes), columns=list(self.classes))

    @cached_property
    def confused(self) -> pd.DataFrame:
        """Who is taken for whom, without the matrix: class, predicted, images; most images
        first."""
        wrong = self.predicted != self.labels
        pairs = np.stack([self.labels[wrong], self.predicted[wrong]], axis=1)
        pairs, images = np.unique(pairs, axis=0, return_counts=True)
        order = np.argsort(-images, kind="stable")
        return pd.DataFrame(
            {
                "class": [self.classes[i] for i in pairs[order, 0]],
                "predicted": [self.classes[i] for i in pairs[order, 1]],
                "images": images[order],
            }
        )

    @cached_property
    def mistakes(self) -> pd.DataFrame:
        """Wrong answers, the most certain first: index, path, class, predicted, probability."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        certainty = self.shares[wrong].max(1)
        order = wrong[np.argsort(-certainty, kind="stable")]
        return pd.DataFrame(
            {
                "index": order,
                "path": [self.names[i] for i in order],
                "class": [self.classes[self.labels[i]] for i in order],
                "predicted": [self.classes[self.predicted[i]] for i in order],
                "probability": self.shares[order].max(1),
            }
        )

    def __str__(self) -> str:
        """A few lines for a terminal."""
        lines = [f"{len(self.labels)} {self.split} images of {self.task}"]
        for row in self.scores.to_dict("records"):
            interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
            if np.isnan(row["low"]):
                interval = (
                    "(interval unknown: resampled, they have no spread, or a class has too few)"
                )
            lines.append(f"  {row['measure']}: {row['value']:.3f} {interval}")
        return "\n".join(lines)


def _wilson(right: int, count: int) -> tuple[float, float, float]:
    """A share with Wilson's 95 % interval; nan of nothing."""
    from scipy.stats import binomtest

    if not count:
        return np.nan, np.nan, np.nan
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return right / count, float(interval.low), float(interval.high)


def _scores(classes: int) -> dict[str, Score]:
    scores: dict[str, Score] = {
        "accuracy": lambda y, p: float((p.argmax(1) == y).mean()),
        "balanced accuracy": balanced_accuracy,
        "macro F1": macro_f1,
        "log loss": log_loss,
        "calibration error": calibration_error,
    }
    if classes == 2:
        scores["AUROC"] = auroc
    return scores


def _counts(labels: Labels, shares: Shares) -> Int64[np.ndarray, "3 classes"]:
    """Of each class, the pictures that are right, that it has, and that are called it."""
    predicted, classes = shares.argmax(1), shares.shape[1]
    right = labels[labels == predicted]
    return np.array([np.bincount(it, minlength=classes) for it in (right, labels, predicted)])


def balanced_accuracy(labels: Labels, shares: Shares) -> float:
    """The mean recall of the classes that occur, in [0, 1]."""
    right, true, _ = _counts(labels, shares)
    return float((right[true > 0] / true[true > 0]).mean())


def macro_f1(labels: Labels, shares: Shares) -> float:
    """The mean F1, 2 right / (true + predicted), of the classes that occur or are predicted."""
    right, true, predicted = _counts(labels, shares)
    both = true + predicted
    return float((2 * right[both > 0] / both[both > 0]).mean())


def log_loss(labels: Labels, shares: Shares) -> float:
    """The mean of -log of the true class's probability, in nats; no probability counts as 0."""
    true = shares[np.arange(len(labels)), labels]
    return float(np.log(1 / true.clip(min=np.finfo(np.float64).eps)).mean())


def auroc(labels: Labels, shares: Shares) -> float:
    """Two classes: the probability that a picture of the second has more of its share than one of
    the first, ties counted half (Mann and Whitney's U over the pairs); nan where one is missing."""
    from scipy.stats import rankdata

    positive = int(labels.sum())
    pairs = positive * (len(labels) - positive)
    if not pairs:
        return np.nan
    ranks = rankdata(shares[:, 1])[labels == 1].sum()
    return float((ranks - positive * (positive + 1) / 2) / pairs)


def calibration_error(labels: Labels, shares: Shares, *, bins: int = _BINS) -> float:
    """Expected calibration error: Σ_b (n_b / n) |accuracy of b - mean confidence of b|.

    ``bins`` of equal width over the probability of the predicted class (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017). In [0, 1], 0 is calibrated; biased upwards
    for few pictures a bin.
    """
    confidence = shares.max(1)
    right = (shares.argmax(1) == labels).astype(np.float64)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(number, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


@checked_arguments
def evaluate(
    model: Model,
    task: Any,
    *,
    split: str = "test",
    batch_size: Count = 64,
    resamples: Annotated[int, Between(2, 100_000)] = 500,
) -> Evaluation:
    """What ``model`` answers on a split of a task whose classes it knows.

    Args:
        task: a task, or whatever `aptheory.task` makes one of.
        resamples: of the bootstrap behind the intervals of the scores.

    Raises:
        InputError: an unknown split, or classes that the model was not trained on.
    """
    task = open_task(task)
    if split not in ("train", "val", "test"):
        raise InputError(f"split is {split!r}; expected train, val or test.")
    unknown = [name for name in task.classes if name not in model.classes]
    if unknown:
        raise InputError(
            f"the model does not know class {unknown[0]!r} of {task.name}; it knows "
            f"{', '.join(model.classes)}."
        )
    images: Any = getattr(task, split)
    trained, own = model.card.scale, scale_of(images)
    if trained is not None and own not in (None, trained):
        _log.info("deep pictures: %s, as in training (their own range is not used)", trained.text)

    def scale() -> Scale:
        if trained is None:
            raise InputError(
                f"pictures of {task.name} have more than 8 bits a value, and the model learned on "
                "pictures of 8 bits, so that nothing says which is bright; bring them to 8 bits."
            )
        return trained

    if own is not None:
        scale()  # before any picture is read
    images = with_scale(images, scale)
    size = _asked_for(model, task, images)
    number = np.array([model.classes.index(name) for name in task.classes])
    parts = [range(i, min(i + batch_size, len(images))) for i in range(0, len(images), batch_size)]
    read = ahead_of(lambda part: images.images(part, size), parts, ahead=2)
    shares = np.concatenate([model.probabilities(pixels) for _, pixels in read])
    return Evaluation(
        model=repr(model),
        task=task.name,
        split=split,
        classes=model.classes,
        labels=number[np.asarray(images.labels)],
        shares=shares,
        names=tuple(name_of(images, index) for index in range(len(images))),
        resamples=resamples,
    )


def _asked_for(model: Model, task: Task, images: Any) -> Size:
    """What makes images of these pictures as of those that the model was trained on."""
    if model.card.prepares_like(preprocessing_of(model.network, task)):
        return view(images, model.network)
    return model.preprocessing.size if model.preprocessing.plain else model.preprocessing


def name_of(split: Any, index: int) -> str:
    """What to call a picture of a split: its file where it has one, else its number."""
    while not hasattr(split, "where") and hasattr(split, "split"):
        index = int(split.indices[index]) if hasattr(split, "indices") else index
        split = split.split
    return spelt(split.where(index)) if hasattr(split, "where") else f"picture {index}"

"""Where a head starts: what it standardises by, and its first weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from aptheory.devices import autocast
from aptheory.methods.per_run import by_run
from aptheory.metrics.separability import MANY_CLASSES
from aptheory.training.drawing import Part
from aptheory.training.kept import Kept
from aptheory.training.recipe import Recipe

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted

#: Training images that a probe is fitted to, at most: it is a start, the rest learns from all.
PROBE_IMAGES = 4096


@torch.no_grad()
def start_head(adapted: Adapted, kept: Kept, recipe: Recipe, parts: Sequence[Part]) -> None:
    """Set each run's standardisation and first weights, as the recipe asks.

    ``parts`` are the runs' training images.
    """
    for part in dict.fromkeys(parts):
        runs = [k for k, own in enumerate(parts) if own is part]
        if not adapted.summaries.width:
            _start(adapted, kept, recipe, part, runs, partial(_features, adapted, kept, part))
            continue
        answered = cache(partial(_with_summaries, adapted, kept, recipe, part))
        for k in runs:
            _start(adapted, kept, recipe, part, [k], partial(_of_run, answered, k))


def _start(
    adapted: Adapted,
    kept: Kept,
    recipe: Recipe,
    part: Part,
    runs: Sequence[int],
    clean: Callable[[], Tensor],
) -> None:
    """Start the heads of ``runs``, which train on the same images and read ``clean`` features."""
    head = adapted.head
    if recipe.standardize:
        features = clean().double()
        scale = features.std(0, correction=0)
        # A feature that never changes tells nothing: leave it as it is instead of dividing
        # rounding errors by one another.
        scale[scale <= 1e-6 * scale.max()] = 1.0
        head.shift[runs] = features.mean(0).to(head.shift)
        head.scale[runs] = scale.to(head.scale)
    if adapted.reading.select is not None:
        standard = (clean() - head.shift[runs[0]]) / head.scale[runs[0]]
        chosen = selected(standard, _labels(kept, part), adapted.reading.select)
        for k in runs:
            head.scale[k, ~chosen] = math.inf  # reads as 0, whatever the image
    start = recipe.head_init
    if start == "probe":
        if len(_labels(kept, part).unique()) < 2:
            return  # nothing to tell apart
        if adapted.summaries.width:
            weight, bias = _probe(adapted, kept, part, runs[0], clean())
        else:  # the same for every method that reads there and trains on these images
            key = (adapted.reading, recipe.standardize, part.store, part.rows.numpy().tobytes())
            if key not in kept.probes:
                kept.probes[key] = _probe(adapted, kept, part, runs[0], clean())
            weight, bias = kept.probes[key]
    for k in runs:
        w, b = head.weight.values[k], head.bias.values[k]
        if start == "zeros":
            w.zero_()
            b.zero_()
        elif start == "vapt":  # kaiming normal, fan out = classes
            generator = torch.Generator().manual_seed(adapted.seeds[k])
            w.copy_(torch.randn(w.shape, generator=generator) * math.sqrt(2 / w.shape[0]))
            b.fill_(-4.595)
        elif start == "probe":
            w.copy_(weight)
            b.copy_(bias)


def _features(adapted: Adapted, kept: Kept, part: Part) -> Float[Tensor, "rows width"]:
    """Clean features of the images (of all their views, where views are kept)."""
    features = kept.features(part.store, adapted.reading)
    number = kept.number(part.store)
    rows = torch.cat([part.rows + view * number for view in range(len(features) // number)])
    return features[rows.to(features.device)]


def _with_summaries(
    adapted: Adapted, kept: Kept, recipe: Recipe, part: Part
) -> Float[Tensor, "runs rows width"]:
    """The same with what blocks give beside it, which depends on where each run starts."""
    number, views = kept.number(part.store), kept.policy.views or 1
    every = torch.cat([part.rows + view * number for view in range(views)])
    found = []
    with autocast(kept.device, recipe.precision):
        for rows in every.split(max(1, kept.chunk // adapted.runs)):
            z = kept.batch(part.store, rows)
            z = z.expand(adapted.runs, *z.shape).flatten(0, 1)
            found.append(by_run(adapted.features(z).float(), adapted.runs))
    return torch.cat(found, 1)


def _of_run(every: Callable[[], Tensor], run: int) -> Float[Tensor, "rows width"]:
    return every()[run]


def _labels(kept: Kept, part: Part) -> Int64[Tensor, " images"]:
    labels = kept.labels(part.store)
    return labels[part.rows.to(labels.device)]


def selected(
    standard: Float[Tensor, "rows width"], labels: Int64[Tensor, " images"], share: float
) -> Bool[Tensor, " width"]:
    """Which features stay: the ``share`` with the largest weights under a group lasso.

    Least squares on the classes' indicators, with the norm of each feature's weights over all
    classes as the penalty, at a tenth of the strength at which every weight vanishes. As Head2Toe
    selects (Evci et al., ICML 2022, arXiv 2201.03529), whose strength is searched a task.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import MultiTaskLasso

    rows = torch.arange(0, len(standard), -(-len(standard) // PROBE_IMAGES))
    x = standard[rows.to(standard.device)].double().cpu().numpy()
    answers = torch.nn.functional.one_hot(labels[rows.to(labels.device) % len(labels)])
    y = answers.double().cpu().numpy()
    y = y - y.mean(0)
    strongest = float(np.sqrt(((x.T @ y) ** 2).sum(1)).max()) / len(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a ranking
        lasso = MultiTaskLasso(alpha=0.1 * strongest, max_iter=200, tol=1e-3).fit(x, y)
    size = np.sqrt((lasso.coef_**2).sum(0))
    count = max(1, round(share * len(size)))
    best = np.argsort(-size, kind="stable")[:count]
    chosen = torch.zeros(len(size), dtype=torch.bool, device=standard.device)
    chosen[torch.from_numpy(best[size[best] > 0])] = True
    return chosen


def _probe(
    adapted: Adapted, kept: Kept, part: Part, run: int, clean: Float[Tensor, "rows width"]
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
    """Regularised logistic regression on the clean features, standardised as run ``run``'s head.

    A class without a training image gets weight 0 and the smallest bias.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    head = adapted.head
    rows = torch.arange(0, len(clean), -(-len(clean) // PROBE_IMAGES), device=clean.device)
    standard = ((clean[rows] - head.shift[run]) / head.scale[run]).double().cpu().numpy()
    labels = _labels(kept, part)
    answers = labels[rows.to(labels.device) % len(labels)].cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a start
        warnings.filterwarnings("ignore", MANY_CLASSES)
        solver = LogisticRegression(C=1e-2, max_iter=200).fit(standard, answers)
    weight = torch.zeros_like(head.weight.values[0])
    bias = torch.full_like(head.bias.values[0], float(solver.intercept_.min()) - 1.0)
    found_weight, found_bias = solver.coef_, solver.intercept_
    if len(solver.classes_) == 2:  # scikit-learn keeps one row, for the second class
        found_weight = [-0.5 * solver.coef_[0], 0.5 * solver.coef_[0]]
        found_bias = [-0.5 * solver.intercept_[0], 0.5 * solver.intercept_[0]]
    for row, label in enumerate(solver.classes_):
        weight[label] = torch.as_tensor(found_weight[row], dtype=weight.dtype)
        bias[label] = float(found_bias[row])
    return weight, bias

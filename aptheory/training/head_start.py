"""Where a head starts: what it standardises by, and its first weights."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.training.kept import Kept
from aptheory.training.recipe import Recipe

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted

#: Training images that a probe is fitted to, at most: it is a start, the rest learns from all.
PROBE_IMAGES = 4096


@torch.no_grad()
def start_head(adapted: Adapted, kept: Kept, recipe: Recipe) -> None:
    """Set the head's standardisation and its first weights, as the recipe asks, for every run."""
    head = adapted.head
    if recipe.standardize:
        features = kept.features("train", place=adapted.exit, pool=adapted.pool).double()
        scale = features.std(0, correction=0)
        # A feature that never changes tells nothing: leave it as it is instead of dividing
        # rounding errors by one another.
        scale[scale <= 1e-6 * scale.max()] = 1.0
        head.shift.copy_(features.mean(0))
        head.scale.copy_(scale)
    start = recipe.head_init
    if start == "probe" and len(kept.labels("train").unique()) < 2:
        return  # nothing to tell apart
    if start == "probe":
        weight, bias = probe(adapted, kept)
    for k, seed in enumerate(adapted.seeds):
        w, b = head.weight.values[k], head.bias.values[k]
        if start == "zeros":
            w.zero_()
            b.zero_()
        elif start == "vapt":  # kaiming normal, fan out = classes
            generator = torch.Generator().manual_seed(seed)
            w.copy_(torch.randn(w.shape, generator=generator) * math.sqrt(2 / w.shape[0]))
            b.fill_(-4.595)
        elif start == "probe":
            w.copy_(weight)
            b.copy_(bias)


def probe(
    adapted: Adapted, kept: Kept
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
    """Regularised logistic regression on the clean, standardised training features.

    A class without a training image gets weight 0 and the smallest bias.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    head = adapted.head
    clean = kept.features("train", place=adapted.exit, pool=adapted.pool)
    rows = torch.arange(0, len(clean), -(-len(clean) // PROBE_IMAGES), device=clean.device)
    standard = ((clean[rows] - head.shift) / head.scale).double().cpu().numpy()
    labels = kept.labels("train")
    answers = labels[rows.to(labels.device) % len(labels)].cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a start
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

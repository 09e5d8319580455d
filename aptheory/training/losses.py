"""What a step minimises, and how classes of unequal size are made equal in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (images, classes) and labels (images,), or shares of classes (images, classes) where
images are blended, to the loss of each image, (images,)."""

BALANCES = ("none", "weights", "sampler")


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """-log p(label) of each image, with a share of the target spread over all classes."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)

    return loss


def class_weights(
    labels: Int64[Tensor, "runs images"], classes: int
) -> Float[Tensor, "runs classes"]:
    """n / (C n_c) for the C classes that occur: each weighs the same, an image 1 on average.

    A class without an image weighs 0.
    """
    counts = torch.stack([torch.bincount(row, minlength=classes) for row in labels]).float()
    present = (counts > 0).sum(1, keepdim=True)
    weights = labels.shape[1] / (present * counts)
    return weights.where(counts > 0, torch.zeros_like(weights))

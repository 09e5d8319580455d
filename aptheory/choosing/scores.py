"""Scores of every layer from a few passes over a small labelled sample: nothing is trained.

Each score says something that a theory of layer preference says should matter. A new task has no
head yet, so the logits whose derivative is taken are those of a ridge probe: linear on the
standardised features at the classifier's input, as the head that a recipe trains, with its penalty
chosen by its own leave-one-out error. It is the same for all layers and is held fixed; what is
left for a prompt to explain is the residual of its leave-one-out predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.networks.attention import attention_layers
from aptheory.networks.network import Network
from aptheory.profiling.profile import profile
from aptheory.tasks import Task, loader
from aptheory.theory import tangent
from aptheory.training.cost import Operations

SCORES = {
    "depth": "place in the network, 0 the image and 1 the classifier's input",
    "distance_from_middle": "squared distance from the middle of the network, 1 at both ends",
    "kind_depth": "depth, turned round for networks without attention",
    "kind_distance_from_middle": "the same distance, turned round for networks without attention",
    "tangent_gain": "accuracy that a small prompt adds on images it was not fitted to",
    "tangent_explained": "share of the held-out residual that a small prompt explains",
    "tangent_alignment": "alignment of the prompt's kernel with the residual",
    "tangent_dimension": "log of the number of directions in which a prompt tells images apart",
    "tangent_variation": "share of a small prompt's effect that differs between images",
    "tangent_reach": "log of how far a prompt of relative norm 1 moves the logits apart",
    "gradient_gain": "log of the loss's first decrease per relative step",
    "gradient_agreement": "log of how much the images' gradients agree",
    "attention_distance": "mean attention distance of the block (0 where there is no attention)",
    "globality": "share of variance carried by the spatial mean",
    "effective_rank": "log effective rank of the pooled features",
    "logme": "log evidence for the labels given this layer's features",
    "probe": "leave-one-out accuracy of a linear probe on this layer's features",
}
"""What the rule may use, in words. Columns named "log" are logarithms, of the value or of a
thousandth of the largest over the layers, whichever is larger."""

PLACES = ("depth", "distance_from_middle", "kind_depth", "kind_distance_from_middle")
"""Those that follow from the place and the kind of network, without an image."""

METRICS = ("attention_distance", "globality", "effective_rank", "logme")
DIRECTIONS = 10
"""Backward passes an image at most; up to so many classes the kernel is exact in the classes."""
_LOGARITHMIC = (
    *("tangent_dimension", "tangent_reach", "gradient_gain", "gradient_agreement"),
    "effective_rank",
)


def layer_scores(
    net: Network,
    task: Task,
    *,
    images: int = 256,
    width: int = 512,
    directions: int = DIRECTIONS,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Every score of every layer, from a seeded, class-balanced sample of training images.

    Args:
        images: labelled training images that are looked at, at most; validation and test images
            never are.
        width: buckets of the tangent kernel's sketch.
        directions: of the logits that get a backward pass; all classes where there are no more.
        batch_size: images at once; decides nothing.
        seed: of the sample and the sketches.

    Returns:
        One row a layer: ``layer, layer_name`` and the columns of `SCORES`. A score that is
        undefined at a layer is nan.

    Raises:
        InputError: fewer than ten images, fewer than two classes, or a class without an image.
    """
    some = _sample(task, images, seed)
    device, dtype = net.device, net.dtype
    last = len(net.layers) - 1
    batches = [x.to(device, dtype) for x, _ in loader(some.train, net, batch_size)]
    labels = torch.as_tensor(np.asarray(some.train.labels))
    classes = len(some.classes)
    pooled, norms = _features(net, batches)
    head = RidgeHead.fit(pooled[last], labels, classes)
    residual = head.targets - head.left_out
    weight = head.weight.to(device, dtype)
    stages = [_stage(net, layer) for layer in range(last)] + [lambda z: z @ weight.T]
    along = tangent.class_directions(classes, directions, seed=seed)
    few = classes > directions
    if few:  # one row more, along each image's own residual, gives the exact gradient
        each = along.expand(len(labels), *along.shape)
        sought = torch.cat([each, residual[:, None]], 1)
    rows = tangent.tangent_features(
        stages, batches, directions=sought if few else None, width=width, seed=seed
    )
    table = []
    for layer, found in enumerate(rows):
        row = found.cpu()
        if few:
            own, row = row[:, -1:], row[:, :-1]
            slope = tangent.gradient(own, torch.ones(len(own), 1), scale=norms[layer])
            fitted = tangent.prompt_regression(row, residual @ along.T, seed=seed)
        else:
            slope = tangent.gradient(row, residual, scale=norms[layer])
            logits = head.left_out + head.centre
            fitted = tangent.prompt_regression(row, residual, logits, labels, seed=seed)
        apart = tangent.centred(row)
        table.append(
            {
                "layer": layer,
                "layer_name": net.layers[layer].name,
                "tangent_gain": fitted.accuracy - fitted.before,
                "tangent_explained": fitted.explained,
                "tangent_alignment": tangent.alignment(row, residual @ along.T),
                "tangent_dimension": tangent.effective_dimension(apart),
                "tangent_variation": tangent.variation(row),
                "tangent_reach": tangent.reach(row, scale=norms[layer]),
                "gradient_gain": slope.gain,
                "gradient_agreement": slope.agreement,
                "probe": RidgeHead.fit(pooled[layer], labels, classes).accuracy(labels),
            }
        )
    scores = pd.DataFrame(table).assign(**place_scores(net))
    scores = scores.merge(_metrics(net, some, seed), on="layer", how="left")
    for name in _LOGARITHMIC:
        # At the classifier's input some vanish: their logarithm would drown all other layers.
        scores[name] = np.log(scores[name].clip(lower=max(1e-3 * scores[name].max(), 1e-30)))
    return scores[["layer", "layer_name", *SCORES]]


def place_scores(net: Network) -> dict[str, Float[np.ndarray, " layers"]]:
    """The scores of `PLACES`, one number a layer."""
    return of_places(len(net.layers), kind_of(net))


def of_places(layers: int, kind: str) -> dict[str, Float[np.ndarray, " layers"]]:
    """The scores of `PLACES` for so many layers of a ``"vit"`` or a ``"cnn"``."""
    depth = np.arange(layers) / (layers - 1)
    distance, sign = (2 * depth - 1) ** 2, 1.0 if kind == "vit" else -1.0
    return dict(zip(PLACES, (depth, distance, sign * depth, sign * distance), strict=True))


def score_operations(
    operations: Operations, images: int, classes: int, *, directions: int = DIRECTIONS
) -> float:
    """Operations of `layer_scores`: three forward passes an image (the head's features, the
    tangent kernel, the profile) and a backward pass a row."""
    rows = classes if classes <= directions else directions + 1
    forward, backward = sum(operations.forward), sum(operations.backward)
    return float(images * (3 * forward + rows * backward))


def kind_of(net: Network) -> str:
    """``"vit"`` for a network with attention (Swin too), ``"cnn"`` for any other."""
    return "vit" if attention_layers(net) else "cnn"


def standardise(scores: pd.DataFrame) -> pd.DataFrame:
    """Every score to mean 0 and variance 1 over the layers; undefined and constant ones to 0."""
    table = scores.reindex(columns=list(SCORES)).astype(float)
    spread = table.std(ddof=0)
    # Rounding apart, a constant column has no spread: its noise must not become a score.
    spread = spread.where(spread > 1e-9 * table.abs().max())
    return ((table - table.mean()) / spread).fillna(0.0)


@dataclass(frozen=True, eq=False)
class RidgeHead:
    """A ridge classifier on standardised features, with its leave-one-out predictions.

    One-hot targets, centred; ŷ₋ᵢ = (ŷᵢ − hᵢ yᵢ)/(1 − hᵢ) with h the leverages (Allen 1974). The
    penalty is the one with the smallest leave-one-out error. ``weight`` applies to the features
    as they come; ``targets`` and ``left_out`` are less the class shares ``centre``.
    """

    weight: Float[Tensor, "classes width"]
    left_out: Float[Tensor, "images classes"]
    targets: Float[Tensor, "images classes"]
    centre: Float[Tensor, " classes"]
    penalty: float

    @classmethod
    def fit(
        cls, features: Float[Tensor, "images width"], labels: Tensor, classes: int
    ) -> RidgeHead:
        """Fit on features (n, D) and labels (n,), in float64.

        A feature that never changes is left out. Its mean and scale are those of all images, the
        left-out one among them, as they are in training.
        """
        x = features.double()
        if not bool(torch.isfinite(x).all()):
            raise InputError("features hold nan or inf: what makes them has diverged.")
        x = x - x.mean(0)
        scale = x.std(0, correction=0)
        scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)
        x = x / scale
        y = torch.nn.functional.one_hot(labels, classes).double()
        centre = y.mean(0)
        y = y - centre
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        best: tuple[float, Any] = (float("inf"), None)
        top = float(values[0]) ** 2 or 1.0
        for penalty in top * torch.logspace(-5, 1, 13, dtype=torch.float64):
            shrink = values**2 / (values**2 + penalty)
            leverage = (left**2 * shrink).sum(1, keepdim=True) + 1 / len(x)
            out = (left * shrink @ (left.T @ y) - leverage * y) / (1 - leverage).clamp_min(1e-6)
            error = float((out - y).square().sum())
            if error < best[0]:
                weight = (right.T * (shrink / values.clamp_min(1e-30))) @ (left.T @ y)
                best = (error, (weight.T / scale, out, float(penalty)))
        weight, out, chosen = best[1]
        return cls(weight, out, y, centre, chosen)

    def accuracy(self, labels: Tensor) -> float:
        """Share of images whose leave-one-out prediction is right."""
        return float(((self.left_out + self.centre).argmax(1) == labels).double().mean())


def _sample(task: Task, images: int, seed: int) -> Task:
    """The training images to look at; a sentence of our own where they cannot do."""
    labels = np.asarray(task.train.labels)
    count, present = min(images, len(labels)), len(np.unique(labels))
    least = max(10, present)
    if count < least or present < 2:
        raise InputError(
            f"{count} images of {present} classes are too few to score layers: give at least "
            f"{max(10, 2, present)} labelled training images, one a class, of two classes or more"
        )
    return task.subset(train=count, seed=seed)


def _stage(net: Network, layer: int) -> tangent.Stage:
    return lambda z: net.run(z, start=layer, stop=layer + 1)


@torch.no_grad()
def _features(net: Network, batches: list[Tensor]) -> tuple[list[Tensor], list[float]]:
    """Pooled features of every layer (n, channels), and the mean norm of an activation there.

    The norm is the scale of a relative step, so that layers can be compared.
    """
    pooled: list[list[Tensor]] = [[] for _ in net.layers]
    norms = np.zeros(len(net.layers))
    for x in batches:
        for place, z in net.walk(x, stops=net.layers):
            pooled[place.index].append(place.pooled(z).float().cpu())
            norms[place.index] += float(z.flatten(1).double().norm(dim=1).sum())
    count = sum(len(x) for x in batches)
    return [torch.cat(parts) for parts in pooled], (norms / count).tolist()


def _metrics(net: Network, task: Task, seed: int) -> pd.DataFrame:
    """The profile's metrics as columns, one row a layer."""
    names = METRICS if attention_layers(net) else METRICS[1:]
    table = profile(net, task, measures=names, intervals=False, seed=seed)
    wide = table.pivot_table(index="layer", columns="measure", values="value")
    return wide.reindex(columns=list(METRICS)).reset_index()

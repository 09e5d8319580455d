"""Second opinions on CKA: Procrustes similarity and mutual nearest neighbours.

CKA weighs directions by their variance and can be moved by a few outliers (Davari et al. 2023); a
claim that rests on it should also stand under a measure that is built differently. Both measures
here need all images at once and see features only through Gram matrices.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Between, Count, Seed
from aptheory.errors import InputError
from aptheory.metrics.gram import centre, linear_gram, rows, squared_distances
from aptheory.metrics.inputs import arrays
from aptheory.metrics.registry import FREE, measure

Splits = Annotated[int, Between(1, 10_000)]


@measure(
    "pair",
    -1,
    1,
    unchanged_by=FREE - {"image order"},  # the random halves follow the order
    greater_means="more similar",
    source="Schönemann 1966, on held-out halves",
    symmetric=True,
    streams=False,
)
@arrays
def procrustes(
    x: Float[Tensor, "images *x"],
    y: Float[Tensor, "same_images *y"],
    *,
    estimator: Literal["split", "biased"] = "split",
    splits: Splits = 4,
    seed: Seed = 0,
) -> float:
    """Cosine between Y and the best rotation of X; 1 for equal up to rotation, shift and scale.

    ``estimator="biased"`` fits and scores on the same images: ‖XᵀY‖_* / (‖X‖ ‖Y‖) of the centred
    features (Schönemann 1966), in [0, 1]. A rotation with as many free numbers as there are images
    fits noise, so unrelated wide features score near 1.

    ``estimator="split"`` (debiased) fits the rotation on half of the images and scores it on the
    other half, both ways, over ``splits`` random halvings: 0 on average for unrelated features.
    Directions that the fitting half never shows cannot be rotated, so features wider than n / 2
    score below what more images would give: it errs towards 0, never towards 1.

    Raises:
        InputError: different numbers of images, fewer than 4 (2 if biased), constant features.
    """
    least = 2 if estimator == "biased" else 4
    rows(x, least=least, what="x")
    rows(y, least=least, what="y")
    _same_images(x, y)
    grams = linear_gram(x.double()), linear_gram(y.double())
    return procrustes_of_grams(*grams, estimator=estimator, splits=splits, seed=seed)


@measure(
    "pair",
    0,
    1,
    unchanged_by=FREE,
    greater_means="more similar",
    source="Schönemann 1966",
    symmetric=True,
    streams=False,
    name="procrustes_biased",
)
@arrays
def _biased(x: Tensor, y: Tensor) -> float:
    return procrustes(x, y, estimator="biased")


@arrays
def procrustes_of_grams(
    x: Float[Tensor, "images images"],
    y: Float[Tensor, "images images"],
    *,
    estimator: Literal["split", "biased"] = "split",
    splits: Splits = 4,
    seed: Seed = 0,
) -> float:
    """`procrustes` from the Gram matrices of the two sets of features.

    Directions that hold less than the rounding of float64 are left out: give Gram matrices that
    were made in float64, ``linear_gram(x.double())``.
    """
    x, y = x.double(), y.double()
    for name, gram in (("x", x), ("y", y)):
        if not bool(gram.isfinite().all()) or not bool(gram.diagonal().sum() > 0):
            raise InputError(f"{name} is constant over the images or not finite: no Procrustes.")
    count = len(x)
    if estimator == "biased":
        every = torch.arange(count, device=x.device)
        return _score(x, y, every, every)
    if estimator != "split":
        raise InputError(f'estimator is {estimator!r}; it is "split" or "biased".')
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for _ in range(splits):
        order = torch.randperm(count, generator=generator).to(x.device)
        first, second = order[: count // 2], order[count // 2 :]
        scores += [_score(x, y, first, second), _score(x, y, second, first)]
    return sum(scores) / len(scores)


def _score(x: Tensor, y: Tensor, fit: Tensor, held: Tensor) -> float:
    """Fit the rotation on the images ``fit``, return the cosine on the images ``held``."""
    left_x, size_x, seen_x = _coordinates(x, fit, held)
    left_y, size_y, seen_y = _coordinates(y, fit, held)
    # XᵀY of the fitting images, in the coordinates of the directions that they span
    core = size_x[:, None] * (left_x.T @ left_y) * size_y[None, :]
    turn_x, _, turn_y = torch.linalg.svd(core, full_matrices=False)
    agreement = ((seen_x @ turn_x) * (seen_y @ turn_y.T)).sum()
    norm_x = centre(x[held][:, held]).trace()
    norm_y = centre(y[held][:, held]).trace()
    if not bool(norm_x > 0) or not bool(norm_y > 0):
        raise InputError("Half of the images have equal features: give more, or varied, images.")
    return float(agreement / (norm_x * norm_y).sqrt())


def _coordinates(gram: Tensor, fit: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S of the fitting images' features U S Vᵀ, and the held images' coordinates in V."""
    values, vectors = torch.linalg.eigh(centre(gram[fit][:, fit]))
    rounding = 8 * len(values) * torch.finfo(values.dtype).eps
    real = values > rounding * values[-1].clamp_min(torch.finfo(values.dtype).tiny)
    size, left = values[real].sqrt(), vectors[:, real]
    cross = gram[held][:, fit]
    cross = cross - cross.mean(0, keepdim=True)
    cross = cross - cross.mean(1, keepdim=True)
    return left, size, cross @ left / size


@measure(
    "pair",
    0,
    1,
    unchanged_by=FREE,
    greater_means="more similar",
    source="Huh et al. 2024",
    symmetric=True,
    streams=False,
)
@arrays
def mutual_neighbours(
    x: Float[Tensor, "images *x"], y: Float[Tensor, "same_images *y"], *, neighbours: Count = 10
) -> float:
    """Share of an image's ``neighbours`` nearest images in X that are also nearest in Y.

    Mean over images (Huh et al. 2024, with Euclidean distances), between 0 and 1; unrelated
    features score ``neighbours / (n - 1)`` on average. Images equally far at the edge of a
    neighbourhood share the places that are left in it: the value is the expected overlap when ties
    are broken by lot, in X and in Y on their own. So features of a few values, and layers that have
    collapsed, score what they tell and not what the order of the images does; and features with
    such ties score below 1 with themselves.

    Raises:
        InputError: different numbers of images, or not more than ``neighbours`` of them.
    """
    _same_images(x, y)
    grams = linear_gram(x.double()), linear_gram(y.double())
    return mutual_neighbours_of_grams(*grams, neighbours=neighbours)


@arrays
def mutual_neighbours_of_grams(
    x: Float[Tensor, "images images"],
    y: Float[Tensor, "images images"],
    *,
    neighbours: Count = 10,
) -> float:
    """`mutual_neighbours` from the Gram matrices of the two sets of features."""
    if not 1 <= neighbours < len(x):
        raise InputError(
            f"{neighbours} neighbours among {len(x)} images: there must be at least one, and more "
            "images than neighbours."
        )
    shared = (_nearest(x, neighbours) * _nearest(y, neighbours)).sum(1)
    return float(shared.mean() / neighbours)


def _nearest(gram: Tensor, neighbours: int) -> Float[Tensor, "images images"]:
    """The chance of each image to be among another's nearest: 1, 0, or a share where some tie."""
    if not bool(gram.isfinite().all()):
        raise InputError("Features hold NaN or infinity, so they have no neighbours.")
    gram = gram.double()
    # Distances from a Gram matrix are exact to its rounding: closer than this is a tie.
    rounding = 1e-12 * gram.diagonal().max()
    distances = squared_distances(gram).fill_diagonal_(float("inf"))
    edge = distances.kthvalue(neighbours, dim=1, keepdim=True).values
    closer = distances < edge - rounding
    tied = (distances <= edge + rounding) & ~closer
    left = neighbours - closer.sum(1, keepdim=True)
    return closer.double() + tied * (left / tied.sum(1, keepdim=True))


def _same_images(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise InputError(
            f"x has {len(x)} images and y has {len(y)}: both must describe the same images."
        )

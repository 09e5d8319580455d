"""The prompt's tangent kernel: what a small prompt at layer l can express, without training it.

Model
-----
A prompt δ added to the activation z⁽ˡ⁾ moves the logits by Δf(x) = J_l(x) δ + O(‖δ‖²), where
J_l(x) = ∂f(x)/∂z⁽ˡ⁾ has one row a class. The prompt is the same for every image, so to first
order training it is *linear regression of the residual y − f(x) on the rows of J_l*, that is
kernel regression with K_l(x, x') = J_l(x) J_l(x')ᵀ. Everything that can be said of a small prompt
at layer l stands in K_l: what it can fit (alignment with the residual), in how many directions
(effective dimension), and how well that carries over to new images (cross-validated regression).
[derived] It needs no assumption about the network, so it covers real CNNs and ViTs alike. It is
silent about large prompts, whose effect is not linear: that part has to be measured.

Cost
----
One backward pass a class gives the rows of J_l for *every* layer at once, since the derivative by
δ is the derivative by the activation. Rows are kept as count sketches (Charikar et al. 2002):
each coordinate is added to one of m buckets with a random sign, which preserves inner products in
expectation with variance at most 2‖u‖²‖v‖²/m. With many classes the rows along a few random
directions of the logits take the place of one row a class (`class_directions`), so that n images
cost n forward and at most that many backward passes: about what an epoch or a few on n images
cost, for all layers together.

Which logits
------------
f is the frozen network with *some* linear head, and the caller says which by the last stage of the
chain: `aptheory.choosing.scores` takes a ridge probe on the task's own features, since a new task
has no head yet. The head is held fixed here. What a prompt adds beyond a shift of the head's bias,
which is learned anyway, is the part of J_l that differs between images (`centred`, `variation`): at
the classifier's input, where J_l is the head's weight for every image, nothing is left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from aptheory.errors import InputError

Stage = Callable[[Tensor], Tensor]
Features = Float[Tensor, "images rows width"]


class CountSketch:
    """A seeded linear map from R^d to R^m that keeps inner products in expectation.

    Where d ≤ m it is the identity: nothing is lost on small layers.
    """

    def __init__(self, dimension: int, width: int, *, seed: int = 0) -> None:
        self.dimension = dimension
        self.width = min(dimension, width)
        generator = torch.Generator().manual_seed(seed)
        self.bucket = torch.randint(self.width, (dimension,), generator=generator)
        self.sign = torch.randint(2, (dimension,), generator=generator).float() * 2 - 1

    def __call__(self, vectors: Float[Tensor, "rows dimension"]) -> Float[Tensor, "rows width"]:
        if self.dimension == self.width:
            return vectors.float()
        signed = vectors.float() * self.sign.to(vectors.device)
        out = torch.zeros(len(vectors), self.width, device=vectors.device)
        return out.index_add_(1, self.bucket.to(vectors.device), signed)

    def transposed(self, vector: Float[Tensor, " width"]) -> Float[Tensor, " dimension"]:
        """The map's transpose: ⟨sketch(u), v⟩ = ⟨u, transposed(v)⟩. Float32."""
        if self.dimension == self.width:
            return vector.float()
        return vector.float()[self.bucket.to(vector.device)] * self.sign.to(vector.device)


def sketches_of(sizes: Sequence[int], width: int, *, seed: int = 0) -> list[CountSketch]:
    """The sketches of `tangent_features`, one a layer, for activations of these sizes."""
    return [CountSketch(size, width, seed=seed + layer) for layer, size in enumerate(sizes)]


def tangent_features(
    stages: Sequence[Stage],
    batches: Iterable[Tensor],
    *,
    directions: Float[Tensor, "rows classes"] | Float[Tensor, "images rows classes"] | None = None,
    width: int = 512,
    seed: int = 0,
) -> list[Features]:
    """Sketched rows of J_l for every layer: features whose inner products are the tangent kernel.

    Args:
        stages: the network as a chain; ``stages[l]`` takes the activation entering layer l to the
            one entering l + 1, and the last gives the logits (B, classes).
        batches: images (B, C, H, W); each image is looked at once.
        directions: of the logits, along which rows are taken, the same for all images or an own
            set for each; one a class by default.
        width: m, the number of buckets; the relative error of the kernel is about √(2/m).
        seed: of the sketches, one a layer.

    Returns:
        One tensor a layer: [i, c] is the sketch of ∂f_c(x_i)/∂z⁽ˡ⁾, or of ∂(v_c·f)/∂z⁽ˡ⁾ with
        v_c the c-th direction.

    Raises:
        InputError: no images, or a chain that does not end in logits.

    Cost: one forward pass, and one backward pass a row.
    """
    kept: list[list[Tensor]] = [[] for _ in stages]
    sketches: list[CountSketch] = []
    seen = 0
    for images in batches:
        z = images.detach()
        places: list[Tensor] = []
        with torch.enable_grad():
            for stage in stages:
                # The images, and what a stage lets no gradient through to.
                z = z if z.requires_grad else z.detach().requires_grad_()
                places.append(z)
                z = stage(z)
            logits = z
        if logits.ndim != 2:
            raise InputError(
                f"the last stage gave a tensor of shape {tuple(logits.shape)}; expected logits of "
                "shape (images, classes): let the chain end with the classifier"
            )
        if not sketches:
            sketches = sketches_of([place[0].numel() for place in places], width, seed=seed)
        if directions is None:
            along = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
        else:
            along = directions if directions.ndim == 2 else directions[seen : seen + len(images)]
            along = along.to(logits)
        seen += len(images)
        count = along.shape[-2]
        rows: list[list[Tensor]] = [[] for _ in stages]
        for k in range(count):
            # Images do not mix in evaluation mode, so the gradient of a sum over images is the
            # gradient of each image's own logit.
            gradients = torch.autograd.grad(
                (logits * along[..., k, :]).sum(),
                places,
                retain_graph=k < count - 1,
                materialize_grads=True,
            )
            for layer, gradient in enumerate(gradients):
                rows[layer].append(sketches[layer](gradient.flatten(1)))
        for layer, one in enumerate(rows):
            kept[layer].append(torch.stack(one, 1))
    if not kept or not kept[0]:
        raise InputError("no images were given: the tangent kernel needs at least two")
    return [torch.cat(parts) for parts in kept]


def change_along(
    stages: Sequence[Stage], z: Float[Tensor, "images ..."], prompt: Tensor
) -> Float[Tensor, "images classes"]:
    """J δ: how the logits move along a prompt at the place that the stages start from.

    Exact to first order, by one forward pass in forward mode, however many classes there are.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode
        both = torch.func.jvp(
            lambda z: reduce(lambda z, stage: stage(z), stages, z), (z,), (prompt.expand_as(z),)
        )
    return both[1]


def class_directions(classes: int, count: int, *, seed: int = 0) -> Float[Tensor, "rows classes"]:
    """Directions of the logits for `tangent_features`: every class, or a seeded random few.

    The identity where ``classes`` ≤ ``count``. Otherwise ``count`` random orthonormal directions
    times √(classes / count), so that Σ_k v_k v_kᵀ is the identity in expectation and so is the
    kernel, summed over rows, the one summed over classes. Float64.
    """
    if classes <= count:
        return torch.eye(classes, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(classes, count, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(random).Q.T * (classes / count) ** 0.5


def centred(features: Features) -> Features:
    """Rows less their mean over images, in float64: what a shift of the head's bias cannot do."""
    exact = features.double()
    return exact - exact.mean(0)


def variation(features: Features) -> float:
    """Share of the kernel's trace that differs between images, from 0 to 1.

    0: a small prompt moves every image's logits alike and is a shift of the head's bias, as at
    the classifier's input. 0 too where the kernel vanishes.
    """
    total = float(features.double().square().sum())
    return float(centred(features).square().sum()) / total if total > 0 else 0.0


def reach(features: Features, *, scale: float = 1.0) -> float:
    """How far a prompt of norm ``scale`` in a random direction moves the logits, beyond a shift.

    Root mean square over images of the centred rows' Frobenius norm, times ``scale``, in logits.
    """
    return float(centred(features).square().sum((1, 2)).mean().sqrt()) * scale


def tangent_kernel(features: Features) -> Float[Tensor, "images images"]:
    """K_l(x, x') summed over classes: Σ_c ⟨∂f_c(x)/∂δ, ∂f_c(x')/∂δ⟩, in float64."""
    flat = features.flatten(1).double()
    return flat @ flat.T


def effective_dimension(features: Features, *, ridge: float = 1e-2) -> float:
    """d(λ) = Σ_i μ_i / (μ_i + λ): in how many directions a prompt can move the logits.

    μ are the eigenvalues of the full (image, class) kernel, and λ = ridge · max μ, so that it does
    not change when the network's output is rescaled. Between 0 and min(images · classes, width).
    """
    flat = features.flatten(0, 1).double()
    moments = torch.linalg.svdvals(flat) ** 2
    if moments[0] <= 0:
        return 0.0
    return float((moments / (moments + ridge * moments[0])).sum())


def alignment(features: Features, residual: Float[Tensor, "images classes"]) -> float:
    """How much of the residual lies where the kernel is large: rᵀKr / (‖r‖² ‖K‖_F), in [0, 1].

    Cristianini et al. 2001, with K the full (image, class) kernel and r the residual y − f as one
    vector. 0 where either vanishes.
    """
    flat = features.flatten(0, 1).double()
    target = residual.flatten().double()
    scale = torch.linalg.matrix_norm(flat.T @ flat) * (target @ target)
    return float((flat.T @ target).square().sum() / scale) if scale > 0 else 0.0


@dataclass(frozen=True)
class Gradient:
    """The loss's first derivative by the prompt, at δ = 0.

    ``norm``: of its mean over images. ``agreement``: the squared norm of the mean over the mean
    squared norm, from 1/n (unrelated images) to 1 (all images pull the same way). ``gain``: the
    first-order decrease of the loss for a prompt of unit norm times ``scale``.
    """

    norm: float
    agreement: float
    gain: float


def gradient(
    features: Features, residual: Float[Tensor, "images classes"], *, scale: float = 1.0
) -> Gradient:
    """The gradient J_lᵀ r per image, and what its mean promises.

    Args:
        features: sketched rows of J_l.
        residual: minus the derivative of the loss by the logits, e.g. y − softmax(f).
        scale: a typical norm of the activation, so that layers can be compared.
    """
    each = torch.einsum("icw,ic->iw", features.double(), residual.double())
    mean = each.mean(0)
    typical = each.square().sum(1).mean()
    agreement = float(mean.square().sum() / typical) if typical > 0 else 0.0
    norm = float(mean.norm())
    return Gradient(norm, agreement, norm * scale)


@dataclass(frozen=True)
class Regression:
    """Cross-validated kernel regression of the residual on the prompt's tangent features.

    ``accuracy``: of logits + predicted change, on held-out images. ``before``: of the logits
    alone; both nan without logits. ``explained``: share of the held-out residual that is
    explained, at most 1 and below 0 where the prompt only fits noise. ``ridge``: the chosen
    penalty relative to the largest moment.
    """

    accuracy: float
    before: float
    explained: float
    ridge: float


def prompt_regression(
    features: Features,
    residual: Float[Tensor, "images classes"],
    logits: Float[Tensor, "images classes"] | None = None,
    labels: Int[Tensor, " images"] | None = None,
    *,
    ridges: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
    folds: int = 5,
    seed: int = 0,
) -> Regression:
    """What the best small prompt would bring on images that it was not fitted to.

    One δ serves all images and classes, so the design has a row for each (image, class) and a
    column for each sketched coordinate of δ. Images are held out whole. The penalty with the
    smallest held-out error is reported, hence slightly optimistic; the same for every layer.
    Without logits and labels (rows along random directions of the logits) there is no accuracy.

    Raises:
        InputError: fewer images than folds.
    """
    images, classes, _ = features.shape
    if images < folds:
        raise InputError(f"{images} images cannot be cut into {folds} folds: give more images")
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    part = torch.empty(images, dtype=torch.long)
    part[order] = torch.arange(images) % folds
    design, target = features.double(), residual.double()
    moment_of = [_moments(design[part == fold], target[part == fold]) for fold in range(folds)]
    total, cross = (sum(one[i] for one in moment_of) for i in (0, 1))
    predicted = torch.zeros(len(ridges), images, classes, dtype=torch.float64)
    for fold in range(folds):
        held = part == fold
        values, vectors = torch.linalg.eigh(total - moment_of[fold][0])
        projected = vectors.T @ (cross - moment_of[fold][1])
        for i, ridge in enumerate(ridges):
            penalty = ridge * values[-1].clamp_min(1e-30)
            solution = vectors @ (projected / (values.clamp_min(0) + penalty))
            predicted[i, held] = design[held] @ solution
    errors = ((predicted - target) ** 2).sum((1, 2))
    best = int(errors.argmin())
    scale = float(target.square().sum())
    accuracy = before = float("nan")
    if logits is not None and labels is not None:
        after = (logits.double() + predicted[best]).argmax(1)
        accuracy = float((after == labels).double().mean())
        before = float((logits.argmax(1) == labels).double().mean())
    return Regression(
        accuracy=accuracy,
        before=before,
        explained=1 - float(errors[best]) / scale if scale > 0 else 0.0,
        ridge=ridges[best],
    )


def _moments(design: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    flat = design.flatten(0, 1)
    return flat.T @ flat, flat.T @ target.flatten()

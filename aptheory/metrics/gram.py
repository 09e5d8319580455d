"""Gram matrices: what CKA, Procrustes and the neighbour measures need of features, and no more.

Features of n images are n rows, however wide: 256 images of a 64 × 56 × 56 map have 200,704 columns
and a 256 × 256 Gram matrix. The rows have their mean removed while the Gram matrix is made, piece
by piece: every measure here is unchanged by that, and float32 products keep their digits.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.metrics.inputs import LARGEST, arrays

# Columns multiplied at once: a few MB, so that the piece is centred and multiplied in cache.
_PIECE = 4096
_BLOCK = 64


def rows(features: Tensor, *, least: int = 1, what: str = "features") -> Tensor:
    """``features`` (images, ...) as a matrix (images, everything else); the images are dimension 0.

    Three- and four-dimensional features (tokens, maps) are flattened an image at a time: they are
    never read as a batch of problems. Raises InputError on fewer than ``least`` images.
    """
    if features.ndim < 2:
        raise InputError(
            f"{what} has shape {tuple(features.shape)}; expected (images, ...): one row an image."
        )
    if features.shape[0] < least:
        raise InputError(
            f"{what} has {features.shape[0]} image(s); this measure needs at least {least}."
            if len(features)
            else f"{what} holds no image; give one row an image."
        )
    return features.flatten(1)


def _pieces(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Columns in pieces of about ``_PIECE``; what is not contiguous is copied a piece at a time."""
    first = parts[0]
    each = max(1, first[0, :1].numel())
    step = max(1, _PIECE // each)
    for start in range(0, first.shape[1], step):
        pieces = [part[:, start : start + step].flatten(1) for part in parts]
        yield pieces[0] if len(pieces) == 1 else torch.cat(pieces)


@arrays
def linear_gram(
    features: Float[Tensor, "images *dims"] | Sequence[Tensor],
) -> Float[Tensor, "n n"]:
    """Inner products of the images' features after removing their mean over images, in float64.

    ``features`` may come in several tensors that follow each other along the images; they are not
    copied into one. Products are formed in float32 (float64 for float64 features; half precision
    is raised to float32 first) over pieces of 4,096 columns and added in float64. Features that do
    not differ by more than their own rounding give exactly zero.

    Raises:
        InputError: no features, of fewer dimensions than two, or not finite.
    """
    parts = [features] if isinstance(features, Tensor) else list(features)
    if not parts:
        raise InputError("there are no features; give a tensor, or several that follow each other.")
    for part in parts:
        rows(part[:, :1] if part.ndim > 1 else part)  # the checks, on a sliver
    first = parts[0]
    count = sum(len(part) for part in parts)
    precise = first.dtype == torch.float64
    work = torch.float64 if precise else torch.float32
    eps = torch.finfo(work).eps
    gram = torch.zeros(count, count, dtype=torch.float64, device=first.device)
    level = torch.zeros((), dtype=torch.float64, device=first.device)
    scale = _scale(parts, work)
    for piece in _pieces(parts):
        piece = piece.to(work)
        if scale != 1:
            piece = piece * scale
        mean = piece.mean(0)
        piece = piece - mean
        gram += _symmetric(piece)
        level += mean.to(torch.float64).square().sum()
    varies = gram.diagonal().sum() > (4 * eps) ** 2 * count * level
    gram *= scale**-2
    if not bool(gram.diagonal().isfinite().all()):
        raise InputError(
            f"Features are not finite, or beyond {LARGEST:.0e}, whose squares overflow: look where "
            "they come from."
        )
    return gram * varies


def _scale(parts: Sequence[Tensor], work: torch.dtype) -> float:
    """1, or a power of two where products of such features would leave the range of float32.

    Judged by the largest feature of all. A scale of 1 leaves fifteen decades of float32 either way,
    and a scale is itself a float32.
    """
    if work == torch.float64:
        return 1.0
    largest = max(float(torch.linalg.vector_norm(part, float("inf"))) for part in parts)
    if not 0 < largest < float("inf") or 1e-8 < largest < 1e8:
        return 1.0
    return 2.0 ** -min(max(math.frexp(largest)[1], -100), 100)


def _symmetric(piece: Tensor) -> Tensor:
    """``piece @ piece.T``; a large one is made of blocks, of which the lower half is mirrored."""
    count = len(piece)
    if count < 2 * _BLOCK or piece.is_cuda:
        return piece @ piece.T
    result = piece.new_empty(count, count)
    for top in range(0, count, _BLOCK):
        stop = min(top + _BLOCK, count)
        block = piece[top:stop] @ piece[top:].T
        result[top:stop, top:] = block
        result[stop:, top:stop] = block[:, stop - top :].T
    return result


def squared_distances(gram: Float[Tensor, "images images"]) -> Float[Tensor, "images images"]:
    """Squared Euclidean distances between images, from their Gram matrix."""
    norms = gram.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(0)
    return squared.fill_diagonal_(0)


@arrays
def rbf_gram(
    features: Float[Tensor, "images *dims"], *, fraction: float = 0.4
) -> Float[Tensor, "images images"]:
    """Gaussian kernel exp(-d² / 2σ²) with σ = ``fraction`` × the median distance between images.

    A bandwidth in absolute units turns the kernel into the identity (or into ones) as soon as the
    features have another scale; Kornblith et al. 2019 use fractions of the median distance.
    """
    if fraction <= 0:
        raise InputError(f"fraction is {fraction}; the kernel's bandwidth must be positive.")
    squared = squared_distances(linear_gram(rows(features, least=2)))
    upper = torch.triu_indices(len(squared), len(squared), offset=1, device=squared.device)
    median = _median(squared[upper[0], upper[1]].sqrt())
    if not median > 0:
        raise InputError(
            "More than half of the pairs of images have equal features, so the median distance is "
            "0 and the RBF bandwidth undefined: use the linear kernel, or remove the duplicates."
        )
    return torch.exp(-squared / (2 * fraction**2 * median**2))


def _median(values: Float[Tensor, " n"]) -> float:
    """The middle value, or the mean of the two middle ones; torch.median takes the lower."""
    count = len(values)
    below, above = (values.kthvalue(k).values for k in ((count + 1) // 2, count // 2 + 1))
    return float(below + above) / 2


def centre(gram: Float[Tensor, "*k n n"]) -> Float[Tensor, "*k n n"]:
    """H K H with H = I - 11ᵀ/n: rows and columns sum to zero."""
    means = gram.mean(-1, keepdim=True)
    return gram - means - means.mT + means.mean(-2, keepdim=True)


def u_centre(gram: Float[Tensor, "*k n n"]) -> Float[Tensor, "*k n n"]:
    """U-centring (Székely & Rizzo 2014): zero diagonal, off-diagonal rows sum to zero.

    <u_centre(K), u_centre(L)> / (n(n-3)) is the unbiased HSIC of Song et al. 2012, with the three
    traces of their formula done once a matrix and not once a pair.
    """
    n = gram.shape[-1]
    if n < 4:
        raise InputError(f"The unbiased HSIC needs at least 4 images; got {n}.")
    off = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    sums = off.sum(-1, keepdim=True) / (n - 2)
    off = off - sums - sums.mT + sums.sum(-2, keepdim=True) / (n - 1)
    return off - torch.diag_embed(off.diagonal(dim1=-2, dim2=-1))

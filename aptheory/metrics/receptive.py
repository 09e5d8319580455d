"""Effective receptive field: how far away do pixels matter?

Luo et al. 2016: the gradient of one position of a feature map with respect to the image. Its
magnitude says which pixels move that position; it is far more concentrated than the pixels that
*could*. It exists for convolutions and for attention alike, so a CNN gets a globality in pixels
that can be laid beside a transformer's attention distance.

Two numbers: the **radius**, the mean distance in pixels from the position's centre, weighted by the
gradient's magnitude (the attention distance with |gradient| for probability), averaged over images;
and the **extent**, √(number of pixels whose mean magnitude exceeds 1 - 95.45 % of the largest), Luo
et al.'s size, from the magnitudes averaged over images.

A position has many channels. Their sum, which Luo et al. use, can cancel (a LayerNorm's outputs sum
to a constant), so each image gets a random sign for each channel, from a seed: the squared gradient
is then, on average, the sum of the channels' squared gradients.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Level, Positive, Seed, Whole
from aptheory.errors import InputError
from aptheory.metrics.inputs import Side, arrays
from aptheory.metrics.intervals import Estimate, RunningMean
from aptheory.metrics.registry import INFINITE, measure

_LUO = 1 - 0.9545


@arrays
def position_gradient(
    output: Float[Tensor, "images positions channels"],
    image: Float[Tensor, "images colours height width"],
    *,
    position: Whole,
    seed: Seed = 0,
) -> Float[Tensor, "images colours height width"]:
    """Gradient of one position of ``output`` with respect to the ``image`` it was computed from.

    ``image`` must require gradients and images must not depend on each other (BatchNorm in
    evaluation mode). The graph is kept, so that several outputs of one pass can be asked.
    """
    if not 0 <= position < output.shape[1]:
        raise InputError(f"Position {position} is not among the {output.shape[1]} of the output.")
    if not (image.requires_grad and output.requires_grad):
        raise InputError(
            "the output does not follow from an image that requires gradients; call "
            "image.requires_grad_() before the network, and detach nothing on the way."
        )
    generator = torch.Generator().manual_seed(seed)
    shape = (output.shape[0], output.shape[2])
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    scalar = (output[:, position] * signs.to(output)).sum()
    (gradient,) = torch.autograd.grad(scalar, image, retain_graph=True, allow_unused=True)
    return torch.zeros_like(image) if gradient is None else gradient


@measure(
    "gradient",
    0,
    INFINITE,
    unchanged_by={"scaling"},
    greater_means="more global",
    source="after Luo et al. 2016",
    unit="pixels",
)
@arrays
def receptive_radius(
    gradient: Float[Tensor, "images colours height width"],
    centre: tuple[float, float],
) -> Float[Tensor, "images"]:
    """Mean distance in pixels from ``centre`` (row, column), weighted by the gradient's magnitude.

    The magnitude is the norm over colours. Pixel centres lie at half-integers. Raises InputError
    where the gradient is zero or not finite.

    >>> gradient = torch.zeros(1, 3, 8, 8)
    >>> gradient[0, 0, 4, 7] = 2.0  # three pixels to the right of (4.5, 4.5)
    >>> receptive_radius(gradient, (4.5, 4.5))
    tensor([3.], dtype=torch.float64)
    """
    values = _radius(magnitude(gradient), centre)
    if not bool(values.isfinite().all()):
        raise InputError("A gradient is zero or not finite: that position depends on no pixel.")
    return values


def magnitude(
    gradient: Float[Tensor, "images colours height width"],
) -> Float[Tensor, "images height width"]:
    """Norm over colours, float64."""
    if gradient.ndim != 4:
        raise InputError(
            f"The gradient has shape {tuple(gradient.shape)}; expected (images, colours, height, "
            "width)."
        )
    return torch.linalg.vector_norm(gradient, dim=1, dtype=torch.float64)


def _radius(weights: Tensor, centre: tuple[float, float]) -> Tensor:
    height, width = weights.shape[-2:]
    y = torch.arange(height, dtype=torch.float64, device=weights.device) + 0.5 - centre[0]
    x = torch.arange(width, dtype=torch.float64, device=weights.device) + 0.5 - centre[1]
    distance = torch.hypot(y[:, None], x[None, :])
    return (weights * distance).sum((1, 2)) / weights.sum((1, 2))


@arrays
def receptive_field(
    function: Callable[[Tensor], Tensor],
    images: Float[Tensor, "images colours height width"],
    *,
    grid: tuple[Side, Side],
    seed: Seed = 0,
) -> "ReceptiveField":
    """The effective receptive field of ``function`` at the middle of its grid.

    ``function`` maps images to (images, positions, channels), positions row by row on ``grid``.

    >>> box = torch.nn.Conv2d(3, 4, 5, padding=2)
    >>> field = receptive_field(
    ...     lambda x: box(x).flatten(2).mT, torch.randn(2, 3, 9, 9), grid=(9, 9)
    ... )
    >>> int(field.extent())  # 5 × 5 pixels
    5
    """
    image = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        output = function(image)
    position, centre = middle(grid, (images.shape[2], images.shape[3]))
    field = ReceptiveField(centre)
    field.update(position_gradient(output, image, position=position, seed=seed))
    return field


@arrays
def middle(
    grid: tuple[Side, Side],
    size: tuple[Side, Side],
    *,
    pixels: tuple[Positive, Positive] | None = None,
) -> tuple[int, tuple[float, float]]:
    """Index of the grid's middle position, and its centre (row, column) in pixels of the image.

    ``pixels`` from one position to the next; by default the grid spans the image.
    """
    row, column = grid[0] // 2, grid[1] // 2
    pixels = pixels or (size[0] / grid[0], size[1] / grid[1])
    centre = ((row + 0.5) * pixels[0], (column + 0.5) * pixels[1])
    return row * grid[1] + column, centre


class ReceptiveField:
    """Streaming effective receptive field of one position with the given ``centre`` in pixels.

    Images with no gradient at all are left out and counted in ``left_out``.
    """

    @arrays
    def __init__(self, centre: tuple[float, float]) -> None:
        self.centre = centre
        self.running = RunningMean()
        self.total: Tensor | None = None
        self.left_out = 0

    @arrays
    def update(self, gradient: Float[Tensor, "images colours height width"]) -> None:
        """Add one batch of gradients with respect to the images."""
        weights = magnitude(gradient.detach())
        values = _radius(weights, self.centre)
        good = values.isfinite()
        self.left_out += int((~good).sum())
        self.running.update(values[good])
        total = weights[good].sum(0).cpu()
        self.total = total if self.total is None else self.total + total

    @arrays
    def merge(self, other: "ReceptiveField") -> None:
        """Take over what ``other`` has seen."""
        if other.centre != self.centre:
            raise InputError(f"Fields around {self.centre} and {other.centre} cannot be merged.")
        self.running.merge(other.running)
        self.left_out += other.left_out
        if other.total is not None:
            self.total = other.total if self.total is None else self.total + other.total

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """The radius in pixels, mean over images, with its interval."""
        if self.running.count == 0:
            raise InputError("No image had a gradient: that position depends on no pixel.")
        return self.running.compute(level=level)

    def map(self) -> Float[Tensor, "height width"]:
        """Mean magnitude of the gradient at each pixel, over images."""
        if self.total is None or self.running.count == 0:
            raise InputError("No image had a gradient: there is no map.")
        return self.total / self.running.count

    def extent(self) -> float:
        """√(pixels above 1 - 95.45 % of the largest magnitude), Luo et al.'s size in pixels."""
        field = self.map()
        return float((field > _LUO * field.max()).sum()) ** 0.5

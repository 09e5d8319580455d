"""What attention looks at: mean distance, entropy, and the share spent on prefix tokens.

Attention distance (Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural
Networks?"): the distance in pixels between a query patch and the patches it attends to, weighted by
the attention probabilities, averaged over queries and images, one number a head.

Prefix tokens (class, distillation, registers) have no place in the image. Queries that are prefix
tokens never count. Keys that are prefix tokens are left out and the rest renormalised
(``prefix_mass="exclude"``, the default), or kept at distance zero (``prefix_mass="include"``): then
55 % of attention on the class token takes away 55 % of the distance, whatever the rest looks at.

In window attention (Swin) each window has its own distances, from the *global* coordinates of its
tokens; see `window_distances`.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Count, Level, Positive, Whole
from aptheory.errors import InputError
from aptheory.metrics.inputs import Side, arrays
from aptheory.metrics.intervals import Estimate, RunningMean
from aptheory.metrics.registry import INFINITE, measure

PrefixMass = Literal["exclude", "include"]
MOST_POSITIONS = 20_000
"""Of a grid whose distances are asked for: those take 3 GB."""


@arrays
def grid_distances(
    grid: tuple[Side, Side], pixels: tuple[Positive, Positive]
) -> Float[Tensor, "positions positions"]:
    """Distances in pixels between the centres of a grid's patches, row by row.

    Args:
        grid: (rows, columns) of the token grid; it need not be square.
        pixels: (height, width) in pixels of one patch; it need not be square either.

    >>> grid_distances((14, 14), (16, 16)).mean().round(decimals=1)  # uniform attention
    tensor(116.5000, dtype=torch.float64)
    """
    if grid[0] * grid[1] > MOST_POSITIONS:
        raise InputError(
            f"a grid of {grid[0]} x {grid[1]} has too many distances; expected {MOST_POSITIONS} "
            "positions at most."
        )
    centres = grid_centres(grid, pixels)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


@arrays
def grid_centres(
    grid: tuple[Side, Side], pixels: tuple[Positive, Positive]
) -> Float[Tensor, "positions 2"]:
    """(row, column) pixel coordinates of a grid's patch centres, row by row, float64."""
    if min(grid) < 1 or min(pixels) <= 0:
        raise InputError(f"A grid of {grid} patches of {pixels} pixels is empty: both must be > 0.")
    rows = (torch.arange(grid[0], dtype=torch.float64) + 0.5) * pixels[0]
    columns = (torch.arange(grid[1], dtype=torch.float64) + 0.5) * pixels[1]
    return torch.cartesian_prod(rows, columns).reshape(-1, 2)


@arrays
def window_distances(
    coordinates: Float[Tensor, "windows tokens 2"],
) -> Float[Tensor, "windows tokens tokens"]:
    """Distances inside each window, from the coordinates (pixels) its tokens have in the image.

    In a shifted window the cyclic roll brings tokens from opposite edges together; with global
    coordinates such a pair is as far apart as it is in the image, not as it is in the window.
    A token with NaN for coordinates (padding) has NaN distances: it counts neither as a query nor
    as a key, and the attention on the others is renormalised.
    """
    coordinates = coordinates.to(torch.float64)
    return torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist")


def _check(probabilities: Tensor, prefix: int) -> None:
    if probabilities.ndim != 4:
        raise InputError(
            f"Attention probabilities have shape {tuple(probabilities.shape)}; expected "
            "(batch, heads, queries, keys)."
        )
    if not 0 <= prefix < probabilities.shape[-1]:
        raise InputError(
            f"{prefix} prefix tokens leave none of the {probabilities.shape[-1]} keys as a patch."
        )


def _weights(distances: Tensor, prefix: int, like: Tensor) -> Tensor:
    """(queries, keys, 2): what a probability adds to the distance, and to the mass on patches.

    Both sums come from one pass over the probabilities, which are far larger than anything else
    here: the pass over them is all that the measure costs.
    """
    tokens = like.shape[-1]
    positions = tokens - prefix
    if distances.shape[-2:] != (positions, positions):
        raise InputError(
            f"Distances are {tuple(distances.shape)} for {tokens} tokens of which {prefix} are "
            f"prefix; expected (..., {positions}, {positions})."
        )
    placed = distances.isfinite()
    weights = torch.zeros(*distances.shape[:-2], tokens, tokens, 2, dtype=torch.float64)
    weights[..., prefix:, prefix:, 0] = distances.nan_to_num()
    weights[..., prefix:, prefix:, 1] = placed.to(torch.float64)
    return weights.to(device=like.device, dtype=like.dtype)


def _contract(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Σ_k p[b, h, q, k] w[q, k, c] -> (queries, batch * heads, c), with no copy of ``p``."""
    batch, heads, queries, keys = probabilities.shape
    flat = probabilities.reshape(batch * heads, queries, keys)
    return torch.bmm(flat.transpose(0, 1), weights)


def _over_queries(numerator: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the last dimension (queries) of numerator / mass where there is any mass, and the
    number of those queries.

    A query that looks at prefix tokens alone has no distance and is left out; a head whose queries
    all do has the mean 0 / 0, which every caller turns into an error.
    """
    seen = mass != 0  # NaN is seen, and stays
    each = torch.where(seen, numerator / mass.where(seen, torch.ones_like(mass)), 0.0)
    return each.sum(-1), seen.sum(-1)


def _check_shares(probabilities: Tensor) -> None:
    """Refuse what is no softmax output, such as scores before it."""
    if probabilities.numel() and bool((probabilities < 0).any()):
        raise InputError(
            "Attention probabilities are negative somewhere; give what comes out of the softmax."
        )


def _check_mass(prefix_mass: str) -> None:
    if prefix_mass not in ("exclude", "include"):
        raise InputError(f'prefix_mass is {prefix_mass!r}; it is "exclude" or "include".')


def _refuse_undefined(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise InputError(
            "A head puts all its attention on prefix tokens, or its probabilities are not finite: "
            "its attention over patches is undefined. In the first case "
            'prefix_mass="include" keeps that mass.'
        )


@measure(
    "attention",
    0,
    INFINITE,
    unchanged_by={"image order"},
    greater_means="more global",
    source="Raghu et al. 2021",
    unit="pixels",
)
@arrays
def attention_distance(
    probabilities: Float[Tensor, "batch heads queries keys"],
    distances: Float[Tensor, "*windows positions positions"],
    *,
    prefix: Whole = 0,
    prefix_mass: PrefixMass = "exclude",
) -> Float[Tensor, "images heads"]:
    """Mean attention distance of each image and head, in pixels, float64.

    Args:
        probabilities: softmax output, rows summing to one; the first ``prefix`` tokens are not
            patches. For windows, (images * windows, heads, n, n) with an image's windows together.
        distances: pixels between patches, (positions, positions) from `grid_distances`, or
            (windows, positions, positions) from `window_distances`.
        prefix: number of leading tokens that are not patches.
        prefix_mass: "exclude" renormalises over patches, "include" counts it at distance zero.

    Raises:
        InputError: shapes that do not fit, or a head with no attention on any patch.

    >>> uniform = torch.full((1, 1, 196, 196), 1 / 196)
    >>> attention_distance(uniform, grid_distances((14, 14), (16, 16))).round(decimals=1)
    tensor([[116.5000]], dtype=torch.float64)
    """
    accumulator = AttentionDistance(distances, prefix=prefix, prefix_mass=prefix_mass)
    _check_shares(probabilities)
    values = accumulator.per_image(probabilities)
    _refuse_undefined(values)
    return values


@measure(
    "attention",
    0,
    INFINITE,
    unchanged_by={"image order"},
    greater_means="more spread out",
    source="Shannon entropy",
    unit="nats",
)
@arrays
def attention_entropy(
    probabilities: Float[Tensor, "batch heads queries keys"],
    *,
    prefix: Whole = 0,
    prefix_mass: PrefixMass = "exclude",
) -> Float[Tensor, "batch heads"]:
    """Mean entropy, in nats, of the attention of the patch queries: 0 one-hot, log(keys) uniform.

    With ``prefix_mass="exclude"`` it is the entropy of the attention renormalised over patches,
    H' = log(m) - Σ p log p / m with m the mass on patches; with "include" that over all keys.
    """
    _check_mass(prefix_mass)
    _check_shares(probabilities)
    values = _entropy(probabilities, prefix, prefix_mass)
    _refuse_undefined(values)
    return values


def _entropy(probabilities: Tensor, prefix: int, prefix_mass: PrefixMass) -> Tensor:
    _check(probabilities, prefix)
    rows = probabilities[:, :, prefix:]
    if prefix_mass == "exclude":
        rows = rows[..., prefix:]
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    tiny = torch.finfo(rows.dtype).tiny  # 0 log 0 = 0
    surprise = -(rows.clamp_min(tiny).log_().mul_(rows)).sum(-1).to(torch.float64)
    if prefix_mass == "include":
        return surprise.mean(-1)
    mass = rows.sum(-1).to(torch.float64)
    total, count = _over_queries(surprise + mass * mass.clamp_min(tiny).log(), mass)
    return total / count


@arrays
def prefix_share(
    probabilities: Float[Tensor, "batch heads queries keys"], *, prefix: Whole
) -> Float[Tensor, "batch heads"]:
    """Share of the patch queries' attention that goes to prefix tokens, between 0 and 1."""
    _check(probabilities, prefix)
    _check_shares(probabilities)
    values = _share(probabilities, prefix)
    _refuse_undefined(values)
    return values


@measure(
    "attention",
    0,
    1,
    unchanged_by={"image order"},
    greater_means="more attention on class and register tokens",
    source="a sum of probabilities",
    name="prefix_share",
)
@arrays
def _class_share(probabilities: Float[Tensor, "images *heads queries keys"]) -> Tensor:
    """Of the class token alone."""
    return prefix_share(probabilities, prefix=1)


def _share(probabilities: Tensor, prefix: int) -> Tensor:
    mass = probabilities[:, :, prefix:, :prefix].to(torch.float64).sum(-1)
    return mass.mean(-1)


class _PerHead:
    """Streaming mean over images of one number a head, and of the mean over heads."""

    @arrays
    def __init__(self, *, prefix: Whole, prefix_mass: PrefixMass, windows: Count) -> None:
        _check_mass(prefix_mass)
        self.prefix, self.windows = prefix, windows
        self.prefix_mass: PrefixMass = prefix_mass
        self.running = RunningMean()

    def _rows(self, probabilities: Tensor) -> Tensor:
        """(images, heads) numbers of one batch."""
        raise AssertionError("every measure of attention says what it is")

    @arrays
    def per_image(
        self, probabilities: Float[Tensor, "batch heads queries keys"]
    ) -> Float[Tensor, "images heads"]:
        """The measure of one batch, (images, heads), without adding it."""
        if len(probabilities) % self.windows:
            raise InputError(
                f"{len(probabilities)} windows of attention are no multiple of the {self.windows} "
                "windows an image has: give the whole images' windows together."
            )
        return self._rows(probabilities)

    @arrays
    def update(self, probabilities: Float[Tensor, "batch heads queries keys"]) -> None:
        """Add one batch of attention; the probabilities are not kept."""
        heads = self.per_image(probabilities)
        self.running.update(torch.cat([heads.mean(1, keepdim=True), heads], dim=1))

    @arrays
    def merge(self, other: "_PerHead") -> None:
        """Take over what ``other`` has seen."""
        self.running.merge(other.running)

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """Mean over images, one number a head: (heads,)."""
        each = self.running.compute(level=level)
        _refuse_undefined(each.value)
        return Estimate(each.value[1:], each.low[1:], each.high[1:], each.images)

    @arrays
    def compute_mean(self, *, level: Level = 0.95) -> Estimate:
        """Mean over images and heads, a scalar, with the interval over images."""
        each = self.running.compute(level=level)
        _refuse_undefined(each.value)
        return Estimate(each.value[0], each.low[0], each.high[0], each.images)


class AttentionDistance(_PerHead):
    """Streaming mean attention distance: one number a head, with its interval over images.

    The distance is linear in the probabilities, so a batch costs one pass over them.
    ``update`` takes (batch, heads, queries, keys), or windows as in `attention_distance`.
    """

    @arrays
    def __init__(
        self,
        distances: Float[Tensor, "*windows positions positions"],
        *,
        prefix: Whole = 0,
        prefix_mass: PrefixMass = "exclude",
    ) -> None:
        windows = 1 if distances.ndim == 2 else distances.shape[0]
        super().__init__(prefix=prefix, prefix_mass=prefix_mass, windows=windows)
        self.distances = distances
        self._weights: Tensor | None = None

    def _rows(self, probabilities: Tensor) -> Tensor:
        _check(probabilities, self.prefix)
        if probabilities.dtype not in (torch.float32, torch.float64):
            probabilities = probabilities.float()
        weights = self._weights
        if (
            weights is None
            or weights.device != probabilities.device
            or weights.dtype != probabilities.dtype
            or weights.shape[-3] != probabilities.shape[-1]
        ):
            weights = self._weights = _weights(self.distances, self.prefix, probabilities)
        heads = probabilities.shape[1]
        total = count = torch.zeros((), device=probabilities.device)
        for window in range(self.windows):
            part = probabilities[window :: self.windows]
            weight = weights if self.distances.ndim == 2 else weights[window]
            found, queries = self._over_window(part, weight)
            total, count = total + found, count + queries
        return (total / count).reshape(-1, heads)

    def _over_window(self, probabilities: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, heads, queries, keys) -> sum over queries and their number, (batch * heads,)."""
        sums = _contract(probabilities, weights)[self.prefix :].to(torch.float64)
        distance, mass = sums.unbind(-1)
        if self.prefix_mass == "exclude":
            return _over_queries(distance.T, mass.T)
        placed = (weights[self.prefix :, :, 1] > 0).any(1).sum()
        return distance.sum(0), placed.expand(distance.shape[1])


class AttentionEntropy(_PerHead):
    """Streaming `attention_entropy`, one number a head, in nats.

    ``windows`` consecutive rows of a batch belong to one image.
    """

    @arrays
    def __init__(
        self, *, prefix: Whole = 0, prefix_mass: PrefixMass = "exclude", windows: Count = 1
    ) -> None:
        super().__init__(prefix=prefix, prefix_mass=prefix_mass, windows=windows)

    def _rows(self, probabilities: Tensor) -> Tensor:
        each = _entropy(probabilities, self.prefix, self.prefix_mass)
        return each.unflatten(0, (-1, self.windows)).mean(1)


class PrefixShare(_PerHead):
    """Streaming `prefix_share`, one number a head."""

    @arrays
    def __init__(self, *, prefix: Whole, windows: Count = 1) -> None:
        super().__init__(prefix=prefix, prefix_mass="include", windows=windows)

    def _rows(self, probabilities: Tensor) -> Tensor:
        _check(probabilities, self.prefix)
        each = _share(probabilities, self.prefix)
        return each.unflatten(0, (-1, self.windows)).mean(1)

"""The sixteen textures of the upstream task, each a formula on a batch of coordinate grids."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

Grid = Float[Tensor, "batch size size"]
_TURN = 2 * math.pi


def _uniform(u: Tensor, generator: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """One number an image, shaped to broadcast over its pixels."""
    return torch.empty(len(u), 1, 1).uniform_(low, high, generator=generator)


def _noise(u: Tensor, generator: Generator, cells: int) -> Tensor:
    """Smooth noise with about ``cells`` cells a side, standardised."""
    coarse = torch.randn(len(u), 1, cells, cells, generator=generator)
    fine = F.interpolate(coarse, size=u.shape[-2:], mode="bicubic", align_corners=False)[:, 0]
    return (fine - fine.mean((1, 2), keepdim=True)) / (fine.std((1, 2), keepdim=True) + 1e-6)


def _wrap(x: Tensor) -> Tensor:
    """Distance to the nearest integer, 0 to 0.5."""
    return (x - x.round()).abs()


def _edge(distance: Tensor, width: float, sharpness: float = 12.0) -> Tensor:
    """1 where ``distance`` is below ``width``, falling softly to 0."""
    return torch.sigmoid((width - distance) * sharpness)


def plain(u: Grid, v: Grid, generator: Generator) -> Grid:
    """A slow slope from one side to the other."""
    slope = u / (u.abs().amax((1, 2), keepdim=True) + 1e-6)
    return 0.5 + 0.3 * slope * _uniform(u, generator)


def stripes(u: Grid, v: Grid, generator: Generator) -> Grid:
    return 0.5 + 0.5 * torch.sin(_TURN * u)


def lines(u: Grid, v: Grid, generator: Generator) -> Grid:
    return _edge(_wrap(u * 0.7), 0.12, 20.0)


def checkers(u: Grid, v: Grid, generator: Generator) -> Grid:
    return 0.5 + 0.5 * torch.tanh(4 * torch.sin(math.pi * u) * torch.sin(math.pi * v))


def dots(u: Grid, v: Grid, generator: Generator) -> Grid:
    return _edge(torch.hypot(_wrap(u), _wrap(v)), 0.28)


def rings(u: Grid, v: Grid, generator: Generator) -> Grid:
    x, y = u + _uniform(u, generator, -1, 1), v + _uniform(u, generator, -1, 1)
    return 0.5 + 0.5 * torch.sin(_TURN * torch.hypot(x, y))


def rays(u: Grid, v: Grid, generator: Generator) -> Grid:
    x, y = u + _uniform(u, generator, -0.6, 0.6), v + _uniform(u, generator, -0.6, 0.6)
    arms = _uniform(u, generator, 5, 11).round()
    return 0.5 + 0.5 * torch.sin(arms * torch.atan2(y, x))


def mesh(u: Grid, v: Grid, generator: Generator) -> Grid:
    return _edge(torch.minimum(_wrap(u * 0.8), _wrap(v * 0.8)), 0.1, 20.0)


def waves(u: Grid, v: Grid, generator: Generator) -> Grid:
    return 0.5 + 0.5 * torch.sin(_TURN * (u + 0.5 * torch.sin(_TURN * v * 0.35)))


def zigzag(u: Grid, v: Grid, generator: Generator) -> Grid:
    return _edge(_wrap(u + 1.6 * _wrap(v * 0.6)), 0.25)


def bricks(u: Grid, v: Grid, generator: Generator) -> Grid:
    row = torch.floor(v)
    across = _wrap(u * 0.5 + 0.5 * torch.remainder(row, 2))
    return 1 - _edge(torch.minimum(_wrap(v), across * 2), 0.12, 20.0)


def grain(u: Grid, v: Grid, generator: Generator) -> Grid:
    """Noise from pixel to pixel."""
    return 0.5 + 0.28 * torch.randn(u.shape, generator=generator)


def clouds(u: Grid, v: Grid, generator: Generator) -> Grid:
    """Smooth noise of two scales."""
    return 0.5 + 0.2 * _noise(u, generator, 4) + 0.1 * _noise(u, generator, 9)


def blobs(u: Grid, v: Grid, generator: Generator) -> Grid:
    """Two areas with a winding border."""
    return torch.sigmoid(5 * _noise(u, generator, 8))


def cells(u: Grid, v: Grid, generator: Generator) -> Grid:
    """The borders between the neighbourhoods of random points, each area with its own grey."""
    sites = torch.empty(len(u), 14, 2).uniform_(-1.1, 1.1, generator=generator)
    reach = u.abs().amax((1, 2), keepdim=True)
    points = torch.stack([u / reach, v / reach], -1).flatten(1, 2)
    near = torch.cdist(points, sites).topk(2, dim=-1, largest=False)
    gap = (near.values[..., 1] - near.values[..., 0]).reshape(u.shape)
    grey = torch.rand(len(u), 14, generator=generator).gather(1, near.indices[..., 0])
    return grey.reshape(u.shape) * (1 - _edge(gap, 0.06, 40.0))


def fibres(u: Grid, v: Grid, generator: Generator) -> Grid:
    """Noise stretched along one direction."""
    noise = torch.randn(len(u), 1, 24, 24, generator=generator)
    reach = u.abs().amax((1, 2), keepdim=True)
    at = torch.stack([u / reach, v / reach * 0.12], -1)
    return (
        0.5 + 0.35 * F.grid_sample(noise, at, padding_mode="reflection", align_corners=False)[:, 0]
    )


TEXTURES: tuple[Callable[[Grid, Grid, Generator], Grid], ...] = (
    plain,
    stripes,
    lines,
    checkers,
    dots,
    rings,
    rays,
    mesh,
    waves,
    zigzag,
    bricks,
    grain,
    clouds,
    blobs,
    cells,
    fibres,
)


def draw_textures(
    classes: Int[Tensor, "batch"], size: int, generator: Generator
) -> Float[Tensor, "batch size size"]:
    """A texture of each class, values in [0, 1]; period, direction and phase are random.

    Periods lie between 4 and 9 pixels of a 32-pixel image, so that a 4×4 patch of a ViT sees
    between half and a whole period.
    """
    count = len(classes)
    axis = torch.linspace(-size / 2 + 0.5, size / 2 - 0.5, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.empty(count, 1, 1).uniform_(0, math.pi, generator=generator)
    period = torch.empty(count, 1, 1).uniform_(4, 9, generator=generator) * size / 32
    phase = torch.rand(2, count, 1, 1, generator=generator)
    u = (x * angle.cos() + y * angle.sin()) / period + phase[0] - 0.5
    v = (y * angle.cos() - x * angle.sin()) / period + phase[1] - 0.5
    out = torch.empty(count, size, size)
    for index, texture in enumerate(TEXTURES):
        chosen = (classes == index).nonzero()[:, 0]
        if len(chosen):
            out[chosen] = texture(u[chosen], v[chosen], generator)
    return out.clamp_(0, 1)

"""Which axes of an activation are positions, and which position is where in the image.

A declared layout is believed, and a shape that allows one reading alone needs no more. Otherwise
execution decides: bands of rows and of columns of an image are changed, and whatever lies in a
band changes most with it. What answers to no change stands for no position (a class token before
it has looked at anything). An order that is no raster is not called one: its grid is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

BANDS = 4
MOST_PREFIX = 16  # registers, class and distillation tokens
SURE = 0.7  # share of positions that must answer to the band in which a raster puts them
SURE_OF_ALL = 0.55  # the same of the grid before, or of a grid like the image without prefix
EXPLAINED = 0.8  # share of the variance of where positions answer that a raster must explain
SLACK = 0.2  # how far a grid's proportions may be from the image's

Layout = Literal["map", "map_last", "tokens", "vector"]


@dataclass(frozen=True)
class Axes:
    """How the axes of one activation are read; ``transposed`` tokens come as (channels, tokens)."""

    layout: Layout
    prefix: int = 0
    suffix: int = 0
    grid: tuple[int, int] | None = None
    transposed: bool = False


class Responses:
    """How much each entry of an activation changes with each band of the image.

    Runs the pieces on one image and its changed copies, as far as it is asked to.
    """

    def __init__(
        self,
        module: nn.Module,
        pieces: Sequence[Callable[[nn.Module, Tensor], Tensor]],
        image: tuple[int, int, int],
    ) -> None:
        self.module, self.pieces = module, pieces
        parameter = next(module.parameters(), torch.zeros(()))
        generator = torch.Generator().manual_seed(1)
        base, other = torch.randn(2, *image, generator=generator)
        images = base.repeat(1 + 2 * BANDS, 1, 1, 1)
        for band in range(BANDS):
            rows, columns = (
                slice(band * n // BANDS, (band + 1) * n // BANDS) for n in (image[1], image[2])
            )
            images[1 + band, :, rows] = other[:, rows]
            images[1 + BANDS + band, :, :, columns] = other[:, :, columns]
        self._z = images.to(parameter.device, parameter.dtype)
        self._place = 0

    @torch.no_grad()
    def at(self, place: int) -> Tensor:
        """(2 * bands, ...): the rows' bands and then the columns', at a place; places only rise."""
        while self._place < place:
            self._z = self.pieces[self._place](self.module, self._z)
            self._place += 1
        z = self._z.float()
        return (z[1:] - z[:1]).abs()


def token_grid(
    count: int, declared: int, image: Sequence[int]
) -> tuple[int, tuple[int, int] | None]:
    """How many prefix tokens, and the grid of the others, told from the image's own proportions.

    The grid is None where none has them: a row of tokens is never assumed.
    """
    for prefix in dict.fromkeys((declared, 0, 1, 2, 5)):
        spatial = count - prefix
        if spatial <= 0:
            continue
        height = round(math.sqrt(spatial * image[1] / image[2]))
        if height and spatial % height == 0 and _like((height, spatial // height), image):
            return prefix, (height, spatial // height)
    return 0, None


def _like(grid: tuple[int, int], image: Sequence[int]) -> bool:
    return math.isclose(grid[0] / grid[1], image[1] / image[2], rel_tol=SLACK)


def _within(bands: Tensor, index: Tensor, count: int) -> Tensor:
    """Whether position ``index`` of ``count`` along an axis overlaps the band it answers to."""
    return (BANDS * index < count * (bands + 1)) & (BANDS * (index + 1) > count * bands)


def _chance(count: int) -> float:
    """Share of the bands that a position overlaps: what a random answer would score."""
    index, bands = torch.arange(count)[:, None], torch.arange(BANDS)
    return float(_within(bands, index, count).double().mean())


# --------------------------------------------------------------------------------- tokens


def read_tokens(
    response: Tensor,
    image: Sequence[int],
    *,
    declared: int = 0,
    prefix: int | None = None,
    before: tuple[int, int] | None = None,
) -> Axes | None:
    """Prefix, suffix and grid of (bands, tokens, channels) responses; None where no raster fits.

    ``declared`` is the model's own number of prefix tokens, ``prefix`` the user's; ``before`` is
    the grid of the place before, which stays where tokens join it. It is believed sooner, and so is
    a grid of the image's own proportions without any token beside it: at the border of an image
    positions answer less surely, and look like tokens that stand for none. Convolutions in front
    move every answer by half a position: then it is the order that tells such a grid.
    """
    amounts = response.sum(-1)
    centres = _centres(amounts[:BANDS]), _centres(amounts[BANDS:])
    bands = amounts[:BANDS].argmax(0), amounts[BANDS:].argmax(0)
    moved = amounts.sum(0)
    moves = moved > 1e-5 * moved.max()
    known = prefix is not None or not bool(moves.all())  # how many tokens stand for no position
    best: tuple[float, Axes] | None = None  # by how far it is above what it must reach
    for front, behind in _ends(moves, declared, prefix):
        count = len(moved) - front - behind
        inner = [b[front : front + count] for b in bands]
        if known or (front, behind) in ((0, 0), (declared, 0)):
            own = [centre[front : front + count] for centre in centres]
            like = [grid for grid in _grids(count, image) if _like(grid, image)]
            ordered = next((grid for grid in like if _in_order(own, grid)), None)
            if ordered is not None and (before is None or ordered == before):
                return Axes("tokens", front, behind, ordered)
        for grid in _grids(count, image) if before is None else [before]:
            if math.prod(grid) != count:
                continue
            index = torch.arange(count, device=moved.device)
            rows = _within(inner[0], index // grid[1], grid[0])
            columns = _within(inner[1], index % grid[1], grid[1])
            score = float((rows & columns).double().mean())
            chance = _chance(grid[0]) * _chance(grid[1])
            score = (score - chance) / (1 - chance) if chance < 1 else score
            expected = grid == before or (front == behind == 0 and _like(grid, image))
            score -= SURE_OF_ALL if expected else SURE
            if best is None or score > best[0] + 1e-9:
                best = score, Axes("tokens", front, behind, grid)
        if best and best[0] >= 0 and (front, behind) == (declared, 0):
            break
    return best[1] if best and best[0] >= 0 else None


def _centres(amounts: Tensor) -> Tensor:
    """Which band each position answers to on average."""
    bands = torch.arange(BANDS, device=amounts.device)[:, None]
    return (bands * amounts).sum(0) / amounts.sum(0).clamp(min=1e-30)


def _in_order(centres: Sequence[Tensor], grid: tuple[int, int]) -> bool:
    """Whether positions of one row answer to the same rows, each row below the one before it, and
    so with columns: no other order of the same positions does."""
    for axis, centre in enumerate(centres):
        table = centre.view(grid)
        means = table.mean(1 - axis)
        spread = (table - table.mean()).square().mean()
        explained = (means - table.mean()).square().mean() / spread.clamp(min=1e-30)
        if explained < EXPLAINED or not (means.diff() >= 0).all() or means[-1] - means[0] < 1:
            return False
    return True


def _ends(moves: Tensor, declared: int, prefix: int | None) -> Iterator[tuple[int, int]]:
    """(tokens in front, tokens behind) that may stand for no position, the likeliest first."""
    count = len(moves)
    if prefix is not None:
        ends = [(max(prefix, 0), max(-prefix, 0))]
    elif not moves.all():
        where = moves.nonzero()[:, 0].tolist() or [0]
        front, behind = where[0], count - 1 - where[-1]
        ends = [(front, behind)] if front + behind == count - len(where) else []
    else:
        ends = [(declared, 0), (0, 0)]
        ends += [end for k in range(1, MOST_PREFIX + 1) for end in ((k, 0), (0, k))]
    yield from (end for end in dict.fromkeys(ends) if count - sum(end) >= max(1, sum(end)))


def _grids(count: int, image: Sequence[int]) -> list[tuple[int, int]]:
    """Every grid of so many positions, those of the image's proportions first; no single rows."""
    grids = [(h, count // h) for h in range(2, count // 2 + 1) if count % h == 0]
    return sorted(grids, key=lambda g: abs(math.log(g[0] / g[1] * image[2] / image[1])))


# --------------------------------------------------------------------------------- maps


def read_map(response: Tensor) -> Axes | None:
    """Which of three axes are rows and columns; None where they do not tell."""
    scores = {0: _axes_score(response, 0, 1), 1: _axes_score(response, 1, 2)}
    best, worst = sorted(scores, key=lambda k: scores[k], reverse=True)
    if scores[best] < SURE or scores[best] - scores[worst] < SLACK:
        return None
    shape = response.shape[1:]
    if best == 0:
        return Axes("map_last", grid=(shape[0], shape[1]))
    return Axes("map", grid=(shape[1], shape[2]))


def _axes_score(response: Tensor, rows: int, columns: int) -> float:
    """Share of the indices of two axes that answer to their own bands, of the worse axis."""
    shares = []
    for axis, part in ((rows, response[:BANDS]), (columns, response[BANDS:])):
        others = [k + 1 for k in range(3) if k != axis]
        bands = part.sum(others).argmax(0)
        index = torch.arange(len(bands), device=bands.device)
        shares.append(float(_within(bands, index, len(bands)).double().mean()))
    return min(shares)


# ------------------------------------------------------------------------------- every place


class Reader:
    """Reads the places of a network in their order, running it no further than it must."""

    def __init__(
        self,
        module: nn.Module,
        responses: Responses,
        image: tuple[int, int, int],
        *,
        prefix: int | None = None,
        layout: str | None = None,
    ) -> None:
        self.responses, self.image, self.prefix, self.layout = responses, image, prefix, layout
        self.declared = int(getattr(module, "num_prefix_tokens", 0) or 0)
        output_format: Any = getattr(module, "output_fmt", None)
        self.format = (
            None if output_format is None else str(getattr(output_format, "value", output_format))
        )
        self.unknown: list[int] = []  # places whose grid could not be told
        self._known: dict[tuple[int, ...], Axes] = {}
        self._grid: tuple[int, int] | None = None  # of the place before, where it is known

    def read(self, place: int, shape: tuple[int, ...]) -> Axes:
        """How the activation of this shape (without the batch) at ``place`` is read."""
        if place == 0:
            return Axes("map", grid=(shape[1], shape[2]))
        if len(shape) == 1:
            return Axes("vector")
        if shape not in self._known:
            self._known[shape] = self._tokens(place) if len(shape) == 2 else self._map(place, shape)
        reading = self._known[shape]
        self._grid = reading.grid
        if reading.grid is None:
            self.unknown.append(place)
        return reading

    def _tokens(self, place: int) -> Axes:
        response = self.responses.at(place)
        attempts: list[dict[str, Any]] = [{"before": self._grid} if self._grid else {}, {}]
        if self.prefix is not None:  # where a place has got them already
            attempts.insert(0, {"prefix": self.prefix})
        reading = None
        for more in attempts:
            reading = reading or read_tokens(response, self.image, declared=self.declared, **more)
        if reading is None and self.layout is None:
            turned = read_tokens(response.transpose(1, 2), self.image)
            if turned is not None:
                return Axes("tokens", turned.prefix, turned.suffix, turned.grid, transposed=True)
        return reading or Axes("tokens", max(self.prefix or 0, 0), max(-(self.prefix or 0), 0))

    def _map(self, place: int, shape: tuple[int, ...]) -> Axes:
        if len(shape) > 3:
            return Axes("map_last")
        last = Axes("map_last", grid=(shape[0], shape[1]))
        first = Axes("map", grid=(shape[1], shape[2]))
        if self.layout in ("map", "map_last"):
            return last if self.layout == "map_last" else first
        fits = [r for r in (first, last) if r.grid and _like(r.grid, self.image)]
        if len(fits) == 1:
            return fits[0]
        if fits and self.format is not None:
            return last if self.format == "NHWC" else first
        reading = read_map(self.responses.at(place))
        return reading or Axes("map_last" if not fits else fits[0].layout)

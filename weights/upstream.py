"""The upstream task of the zoo: generated images of figures on textured grounds, many questions.

Every image shows one to four copies of one of 24 figures (letters, pen strokes, closed shapes) on
one of 16 textures, with random colours, size, angle, shear, pen width, place, clutter, light and
noise. The main question is which figure on which texture (384 classes); the others are the
figure, the texture, the figure's hue, its angle, how many copies there are and where it lies.
Nothing but this code and a seed is needed to see the same images again.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from weights.shapes import SHAPES, segments
from weights.textures import TEXTURES, draw_textures

MAIN_CLASSES = len(SHAPES) * len(TEXTURES)
#: The questions and how many answers each has.
QUESTIONS = {
    "main": MAIN_CLASSES,
    "shape": len(SHAPES),
    "texture": len(TEXTURES),
    "hue": 8,
    "angle": 5,
    "count": 4,
    "cell": 9,
}
#: The label of an image on which a question has no answer (the angle of a circle).
NO_ANSWER = -100
_LARGEST_ANGLE = 75.0


@dataclass(frozen=True)
class Images:
    """Generated images with their answers, and the share of each pixel that figures cover."""

    pixels: UInt8[Tensor, "batch 3 size size"]
    answers: dict[str, Int[Tensor, "batch"]]
    cover: Float[Tensor, "batch size size"]

    def part(self, start: int, stop: int) -> "Images":
        """The images from ``start`` to ``stop``."""
        answers = {name: label[start:stop] for name, label in self.answers.items()}
        return Images(self.pixels[start:stop], answers, self.cover[start:stop])

    def where(self, grid: tuple[int, int]) -> Int[Tensor, "batch rows columns"]:
        """On a coarse grid: the figure that covers a tenth of the place or more, or "none"."""
        share = F.adaptive_avg_pool2d(self.cover[:, None], grid)[:, 0]
        return torch.where(share >= 0.1, self.answers["shape"][:, None, None], len(SHAPES))


def generate(count: int, seed: int, *, size: int = 32, clutter: float = 1.0) -> Images:
    """Draw ``count`` images from ``seed``; some 3,000 a second on one CPU core.

    ``clutter`` from 0 to 1 scales what hides the figure: distractors, noise, weak contrast. The
    training raises it during its first third; everything reported is measured at 1.
    """
    generator = torch.Generator().manual_seed(seed)
    answers: dict[str, Tensor] = {
        name: torch.randint(QUESTIONS[name], (count,), generator=generator)
        for name in ("shape", "texture", "hue")
    }
    answers["main"] = answers["shape"] * len(TEXTURES) + answers["texture"]
    # More than half of the images show one figure, which is then larger.
    draw = torch.rand(count, generator=generator)
    answers["count"] = ((draw - 0.55) / 0.15).floor().add(1).clamp(0, 3).long()

    figure, answers["angle"] = _draw_figures(answers["shape"], answers["count"], size, generator)
    figure, answers["cell"] = _place(figure, answers["count"], size, generator)
    ground = draw_textures(answers["texture"], size, generator)
    pixels = _paint(figure, ground, answers["hue"], clutter, generator)
    return Images((pixels * 255).round().clamp(0, 255).to(torch.uint8), answers, figure)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=generator)


def _draw_figures(
    shape: Tensor, copies: Tensor, size: int, generator: Generator
) -> tuple[Float[Tensor, "batch size size"], Int[Tensor, "batch"]]:
    """Each figure's coverage of the pixels, centred, and the answer to "which angle?"."""
    count = len(shape)
    all_segments, all_closed, all_oriented = segments()
    ends = all_segments[shape].flatten(1, 2)  # (batch, 2 * segments, 2)
    # A hand that trembles: a smooth bend, an uneven width, a shear.
    bend = _uniform((count, 1, 2), 0, 0.16, generator)
    phase = _uniform((count, 1, 2), 0, 2 * math.pi, generator)
    ends = ends + bend * torch.sin(2.2 * ends.flip(-1) + phase)
    stretch = _uniform((count, 1, 2), 0.72, 1.0, generator)
    shear = _uniform((count, 1), -0.25, 0.25, generator)
    x, y = (ends * stretch).unbind(-1)
    x = x + shear * y
    # Half of the figures stand nearly upright, as writing does.
    degrees = _uniform((count, 1), -_LARGEST_ANGLE, _LARGEST_ANGLE, generator)
    upright = torch.rand(count, 1, generator=generator) < 0.5
    degrees = torch.where(upright, degrees * 0.2, degrees)
    turn = torch.deg2rad(degrees)
    x, y = x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()
    radius = _uniform((count, 1), 8.0, 13.0, generator)
    radius = torch.where((copies > 0)[:, None], _uniform((count, 1), 5.5, 7.0, generator), radius)
    radius = radius * size / 32
    ends = torch.stack([x * radius, y * radius], -1).unflatten(1, (-1, 2))

    distance, inside = _distance(ends, size)
    pen = radius * _uniform((count, 1), 0.06, 0.16, generator) + 0.35
    filled = all_closed[shape] & (torch.rand(count, generator=generator) < 0.6)
    signed = torch.where(inside, -distance, distance)
    reach = torch.where(filled[:, None, None], signed, distance - pen[..., None])
    step = 2 * _LARGEST_ANGLE / QUESTIONS["angle"]
    angle = ((degrees[:, 0] + _LARGEST_ANGLE) / step).floor().clamp(0, QUESTIONS["angle"] - 1)
    answer = torch.where(all_oriented[shape], angle.long(), NO_ANSWER)
    return torch.sigmoid(-3.0 * reach), answer


def _distance(
    ends: Float[Tensor, "batch segments ends=2 xy=2"], size: int
) -> tuple[Tensor, Tensor]:
    """Each pixel's distance to the nearest segment, and whether it is inside (even-odd rule)."""
    axis = torch.linspace(-size / 2 + 0.5, size / 2 - 0.5, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    nearest = torch.full((len(ends), size, size), float("inf"))
    inside = torch.zeros(len(ends), size, size, dtype=torch.bool)
    for segment in ends.unbind(1):
        (ax, ay), (bx, by) = (point[:, :, None, None].unbind(1) for point in segment.unbind(1))
        dx, dy = bx - ax, by - ay
        px, py = x - ax, y - ay
        along = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9)).clamp_(0, 1)
        nearest = torch.minimum(nearest, (px - along * dx).square_() + (py - along * dy).square_())
        crosses = (ay > y) != (by > y)
        inside ^= crosses & (px < dx * py / torch.where(dy == 0, 1e-9, dy))
    return nearest.sqrt_(), inside


def _place(
    figure: Float[Tensor, "batch size size"], copies: Tensor, size: int, generator: Generator
) -> tuple[Float[Tensor, "batch size size"], Int[Tensor, "batch"]]:
    """Move the centred figures and their copies to their places; the answer to "where?"."""
    count = len(figure)
    reach = size * 0.22
    alone = _uniform((count, 2), -reach, reach, generator).round()
    third = 2 * reach / 3
    column, row = ((alone + reach) / third).floor().clamp(0, 2).long().unbind(1)
    cell = torch.where(copies == 0, row * 3 + column, NO_ANSWER)
    # Copies lie in different quarters of the image, so that they can be counted.
    quarters = torch.rand(count, 4, generator=generator).argsort(1)
    rows = torch.arange(size)
    out = torch.zeros_like(figure)
    for copy in range(4):
        # Later copies concern fewer images.
        chosen = (copies >= copy).nonzero()[:, 0]
        quarter = quarters[chosen, copy]
        corner = torch.stack([quarter % 2, quarter // 2], 1) * 2.0 - 1
        jitter = _uniform((len(chosen), 2), -1.5, 1.5, generator) * size / 32
        move = (corner * size * 0.24 + jitter).round()
        move = torch.where((copies[chosen] == 0)[:, None], alone[chosen], move).long()
        x = rows[None] - move[:, :1]
        y = rows[None] - move[:, 1:]
        seen = ((x >= 0) & (x < size))[:, None, :] & ((y >= 0) & (y < size))[:, :, None]
        flat = y.clamp(0, size - 1)[:, :, None] * size + x.clamp(0, size - 1)[:, None, :]
        moved = figure[chosen].flatten(1).gather(1, flat.flatten(1)).view(-1, size, size)
        out[chosen] = torch.maximum(out[chosen], moved * seen)
    return out, cell


def _colour(
    hue: Float[Tensor, "batch"], saturation: Tensor, value: Tensor
) -> Float[Tensor, "batch 3"]:
    """Red, green and blue of hue (0 to 1), saturation and value."""
    offsets = torch.tensor([5.0, 3.0, 1.0])
    k = (offsets + hue[:, None] * 6) % 6
    wheel = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * wheel)


def _paint(
    figure: Tensor, ground: Tensor, hue: Tensor, clutter: float, generator: Generator
) -> Float[Tensor, "batch 3 size size"]:
    """Colour figure and ground, then disturb the picture."""
    count, size = len(figure), figure.shape[-1]

    def number(low: float, high: float) -> Tensor:
        return _uniform((count,), low, high, generator)

    def some(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    def wide(value: Tensor) -> Tensor:
        return value[:, None, None, None]

    # The figure is bright on dark or dark on bright: otherwise it could not be seen.
    bright = some(0.5)
    ink_value = torch.where(bright, number(0.75, 1.0), number(0.1, 0.4))
    ink_hue = (hue + number(0.1, 0.9)) / QUESTIONS["hue"]
    ink = _colour(ink_hue, number(0.45, 1.0), ink_value)
    base = torch.where(bright, number(0.05, 0.45), number(0.6, 1.0))
    contrast = number(0.45 - 0.2 * clutter, 0.55)
    lift = torch.where(bright, contrast, -contrast) * torch.where(some(0.5), 1.0, -0.7)
    other_hue = number(0, 1)
    first = _colour(other_hue, number(0, 0.8), base)
    second = _colour(
        (other_hue + number(-0.15, 0.15)) % 1, number(0, 0.8), (base + lift).clamp(0, 1)
    )
    shade = ground[:, None]
    picture = first[..., None, None] * (1 - shade) + second[..., None, None] * shade

    # Some figures carry a faint texture of their own: that of another image's ground.
    faint = wide(torch.where(some(0.4), number(0.1, 0.35), 0.0) * clutter)
    body = ink[..., None, None] * (1 - faint * ground.roll(1, 0)[:, None])
    cover = figure[:, None]
    # A thin shadow of the opposite brightness keeps figure and ground apart on busy textures.
    rim = F.max_pool2d(cover, 3, stride=1, padding=1) - cover
    rim = rim * wide(torch.where(some(0.6), number(0.3, 0.9), 0.0))
    picture = picture * (1 - rim) + rim * wide((~bright).float())
    picture = picture * (1 - cover) + body * cover

    picture = _distract(picture, clutter, generator)
    # Light from one side, exposure, grey pictures, blur, noise.
    axis = torch.linspace(-1, 1, size)
    turn = number(0, 2 * math.pi)
    slope = (
        axis[None, None, :] * turn.cos()[:, None, None]
        + axis[None, :, None] * turn.sin()[:, None, None]
    )
    picture = picture * (1 + (wide(number(0, 0.35) * clutter) * slope[:, None]))
    picture = (picture - 0.5) * wide(number(0.7, 1.2)) + 0.5 + wide(number(-0.12, 0.12))
    soft = F.avg_pool2d(picture, 3, stride=1, padding=1, count_include_pad=False)
    picture = torch.lerp(picture, soft, wide(torch.where(some(0.25), number(0.3, 1.0), 0.0)))
    noise = torch.randn(picture.shape, generator=generator)
    return (picture + noise * wide(number(0, 0.07) * clutter)).clamp(0, 1)


def _distract(picture: Tensor, clutter: float, generator: Generator) -> Tensor:
    """Short strokes of random colour on a third of the images."""
    count, size = len(picture), picture.shape[-1]
    chosen = (torch.rand(count, generator=generator) < 0.35 * clutter).nonzero()[:, 0]
    if len(chosen) == 0:
        return picture
    start = _uniform((len(chosen), 2, 2), -size / 2, size / 2, generator)
    ends = torch.stack(
        [start, start + _uniform((len(chosen), 2, 2), -size / 5, size / 5, generator)], 2
    )
    distance, _ = _distance(ends, size)
    colour = torch.rand(len(chosen), 3, 1, 1, generator=generator)
    cover = torch.sigmoid(3 * (0.8 - distance))[:, None] * 0.8
    picture[chosen] = picture[chosen] * (1 - cover) + colour * cover
    return picture

"""Drawing many small pictures at once: noise, silhouettes, palettes, and the last step to bytes.

Everything works on a stack of pictures, (count, side, side), in double precision: not for its
accuracy but so that the bytes, and with them a task's digest, do not depend on the machine.
Outlines are evaluated at twice the side and averaged, which is their antialiasing.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 32
FINE = 2 * SIDE
CHUNK = 64  # pictures drawn at a time: what outgrows the processor's cache is slower

Field = Float[np.ndarray, "count side side"]
Picture = Float[np.ndarray, "count side side 3"]
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x (to the right) and y (downwards) of the pixel centres, (side, side), from -1 to 1."""
    centres = (np.arange(side) + 0.5) * (2 / side) - 1
    return np.broadcast_to(centres, (side, side)), np.broadcast_to(centres[:, None], (side, side))


def column(values: np.ndarray) -> np.ndarray:
    """One number a picture, (count,), ready to meet fields: (count, 1, 1)."""
    return np.asarray(values, dtype=np.float64)[:, None, None]


def halve(field: np.ndarray) -> Field:
    """Means over 2×2: from the fine grid to the picture's."""
    count, height, width = field.shape
    pairs = field.reshape(count, height // 2, 2, width // 2, 2)
    return pairs.mean(axis=(2, 4), dtype=np.float64)


def noise(
    generator: np.random.Generator,
    wavelength: np.ndarray,
    *,
    bandwidth: float = 0.5,
    angle: np.ndarray | None = None,
    stretch: float = 1.0,
    side: int = SIDE,
) -> Field:
    """Gaussian noise around one wavelength a picture, with mean 0 and standard deviation 1.

    ``wavelength`` (count,) is in picture sides; ``bandwidth`` is the width of the band, as a
    standard deviation of the natural logarithm of the frequency. With ``stretch`` above 1 the
    grain is that much longer along ``angle`` (radians, (count,)).
    """
    fx = np.fft.rfftfreq(side, 1 / side)[None, None, :]
    fy = np.fft.fftfreq(side, 1 / side)[None, :, None]
    if angle is not None:
        cosine, sine = column(np.cos(angle)), column(np.sin(angle))
        fx, fy = (cosine * fx + sine * fy) * stretch, cosine * fy - sine * fx
    frequency = np.sqrt(fx**2 + fy**2) * column(wavelength)
    gain = np.exp(-(np.log(np.maximum(frequency, 1e-9)) ** 2) / (2 * bandwidth**2))
    white = generator.standard_normal((len(wavelength), side, side))
    field = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(side, side))
    field -= field.mean(axis=(1, 2), keepdims=True)
    return field / np.maximum(field.std(axis=(1, 2), keepdims=True), 1e-9)


def colours(
    generator: np.random.Generator, count: int, *, contrast: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two random colours a picture, each (count, 3) in [0, 1], whose lightness (the mean of the
    channels) is pushed apart to ``contrast``; which of the two is the lighter is random."""
    first = generator.uniform(0.05, 0.95, (count, 3))
    second = generator.uniform(0.05, 0.95, (count, 3))
    gap = second.mean(axis=1) - first.mean(axis=1)
    push = np.where(gap < 0, -1.0, 1.0) * np.maximum(contrast - np.abs(gap), 0) / 2
    return (first - push[:, None]).clip(0, 1), (second + push[:, None]).clip(0, 1)


def unlike(generator: np.random.Generator, colour: np.ndarray, least: float) -> np.ndarray:
    """A random colour (count, 3) at least ``least`` away from ``colour`` in some channel."""
    drawn = generator.uniform(0, 1, colour.shape)
    rows, farthest = np.arange(len(colour)), np.abs(drawn - colour).argmax(axis=1)
    shade, value = colour[rows, farthest], drawn[rows, farthest]
    away = shade + np.where(shade > 0.5, -least, least)
    drawn[rows, farthest] = np.where(np.abs(value - shade) < least, away, value)
    return drawn


def paint(field: Field, first: np.ndarray, second: np.ndarray) -> Picture:
    """From ``first`` (where the field is 0) to ``second`` (where it is 1); colours (count, 3)."""
    weight = field.clip(0, 1)[..., None]
    return first[:, None, None] + weight * (second - first)[:, None, None]


def over(background: np.ndarray, mask: np.ndarray, foreground: np.ndarray) -> Picture:
    """``foreground`` where ``mask`` (count, side, side) is 1; a picture or colours (count, 3)."""
    if foreground.ndim == 2:
        foreground = foreground[:, None, None]
    return background + mask[..., None] * (foreground - background)


def stamp(
    picture: Picture,
    mask: Mask,
    foreground: np.ndarray,
    *,
    centre_x: np.ndarray,
    centre_y: np.ndarray,
    scale: np.ndarray,
    angle: np.ndarray,
    visible: np.ndarray | None = None,
    sharp: bool = True,
) -> None:
    """Put one object on each picture, in place.

    ``mask(u, v)`` says where the object is in its own frame, |u|, |v| <= 1. There it appears at
    the centre given ((count,), from -1 to 1), ``scale`` high and wide to either side, turned
    clockwise by ``angle``. ``foreground`` is a picture or colours (count, 3); ``visible`` (count,)
    from 0 to 1 is its opacity. A mask that is soft enough to need no antialiasing says
    ``sharp=False``. Only a window around the object is computed.
    """
    half = int(np.ceil(1.45 * scale.max() * SIDE / 2)) + 1  # 1.45: a turned square's corner
    width = min(2 * half, SIDE)

    def start(centre: np.ndarray) -> np.ndarray:
        pixel = np.floor((centre + 1) * SIDE / 2).astype(np.int64)
        return (pixel - width // 2).clip(0, SIDE - width)

    left, top = start(centre_x), start(centre_y)
    per_pixel = 2 if sharp else 1
    fine = (np.arange(per_pixel * width) + 0.5) / per_pixel
    dx = ((left[:, None] + fine) * (2 / SIDE) - 1 - centre_x[:, None])[:, None, :]
    dy = ((top[:, None] + fine) * (2 / SIDE) - 1 - centre_y[:, None])[:, :, None]
    cosine, sine = column(np.cos(angle) / scale), column(np.sin(angle) / scale)
    covered = mask(cosine * dx + sine * dy, cosine * dy - sine * dx)
    if sharp:
        covered = halve(covered)
    if visible is not None:
        covered = covered * column(visible)
    steps = np.arange(width)
    at = (
        np.arange(len(picture))[:, None, None],
        (top[:, None] + steps)[:, :, None],
        (left[:, None] + steps)[:, None, :],
    )
    picture[at] = over(picture[at], covered, foreground[at] if foreground.ndim == 4 else foreground)


def clutter(generator: np.random.Generator, count: int, *, strength: float = 1.0) -> Picture:
    """Backgrounds: two colours mixed by coarse and fine noise, with light from one side."""
    first, second = colours(generator, count, contrast=0.0)
    coarse = noise(generator, generator.uniform(0.3, 1.2, count))
    fine = noise(generator, generator.uniform(0.08, 0.2, count))
    share = column(generator.uniform(0.1, 0.6, count))
    field = 0.5 + 0.25 * strength * (coarse * (1 - share) + fine * share)
    x, y = grid(SIDE)
    angle = generator.uniform(0, 2 * np.pi, count)
    slope = column(strength * generator.uniform(0, 0.25, count))
    light = slope * (column(np.cos(angle)) * x + column(np.sin(angle)) * y)
    return paint(field, first, second) + light[..., None]


def to_bytes(
    picture: Picture, generator: np.random.Generator, *, grain: float
) -> UInt8[np.ndarray, "count side side 3"]:
    """Add camera grain of that standard deviation and round to bytes."""
    grainy = picture + grain * generator.standard_normal(picture.shape)
    return np.rint(grainy.clip(0, 1) * 255).astype(np.uint8)


def draw_split(
    draw: Callable[[np.random.Generator, np.ndarray], Picture],
    classes: int,
    count: int,
    seed: tuple[int, ...],
    *,
    grain: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (count, 32, 32, 3) and labels (count,), classes equally often, shuffled."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % classes).astype(np.int64)
    parts = [
        to_bytes(draw(generator, labels[start : start + CHUNK]), generator, grain=grain)
        for start in range(0, count, CHUNK)
    ]
    return np.concatenate(parts), labels

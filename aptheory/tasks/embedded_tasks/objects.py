"""Objects: ten silhouettes of any colour, surface, size and pose, on clutter."""

import numpy as np

from aptheory.tasks.base import Task
from aptheory.tasks.embedded_tasks import shapes
from aptheory.tasks.embedded_tasks.drawing import (
    FINE,
    Picture,
    clutter,
    column,
    grid,
    halve,
    noise,
    over,
    paint,
    stamp,
    unlike,
)
from aptheory.tasks.embedded_tasks.generated import generated_task

KINDS = (
    shapes.star,
    shapes.heart,
    shapes.fish,
    shapes.house,
    shapes.tree,
    shapes.mug,
    shapes.arrow,
    shapes.moon,
    shapes.flower,
    shapes.cross,
)
CLASSES = tuple(shape.__name__ for shape in KINDS)


def objects(*, seed: int = 0) -> Task:
    """Ten classes of object, natural group: shape alone tells them apart."""
    return generated_task("objects", CLASSES, "natural", draw, seed, grain=0.02)


def draw(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """An object a label, mirrored, slanted and turned by up to 25 degrees, on clutter and crossed
    by a thin bar."""
    count = len(labels)
    picture = clutter(generator, count, strength=0.6)
    scale = generator.uniform(0.6, 0.9, count)
    room = 1 - scale
    width = column(generator.uniform(0.85, 1.2, count) * generator.choice([-1.0, 1.0], count))
    slant = column(generator.uniform(-0.2, 0.2, count))
    surface = 0.5 + 0.2 * noise(generator, generator.uniform(0.1, 0.5, count))
    first = unlike(generator, picture.mean(axis=(1, 2)), 0.3)
    second = generator.uniform(0, 1, (count, 3))
    stamp(
        picture,
        lambda u, v: shapes.masks(KINDS, labels, u * width + slant * v, v),
        paint(surface, first, 0.5 * (first + second)),
        centre_x=room * generator.uniform(-1, 1, count),
        centre_y=room * generator.uniform(-1, 1, count),
        scale=scale,
        angle=generator.uniform(-0.45, 0.45, count),
    )
    return over(picture, _bar(generator, count), generator.uniform(0, 1, (count, 3)))


def _bar(generator: np.random.Generator, count: int) -> np.ndarray:
    x, y = grid(FINE)
    angle = generator.uniform(0, np.pi, count)
    along = column(np.cos(angle)) * x + column(np.sin(angle)) * y
    offset = column(generator.uniform(-1, 1, count))
    return halve(np.abs(along - offset) < column(generator.uniform(-0.04, 0.06, count)))

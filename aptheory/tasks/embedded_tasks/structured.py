"""Structured tasks: how many, where, which way round, how far. What the object is does not matter.

The spirit is that of VTAB's CLEVR, dSprites, smallNORB and KITTI tasks, whose labels are geometry.
"""

from itertools import pairwise

import numpy as np

from aptheory.tasks.base import Task
from aptheory.tasks.embedded_tasks import shapes
from aptheory.tasks.embedded_tasks.drawing import (
    SIDE,
    Mask,
    Picture,
    clutter,
    colours,
    column,
    grid,
    noise,
    over,
    paint,
    stamp,
    unlike,
)
from aptheory.tasks.embedded_tasks.generated import generated_task

SIMPLE = (shapes.disc, shapes.square, shapes.triangle, shapes.cross, shapes.ring)
# Only shapes that no turn below a whole one maps to themselves have an orientation.
DIRECTED = (shapes.arrow, shapes.drop, shapes.house, shapes.tree)

MOST = 8  # objects in a picture of "counting"
PLACES = 6  # bins of the horizontal position
TURNS = 8  # bins of the orientation
THINGS = 4  # at most, in a picture of "distance"
STANDING = (shapes.square, shapes.disc, shapes.house, shapes.tree, shapes.triangle)
DEPTHS = (1.0, 1.5, 2.1, 2.9, 4.0, 5.5)  # borders of the distance bins, in camera heights


def counting(*, seed: int = 0) -> Task:
    """How many objects, 1 to 8. Sizes vary so that the painted area does not give it away."""
    names = tuple(str(number) for number in range(1, MOST + 1))
    return generated_task("counting", names, "structured", draw_counting, seed)


def draw_counting(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """Objects in different cells of a 4 by 4 lattice, so that they never cover each other."""
    count = len(labels)
    picture = clutter(generator, count, strength=0.4)
    base = picture.mean(axis=(1, 2))
    places = np.argsort(generator.random((count, 16)), axis=1)
    typical = generator.uniform(0.16, 0.24, count)
    for number in range(MOST):
        stamp(
            picture,
            _any_of(SIMPLE, generator, count),
            unlike(generator, base, 0.4),
            centre_x=(places[:, number] % 4 - 1.5) * 0.5 + generator.uniform(-0.05, 0.05, count),
            centre_y=(places[:, number] // 4 - 1.5) * 0.5 + generator.uniform(-0.05, 0.05, count),
            scale=typical * generator.uniform(0.85, 1.15, count),
            angle=generator.uniform(0, 2 * np.pi, count),
            visible=(labels >= number).astype(np.float64),
        )
    return picture


def position(*, seed: int = 0) -> Task:
    """In which of six columns the object's centre lies; its height in the picture is random."""
    names = tuple(f"column {number}" for number in range(1, PLACES + 1))
    return generated_task("position", names, "structured", draw_position, seed)


def draw_position(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """One object of any shape, colour, size and turn, wholly inside the picture."""
    count = len(labels)
    reach = 0.72  # of the half side: where the centres in the outermost columns end
    picture = clutter(generator, count, strength=0.4)
    stamp(
        picture,
        _any_of(SIMPLE + DIRECTED, generator, count),
        unlike(generator, picture.mean(axis=(1, 2)), 0.4),
        centre_x=((labels + generator.uniform(0, 1, count)) / PLACES * 2 - 1) * reach,
        centre_y=generator.uniform(-reach, reach, count),
        scale=generator.uniform(0.28, 0.45, count),
        angle=generator.uniform(0, 2 * np.pi, count),
    )
    return picture


def orientation(*, seed: int = 0) -> Task:
    """Which way the object points, in eight bins of 45 degrees, clockwise from upright."""
    names = tuple(f"{360 * number // TURNS} degrees" for number in range(TURNS))
    return generated_task("orientation", names, "structured", draw_orientation, seed)


def draw_orientation(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """One object with a direction, of any colour and size; the bin's centre is its name."""
    count = len(labels)
    scale = generator.uniform(0.6, 0.85, count)
    room = 1 - scale
    picture = clutter(generator, count, strength=0.4)
    surface = 0.5 + 0.2 * noise(generator, generator.uniform(0.1, 0.5, count))
    first = unlike(generator, picture.mean(axis=(1, 2)), 0.4)
    second = generator.uniform(0, 1, (count, 3))
    stamp(
        picture,
        _any_of(DIRECTED, generator, count),
        paint(surface, first, 0.5 * (first + second)),
        centre_x=room * generator.uniform(-1, 1, count),
        centre_y=room * generator.uniform(-1, 1, count),
        scale=scale,
        angle=(labels + generator.uniform(-0.4, 0.4, count)) * (2 * np.pi / TURNS),
    )
    return picture


def distance(*, seed: int = 0) -> Task:
    """How far the nearest of several things on a plane is, in five bins. Their true sizes vary,
    so that neither size nor height in the picture alone decides."""
    names = tuple(f"{near:g} to {far:g}" for near, far in pairwise(DEPTHS))
    return generated_task("distance", names, "structured", draw_distance, seed)


def draw_distance(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """A plane below a horizon, seen by a pinhole camera one unit above it; far things first."""
    count = len(labels)
    _, y = grid(SIDE)
    horizon = generator.uniform(-0.45, -0.15, count)
    ground, sky = colours(generator, count, contrast=0.2)
    grain = noise(generator, generator.uniform(0.1, 0.4, count))
    below = (y - column(horizon)) * (SIDE / 2) + 0.5  # the horizon's row is covered in part
    picture = over(
        paint(0.12 + 0.05 * grain, sky, ground),
        below.clip(0, 1),
        paint(0.88 + 0.05 * grain, sky, ground),
    )
    borders = np.array(DEPTHS)
    nearest = generator.uniform(borders[labels], borders[labels + 1])
    present = generator.integers(1, THINGS + 1, count)
    # The nearest comes last; the others stand at any depth behind it, in falling order.
    behind = np.sort(generator.uniform(nearest, DEPTHS[-1] + 1.5, (THINGS - 1, count)), axis=0)
    for number in reversed(range(THINGS)):
        depth = behind[number - 1] if number else nearest
        half = generator.uniform(0.4, 0.6, count) / depth
        stamp(
            picture,
            _any_of(STANDING, generator, count),
            unlike(generator, ground, 0.35),
            centre_x=generator.uniform(-0.7, 0.7, count),
            centre_y=horizon + 1.2 / depth - half,
            scale=half / 0.7,
            angle=np.zeros(count),
            visible=(number < present).astype(np.float64),
        )
    return picture


def _any_of(kinds: tuple[shapes.Shape, ...], generator: np.random.Generator, count: int) -> Mask:
    which = generator.integers(0, len(kinds), count)
    return lambda u, v: shapes.masks(kinds, which, u, v)

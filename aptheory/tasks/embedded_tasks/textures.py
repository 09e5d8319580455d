"""Textures: ten kinds of surface in any colours, scale, direction and light."""

import numpy as np

from aptheory.tasks.base import Task
from aptheory.tasks.embedded_tasks.drawing import (
    FINE,
    Field,
    Picture,
    colours,
    column,
    grid,
    halve,
    noise,
    paint,
)
from aptheory.tasks.embedded_tasks.generated import generated_task

CLASSES = (
    "striped",
    "chequered",
    "dotted",
    "blotchy",
    "marbled",
    "cracked",
    "bumpy",
    "fibrous",
    "ringed",
    "zigzag",
)


def textures(*, seed: int = 0) -> Task:
    """Ten classes of texture, natural group. Colours, light and scale say nothing of the class."""
    return generated_task("textures", CLASSES, "natural", draw, seed, grain=0.03)


def draw(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """One texture a label, its contrast reduced at random and stained by coarse noise."""
    count = len(labels)
    field = np.empty((count, *grid(FINE)[0].shape))
    for number, kind in enumerate(KINDS):
        rows = np.flatnonzero(labels == number)
        if len(rows):
            field[rows] = kind(generator, len(rows))
    strength = column(generator.uniform(0.4, 1.0, count))
    stain = noise(generator, generator.uniform(0.25, 1.0, count))
    stained = 0.5 + strength * (halve(field) - 0.5) + 0.12 * stain
    first, second = colours(generator, count, contrast=0.2)
    return paint(stained, first, second)


def _turned(generator: np.random.Generator, count: int) -> tuple[Field, Field]:
    """Coordinates turned by any angle and slightly bent."""
    angle = generator.uniform(0, np.pi, count)
    x, y = grid(FINE)
    cosine, sine = column(np.cos(angle)), column(np.sin(angle))
    bend = 0.05 * noise(generator, generator.uniform(0.5, 1.0, count), side=FINE)
    return cosine * x + sine * y + bend, cosine * y - sine * x + bend


def _period(generator: np.random.Generator, count: int) -> np.ndarray:
    return column(generator.uniform(0.2, 0.55, count))


def _soft_step(field: Field, width: float = 0.15) -> Field:
    return (0.5 + field / width).clip(0, 1)


def striped(generator: np.random.Generator, count: int) -> Field:
    u, _ = _turned(generator, count)
    duty = column(generator.uniform(-0.5, 0.5, count))
    return _soft_step(np.sin(2 * np.pi * u / _period(generator, count)) - duty, 0.8)


def chequered(generator: np.random.Generator, count: int) -> Field:
    u, v = _turned(generator, count)
    period = 1.4 * _period(generator, count)
    return _soft_step(np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period), 0.4)


def dotted(generator: np.random.Generator, count: int) -> Field:
    u, v = _turned(generator, count)
    period = 1.2 * _period(generator, count)
    du, dv = u % period - period / 2, v % period - period / 2
    radius = column(generator.uniform(0.2, 0.38, count)) * period
    return _soft_step((radius - np.sqrt(du**2 + dv**2)) / period)


def blotchy(generator: np.random.Generator, count: int) -> Field:
    field = noise(generator, generator.uniform(0.15, 0.4, count), bandwidth=0.3, side=FINE)
    return _soft_step(field - column(generator.uniform(-0.5, 0.5, count)), 0.6)


def marbled(generator: np.random.Generator, count: int) -> Field:
    u, _ = _turned(generator, count)
    warp = noise(generator, generator.uniform(0.4, 0.8, count), side=FINE)
    return 0.5 + 0.5 * np.sin(2 * np.pi * u / (1.5 * _period(generator, count)) + 2.5 * warp)


def _cells(generator: np.random.Generator, count: int) -> tuple[Field, Field]:
    """Distances to the nearest and the second nearest of some points on a jittered lattice."""
    x, y = grid(FINE)
    lattice = 6
    spacing = column(generator.uniform(0.35, 0.6, count))
    shift = generator.uniform(-0.5, 0.5, (2, count, 1, 1))
    first = np.full((count, *x.shape), np.inf)
    second = first.copy()
    for row in range(lattice):
        for place in range(lattice):
            jitter = generator.uniform(-0.4, 0.4, (2, count, 1, 1))
            cx = (place - (lattice - 1) / 2 + shift[0] + jitter[0]) * spacing
            cy = (row - (lattice - 1) / 2 + shift[1] + jitter[1]) * spacing
            distance = (x - cx) ** 2 + (y - cy) ** 2
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return np.sqrt(first) / spacing, np.sqrt(second) / spacing


def cracked(generator: np.random.Generator, count: int) -> Field:
    first, second = _cells(generator, count)
    return _soft_step(second - first - column(generator.uniform(0.08, 0.2, count)), 0.12)


def bumpy(generator: np.random.Generator, count: int) -> Field:
    first, _ = _cells(generator, count)
    return (1 - 1.4 * first).clip(0, 1)


def fibrous(generator: np.random.Generator, count: int) -> Field:
    angle = generator.uniform(0, np.pi, count)
    field = noise(
        generator,
        generator.uniform(0.1, 0.25, count),
        bandwidth=0.6,
        angle=angle,
        stretch=5.0,
        side=FINE,
    )
    return 0.5 + 0.3 * field


def ringed(generator: np.random.Generator, count: int) -> Field:
    x, y = grid(FINE)
    centre = generator.uniform(-0.8, 0.8, (2, count, 1, 1))
    radius = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
    bend = 0.04 * noise(generator, generator.uniform(0.5, 1.0, count), side=FINE)
    return _soft_step(np.sin(2 * np.pi * (radius + bend) / _period(generator, count)), 0.9)


def zigzag(generator: np.random.Generator, count: int) -> Field:
    u, v = _turned(generator, count)
    length = column(generator.uniform(0.5, 0.9, count))
    fold = np.abs(v % length - length / 2)
    return _soft_step(np.sin(2 * np.pi * (u + 1.2 * fold) / _period(generator, count)), 0.8)


KINDS = (
    striped,
    chequered,
    dotted,
    blotchy,
    marbled,
    cracked,
    bumpy,
    fibrous,
    ringed,
    zigzag,
)

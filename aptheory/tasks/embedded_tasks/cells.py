"""Cells: stained tissue under a microscope, told apart by its nuclei."""

import numpy as np

from aptheory.tasks.base import Task
from aptheory.tasks.embedded_tasks.drawing import Mask, Picture, column, noise, paint, stamp
from aptheory.tasks.embedded_tasks.generated import generated_task

CLASSES = ("regular", "enlarged", "spindle", "irregular", "dividing")
NUCLEI = 12
SOFT = 0.4  # of a radius: how far a nucleus fades out, about a pixel
UNIT = 0.8  # radius of a nucleus in its frame, which leaves room for its outline to reach out
# Of each class: mean radius, its spread, elongation, waviness of the outline, darkness, and the
# share of nuclei that are like this (the rest are regular).
KINDS = np.array(
    [
        [0.15, 0.10, 1.10, 0.00, 0.0, 1.0],
        [0.21, 0.10, 1.10, 0.00, 0.0, 0.6],
        [0.16, 0.10, 2.20, 0.00, 0.0, 0.6],
        [0.17, 0.25, 1.20, 0.20, 0.0, 0.7],
        [0.13, 0.10, 1.50, 0.15, 1.0, 0.4],
    ]
)


def cells(*, seed: int = 0) -> Task:
    """Five classes of tissue, specialised group. Stain, light and density say nothing of it."""
    return generated_task("cells", CLASSES, "specialized", draw, seed, grain=0.03)


def draw(generator: np.random.Generator, labels: np.ndarray) -> Picture:
    """Nuclei on a jittered lattice over fibrous pink, stained differently in every picture."""
    count = len(labels)
    pink = np.array([0.90, 0.68, 0.80]) + generator.uniform(-0.10, 0.10, (count, 3))
    pale = np.array([0.96, 0.88, 0.93]) + generator.uniform(-0.06, 0.04, (count, 3))
    violet = np.array([0.45, 0.28, 0.58]) + generator.uniform(-0.12, 0.12, (count, 3))
    fibres = noise(
        generator,
        generator.uniform(0.15, 0.4, count),
        angle=generator.uniform(0, np.pi, count),
        stretch=2.0,
    )
    picture = paint(0.5 + 0.3 * fibres, pink, pale)
    chromatin = noise(generator, generator.uniform(0.06, 0.1, count))
    present = generator.integers(6, NUCLEI + 1, count)
    places = np.argsort(generator.random((count, 16)), axis=1)  # of a 4 by 4 lattice
    for number in range(NUCLEI):
        affected = generator.random(count) < KINDS[labels, 5]
        radius, spread, elongation, wave, dark, _ = KINDS[np.where(affected, labels, 0)].T
        shade = 1 + 0.12 * chromatin * (1 + 2 * column(dark)) - 0.35 * column(dark)
        size = radius * np.exp(spread * generator.standard_normal(count))
        stamp(
            picture,
            _nucleus(
                np.sqrt(elongation * np.exp(0.1 * generator.standard_normal(count))),
                wave,
                generator.uniform(0, 2 * np.pi, count),
            ),
            violet[:, None, None] * shade[..., None],
            centre_x=(places[:, number] % 4 - 1.5) * 0.5 + generator.uniform(-0.12, 0.12, count),
            centre_y=(places[:, number] // 4 - 1.5) * 0.5 + generator.uniform(-0.12, 0.12, count),
            scale=size / UNIT,
            angle=generator.uniform(0, np.pi, count),
            visible=0.9 * (number < present),
            sharp=False,
        )
    return picture


def _nucleus(stretch: np.ndarray, wave: np.ndarray, turn: np.ndarray) -> Mask:
    """A soft-edged ellipse whose outline waves three and five times around; all (count,)."""

    waving = np.flatnonzero(wave > 0)

    def mask(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        x, y = u * column(1 / (UNIT * stretch)), v * column(stretch / UNIT)
        radius = np.sqrt(x * x + y * y)
        inside = 1 - radius
        inside[waving] += _ripple(x[waving], y[waving], radius[waving], wave[waving], turn[waving])
        return (inside / SOFT + 0.5).clip(0, 1)

    return mask


def _ripple(
    x: np.ndarray, y: np.ndarray, radius: np.ndarray, wave: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """How far the outline reaches out in each direction, in radii."""
    inverse = 1 / np.maximum(radius, 1e-9)
    # Multiples of the angle by their addition formulas: sine and cosine are slow.
    cos1, sin1 = x * inverse, y * inverse
    cos2, sin2 = 2 * cos1 * cos1 - 1, 2 * sin1 * cos1
    cos3, sin3 = cos1 * cos2 - sin1 * sin2, sin1 * cos2 + cos1 * sin2
    cos5, sin5 = cos3 * cos2 - sin3 * sin2, sin3 * cos2 + cos3 * sin2
    ripple = sin3 * column(wave * np.cos(turn)) + cos3 * column(wave * np.sin(turn))
    ripple += sin5 * column(wave * np.cos(2 * turn)) - cos5 * column(wave * np.sin(2 * turn))
    return ripple

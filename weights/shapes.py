"""The figures of the upstream task: 24 outlines made of straight segments.

Half of them are letters and other pen strokes, half are closed figures. The ten digits are not
among them: handwritten digits are a downstream task. Coordinates are in [-1, 1], x to the right
and y downwards, as in an image.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """One figure: its strokes, whether they enclose an area, and whether its angle can be told."""

    name: str
    strokes: tuple[tuple[Point, ...], ...]
    closed: bool = False
    oriented: bool = True  # False: some rotation by less than 150 degrees maps it on itself


def _arc(centre: Point, radius: float, start: float, end: float, pieces: int) -> tuple[Point, ...]:
    """Points on a circle from angle ``start`` to ``end`` (degrees, clockwise from the right)."""
    steps = [math.radians(start + (end - start) * i / pieces) for i in range(pieces + 1)]
    return tuple(
        (centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in steps
    )


def _star() -> tuple[Point, ...]:
    radii = [1.0 if i % 2 == 0 else 0.42 for i in range(11)]
    angles = [math.radians(-90 + 36 * i) for i in range(11)]
    return tuple((r * math.cos(t), r * math.sin(t)) for r, t in zip(radii, angles, strict=True))


def _spiral() -> tuple[Point, ...]:
    turns = [i / 13 for i in range(14)]
    return tuple(
        (t * math.cos(1.75 * 2 * math.pi * t), t * math.sin(1.75 * 2 * math.pi * t)) for t in turns
    )


_LEFT, _RIGHT, _TOP, _BOTTOM = -0.7, 0.7, -1.0, 1.0
SHAPES: tuple[Shape, ...] = (
    Shape("A", (((_LEFT, 1), (0, -1), (_RIGHT, 1)), ((-0.4, 0.25), (0.4, 0.25)))),
    Shape("E", (((_RIGHT, -1), (_LEFT, -1), (_LEFT, 1), (_RIGHT, 1)), ((_LEFT, 0), (0.5, 0)))),
    Shape("H", (((_LEFT, -1), (_LEFT, 1)), ((_RIGHT, -1), (_RIGHT, 1)), ((_LEFT, 0), (_RIGHT, 0)))),
    Shape("K", (((_LEFT, -1), (_LEFT, 1)), ((_RIGHT, -1), (_LEFT, 0.1), (_RIGHT, 1)))),
    Shape("T", (((-0.85, -1), (0.85, -1)), ((0, -1), (0, 1)))),
    Shape("X", (((-0.8, -0.9), (0.8, 0.9)), ((0.8, -0.9), (-0.8, 0.9))), oriented=False),
    Shape("Y", (((-0.8, -1), (0, 0), (0.8, -1)), ((0, 0), (0, 1)))),
    Shape("W", (((-1, -0.8), (-0.5, 0.8), (0, -0.4), (0.5, 0.8), (1, -0.8)),)),
    Shape(
        "R",
        (
            ((-0.6, 1), (-0.6, -1), *_arc((0, -0.5), 0.5, -90, 90, 5), (-0.6, 0)),
            ((0, 0), (0.6, 1)),
        ),
    ),
    Shape("U", (((-0.7, -1), *_arc((0, 0.3), 0.7, 180, 0, 6), (0.7, -1)),)),
    Shape("wave", ((*_arc((-0.5, 0), 0.5, 180, 360, 6), *_arc((0.5, 0), 0.5, 180, 0, 6)[1:]),)),
    Shape("spiral", (_spiral(),), oriented=False),
    Shape("circle", (_arc((0, 0), 0.9, 0, 360, 14),), closed=True, oriented=False),
    Shape(
        "square",
        (((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8)),),
        closed=True,
        oriented=False,
    ),
    Shape(
        "triangle",
        (((0, -1), (0.95, 0.75), (-0.95, 0.75), (0, -1)),),
        closed=True,
        oriented=False,
    ),
    Shape("star", (_star(),), closed=True, oriented=False),
    Shape(
        "plus",
        (
            (
                (-0.3, -0.95),
                (0.3, -0.95),
                (0.3, -0.3),
                (0.95, -0.3),
                (0.95, 0.3),
                (0.3, 0.3),
                (0.3, 0.95),
                (-0.3, 0.95),
                (-0.3, 0.3),
                (-0.95, 0.3),
                (-0.95, -0.3),
                (-0.3, -0.3),
                (-0.3, -0.95),
            ),
        ),
        closed=True,
        oriented=False,
    ),
    Shape(
        "heart",
        (
            (
                (0, 1),
                (-0.95, -0.1),
                *_arc((-0.5, -0.45), 0.5, 180, 340, 4),
                *_arc((0.5, -0.45), 0.5, 200, 360, 4),
                (0.95, -0.1),
                (0, 1),
            ),
        ),
        closed=True,
    ),
    Shape(
        "crescent",
        (
            (
                *_arc((0, 0), 0.95, 50, 310, 8),
                *_arc((0.45, 0), 0.75, 285, 75, 5),
                _arc((0, 0), 0.95, 50, 310, 8)[0],
            ),
        ),
        closed=True,
    ),
    Shape(
        "arrow",
        (
            (
                (0, -1),
                (0.8, 0),
                (0.3, 0),
                (0.3, 1),
                (-0.3, 1),
                (-0.3, 0),
                (-0.8, 0),
                (0, -1),
            ),
        ),
        closed=True,
    ),
    Shape(
        "semicircle",
        ((*_arc((0, 0.4), 0.95, 180, 360, 9), (-0.95, 0.4)),),
        closed=True,
    ),
    Shape("drop", (((0, -1), *_arc((0, 0.35), 0.62, -25, 205, 8), (0, -1)),), closed=True),
    Shape(
        "bolt",
        (
            (
                (0.3, -1),
                (-0.6, 0.15),
                (-0.05, 0.15),
                (-0.3, 1),
                (0.6, -0.2),
                (0.05, -0.2),
                (0.3, -1),
            ),
        ),
        closed=True,
    ),
    Shape(
        "hourglass",
        (((-0.75, -0.95), (0.75, -0.95), (-0.75, 0.95), (0.75, 0.95), (-0.75, -0.95)),),
        closed=True,
    ),
)


def segments() -> tuple[
    Float[Tensor, "shapes segments ends=2 xy=2"], Bool[Tensor, "shapes"], Bool[Tensor, "shapes"]
]:
    """All figures as equally many segments: ends, whether closed, whether oriented.

    A figure with fewer segments repeats its last point as segments of length zero, which change
    neither the distance to the figure nor its inside.
    """
    found = [[(a, b) for stroke in shape.strokes for a, b in pairwise(stroke)] for shape in SHAPES]
    most = max(len(pairs) for pairs in found)
    padded = [pairs + [(pairs[-1][1], pairs[-1][1])] * (most - len(pairs)) for pairs in found]
    return (
        torch.tensor(padded, dtype=torch.float32),
        torch.tensor([shape.closed for shape in SHAPES]),
        torch.tensor([shape.oriented for shape in SHAPES]),
    )

"""Silhouettes in their own frame: |u|, |v| <= 1, upright, v downwards.

Each is a function of coordinates of any shape that returns where the object is.
"""

from collections.abc import Callable

import numpy as np

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


def disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + v**2 < 0.8**2


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) < 0.7


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v < 0.7) & (2 * np.abs(u) - v < 0.9)


def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return (np.minimum(a, b) < 0.28) & (np.maximum(a, b) < 0.9)


def ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius = np.sqrt(u**2 + v**2)
    return (radius < 0.9) & (radius > 0.5)


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    angle = np.arctan2(u, -v)
    folded = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.sqrt(u**2 + v**2)
    # The edge of a five-pointed star runs straight from the tip (radius 1) to the notch (0.45).
    tip, notch = 1.0, 0.45
    x, y = radius * np.cos(folded), radius * np.sin(folded)
    nx, ny = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
    return (tip - nx) * y + ny * x < ny * tip


def heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = 1.2 * u, -1.2 * v + 0.1
    return (x**2 + y**2 - 0.75) ** 3 - 1.2 * x**2 * y**3 < 0


def fish(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    body = ((u + 0.2) / 0.75) ** 2 + (v / 0.42) ** 2 < 1
    tail = (u > 0.35) & (u < 0.95) & (np.abs(v) < 0.85 * (u - 0.3))
    return body | tail


def house(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    walls = (np.abs(u) < 0.6) & (v > -0.15) & (v < 0.85)
    roof = (v <= -0.15) & (v > -0.9) & (np.abs(u) < 0.9 * (v + 0.9) / 0.75)
    door = (np.abs(u) < 0.17) & (v > 0.3)
    return (walls | roof) & ~door


def tree(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    upper = (v > -0.95) & (v < -0.05) & (np.abs(u) < 0.5 * (v + 0.95) / 0.9)
    lower = (v > -0.4) & (v < 0.55) & (np.abs(u) < 0.8 * (v + 0.4) / 0.95)
    return upper | lower | ((np.abs(u) < 0.14) & (v >= 0.5) & (v < 0.95))


def mug(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    cup = (u > -0.8) & (u < 0.35) & (np.abs(v) < 0.75)
    radius = np.sqrt((u - 0.35) ** 2 + v**2)
    return cup | ((radius < 0.55) & (radius > 0.3) & (u > 0.3))


def arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    head = (v > -0.95) & (v < -0.1) & (np.abs(u) < 0.75 * (v + 0.95) / 0.85)
    return head | ((np.abs(u) < 0.22) & (v >= -0.1) & (v < 0.95))


def moon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u**2 + v**2 < 0.9**2) & ((u - 0.4) ** 2 + v**2 > 0.75**2)


def flower(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius, angle = np.sqrt(u**2 + v**2), np.arctan2(v, u)
    return (radius < 0.6 + 0.32 * np.cos(6 * angle)) & (radius > 0.2)


def drop(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    ball = u**2 + (v - 0.35) ** 2 < 0.55**2
    return ball | ((v > -0.95) & (v < 0.2) & (np.abs(u) < 0.5 * (v + 0.95) / 1.15))


def flag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    pole = (np.abs(u + 0.4) < 0.12) & (np.abs(v) < 0.95)
    return pole | ((u > -0.4) & (u < 0.7) & (v > -0.95) & (v < -0.15))


def masks(shapes: tuple[Shape, ...], which: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where each picture's object is: picture i shows ``shapes[which[i]]``. Boolean, as ``u``."""
    out = np.zeros(u.shape, dtype=bool)
    for number, shape in enumerate(shapes):
        rows = which == number
        if rows.any():
            out[rows] = shape(u[rows], v[rows])
    return out

"""The label rules of VTAB's structured tasks: from what a data set records to a class.

Thresholds are those of the VTAB definitions; a value on a threshold belongs to the class below it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
KITTI_NO_VEHICLE = 1000.0  # metres: beyond the last threshold, so class 3
KITTI_VEHICLES = 3  # object types 0, 1, 2: car, van, truck
DSPRITES_BINS = 16


def _bin(value: float, thresholds: Sequence[float]) -> int:
    """The largest i with thresholds[i] < value."""
    return int(np.searchsorted(thresholds, value, side="left")) - 1


def clevr_count(objects: int) -> int:
    """3 to 10 objects to class 0 to 7.

    >>> clevr_count(3), clevr_count(10)
    (0, 7)
    """
    return objects - 3


def clevr_distance(pixel_coords: Float[np.ndarray, "objects 3"]) -> int:
    """The third coordinate (depth) of the nearest object, in six bins.

    >>> clevr_distance(np.array([[0.0, 0.0, 9.7], [5.0, 1.0, 8.2]]))
    1
    """
    return _bin(float(pixel_coords[:, 2].min()), CLEVR_DISTANCES)


def kitti_distance(
    types: Int[np.ndarray, "objects"], location: Float[np.ndarray, "objects 3"]
) -> int:
    """Distance along the camera's axis (metres) of the nearest vehicle (types below 3): up to 8,
    up to 20, farther, none.

    >>> kitti_distance(np.array([3, 0]), np.array([[0, 0, 2.0], [0, 0, 15.0]]))
    1
    >>> kitti_distance(np.array([4]), np.array([[0, 0, 2.0]]))
    3
    """
    depths = location[types < KITTI_VEHICLES, 2]
    return _bin(float(depths.min()) if len(depths) else KITTI_NO_VEHICLE, KITTI_DISTANCES)


def dsprites_bin(original: int, originals: int) -> int:
    """One of ``originals`` values (32 horizontal positions, 40 orientations) in 16 equal bins:
    floor(original / (originals / 16)).

    >>> dsprites_bin(31, 32), dsprites_bin(39, 40), dsprites_bin(5, 40)
    (15, 15, 2)
    """
    return int(np.floor(original / (originals / DSPRITES_BINS)))

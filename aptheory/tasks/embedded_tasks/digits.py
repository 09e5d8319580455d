"""scikit-learn's handwritten digits: 1,797 real images of 8×8 pixels, ten classes."""

import numpy as np

from aptheory.tasks.base import Task
from aptheory.tasks.splits import balanced_indices
from aptheory.tasks.views import ArraySplit


def digits(*, seed: int = 0) -> Task:
    """800 training, 200 validation and 797 test images, cut by ``seed``, class-balanced.

    Source: scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set
    (``sklearn.datasets.load_digits``). Grey values 0 to 16 are scaled to 0 to 255 and repeated
    over three channels; the enlargement from 8×8 is the ordinary resize.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    everything = np.arange(len(labels))
    train = balanced_indices(labels, 800, seed=(seed, 0))
    left = np.setdiff1d(everything, train)
    val = left[balanced_indices(labels[left], 200, seed=(seed, 1))]
    test = np.setdiff1d(left, val)
    return Task(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        train=ArraySplit(pixels[train], labels[train]),
        val=ArraySplit(pixels[val], labels[val]),
        test=ArraySplit(pixels[test], labels[test]),
        group="natural",
        preprocessing="grey 0-16 scaled to 0-255, repeated over 3 channels; resized from 8x8 "
        "(bilinear, antialiased)",
        provenance=f"scikit-learn load_digits, split 800/200/797, seed {seed}",
    )

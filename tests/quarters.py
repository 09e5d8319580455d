"""A task that two tiny networks learn in seconds, for the tests of training."""

import numpy as np
import torch

import aptheory as ap
from aptheory.tasks import ArraySplit, Task
from aptheory.training.fit import Recipe


def split(number, classes, seed, side=16):
    """Noise images whose class moves the brightness of one of the quarters."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    pixels = rng.normal(110, 30, (number, side, side, 3))
    half = side // 2
    for i, label in enumerate(labels):
        top, left = divmod(label % 4, 2)
        pixels[i, top * half : (top + 1) * half, left * half : (left + 1) * half] += 45
    return ArraySplit(np.clip(pixels, 0, 255).astype(np.uint8), labels)


def small_task() -> Task:
    """Four classes, 90 training images."""
    return Task("quarters", ("a", "b", "c", "d"), split(90, 4, 0), split(40, 4, 1), split(44, 4, 2))


def small_vit(side: int = 16, **options: int) -> ap.Network:
    """Three blocks of width 24 on 16x16 images, 4x4 patches, unless told otherwise."""
    torch.manual_seed(0)
    settings = {"patch_size": 4, "depth": 3, "embed_dim": 24, "num_heads": 2, **options}
    return ap.load("vit_tiny_patch16_224", weights=None, input_shape=(3, side, side), **settings)


def small_cnn(side: int = 16) -> ap.Network:
    """A ResNet of widths 8 and 16 on 16x16 images, unless told otherwise."""
    torch.manual_seed(0)
    shape = (3, side, side)
    return ap.load(
        "resnet10t", weights=None, input_shape=shape, channels=(8, 8, 16, 16), stem_width=8
    )


RECIPE = Recipe(epochs=3, batch_size=32, lr=0.03)

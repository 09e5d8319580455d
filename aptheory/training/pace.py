"""Which precision is the faster one here: measured, because processors differ."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from aptheory.devices import autocast
from aptheory.networks.network import Network

PAYS = 0.9
"""bfloat16 is taken where a step takes less than this share of float32's time: below that the
digits that it costs buy something."""


def fastest_precision(
    net: Network,
    *,
    images: int = 8,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[str, float]:
    """The name of the faster one on the network's device, and bfloat16's time over float32's.

    A step is one pass forward and backward through the whole network, as a prompt at the image
    takes it; the best of ``repeats`` counts, the two taking turns, after one that is not counted.
    """
    z = torch.zeros(images, *net.input_shape, device=net.device, requires_grad=True)
    best = {"float32": float("inf"), "bfloat16": float("inf")}
    for turn in range(repeats + 1):
        for precision in best:
            start = clock()
            with autocast(net.device, precision):
                features = net.run(z, stop=len(net.layers) - 1)
            features.float().sum().backward()
            if net.device.type == "cuda":
                torch.cuda.synchronize(net.device)
            seconds = clock() - start
            if turn:
                best[precision] = min(best[precision], seconds)
            z.grad = None
    ratio = best["bfloat16"] / best["float32"]
    return ("bfloat16" if ratio < PAYS else "float32"), ratio

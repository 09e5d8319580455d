"""Massive activations: a few numbers of a layer that are thousands of times its median.

They act as constant biases, and they rule every measure that weighs channels by their size: the
effective rank, CKA and the norm that a prompt is compared with. (Sun, Chen, Kolter and Liu 2024,
"Massive activations in large language models", section 2, for language and vision transformers.)
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.networks.network import Network
from aptheory.profiling.profile import batches

LEAST, RATIO = 100.0, 1000.0
"""Of the largest magnitude: what it is at least, and how many times the median (Sun et al.)."""


def largest_and_median(z: Float[Tensor, "n ..."]) -> Float[Tensor, "n 2"]:
    """The largest and the median magnitude of each image's activation, zeros left out.

    Zeros are what a ReLU cut off; a median of 0 would call every such layer massive. An image whose
    activation is all zeros has (0, 0).
    """
    magnitudes = z.detach().flatten(1).double().abs()
    rows = []
    for image in magnitudes:
        there = image[image > 0]
        rows.append(
            torch.stack([there.max(), there.median()]) if len(there) else image.new_zeros(2)
        )
    return torch.stack(rows)


def massive_activations(
    net: Network, images: Any, *, limit: int = 32, split: str = "train", seed: int = 0
) -> pd.DataFrame:
    """The layers of a network whose activations are massive, one row a layer; empty if none are.

    Args:
        images: whatever `aptheory.profile` takes; ``limit`` of them are looked at.

    Returns:
        ``layer, layer_name, largest, ratio``: medians over images of the largest magnitude and of
        its ratio to the median one. A layer is listed where the first is at least 100 and the
        second at least 1000. The image itself is no layer.
    """
    seen: dict[int, list[Tensor]] = {}
    with torch.inference_mode():
        for x, _ in batches(net, images, batch_size=16, split=split, limit=limit, seed=seed):
            for layer, z in net.walk(x, stops=net.layers):
                if layer.index:
                    seen.setdefault(layer.index, []).append(largest_and_median(z).cpu())
    rows = []
    for index, parts in seen.items():
        largest, median = torch.cat(parts).T
        ratio = torch.where(median > 0, largest / median.clamp(min=1e-300), 0.0)
        row = {"layer": index, "layer_name": net.layers[index].name}
        rows.append(row | {"largest": largest.median().item(), "ratio": ratio.median().item()})
    table = pd.DataFrame(rows, columns=["layer", "layer_name", "largest", "ratio"])
    return table[(table["largest"] >= LEAST) & (table["ratio"] >= RATIO)].reset_index(drop=True)


def massive_words(found: pd.DataFrame, images: int) -> str:
    """The warning of a network with massive activations, and how they were found; "" if none."""
    if found.empty:
        return ""
    worst = found.iloc[int(found["ratio"].argmax())]
    listed = ", ".join(str(layer) for layer in found["layer"])
    return (
        f"massive activations at layer{'s' * (len(found) > 1)} {listed}: at layer "
        f"{worst['layer']} ({worst['layer_name']}) the largest magnitude is "
        f"{worst['largest']:.0f}, {worst['ratio']:.0f} times the median of the layer (median of "
        f"{images} training images; called massive from {LEAST:.0f} and {RATIO:.0f} times, Sun et "
        "al. 2024). Effective rank, "
        "CKA and a prompt's relative norm there speak of these few numbers more than of the rest"
    )

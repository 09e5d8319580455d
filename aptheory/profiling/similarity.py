"""CKA between all layers of one network, or of two: streaming, or exact over all images.

table = similarity(net, other, images=task)             # unbiased, one pass, flat memory
table = similarity(net, images=task, exact=True)        # all images at once, unbiased and biased
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.arguments import Count, Level, Seed, checked_arguments
from aptheory.errors import InputError
from aptheory.networks.network import Layer, Network, Places
from aptheory.profiling.profile import SplitName, again_and_again, batches
from aptheory.profiling.watchers import Sight
from aptheory.profiling.watchers.base import warn_undefined
from aptheory.tasks import open_images

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["similarity"]


@checked_arguments
def similarity(
    net: Network,
    other: Network | None = None,
    *,
    images: Any,
    exact: bool = False,
    layers: Places = "all",
    other_layers: Places = "all",
    pooled: Literal["mean", "class", "all"] = "all",
    kernel: Literal["linear", "rbf"] = "linear",
    batch_size: Count = 64,
    split: SplitName = "train",
    limit: Count | None = None,
    level: Level = 0.95,
    seed: Seed = 0,
) -> pd.DataFrame:
    """CKA of every layer of ``net`` with every layer of ``other`` (of itself without one).

    Args:
        net, other: the networks; each gets the images in its own size and normalisation.
        images: as for `aptheory.profiling.profile.profile`. Two networks of different preprocessing
            need a task, a split or bytes.
        exact: use all images as one batch. The layers are walked one by one with the activations
            of all images alive at one layer; images² numbers are kept a layer. Gives the unbiased
            and, as ``cka_biased``, the biased estimator.
        pooled: features: "all" positions, their "mean", or the "class" token.

    Returns:
        network, layer, layer_name, other_network, other_layer, other_name, measure, value, low,
        high, images. Intervals (jackknife over batches) exist for the streaming form only.
    """
    images = open_images(images)
    if other is not None:  # both must see the same
        images = again_and_again(images, limit)
    networks = [net] if other is None else [net, other]
    chosen = [net.places(layers)]
    if other is not None:
        chosen.append(other.places(other_layers))
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "split": split,
        "limit": limit,
        "seed": seed,
    }
    maps: dict[str, metrics.Estimate] = {}
    with torch.inference_mode():
        if exact:
            grams = [
                gram
                for network, places in zip(networks, chosen, strict=True)
                for gram in _grams(network, images, places, pooled, kernel, options)
            ]
            stacked = torch.stack(grams)
            for name in ("cka", "cka_biased"):
                with warnings.catch_warnings():
                    # The unbiased value stands beside the biased one and says it better.
                    warnings.simplefilter("ignore", metrics.ChanceWarning)
                    value = metrics.cka_of_grams(
                        stacked,
                        estimator="unbiased" if name == "cka" else "biased",
                        undefined="nan",
                    )
                unknown = torch.full_like(value, float("nan"))
                maps[name] = metrics.Estimate(value, unknown, unknown, stacked.shape[-1])
        else:
            stream = metrics.CKA(sum(map(len, chosen)), kernel=kernel)
            sources = [batches(network, images, **options) for network in networks]
            for inputs in zip(*sources, strict=True):
                for network, places, (x, _) in zip(networks, chosen, inputs, strict=True):
                    for layer, z in network.walk(x, stops=places):
                        stream.add(_features(layer, z, pooled))
                stream.end_batch()
            maps["cka"] = stream.compute(level=level, undefined="nan")
    return _table(networks, chosen, maps)


def _features(layer: Layer, z: Tensor, pooled: str) -> Tensor:
    sight = Sight(layer, z, None)
    return sight.everything() if pooled == "all" else sight.pooled(pooled)


def _grams(
    net: Network,
    images: Any,
    layers: Sequence[Layer],
    pooled: str,
    kernel: str,
    options: dict[str, Any],
) -> list[Tensor]:
    """One Gram matrix over all images a layer; all batches move on together, place by place."""
    held = [x for x, _ in batches(net, images, **options)]
    if not held:
        raise InputError("There are no images to compare on: the task, split or tensor is empty.")
    made, here = [], 0
    for layer in layers:
        if layer.index > here:
            for number in range(len(held)):  # one by one: the old batch is freed as the new comes
                held[number] = net.run(held[number], start=here, stop=layer.index)
            here = layer.index
        parts = [_features(layer, z, pooled) for z in held]
        if kernel == "linear":
            made.append(metrics.linear_gram(parts))
        else:
            made.append(metrics.rbf_gram(torch.cat(parts)))
    return made


def _table(
    networks: Sequence[Network],
    chosen: Sequence[Sequence[Layer]],
    maps: dict[str, metrics.Estimate],
) -> pd.DataFrame:
    import pandas as pd

    places = [
        (network, layer)
        for network, layers in zip(networks, chosen, strict=True)
        for layer in layers
    ]
    first = range(len(chosen[0]))
    second = range(len(chosen[0]), len(places)) if len(networks) == 2 else first
    rows = []
    for measure, estimate in maps.items():
        for i, (network, layer) in enumerate(places):
            if bool(estimate.value[i, i].isnan()):
                warn_undefined(
                    f"Layer {layer.index} of {network.name} never varies or is not finite: no "
                    f"{measure}."
                )
        for i in first:
            for j in second:
                if bool(estimate.value[i, j].isnan()):
                    continue
                rows.append(
                    {
                        "network": places[i][0].name,
                        "layer": places[i][1].index,
                        "layer_name": places[i][1].name,
                        "other_network": places[j][0].name,
                        "other_layer": places[j][1].index,
                        "other_name": places[j][1].name,
                        "measure": measure,
                        "value": float(estimate.value[i, j]),
                        "low": float(estimate.low[i, j]),
                        "high": float(estimate.high[i, j]),
                        "images": estimate.images,
                    }
                )
    return pd.DataFrame(rows)

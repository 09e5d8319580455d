"""One pass over the images: every measure, at every layer.

    table = ap.profile(net, task, measures=("attention_distance", "cka", "effective_rank"))

The network runs piece by piece, so only one layer's batch is alive at a time; attention
probabilities are looked at and dropped; what is kept does not grow with the number of images,
except where a measure needs all features at once (its documentation says so).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from aptheory.arguments import Count, Level, Seed, checked_arguments, one_at_a_time
from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.metrics.centred_alignment import FEWEST
from aptheory.networks.attention import attention_layers
from aptheory.networks.network import Network, Places
from aptheory.profiling import watchers
from aptheory.tasks import Unlabelled, loader, open_images

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["extract", "fitting", "profile"]

SplitName = Literal["train", "val", "test"]

log = logging.getLogger("aptheory")


def batches(
    net: Network,
    images: Any,
    *,
    batch_size: int,
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """(normalised images, labels or None) in batches, from anything that holds images.

    A task, or what `aptheory.task` makes one of; a split; pictures; a uint8 tensor (normalised
    here) or a float one (taken as it is), of shape (n, channels, height, width); or an iterable of
    such tensors or of (images, labels). ``limit``
    takes that many images, drawn with ``seed`` from a task or split and the first of the others.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    net.check_ready()
    images = open_images(images)
    if isinstance(images, Tensor):
        stop = len(images) if limit is None else min(limit, len(images))
        for start in range(0, stop, batch_size):
            yield _ready(net, images[start : min(start + batch_size, stop)]), None
        return
    if hasattr(images, "train") and hasattr(images, "classes"):
        if split not in ("train", "val", "test"):
            raise InputError(f'split is {split!r}; it is "train", "val" or "test".')
        images = getattr(images, split)
    if hasattr(images, "images") and hasattr(images, "labels"):
        indices = None
        if limit is not None and limit < len(images):
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
            indices = sorted(order[:limit].tolist())
        for pixels, labels in loader(images, net, batch_size, indices):
            yield _ready(net, pixels), None if isinstance(images, Unlabelled) else labels
        return
    seen = 0
    for each in images if isinstance(images, Iterable) else [images]:
        x, y = each if isinstance(each, tuple | list) and len(each) == 2 else (each, None)
        if not isinstance(x, Tensor):
            raise InputError(
                f"the images are {shown(images)}, of which {shown(x)} is no batch; give a task or "
                "its name, a split, pictures, a tensor (n, channels, height, width), or batches "
                "of such tensors."
            )
        if limit is not None:
            x, y = x[: limit - seen], None if y is None else y[: limit - seen]
        if len(x):
            yield _ready(net, x), y
        seen += len(x)
        if limit is not None and seen >= limit:
            return


def again_and_again(images: Any, limit: int | None = None) -> Any:
    """What `batches` gives alike each time: an iterable of batches, which may be one that ends or
    shuffles, becomes the list of as many of them as hold ``limit`` images."""
    whole = isinstance(images, Tensor | list | tuple) or hasattr(images, "images")
    if whole or hasattr(images, "train") or not isinstance(images, Iterable):
        return images
    held, seen = [], 0
    for batch in images:
        held.append(batch)
        x = batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
        seen += len(x) if isinstance(x, Tensor) else 0
        if limit is not None and seen >= limit:
            break
    return held


def _ready(net: Network, x: Tensor) -> Tensor:
    parameter = next(net.module.parameters(), None)
    if parameter is not None:
        x = x.to(parameter.device, non_blocking=True)
    if x.dtype == torch.uint8:
        x = net.normalize(x)
    elif not x.is_floating_point() or not x.isfinite().all():
        raise InputError(
            f"the images are of {x.dtype} or hold NaN or infinity; give bytes (uint8), or "
            "normalised finite floats."
        )
    return x if parameter is None else x.to(parameter.dtype)


@checked_arguments
@one_at_a_time  # watchers hang themselves into the network: two profiles of one would mix
def profile(
    net: Network,
    images: Any,
    *,
    measures: Sequence[str] = ("attention_distance", "cka", "effective_rank", "globality"),
    layers: Places = "all",
    batch_size: Count = 64,
    split: SplitName = "train",
    limit: Count | None = None,
    pooled: Literal["mean", "class", "all"] = "mean",
    cka_pooled: Literal["mean", "class", "all"] = "all",
    prefix_mass: Literal["exclude", "include"] = "exclude",
    level: Level = 0.95,
    intervals: bool = True,
    gradient_images: Count = 32,
    reference: Any = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Measure every layer of ``net`` in one pass over ``images``.

    Args:
        net: the network; it runs without gradients, as it stands.
        images: a task (or a name, a place, a data set), a split, a list of pictures, a tensor
            (n, C, H, W) of bytes or of normalised floats, or an iterable of batches.
        measures: names from ``aptheory.profiling.watchers.known_measures()``; beside others, those
            of attention are left out where there is none, and the log says so.
        layers: the places to look at, as `Network.places` takes them: "all", "blocks", or some.
        batch_size: images a batch; also the minibatch of the unbiased CKA.
        split: which split of a task.
        limit: at most so many images, drawn with ``seed`` from a task.
        pooled: features of the rank and separability measures.
        cka_pooled: features of the CKA.
        prefix_mass: see `aptheory.metrics.attention`.
        gradient_images: images for the effective receptive field and the survival of a token, the
            first ones that come.
        reference: images like those of the pretraining, in any form that ``images`` may have, of
            which ``limit`` are looked at: what ``moment_shift`` is measured from. Without them it
            is measured from the running moments of BatchNorm, and networks that have none leave
            it out.
        level: coverage of the intervals; ``intervals=False`` saves the rank family's share of them.

    Returns:
        A tidy table: network, task, split, layer, layer_name, depth (0 image to 1 classifier's
        input), measure, value, low, high, images; and where it applies head, module, other_layer,
        features. A measure that is undefined at a layer has no row there, and a warning says so.

    Raises:
        InputError: unknown measures or layers, no images, a network without what is measured.
    """
    if not len(measures):
        raise InputError("measures is empty; name one, such as effective_rank.")
    net.check_ready()
    images = open_images(images)
    chosen = net.places(layers)
    settings = watchers.Settings(
        net=net,
        layers=chosen,
        measures=fitting(net, tuple(dict.fromkeys(measures)), reference=reference),
        pooled=pooled,
        cka_pooled=cka_pooled,
        level=level,
        intervals=intervals,
        prefix_mass=prefix_mass,
        gradient_images=gradient_images,
        seed=seed,
    )
    if "cka" in settings.measures:
        _check_enough_for_cka(_count(images, split, limit), batch_size)
    if reference is not None and "moment_shift" in settings.measures:
        others = batches(net, reference, batch_size=batch_size, limit=limit, seed=seed)
        settings.reference = watchers.reference_moments(net, others, chosen)
    watching = watchers.start(settings)
    source = batches(net, images, batch_size=batch_size, split=split, limit=limit, seed=seed)
    seen, stop = 0, max((watcher.stop for watcher in watching), default=0)
    with torch.inference_mode():
        for x, labels in source:
            seen += len(x)
            for watcher in watching:
                watcher.see_images(x)  # they may run the network: nobody observes it yet
            with contextlib.ExitStack() as observing:
                for watcher in watching:
                    observing.enter_context(watcher.observing())
                for layer, z in net.walk(x, stops=chosen):
                    sight = watchers.Sight(layer, z, labels)
                    for watcher in watching:
                        watcher.see(sight)
                    if layer is chosen[-1] and layer.index < stop:
                        net.run(z, start=layer.index, stop=stop)  # for its attention alone
                    del sight, z
            for watcher in watching:
                watcher.end_batch()
    if not seen:
        raise InputError("There are no images to profile: the task, split or tensor is empty.")
    return _table(net, images, split, [row for w in watching for row in w.rows()])


def fitting(net: Network, measures: Sequence[str], *, reference: Any = None) -> tuple[str, ...]:
    """The measures that this network has: those of attention need attention that can be seen, the
    shift from the pretraining needs BatchNorm or a reference.

    All of them where nothing else is asked for, so that the refusal can name them.
    """
    missing: dict[str, str] = {}
    of_attention = [name for name in measures if name in watchers.AttentionWatcher.measures]
    if of_attention and not attention_layers(net):
        missing |= dict.fromkeys(of_attention, "no attention that can be seen")
    unknown_moments = reference is None and not watchers.norms_with_moments(net, net.layers)
    if "moment_shift" in measures and unknown_moments:
        missing["moment_shift"] = "no BatchNorm, and no reference is given"
    if len(missing) == len(measures):
        return tuple(measures)
    for name, why in missing.items():
        log.info("%s has %s: %s is left out", net.name, why, name)
    return tuple(name for name in measures if name not in missing)


def _check_enough_for_cka(count: int | None, batch_size: int) -> None:
    """Refuse at the start what would be found out at the end of the pass."""
    if batch_size < FEWEST:
        raise InputError(
            f"batch_size is {batch_size}, and the unbiased CKA needs {FEWEST} images a batch; give "
            "larger batches, or measures without cka."
        )
    if count is not None and 0 < count < FEWEST:
        raise InputError(
            f"the unbiased CKA needs {FEWEST} images or more (given: {count}); give more, or "
            "measures without cka."
        )


COLUMNS = (
    "network",
    "task",
    "split",
    "layer",
    "layer_name",
    "depth",
    "measure",
    "head",
    "other_layer",
    "features",
    "value",
    "low",
    "high",
    "images",
    "module",
)


def _table(net: Network, images: Any, split: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    last = max(1, len(net.layers) - 1)
    task = getattr(images, "name", None) if hasattr(images, "classes") else None
    for row in rows:
        row["network"] = net.name
        row["task"] = task
        row["split"] = split if task is not None else None
        row["layer_name"] = net.layers[row["layer"]].name
        row["depth"] = row["layer"] / last
    table = pd.DataFrame(rows)
    if "other_layer" in table:
        table["other_layer"] = table["other_layer"].astype("Int64")  # layers, absent elsewhere
    always = COLUMNS if table.empty else table.columns  # a table without rows has all columns
    return table.reindex(columns=[name for name in COLUMNS if name in always])


@checked_arguments
def extract(
    net: Network,
    images: Any,
    *,
    layers: Places = "all",
    pooled: Literal["mean", "class", "all"] | None = None,
    batch_size: Count = 64,
    split: SplitName = "train",
    limit: Count | None = None,
    seed: Seed = 0,
    dtype: torch.dtype | None = None,
) -> dict[int, Tensor]:
    """The activations entering ``layers``, on the CPU: place -> (n, ...) in the images' order.

    The result is allocated once and written into place a batch at a time, so that the memory is the
    result and one batch. ``pooled=None`` keeps the activation as it is, with its prefix tokens;
    "mean", "class" and "all" are those of `Layer.pooled`. ``dtype`` stores another precision.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise InputError(f"dtype of extract is {dtype}; expected a floating one: torch.float16.")
    images = open_images(images)
    chosen = net.places(layers)
    count = _count(images, split, limit)
    if count is None:
        raise InputError(
            "extract must know the number of images before it starts, which "
            f"{type(images).__name__!r} does not tell; give a task or its name, a split, or a "
            "tensor (n, channels, height, width)."
        )
    if count == 0:
        raise InputError("There are no images to extract from: the task, split or tensor is empty.")
    result: dict[int, Tensor] = {}
    source = batches(net, images, batch_size=batch_size, split=split, limit=limit, seed=seed)
    seen = 0
    with torch.inference_mode():
        for x, _ in source:
            for layer, z in net.walk(x, stops=chosen):
                features = z if pooled is None else layer.pooled(z, pooled)
                if layer.index not in result:
                    kind = dtype or features.dtype
                    shape = (count, *features.shape[1:])
                    with torch.inference_mode(False):
                        result[layer.index] = torch.empty(shape, dtype=kind)
                result[layer.index][seen : seen + len(features)].copy_(features)
            seen += len(x)
    return result


def _count(images: Any, split: str, limit: int | None) -> int | None:
    """How many images there are, of which at most ``limit`` are taken; None: not known yet."""
    if hasattr(images, "train") and hasattr(images, "classes"):
        images = getattr(images, split)
    if not isinstance(images, Tensor) and not hasattr(images, "images"):
        return None
    return len(images) if limit is None else min(limit, len(images))

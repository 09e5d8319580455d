"""From a name, a module or a file of weights to a `Network`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aptheory.arguments import LARGEST_SIDE, checked_arguments, one_at_a_time
from aptheory.checked import shown
from aptheory.errors import InputError
from aptheory.networks.configuration import configuration, transform_for
from aptheory.networks.doors import check_default_device
from aptheory.networks.fitting import Fitted, check_unset, load_weights
from aptheory.networks.network import Network
from aptheory.networks.overrides import Overrides
from aptheory.networks.sources import build
from aptheory.networks.split import split
from aptheory.networks.wrappers import unwrap


@checked_arguments
@one_at_a_time  # torch.fx stands in for every module's call while it follows a forward
def load(
    name_or_module: Any,
    weights: str | Path | None = "pretrained",
    *,
    granularity: str = "block",
    input_shape: tuple[int, int, int] | None = None,
    name: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop: float | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    classifier: str | None = None,
    blocks: str | Sequence[str] | None = None,
    prefix: int | None = None,
    layout: str | None = None,
    output: str | int | None = None,
    **timm_kwargs: Any,
) -> Network:
    """Any network by name, or module that torch.fx can trace, as a list of layers, in eval mode.

    Args:
        name_or_module: a name (see `aptheory.networks.sources`), or a module. Its ``weights`` are
            kept unless a file is given.
        weights: ``"pretrained"`` (the published ones), ``"random"`` or ``None`` (drawn by torch's
            generator), or a file, read without executing anything (see
            `aptheory.networks.fitting`).
        granularity: ``"block"``: every residual or transformer block is a layer; ``"stage"``:
            blocks that keep the activation's shape are merged.
        input_shape: (channels, height, width) of the image, where it is not the model's own.
        name: how to call it, in tables and in the digest.
        mean, std, crop, resize, interpolation: preprocessing, where it is not the model's own (see
            `aptheory.preprocessing.Transform`).
        classifier, blocks, prefix, layout, output: where what is found by execution is not what
            is meant; see `Overrides`.
        timm_kwargs: further arguments of the network's own function, as ``timm.create_model``.

    Raises:
        InputError: unknown name, unusable weights, or a model that cannot be split.
    """
    check_default_device()
    overrides = Overrides(
        classifier=classifier, blocks=blocks, prefix=prefix, layout=layout, output=output
    )
    if name == "" or (not isinstance(blocks, str | None) and not len(blocks)):
        raise InputError("name and blocks must not be empty; leave out what is found by itself.")
    if weights == "":
        raise InputError("weights is ''; expected 'pretrained', 'random' or a file.")
    weights = None if weights == "random" else weights
    if granularity not in ("block", "stage"):
        raise InputError(f"granularity must be 'block' or 'stage', not {granularity!r}")
    if input_shape is not None and not (
        len(input_shape) == 3
        and all(isinstance(n, int) and 0 < n <= LARGEST_SIDE for n in input_shape)
    ):
        raise InputError(
            f"input_shape is {shown(input_shape)}; expected (channels, height, width) of the "
            f"image, each from 1 to {LARGEST_SIDE}."
        )
    if isinstance(name_or_module, Network):
        raise InputError(
            f"{name_or_module.name} is loaded already; use it as it is, or load its .module anew."
        )
    if not isinstance(name_or_module, str):
        module = unwrap(name_or_module)
        name = name or type(module).__name__
        if timm_kwargs:
            raise InputError(f"a module takes no {', '.join(timm_kwargs)}")
    else:
        module = build(name_or_module, weights, input_shape, timm_kwargs)
        name = name or name_or_module
    fitted = Fitted()
    if weights not in (None, "pretrained"):
        fitted = load_weights(module, Path(str(weights)), name)
    module.eval()
    config = configuration(module)
    shape = input_shape or config.get("input_size")
    if shape is None:
        raise InputError(
            f"{name} does not say its image size; give input_shape=(3, height, width), on the "
            "command line --input-shape 3,height,width."
        )
    shape = tuple(shape)
    found = split(module, name, shape, granularity, overrides)
    net = Network(
        module,
        name=name,
        layers=found.layers,
        pieces=found.pieces,
        input_shape=shape,
        transform=transform_for(
            config,
            shape,
            {
                "mean": mean,
                "std": std,
                "crop": crop,
                "resize": resize,
                "interpolation": interpolation,
            },
        ),
        block_layers=found.block_layers,
        notes=(*fitted.notes, *found.notes),
        pick=found.pick,
    )
    check_unset(fitted, net.parameters_between(0, -1), weights, name)
    return net

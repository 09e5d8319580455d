"""A network as an ordered list of layers: the spine that everything else stands on.

A layer is a *place*: its index says where in the list, its shape is that of the activation that
enters it. Place 0 is the image; the last but one is the last feature map or token sequence, which
enters the final norm or pooling; the last is the classifier's input.

    net = load("vit_base_patch16_224")
    z = net.run(x, stop=5)          # the activation that enters layer 5
    y = net.run(z, start=5)         # the rest; equal to net(x)
"""

from __future__ import annotations

import copy
import difflib
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from aptheory.checkpoint import load_weights
from aptheory.errors import InputError
from aptheory.layer import Layer
from aptheory.pieces import Piece
from aptheory.split import split, structural_copy

__all__ = ["Layer", "Network", "load"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(nn.Module):
    """A frozen-structure view of a model: its layers, and a way to run between any two of them.

    Built by `load`. ``module`` is the model itself, untouched; ``net(x)`` is ``module(x)``.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        layers: Sequence[Layer],
        pieces: Sequence[Piece],
        input_shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str,
        block_layers: Sequence[int],
    ):
        super().__init__()
        self.module = module
        self.training = module.training
        self.name = name
        self.layers = tuple(layers)
        self.pieces = tuple(pieces)
        self.input_shape = input_shape
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.interpolation = interpolation
        self.block_layers = tuple(block_layers)
        self._digest: str | None = None

    # ------------------------------------------------------------------------------ running

    def run(self, x: Tensor, *, start: int = 0, stop: int | None = None) -> Tensor:
        """Run from the activation that enters place ``start`` to the one that enters ``stop``.

        ``stop=None`` goes through the model's own classifier and returns logits (B, classes).
        ``x`` is never written to. Negative places count from the end.
        """
        count = len(self.layers)
        start = self._place(start)
        stop = count if stop is None else self._place(stop)
        if start > stop:
            raise InputError(f"cannot run backwards, from layer {start} to layer {stop}")
        if start == 0:
            self._check_image(x)
        for piece in self.pieces[start:stop]:
            if piece.writes_input:
                x = x.clone()
            x = piece(self.module, x)
        return x

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """What the model's own forward gives, bit for bit."""
        self._check_image(x)
        if self.pieces[0].writes_input:
            x = x.clone()
        return self.module(x)

    def _place(self, layer: int) -> int:
        count = len(self.layers)
        if not -count <= layer < count:
            raise InputError(f"{self.name} has layers 0 to {count - 1}, not {layer}")
        return layer % count

    def _check_image(self, x: Tensor) -> None:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise InputError(
                f"{self.name} takes images of (batch, {', '.join(map(str, self.input_shape))}), "
                f"not {tuple(x.shape)}; resize them, or load it with input_shape="
            )

    def normalize(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Pixels of 0 to 255 as the network wants them: (pixel / 255 - mean) / std, float32."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images.float() / 255 - mean) / std

    # ---------------------------------------------------------------------------- structure

    @property
    def num_features(self) -> int:
        """Width of the classifier's input."""
        return self.layers[-1].channels

    @property
    def digest(self) -> str:
        """sha256 over the name, the places and the weights: what identifies this network's maps."""
        if self._digest is None:
            found = hashlib.sha256(repr((self.name, self.layers)).encode())
            for key, value in sorted(self.module.state_dict().items()):
                found.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
                raw = value.detach().cpu().contiguous().flatten()
                found.update(raw.view(torch.uint8).numpy().data if raw.numel() else b"")
            self._digest = found.hexdigest()
        return self._digest

    def share(self) -> Network:
        """A structural copy in eval mode, its frozen parameters aliases of these weights.

        Costs no memory but the modules themselves and the buffers (BatchNorm statistics are
        copied, so that training the copy cannot change them here).
        """
        twin = copy.copy(self)
        twin.__dict__ = {**self.__dict__, "_modules": {}}
        twin.module = structural_copy(self.module)
        return twin.eval()

    def replace(self, name: str, new: nn.Module) -> nn.Module:
        """Put ``new`` where the module of that dotted name is; returns the one that was there.

        Felt by ``run`` and by ``forward``. A module that spans several layers cannot be replaced.
        """
        old = self._module(name)
        if not any(name in self._executed(piece) for piece in self.pieces):
            raise InputError(
                f"{name} of {self.name} spans several layers or never runs: replace its parts"
            )
        parent, _, last = name.rpartition(".")
        setattr(self.module.get_submodule(parent), last, new)
        self._digest = None
        return old

    def _module(self, name: str) -> nn.Module:
        try:
            return self.module.get_submodule(name)
        except AttributeError:
            names = [n for n, _ in self.module.named_modules()]
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"; near ones are {', '.join(near)}" if near else ""
            raise InputError(f"{self.name} has no module {name}{hint}") from None

    def modules_between(self, start: int = 0, stop: int | None = None) -> tuple[str, ...]:
        """Dotted names of the modules that run between two places, in the order in which they run.

        A module stands before its own parts. Modules that span several places are not among them.
        """
        start = self._place(start)
        stop = len(self.layers) if stop is None else self._place(stop)
        names = [name for piece in self.pieces[start:stop] for name in self._executed(piece)]
        return tuple(dict.fromkeys(names))

    def _executed(self, piece: Piece) -> tuple[str, ...]:
        return tuple(
            f"{leaf}.{name}" if name else leaf
            for leaf in dict.fromkeys(piece.modules)
            for name, _ in self.module.get_submodule(leaf).named_modules()
        )

    def parameters_between(self, start: int = 0, stop: int | None = None) -> tuple[str, ...]:
        """Names of the parameters that are used between two places."""
        start = self._place(start)
        stop = len(self.layers) if stop is None else self._place(stop)
        known = dict(self.module.named_parameters(remove_duplicate=False))
        found = []
        for piece in self.pieces[start:stop]:
            found += [name for name in piece.attributes if name in known]
            for leaf in piece.modules:
                found += [name for name in known if name.startswith(leaf + ".")]
        return tuple(dict.fromkeys(found))

    def layer_of(self, module_name: str) -> int:
        """The largest place after which the whole module runs."""
        self._module(module_name)
        inside = module_name + "."
        for i, piece in enumerate(self.pieces):
            if any(n == module_name or n.startswith(inside) for n in self._executed(piece)):
                return i
        raise InputError(f"{module_name} of {self.name} never runs")

    # ----------------------------------------------------------------------------- printing

    def __repr__(self) -> str:
        rows = self.table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([f"{self.name}: {len(self.layers)} layers", *(s.rstrip() for s in lines)])

    def _repr_html_(self) -> str:
        head, *rows = self.table()
        top = "".join(f"<th>{escape(c)}</th>" for c in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows
        )
        return f"<b>{escape(self.name)}</b><table><tr>{top}</tr>{body}</table>"

    def table(self) -> list[tuple[str, ...]]:
        """One row a layer, below a row of titles."""
        rows: list[tuple[str, ...]] = [
            ("layer", "name", "shape", "layout", "prefix", "grid", "parameters")
        ]
        sizes = dict(self.module.named_parameters(remove_duplicate=False))
        for layer in self.layers:
            stop = layer.index + 1 if layer.index + 1 < len(self.layers) else None
            used = {id(sizes[n]): sizes[n] for n in self.parameters_between(layer.index, stop)}
            rows.append(
                (
                    str(layer.index),
                    layer.name,
                    " x ".join(map(str, layer.shape)),
                    layer.layout,
                    str(layer.prefix) if layer.layout == "tokens" else "",
                    " x ".join(map(str, layer.grid)) if layer.grid else "",
                    f"{sum(p.numel() for p in used.values()):,}",
                )
            )
        return rows


# ----------------------------------------------------------------------------------- loading


def load(
    name_or_module: str | nn.Module,
    weights: str | Path | None = "pretrained",
    *,
    granularity: str = "block",
    input_shape: tuple[int, int, int] | None = None,
    name: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    **timm_kwargs: Any,
) -> Network:
    """Any timm model, or any module that torch.fx can trace, as a list of layers, in eval mode.

    Args:
        name_or_module: a timm model name, or a module. Its ``weights`` are kept unless a file is
            given.
        weights: ``"pretrained"`` (timm's own), ``None`` (random) or a safetensors or state-dict
            file, read without executing anything.
        granularity: ``"block"``: every residual or transformer block is a layer; ``"stage"``:
            blocks that keep the activation's shape are merged.
        input_shape: (channels, height, width) of the image, where it is not the model's own.
        name: how to call it, in tables and in the digest.
        mean, std, interpolation: preprocessing, where it is not the model's own.
        timm_kwargs: further arguments of ``timm.create_model``.

    Raises:
        InputError: unknown name, unusable weights, or a model that cannot be split.
    """
    if granularity not in ("block", "stage"):
        raise InputError(f"granularity must be 'block' or 'stage', not {granularity!r}")
    if input_shape is not None and not (
        len(input_shape) == 3 and all(isinstance(n, int) and n > 0 for n in input_shape)
    ):
        raise InputError(
            f"input_shape must be (channels, height, width) of the image, not {input_shape!r}"
        )
    if isinstance(name_or_module, nn.Module):
        module, name = name_or_module, name or type(name_or_module).__name__
        if timm_kwargs:
            raise InputError(f"a module takes no {', '.join(timm_kwargs)}")
        if weights not in (None, "pretrained"):
            load_weights(module, Path(str(weights)), name)
    else:
        module = _create(name_or_module, weights, input_shape, timm_kwargs)
        name = name or name_or_module
    module.eval()
    config = _data_config(module)
    shape = input_shape or config.get("input_size")
    if shape is None:
        raise InputError(f"{name} does not say its image size: give input_shape=(3, height, width)")
    shape = tuple(shape)
    found = split(module, name, shape, granularity)
    return Network(
        module,
        name=name,
        layers=found.layers,
        pieces=found.pieces,
        input_shape=shape,
        mean=_per_channel(mean or config.get("mean") or IMAGENET_MEAN, shape[0]),
        std=_per_channel(std or config.get("std") or IMAGENET_STD, shape[0]),
        interpolation=interpolation or config.get("interpolation") or "bilinear",
        block_layers=found.block_layers,
    )


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value a channel; their mean for images of another number of channels."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels


def _data_config(module: nn.Module) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    if not getattr(module, "pretrained_cfg", None):
        return {}
    return resolve_model_data_config(module)


def _create(
    name: str, weights: str | Path | None, input_shape: tuple | None, kwargs: dict[str, Any]
) -> nn.Module:
    import timm

    import aptheory.zoo  # noqa: F401  (registers our own networks)

    known = name.split(".")[0]
    if not timm.is_model(known):
        near = difflib.get_close_matches(known, timm.list_models(), n=5)
        hint = f"near ones are {', '.join(near)}" if near else "see timm.list_models()"
        raise InputError(f"timm has no model {name!r}: {hint}")
    if weights == "pretrained":
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise InputError(
                f"timm has no pretrained weights of {name}: give a file with weights=PATH, or "
                "weights=None for random ones"
            )
    if input_shape is not None:
        kwargs = {"in_chans": input_shape[0], "img_size": tuple(input_shape[1:]), **kwargs}
    try:
        try:
            module = timm.create_model(name, pretrained=weights == "pretrained", **kwargs)
        except TypeError as error:
            if input_shape is None or "img_size" not in str(error):
                raise
            del kwargs["img_size"]  # convolutional networks take any size
            module = timm.create_model(name, pretrained=weights == "pretrained", **kwargs)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if weights == "pretrained" and not isinstance(error, (TypeError, AssertionError)):
            raise InputError(
                f"timm's pretrained weights of {name} cannot be had ({reason}): give a file with "
                "weights=PATH, or weights=None for random ones"
            ) from error
        raise InputError(
            f"timm cannot build {name} with {kwargs or 'its own settings'} ({reason}): "
            "change these arguments"
        ) from error
    if weights not in (None, "pretrained"):
        load_weights(module, Path(str(weights)), name)
    return module

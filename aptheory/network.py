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
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, fx, nn

from aptheory import graph
from aptheory.errors import InputError

__all__ = ["Layer", "Network", "load"]


@dataclass(frozen=True)
class Layer:
    """A place in a network, and how to read the activation that enters it.

    ``shape`` leaves the batch out. ``layout`` says which axes are which: ``map`` is (C, H, W),
    ``map_last`` (H, W, C), ``tokens`` (N, D) with ``prefix`` class, distillation or register
    tokens in front, ``vector`` (D,). ``grid`` is (h, w) of the spatial positions.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    layout: Literal["map", "map_last", "tokens", "vector"]
    prefix: int = 0
    grid: tuple[int, int] | None = None

    @property
    def channels(self) -> int:
        """How many numbers describe one position."""
        return self.shape[0] if self.layout == "map" else self.shape[-1]

    def positions(self, z: Tensor) -> Float[Tensor, "batch positions channels"]:
        """The spatial positions of an activation, one row each; prefix tokens are left out.

        A vector is one position.
        """
        if self.layout == "vector":
            return z.flatten(1)[:, None]
        if self.layout == "map":
            return z.flatten(2).transpose(1, 2)
        if self.layout == "map_last":
            return z.flatten(1, -2)
        return z[:, self.prefix :]

    def pooled(self, z: Tensor, how: Literal["mean", "class", "all"] = "mean") -> Tensor:
        """One vector an image: (B, D), or (B, positions * D) for ``all``.

        ``mean`` averages the spatial positions, ``class`` takes the first prefix token (the mean
        where there is none), ``all`` puts all spatial positions in a row.
        """
        if how == "class" and self.prefix:
            return z[:, 0]
        if how == "all":
            return self.positions(z).flatten(1)
        if how not in ("mean", "class"):
            raise InputError(f"pooling must be mean, class or all, not {how!r}")
        return self.positions(z).mean(1)


class Network(nn.Module):
    """A frozen-structure view of a model: its layers, and a way to run between any two of them.

    Built by :func:`load`. ``module`` is the model itself, untouched; ``net(x)`` is ``module(x)``.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        layers: Sequence[Layer],
        pieces: Sequence[graph.Piece],
        input_shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str,
        block_layers: Sequence[int],
        executed: Sequence[Sequence[str]],
    ):
        super().__init__()
        self.module = module
        self.name = name
        self.layers = tuple(layers)
        self.pieces = tuple(pieces)
        self.input_shape = input_shape
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.interpolation = interpolation
        self.block_layers = tuple(block_layers)
        self._executed = tuple(tuple(names) for names in executed)
        self._digest: str | None = None

    # ------------------------------------------------------------------------------ running

    def run(self, x: Tensor, *, start: int = 0, stop: int | None = None) -> Tensor:
        """Run from the activation ``x`` that enters place ``start`` to the one that enters ``stop``.

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
        return self.layers[-1].shape[0]

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
        known: dict[int, Any] = {
            id(p): nn.Parameter(p.detach(), requires_grad=False) for p in self.module.parameters()
        }
        twin = copy.copy(self)
        twin.__dict__ = {**self.__dict__, "_modules": {}}
        twin.module = copy.deepcopy(self.module, known)
        return twin.eval()

    def replace(self, name: str, new: nn.Module) -> nn.Module:
        """Put ``new`` where the module of that dotted name is; returns the one that was there.

        Felt by ``run`` and by ``forward``. A module that spans several layers cannot be replaced.
        """
        old = self._module(name)
        spans = [i for i, names in enumerate(self._executed) if name in names]
        if not spans:
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
        names = [n for executed in self._executed[start:stop] for n in executed]
        return tuple(dict.fromkeys(names))

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
        for i, names in enumerate(self._executed):
            if any(n == module_name or n.startswith(inside) for n in names):
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
        """One row a layer, the first row the titles: index, name, shape, layout, grid, parameters."""
        rows = [("layer", "name", "shape", "layout", "prefix", "grid", "parameters")]
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
    granularity: Literal["block", "stage"] = "block",
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
    if isinstance(name_or_module, nn.Module):
        module, name = name_or_module, name or type(name_or_module).__name__
        if timm_kwargs:
            raise InputError(f"a module takes no {', '.join(timm_kwargs)}")
        if weights not in (None, "pretrained"):
            _load_weights(module, Path(str(weights)), name)
    else:
        module = _create(name_or_module, weights, input_shape, timm_kwargs)
        name = name or name_or_module
    module.eval()
    config = _data_config(module)
    shape = input_shape or config.get("input_size")
    if shape is None:
        raise InputError(f"{name} does not say its image size: give input_shape=(3, height, width)")
    return _split(
        module,
        name=name,
        granularity=granularity,
        input_shape=tuple(shape),
        mean=tuple(mean or config.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(std or config.get("std") or (0.229, 0.224, 0.225)),
        interpolation=interpolation or config.get("interpolation") or "bilinear",
    )


def _data_config(module: nn.Module) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    if not getattr(module, "pretrained_cfg", None):
        return {}
    return resolve_model_data_config(module)


def _create(
    name: str, weights: str | Path | None, input_shape: tuple | None, kwargs: dict[str, Any]
) -> nn.Module:
    import timm

    try:
        import aptheory.zoo  # noqa: F401  (registers our own networks)
    except ModuleNotFoundError as error:
        if error.name != "aptheory.zoo":
            raise
    known = name.split(".")[0]
    if not timm.is_model(known):
        near = difflib.get_close_matches(known, timm.list_models(), n=5)
        hint = f"near ones are {', '.join(near)}" if near else "see timm.list_models()"
        raise InputError(f"timm has no model {name!r}: {hint}")
    if input_shape is not None:
        channels, height, width = input_shape
        kwargs = {**kwargs, "in_chans": channels}
        if "img_size" not in kwargs:
            try:
                return _create_with({**kwargs, "img_size": (height, width)}, name, weights)
            except TypeError:  # convolutional networks have no img_size
                pass
    return _create_with(kwargs, name, weights)


def _create_with(kwargs: dict[str, Any], name: str, weights: str | Path | None) -> nn.Module:
    import timm

    if weights != "pretrained":
        module = timm.create_model(name, pretrained=False, **kwargs)
        if weights is not None:
            _load_weights(module, Path(weights), name)
        return module
    try:
        return timm.create_model(name, pretrained=True, **kwargs)
    except TypeError:
        raise
    except Exception as error:
        raise InputError(
            f"timm's pretrained weights of {name} cannot be had ({(str(error) or type(error).__name__).splitlines()[0]}); "
            "give a file with weights=PATH, or weights=None for random ones"
        ) from error


def _load_weights(module: nn.Module, path: Path, name: str) -> None:
    from aptheory.checkpoint import load_weights

    load_weights(module, path, name)


# ---------------------------------------------------------------------------------- splitting


def _classifier_name(module: nn.Module) -> str | None:
    found = module.get_classifier() if hasattr(module, "get_classifier") else None
    if isinstance(found, nn.Module):
        for name, child in module.named_modules():
            if child is found:
                return name
        return None
    linear = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    return linear[-1] if linear and found is None else None


def _split(module: nn.Module, *, name: str, granularity: str, **about: Any) -> Network:
    parameter = next(module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    kind = {"device": parameter.device, "dtype": parameter.dtype}
    images = torch.randn(3, *about["input_shape"], generator=generator).to(**kind)
    try:
        classifier = _classifier_name(module)
        traced, opened = graph.find_leaves(module, images[:2], classifier)
        other = graph.interpret(module, traced, images)
        places, blocks = _choose(module, traced, classifier, granularity)
        pieces = [
            graph.build_piece(traced, other, start, stop)
            for start, stop in zip(
                [p.node for p in places],
                [*[p.node for p in places[1:]], traced.result],
                strict=True,
            )
        ]
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{name} cannot be split into layers: {reason[0] if reason else type(error).__name__}"
        ) from error
    layers = _describe(module, [p.name for p in places], [traced.values[p.node] for p in places])
    net = Network(
        module,
        name=name,
        layers=layers,
        pieces=pieces,
        block_layers=blocks,
        executed=[_executed(module, piece) for piece in pieces],
        **about,
    )
    _verify(net, images)
    return net


@dataclass
class _Cut:
    node: fx.Node
    name: str


def _choose(
    module: nn.Module, traced: graph.Trace, classifier: str | None, granularity: str
) -> tuple[list[_Cut], list[int]]:
    """Choose among the possible cuts: image, one a block, the final norm or pooling, the head."""
    cuts = traced.cuts()
    values = traced.values
    if not cuts or cuts[0] is not traced.image:
        raise graph.SplitError("no cut follows the image")
    position = {node: i for i, node in enumerate(traced.nodes)}
    head = None  # index in `cuts` of the classifier's input
    if classifier is not None:
        calls = [n for n in traced.nodes if n.op == "call_module" and n.target == classifier]
        if calls:
            head = max(i for i, c in enumerate(cuts) if position[c] < position[calls[0]])
    if head is None:
        head = max(i for i, c in enumerate(cuts))
    if cuts[head] is not traced.result and cuts[-1] is traced.result:
        cuts = cuts[:-1]
    cuts = cuts[: head + 1]

    def leaves(i: int) -> list[fx.Node]:
        stop = position[cuts[i + 1]] if i + 1 < len(cuts) else len(traced.nodes) - 1
        return [n for n in traced.nodes[position[cuts[i]] + 1 : stop + 1] if n.op == "call_module"]

    def weight(i: int) -> int:
        return max([graph.weights_in(module.get_submodule(n.target)) for n in leaves(i)], default=0)

    def spatial(i: int) -> bool:
        shape = values[cuts[i]].shape
        return len(shape) > 2 and not (len(shape) == 4 and shape[2] == shape[3] == 1)

    inner = range(head)  # segment i runs from cut i to cut i + 1
    blocks = [i for i in inner if weight(i) >= 2 and spatial(i + 1) and i > 0]
    if len(blocks) < 4:
        blocks = [i for i in inner if weight(i) >= 1 and spatial(i + 1) and i > 0]
    if not blocks:
        raise graph.SplitError("no single activation is found between the image and the classifier")
    chosen = [0]
    block_cuts = []
    previous = None
    for i in blocks:
        at = i
        if previous is not None:  # what lies between two blocks belongs to the later one
            at = previous + 1
            while (
                at < i and not weight(at) and values[cuts[at]].shape == values[cuts[at + 1]].shape
            ):
                at += 1  # but a norm or an activation belongs to the earlier one
        chosen.append(at)
        block_cuts.append(at)
        previous = i
    last = max(
        i for i in inner if i >= blocks[-1] and (i == blocks[-1] or weight(i) and spatial(i + 1))
    )
    if last > blocks[-1]:
        chosen.append(blocks[-1] + 1)
        block_cuts.append(blocks[-1] + 1)
    if last + 1 < head:
        chosen.append(last + 1)
    if granularity == "stage":
        kept = [chosen[0]]
        for here, after in zip(chosen[1:], [*chosen[2:], head], strict=True):
            changes = values[cuts[here]].shape != values[cuts[after]].shape
            if here == chosen[1] or here not in block_cuts or changes:
                kept.append(here)
        chosen = kept
    chosen.append(head)
    chosen = list(dict.fromkeys(chosen))

    def label(i: int) -> str:
        if i == 0:
            return "image"
        if i == head:
            return classifier or "head"
        for j in range(i, head):
            if leaves(j):
                return str(leaves(j)[0].target)
        return "pool"

    found = [_Cut(cuts[i], label(i)) for i in chosen]
    return found, [k for k, i in enumerate(chosen) if i in block_cuts and i != head]


def _describe(module: nn.Module, names: list[str], values: list[Tensor]) -> list[Layer]:
    image = values[0].shape[1:]
    ratio = image[1] / image[2]
    declared = getattr(module, "output_fmt", None)
    declared_last = str(getattr(declared, "value", declared)) == "NHWC"
    layers = []
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        shape = tuple(value.shape[1:])
        layout: Literal["map", "map_last", "tokens", "vector"]
        prefix, grid = 0, None
        if len(shape) == 1:
            layout = "vector"
        elif len(shape) == 2:
            layout = "tokens"
            prefix, grid = _token_grid(shape[0], getattr(module, "num_prefix_tokens", 0), image)
        else:
            first = math.isclose(shape[1] / shape[2], ratio, rel_tol=0.2)
            last = math.isclose(shape[0] / shape[1], ratio, rel_tol=0.2)
            is_last = index > 0 and ((last and not first) or (last and first and declared_last))
            layout = "map_last" if is_last else "map"
            grid = (shape[0], shape[1]) if is_last else (shape[1], shape[2])
        layers.append(Layer(index, name, shape, layout, prefix, grid))
    return layers


def _token_grid(count: int, declared: int, image: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """How many prefix tokens, and the grid of the others, told from the image's own proportions."""
    for prefix in dict.fromkeys((declared, 0, 1, 2, 5)):
        spatial = count - prefix
        if spatial <= 0:
            continue
        height = round(math.sqrt(spatial * image[1] / image[2]))
        if height and spatial % height == 0:
            width = spatial // height
            if math.isclose(height / width, image[1] / image[2], rel_tol=0.2):
                return prefix, (height, width)
    return 0, (1, count)


def _executed(module: nn.Module, piece: graph.Piece) -> list[str]:
    names = []
    for leaf in piece.modules:
        names += [
            f"{leaf}.{n}" if n else leaf for n, _ in module.get_submodule(leaf).named_modules()
        ]
    return list(dict.fromkeys(names))


def _verify(net: Network, images: Tensor) -> None:
    """Run piece by piece beside the model itself; refuse on the smallest difference."""
    with torch.no_grad():
        expected = net.module(images)
        x = images
        for i, piece in enumerate(net.pieces):
            kept = x.clone()
            y = piece(net.module, x)
            if not torch.equal(kept, x):
                piece.writes_input = True
            shape = tuple(y.shape[1:])
            if i + 1 < len(net.layers) and shape != net.layers[i + 1].shape:
                raise InputError(
                    f"{net.name} cannot be split: {net.layers[i + 1].name} has no fixed shape"
                )
            x = y
        if x.shape != expected.shape or not torch.equal(x, expected):
            raise InputError(
                f"{net.name} cannot be split into layers: its pieces do not give what its forward gives"
            )

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

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from aptheory.errors import InputError
from aptheory.networks.layer import Layer
from aptheory.networks.pieces import Piece
from aptheory.networks.split import structural_copy

__all__ = ["Layer", "Network"]


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

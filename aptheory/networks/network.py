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
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.arguments import checked_arguments
from aptheory.checked import shown
from aptheory.devices import device_of
from aptheory.errors import InputError, reason_of
from aptheory.networks.copying import structural_copy
from aptheory.networks.display import as_html, as_text, table
from aptheory.networks.doors import (
    check_evaluating,
    check_image,
    check_pixels,
    check_weights,
    explain,
)
from aptheory.networks.layer import Layer
from aptheory.networks.outputs import Pick
from aptheory.networks.pieces import Piece
from aptheory.preprocessing import Transform

__all__ = ["Layer", "Network", "Place", "Places"]

Place = int | float | str | Layer
"""What may name a place: see `Network.place`."""
Places = Place | Sequence[Place]
"""What may name several: see `Network.places`."""
_NO_WEIGHTS = torch.empty(0)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Network(nn.Module):
    """A frozen-structure view of a model: its layers, and a way to run between any two of them.

    Built by `load`. ``module`` is the model itself, untouched; ``net(x)`` is ``module(x)``, or the
    one tensor that is taken out of it.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        layers: Sequence[Layer],
        pieces: Sequence[Piece],
        input_shape: tuple[int, int, int],
        transform: Transform,
        block_layers: Sequence[int],
        notes: Sequence[str] = (),
        pick: Pick | None = None,
    ):
        super().__init__()
        self.module = module
        self.training = module.training
        self.name = name
        self.layers = tuple(layers)
        self.pieces = tuple(pieces)
        self.input_shape = input_shape
        self.transform = transform
        self.block_layers = tuple(block_layers)
        self.notes = tuple(notes)
        self.pick = pick or Pick()
        self._digest_before_cast: str | None = None
        self._until: dict[int, Network] = {}
        self.source: dict[str, Any] = {}
        """The entry of ``Study.networks`` that loads it again; empty where Python made it."""

    @property
    def mean(self) -> tuple[float, ...]:
        return self.transform.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.transform.std

    @property
    def interpolation(self) -> str:
        return self.transform.interpolation

    # ------------------------------------------------------------------------------ running

    def run(self, x: Tensor, *, start: Place = 0, stop: Place | None = None) -> Tensor:
        """Run from the activation that enters place ``start`` to the one that enters ``stop``.

        ``stop=None`` goes through the model's own classifier and returns logits (B, classes).
        ``x`` is never written to. Negative places count from the end.
        """
        count = len(self.layers)
        start = self.place(start).index
        stop = count if stop is None else self.place(stop).index
        if start > stop:
            raise InputError(f"cannot run backwards, from layer {start} to layer {stop}")
        if start == 0:
            check_image(x, self.name, self.input_shape)
        given = x
        try:
            for piece in self.pieces[start:stop]:
                if piece.writes_input:
                    x = x.clone()
                x = piece(self.module, x)
        except RuntimeError as error:
            explain(error, given, self.layers[start], self.name, self._like)
            raise
        return x

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """What the model's own forward gives, bit for bit; always with the batch axis."""
        if self.is_cut:
            return self.run(x)
        check_image(x, self.name, self.input_shape)
        given = x
        if self.pieces[0].writes_input:
            x = x.clone()
        try:
            y = self.pick(self.module(x))
        except RuntimeError as error:
            explain(error, given, self.layers[0], self.name, self._like)
            raise
        return y[None] if len(x) == 1 and y.shape[:1] != (1,) else y

    def walk(
        self,
        z: Tensor,
        *,
        start: Place = 0,
        stops: Iterable[Place],
        edit: Callable[[Layer, Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[Layer, Tensor]]:
        """Run on from ``start`` to each of ``stops`` in turn: (the place, what enters it).

        ``edit`` may change what enters a place, as a prompt does; the walk goes on from there.
        What came before is released before the next piece runs.
        """
        here = self.place(start).index
        for stop in stops:
            layer = self.place(stop)
            z = self.run(z, start=here, stop=layer.index)
            here = layer.index
            if edit is not None:
                z = edit(layer, z)
            yield layer, z

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `torch.nn.Module.to`; "auto" is a GPU where there is one.

        Raises:
            InputError: a device that this machine lacks, or what is no device or type of numbers.
        """
        named = str | torch.device
        places: list[Any] = [
            device_of(str(value)) if isinstance(value, named) else value for value in args
        ]
        if isinstance(kwargs.get("device"), named):
            kwargs["device"] = device_of(str(kwargs["device"]))
        try:
            return super().to(*places, **kwargs)
        except TypeError as error:
            raise InputError(
                f"{self.name} cannot go to {', '.join(map(shown, [*args, *kwargs.values()]))}; "
                "give a device, or a floating-point type."
            ) from error

    def cuda(self, device: int | str | torch.device | None = None) -> Self:
        """As `torch.nn.Module.cuda`; refuses a GPU that is not there, as `to` does."""
        return self.to(f"cuda:{device}" if isinstance(device, int) else device or "cuda")

    # ------------------------------------------------------------------------------- places

    @property
    def device(self) -> torch.device:
        """Where the weights lie; the CPU for a network without any."""
        return self._like.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; float32 for a network without any."""
        return self._like.dtype

    @property
    def _like(self) -> Tensor:
        return next((p for p in self.module.parameters() if p.is_floating_point()), _NO_WEIGHTS)

    def place(self, layer: Place) -> Layer:
        """The place that ``layer`` means: the one resolver of the package.

        An index (negative counts from the end), a place's name, or a fraction of the depth from
        0.0, the image, to 1.0, the classifier's input. Text that is no name may say a number, as
        on the command line.

        Raises:
            InputError: there is no such place.
        """
        last = len(self.layers) - 1
        if isinstance(layer, Layer):
            layer = layer.index
        if isinstance(layer, str):
            named = next((known for known in self.layers if known.name == layer), None)
            if named is not None:
                return named
            layer = _number(layer)
        if isinstance(layer, float) and 0 <= layer <= 1:
            return self.layers[round(layer * last)]
        whole = isinstance(layer, Integral) and not isinstance(layer, bool)
        if whole and -last - 1 <= int(layer) <= last:
            return self.layers[int(layer)]
        names = [known.name for known in self.layers]
        near = difflib.get_close_matches(str(layer), names, n=3)
        hint = f"; near ones are {', '.join(near)}" if near else ""
        raise InputError(
            f"{self.name} has no place {shown(layer)}{hint}: give an index from 0 to {last}, a "
            f"negative one, a fraction from 0.0 to 1.0, or a name such as {names[-2]!r}."
        )

    def places(self, layers: Places = "all") -> tuple[Layer, ...]:
        """The places meant by ``"all"``, ``"blocks"``, one place or several, in order, each once.

        Raises:
            InputError: there is no such place, or none is given.
        """
        if isinstance(layers, str) and layers == "all":
            return self.layers
        if isinstance(layers, str) and layers == "blocks":
            return tuple(self.layers[index] for index in self.block_layers)
        if isinstance(layers, str | int | float | Layer):
            layers = (layers,)
        several = [self.place(layer) for layer in layers]
        if not several:
            raise InputError(f'no place of {self.name} is given: name some, or "all" or "blocks".')
        return tuple(self.layers[index] for index in sorted({layer.index for layer in several}))

    def normalize(self, images: Any) -> Float[Tensor, "batch channels height width"]:
        """Pixels of 0 to 255, (batch, channels, height, width), as the network wants them.

        That is (pixel / 255 - mean) / std, in float32, or float64 for a network of that precision.

        Raises:
            InputError: anything but a tensor of as many channels as the network's images have.
        """
        check_pixels(images, self.name, self.input_shape[0])
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        found = (images.float() / 255 - mean) / std
        return found.double() if self.dtype == torch.float64 else found

    # ---------------------------------------------------------------------------- structure

    @property
    def num_features(self) -> int:
        """Width of the classifier's input."""
        return self.layers[-1].channels

    @property
    def digest(self) -> str:
        """sha256 over the name, the places and the weights: what identifies this network's maps.

        Taken anew each time, as weights may be changed in place.
        """
        if self._digest_before_cast is not None:
            return self._digest_before_cast
        found = hashlib.sha256(repr((self.name, self.layers)).encode())
        for key, value in sorted(self.module.state_dict().items()):
            found.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
            raw = value.detach().cpu().contiguous().flatten()
            found.update(raw.view(torch.uint8).numpy().data if raw.numel() else b"")
        return found.hexdigest()

    def share(self) -> Network:
        """A structural copy in eval mode, its frozen parameters aliases of these weights.

        Costs no memory but the modules themselves and the buffers (BatchNorm statistics are
        copied, so that training the copy cannot change them here).
        """
        twin = copy.copy(self)
        twin.__dict__ = {**self.__dict__, "_modules": {}, "_until": {}}
        twin.module = structural_copy(self.module)
        return twin.eval()

    def in_float32(self) -> Network:
        """This network; of half precision a copy whose weights are cast up, which is exact.

        What learns beside it is then float32 too, and its digest stays that of the weights.

        Raises:
            InputError: its forward casts to half precision by itself.
        """
        if self.dtype not in (torch.float16, torch.bfloat16):
            return self
        twin = self.share()
        twin._digest_before_cast = self.digest
        twin = twin.float()
        try:
            with torch.no_grad():
                twin.run(torch.zeros(1, *self.input_shape, device=self.device))
        except RuntimeError as error:
            reason = reason_of(error)
            raise InputError(
                f"{self.name} has weights of {str(self.dtype).removeprefix('torch.')} and does not "
                f"run when they are float32, in which what is learned beside them learns ({reason})"
                ": give it without casts of its own."
            ) from error
        return twin

    def until(self, place: Place) -> Network:
        """This network up to a place: the same weights, and nothing behind the place exists.

        Places keep their index and name. ``net(x)`` and ``run(x)`` give what enters the last one.
        """
        last = self.place(place).index
        if last == len(self.layers) - 1:
            return self
        if last not in self._until:
            view = copy.copy(self)
            view.__dict__ = {**self.__dict__, "_modules": dict(self._modules), "_until": {}}
            view.layers = self.layers[: last + 1]
            view.pieces = self.pieces[:last]
            view.block_layers = tuple(index for index in self.block_layers if index < last)
            self._until[last] = view
        return self._until[last]

    @property
    def is_cut(self) -> bool:
        """Whether this is the front part of a network: see `until`."""
        return len(self.pieces) < len(self.layers)

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
        return old

    def check_ready(self) -> None:
        """Refuse a network that has been changed since it was loaded so that results were wrong.

        Raises:
            InputError: it is in training mode or on the meta device, a module is gone or gives
                another shape, or a hook was put on a module whose parts run here one by one, so
                that it would not be called.
        """
        check_evaluating(self.module, self.name)
        check_weights(self.module, self.name)
        executed = {name for piece in self.pieces for name in self._executed(piece)}
        hooked = {
            name
            for name, part in self.module.named_modules()
            if part._forward_hooks or part._forward_pre_hooks
        }
        if hooked := hooked - executed:
            name = min(hooked) or "the network itself"
            raise InputError(
                f"a hook was put on {name} of {self.name} after it was loaded, where its parts run "
                "one by one and the hook would not be called; remove it, or put it on such a part."
            )
        self._check_shapes()

    @torch.no_grad()
    def _check_shapes(self) -> None:
        x = torch.zeros(1, *self.input_shape, device=self.device, dtype=self.dtype)
        for piece, (before, layer) in zip(
            self.pieces, itertools.pairwise(self.layers), strict=False
        ):
            try:
                x = piece(self.module, x)
                given = f"gives {tuple(x.shape[1:])}"
            except Exception as error:  # whatever a module that was put there raises
                given = f"fails ({reason_of(error)})"
            if given != f"gives {layer.shape}":
                raise InputError(
                    f"{self.name} was changed since it was loaded: from place {before.index} "
                    f"({before.name}) to {layer.index} it {given} and gave {layer.shape}; load the "
                    "network anew."
                )

    def _module(self, name: str) -> nn.Module:
        if not name:
            some = next((name for name, _ in self.module.named_modules() if name), "fc")
            raise InputError(f"'' names no module of {self.name}; give one such as {some}.")
        try:
            return self.module.get_submodule(name)
        except AttributeError:
            names = [n for n, _ in self.module.named_modules() if n]
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"; near ones are {', '.join(near)}" if near else ""
            raise InputError(f"{self.name} has no module {name}{hint}") from None

    def modules_between(self, start: Place = 0, stop: Place | None = None) -> tuple[str, ...]:
        """Dotted names of the modules that run between two places, in the order in which they run.

        A module stands before its own parts. Modules that span several places are not among them.
        """
        start = self.place(start).index
        stop = len(self.layers) if stop is None else self.place(stop).index
        names = [name for piece in self.pieces[start:stop] for name in self._executed(piece)]
        return tuple(dict.fromkeys(names))

    def _leaf(self, name: str) -> nn.Module:
        """The module of that name, which a place runs."""
        try:
            return self.module.get_submodule(name)
        except AttributeError:
            raise InputError(
                f"{name} of {self.name} is gone since it was loaded, and its place runs it; load "
                "the network anew."
            ) from None

    def _executed(self, piece: Piece) -> tuple[str, ...]:
        return tuple(
            f"{leaf}.{name}" if name else leaf
            for leaf in dict.fromkeys(piece.modules)
            for name, _ in self._leaf(leaf).named_modules()
        )

    def parameters_between(self, start: Place = 0, stop: Place | None = None) -> tuple[str, ...]:
        """Names of the parameters that are used between two places."""
        start = self.place(start).index
        stop = len(self.layers) if stop is None else self.place(stop).index
        known = dict(self.module.named_parameters(remove_duplicate=False))
        found = []
        for piece in self.pieces[start:stop]:
            found += [name for name in piece.attributes if name in known]
            for leaf in piece.modules:
                found += [name for name in known if name.startswith(leaf + ".")]
        return tuple(dict.fromkeys(found))

    @checked_arguments
    def layer_of(self, module_name: str) -> int:
        """The largest place after which the whole module runs."""
        self._module(module_name)
        found = self._first_piece(module_name)
        if found is None:
            raise InputError(f"{module_name} of {self.name} never runs on the way to its output")
        return found

    @checked_arguments
    def reaches_output(self, module_name: str) -> bool:
        """Whether the module runs, and the output feels what it gives."""
        return self._first_piece(module_name) is not None

    def _first_piece(self, module_name: str) -> int | None:
        inside = module_name + "."
        for i, piece in enumerate(self.pieces):
            names = (*self._executed(piece), *piece.attributes)
            if any(n == module_name or n.startswith(inside) for n in names):
                return i
        return None

    # ----------------------------------------------------------------------------- printing

    def __repr__(self) -> str:
        return as_text(self.name, self.table(), self._remarks())

    def _repr_html_(self) -> str:
        return as_html(self.name, self.table(), self._remarks())

    def _remarks(self) -> tuple[str, ...]:
        """What images it expects, and the notes."""
        return (self.transform.note(), *self.notes)

    def table(self) -> list[tuple[str, ...]]:
        """One row a layer, below a row of titles."""
        sizes = dict(self.module.named_parameters(remove_duplicate=False))
        counts = []
        for index in range(len(self.layers)):
            stop = index + 1 if index + 1 < len(self.layers) else None
            used = {id(sizes[n]): sizes[n] for n in self.parameters_between(index, stop)}
            counts.append(sum(parameter.numel() for parameter in used.values()))
        return table(self.layers, counts)

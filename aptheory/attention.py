"""Attention that can be seen, although the fused kernel never writes it down.

timm's attention calls ``scaled_dot_product_attention``, which returns softmax(q kᵀ/√d + mask) v and
keeps the probabilities to itself; a hook on the dropout behind them sees nothing. Here the call
itself is watched, by a ``TorchFunctionMode``: it shows q, k, the mask (relative position biases and
window masks included) and the scale after the module's own norms and rotary embedding, whatever
the family. The probabilities are computed beside it and handed to a callback, one layer at a time;
the call then goes on as it was, so the output does not change by a bit. Attention that is not fused
shows its probabilities by itself, as the result of a softmax over keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aptheory.errors import InputError
from aptheory.network import Network

Callback = Callable[["AttentionLayer", Float[Tensor, "batch heads queries keys"]], None]

_FUSED = torch.nn.functional.scaled_dot_product_attention
_SOFTMAX = (torch.softmax, torch.nn.functional.softmax, Tensor.softmax)
_NAMES = ("attn", "attention", "mhsa", "mha", "token_mixer")
"""A softmax counts as attention only inside a module whose name says so."""


@dataclass(frozen=True)
class Window:
    """Windowed attention: ``count`` windows of ``size`` tokens, cut after a cyclic shift."""

    size: tuple[int, int]
    shift: tuple[int, int]
    count: int

    def coordinates(self, grid: tuple[int, int]) -> Float[Tensor, "windows tokens two"]:
        """(row, column) of every token of every window, in token units of the whole image.

        A window that wraps around keeps its tokens' true places, as the mask keeps them apart;
        tokens that pad the image to whole windows lie beyond its edge.
        """
        (height, width), (rows, columns) = grid, self.size
        padded = math.ceil(height / rows) * rows, math.ceil(width / columns) * columns
        axes = []
        for length, full, shift in zip(grid, padded, self.shift, strict=True):
            place = torch.arange(full, dtype=torch.float64)
            # Only the tokens of the image are rolled; padding follows them.
            rolled = torch.where(place < length, (place + shift) % length, place)
            axes.append(rolled)
        y, x = torch.meshgrid(*axes, indexing="ij")
        both = torch.stack([y, x], -1)
        cut = both.reshape(padded[0] // rows, rows, padded[1] // columns, columns, 2)
        return cut.permute(0, 2, 1, 3, 4).reshape(-1, rows * columns, 2)


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer of a network.

    ``name`` is its module path; ``layer`` the place whose piece contains it; ``tokens`` the number
    of keys, ``prefix`` of which are class or register tokens; ``grid`` the (rows, columns) of the
    others, or None where keys stand for no grid of the image (pooled or dilated keys); ``window``
    its geometry where it attends within windows.
    """

    name: str
    layer: int
    heads: int
    tokens: int
    grid: tuple[int, int] | None
    prefix: int = 0
    window: Window | None = None


def attention_layers(net: Network) -> tuple[AttentionLayer, ...]:
    """Every attention layer of a network, in the order in which they run.

    Found by running one blank image; a network without attention has none.
    """
    if net not in _FOUND:
        _FOUND[net] = _find(net)
    return _FOUND[net]


class observe_attention:
    """Within the context, every run of the network shows its attention probabilities.

    ``callback(layer, probabilities)`` gets one layer's at a time, (B, heads, queries, keys); in
    windowed attention (B · windows, heads, n, n), windows fastest. They are not kept here.
    Everything is taken off again on leaving, after an error too.

    Args:
        net: the network; its outputs do not change.
        callback: takes an `AttentionLayer` and its probabilities, without gradients.
        layers: names of the attention layers to show; all by default.

    Raises:
        InputError: a name that is no attention layer of this network.
    """

    def __init__(
        self, net: Network, callback: Callback, layers: Sequence[str] | None = None
    ) -> None:
        sites = {site.name: site for site in attention_layers(net)}
        for name in layers or ():
            if name not in sites:
                raise InputError(
                    f"{net.name} has no attention layer {name!r}; it has {', '.join(sites)}"
                )
        self._sites = {n: site for n, site in sites.items() if layers is None or n in layers}
        self._watch = _Watch(net.module, self._show)
        self._callback = callback

    def _show(self, name: str, probabilities: Tensor) -> None:
        site = self._sites.get(name)
        if site is not None:
            self._callback(site, probabilities)

    def __enter__(self) -> observe_attention:
        self._watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watch.__exit__(*error)


def probabilities(
    q: Float[Tensor, "*batch queries width"],
    k: Float[Tensor, "*batch keys width"],
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Float[Tensor, "*batch queries keys"]:
    """softmax(q kᵀ · scale + mask), the probabilities inside ``scaled_dot_product_attention``.

    A boolean mask is True where attention is allowed. Half-precision logits are normalised in
    float32, as the fused kernels do.
    """
    if k.shape[-3:-2] != q.shape[-3:-2] and k.ndim > 2:  # grouped queries share keys
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    logits = (q @ k.transpose(-2, -1)) * (scale if scale is not None else q.shape[-1] ** -0.5)
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        logits = logits + mask
    return logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


_FOUND: WeakKeyDictionary[Network, tuple[AttentionLayer, ...]] = WeakKeyDictionary()


class _Watch(TorchFunctionMode):
    """Calls ``show(module name, probabilities)`` for every attention inside a module."""

    def __init__(self, module: nn.Module, show: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.module, self.show = module, show
        self.inside: list[str] = []
        self.handles: list[Any] = []

    def __enter__(self) -> _Watch:
        for name, module in self.module.named_modules():
            if name and not isinstance(module, nn.Softmax):
                self.handles += [
                    module.register_forward_pre_hook(lambda *_, n=name: self.inside.append(n)),
                    module.register_forward_hook(lambda *_: self._leave(), always_call=True),
                ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self.handles:
            handle.remove()
        self.handles, self.inside = [], []

    def _leave(self) -> None:
        if self.inside:
            self.inside.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.inside:
            return result
        if func is _FUSED:
            self._show(_of_fused(*args, **kwargs))
        elif func in _SOFTMAX and isinstance(result, Tensor) and result.ndim >= 4:
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            words = self.inside[-1].lower().split(".")
            if axis in (-1, result.ndim - 1) and any(n in w for w in words for n in _NAMES):
                self._show(result.detach())
        return result

    def _show(self, found: Tensor) -> None:
        # The callback's own tensor work must not be watched.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            self.show(self.inside[-1], found)


def _of_fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    with torch._C.DisableTorchFunction(), torch.no_grad():
        return probabilities(q, k, attn_mask, scale=scale, causal=is_causal)


@torch.no_grad()
def _find(net: Network) -> tuple[AttentionLayer, ...]:
    """Run a blank image piece by piece and note who attends where."""
    first = next(iter(net.parameters()))
    x = torch.zeros(1, *net.input_shape, device=first.device, dtype=first.dtype)
    found: dict[str, AttentionLayer] = {}
    for layer in net.layers:
        seen: list[tuple[str, Tensor]] = []
        with _Watch(net.module, lambda *one, seen=seen: seen.append(one)):  # type: ignore[misc]
            x = net.run(x, start=layer.index, stop=min(layer.index + 1, len(net.layers) - 1))
        for name, p in seen:
            found.setdefault(name, _describe(net, layer.index, name, p))
        if layer.index == len(net.layers) - 2:
            break
    return tuple(found.values())


def _describe(net: Network, index: int, name: str, p: Tensor) -> AttentionLayer:
    place, queries, keys = net.layers[index], p.shape[-2], p.shape[-1]
    after = net.layers[index + 1]
    # A piece may hold its own patch merging: the grid is that of the end which fits the tokens.
    for one in (place, after):
        if one.grid is None or queries != keys or p.ndim != 4:
            continue
        if one.grid[0] * one.grid[1] + one.prefix == keys:
            return AttentionLayer(name, index, p.shape[-3], keys, one.grid, one.prefix)
        window = _window(net, name, p, one.grid)
        if window is not None:
            return AttentionLayer(name, index, p.shape[-3], keys, one.grid, 0, window)
    return AttentionLayer(name, index, p.shape[-3], keys, None)


def _window(net: Network, name: str, p: Tensor, grid: tuple[int, int]) -> Window | None:
    """The window geometry that the enclosing block declares, if it accounts for the shapes."""
    parent = net.module.get_submodule(name.rpartition(".")[0])
    size, shift = getattr(parent, "window_size", None), getattr(parent, "shift_size", (0, 0))
    if size is None:
        return None
    size = (size, size) if isinstance(size, int) else tuple(size)
    shift = (shift, shift) if isinstance(shift, int) else tuple(shift)
    count = math.ceil(grid[0] / size[0]) * math.ceil(grid[1] / size[1])
    if size[0] * size[1] != p.shape[-1] or count != p.shape[0]:
        return None
    return Window(size, shift, count)  # type: ignore[arg-type]

"""Attention that can be seen: the probabilities of every attention layer, while the network runs.

timm's attention is fused, so the probabilities never exist. While one watches, every call of
``scaled_dot_product_attention`` and every softmax over keys inside an attention module is seen:
from the q, k, mask and scale that the module itself hands over (after its own norms, rotary
embedding and biases) the probabilities are computed once more, given to a callback, and forgotten.
The module's own computation goes on as it would have, so the output does not change by a bit.

    with observe_attention(net, lambda site, probabilities: ...):
        net(x)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.networks.attention_calls import AttentionLayer, Seen, Watch, Window, by_head, watching
from aptheory.networks.attention_windows import locate, raster, rows_are_positions
from aptheory.networks.copying import structural_copy
from aptheory.networks.geometry import token_grid
from aptheory.networks.hooks import of_this_thread
from aptheory.networks.network import Network

__all__ = ["AttentionLayer", "Window", "attention_error", "attention_layers", "observe_attention"]

Callback = Callable[[AttentionLayer, Tensor], None]


class observe_attention:
    """While this context lasts, ``callback(site, probabilities)`` is called for each attention.

    ``probabilities`` are (batch, heads, queries, keys), rows summing to one; with windows
    (batch * windows, heads, n, n), an image's windows together. Only one layer's map is alive at
    a time. Works for ``net(x)`` and for ``net.run`` in pieces; the output does not change.

    ``layers`` restricts it to some of `attention_layers`. With ``reuse`` every map is written
    into the same memory, which is quicker: it is valid only until the callback returns.
    """

    def __init__(
        self,
        net: Network,
        callback: Callback,
        layers: Sequence[AttentionLayer] | None = None,
        *,
        reuse: bool = False,
    ):
        self.net = net
        self.reuse = reuse
        self._buffer: Tensor | None = None
        self.callback = callback
        self.sites = {
            (site.module, site.call): site
            for site in (attention_layers(net) if layers is None else layers)
        }
        self._open = ExitStack()

    def __enter__(self) -> observe_attention:
        names = list(dict.fromkeys(module for module, _ in self.sites))
        self._open.enter_context(watching(self.net.module, names, Watch(self._seen)))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()
        self._buffer = None

    def _seen(self, module: str, call: int, seen: Seen) -> None:
        site = self.sites.get((module, call))
        if site is None:
            return
        if not self.reuse or seen.query is None:  # an unfused map is the module's own
            self.callback(site, by_head(seen.probabilities(), site.heads))
            return
        with torch.inference_mode(False):  # to be written to in either mode
            found = seen.probabilities(self._buffer)
        self._buffer = found
        self.callback(site, by_head(found, site.heads))


# --------------------------------------------------------------------------------- finding


def attention_layers(net: Network) -> tuple[AttentionLayer, ...]:
    """Every attention layer of a network over positions, in the order in which they run.

    Found by running it once; where the tokens of windows lie is found by running their blocks on
    changed tokens, which takes a few forward passes. Attention over channels (XCiT, DaViT's second
    kind) is not among them; nor is linear attention, which has no probabilities.
    """
    return _once(
        net, "_attention_layers", lambda: tuple(locate(net, list(unplaced_attention_layers(net))))
    )


def unplaced_attention_layers(net: Network) -> tuple[AttentionLayer, ...]:
    """The same, quickly: without finding where the tokens of windows lie."""
    return _once(net, "_attention_sites", lambda: tuple(_find(net)))


def _once(net: Network, key: str, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    cached = net.__dict__.get(key)
    if cached is None or cached[0] is not net.module:
        cached = net.__dict__[key] = (net.module, make())
    return cached[1]


@dataclass
class _Found:
    module: str
    call: int
    shape: tuple[int, ...]
    inputs: dict[str, tuple[int, ...]]  # of the modules around it, innermost last


def _find(net: Network) -> list[AttentionLayer]:
    parameter = next(net.module.parameters(), torch.zeros(()))
    try:  # shapes are enough for most
        twin = structural_copy(net.module).to("meta")
        found = _run_once(
            twin, torch.empty(3, *net.input_shape, dtype=parameter.dtype, device="meta")
        )
    except Exception:
        twin = structural_copy(net.module)
        found = _run_once(twin, torch.zeros(3, *net.input_shape).to(parameter))
    found = [f for f in found if net.reaches_output(f.module)]
    return [site for site in (_describe(net, f, batch=3) for f in found) if site]


def _run_once(module: nn.Module, images: Tensor) -> list[_Found]:
    found: list[_Found] = []
    inputs: dict[str, tuple[int, ...]] = {}

    def note(name: str, call: int, seen: Seen) -> None:
        around = {n: s for n, s in inputs.items() if not n or (name + ".").startswith(n + ".")}
        found.append(_Found(name, call, seen.shape, around))

    def enter(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                inputs[name] = tuple(args[0].shape)

        return hook

    names = [n for n, m in module.named_modules() if not isinstance(m, nn.Softmax)]
    handles = [
        m.register_forward_pre_hook(of_this_thread(enter(n))) for n, m in module.named_modules()
    ]
    try:
        with torch.no_grad(), watching(module, names, Watch(note)):
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _describe(net: Network, found: _Found, batch: int) -> AttentionLayer | None:
    """What one softmax is, or None where it is not attention over positions."""
    *leading, queries, keys = found.shape
    if math.prod(leading) % batch or keys < 2:
        return None
    module = net.module.get_submodule(found.module)
    declared = getattr(module, "num_heads", getattr(module, "n_heads", None))
    count = math.prod(leading) // batch  # windows times heads
    heads = declared if isinstance(declared, int) and count % declared == 0 else None
    if heads is None:
        heads = leading[1] if len(leading) == 2 and leading[0] == batch else None
    if heads is None:
        return None
    windows = count // heads
    outer = _outer(found, batch)
    if outer is None:
        return None
    positions = {math.prod(s) for s in _spatial_shapes(found.inputs[outer], batch)}
    prefixes = {0, 1, 2, int(getattr(net.module, "num_prefix_tokens", 0) or 0)}
    wide = {p + sign * k for p in positions for k in prefixes for sign in (1, -1)}
    padded = windows > 1 and any(p <= windows * queries <= 2 * p for p in positions)
    fits = padded or bool({windows * queries, windows * keys} & wide)
    oversized = not fits and windows == 1 and queries == keys > min(positions)
    if not fits and not oversized:
        return None
    layer = net.layer_of(found.module)
    name = found.module if found.call == 0 else f"{found.module}#{found.call}"
    site = AttentionLayer(
        name=name,
        layer=layer,
        heads=heads,
        grid=(1, keys),
        prefix=0,
        queries=queries,
        keys=keys,
        window=Window(windows) if windows > 1 or oversized else None,
        located=False,
        module=found.module,
        call=found.call,
        outer=outer,
    )
    over_channels = heads * queries in found.inputs[outer][1:] and queries == keys
    if (oversized or over_channels) and not rows_are_positions(net, site):
        return None
    if site.window is None:
        prefix, grid = _keys_grid(net, layer, keys)
        return replace(site, prefix=prefix, grid=grid, located=grid[0] * grid[1] > grid[1])
    inside = raster(found.inputs[outer], net.input_shape)
    return replace(site, grid=inside[0]) if inside else site


def _outer(found: _Found, batch: int) -> str | None:
    """The innermost module around an attention whose input is still whole images."""
    whole = [n for n, s in found.inputs.items() if batch in _batch_axes(s) and n]
    return max(whole, key=len, default=None)


def _batch_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths of the axes that may be the batch's: the first, or of (tokens, batch, width)
    the second."""
    return shape[: 2 if len(shape) == 3 else 1] if len(shape) > 2 else ()


def _spatial_shapes(shape: tuple[int, ...], batch: int) -> list[tuple[int, ...]]:
    """The possible grids in an activation's shape: (B, N, C), (N, B, C), (B, C, H, W) or
    (B, H, W, C)."""
    if len(shape) == 3 and shape[0] != batch:
        return [(shape[0],)]
    if len(shape) == 3:
        return [(shape[1],)]
    return [shape[2:], shape[1:-1]] if len(shape) == 4 else [shape[1:-1]]


def _keys_grid(net: Network, place: int, keys: int) -> tuple[int, tuple[int, int]]:
    """Prefix and grid of the keys, from the place's own where the number fits."""
    layer = net.layers[place]
    if layer.grid and math.prod(layer.grid) + layer.prefix == keys:
        return layer.prefix, layer.grid
    if layer.grid is None or layer.suffix:  # no raster, or tokens behind it
        return 0, (1, keys)
    declared = int(getattr(net.module, "num_prefix_tokens", 0) or 0)
    prefix, grid = token_grid(keys, declared, net.input_shape)
    return prefix, grid or (1, keys)


def attention_error(
    net: Network, x: Float[Tensor, "batch channels height width"]
) -> dict[str, float]:
    """How far probabilities @ values is from what each fused attention gave, relative to its size.

    Attention that is not fused is seen as it is, with no recomputation, and has no error.
    """
    errors: dict[str, float] = {}
    sites = {(site.module, site.call): site for site in unplaced_attention_layers(net)}

    def compare(module: str, call: int, seen: Seen) -> None:
        if (module, call) in sites and seen.value is not None and seen.output is not None:
            again = seen.project(seen.probabilities().to(seen.value.dtype) @ seen.value)
            error = (again - seen.output).abs().max() / seen.output.abs().max().clamp_min(1e-12)
            errors[sites[module, call].name] = float(error)

    names = list(dict.fromkeys(module for module, _ in sites))
    with torch.no_grad(), watching(net.module, names, Watch(compare)):
        net(x)
    return errors

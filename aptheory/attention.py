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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from aptheory.errors import InputError
from aptheory.network import Network
from aptheory.split import structural_copy, token_grid

__all__ = ["AttentionLayer", "Window", "attention_error", "attention_layers", "observe_attention"]

Callback = Callable[["AttentionLayer", Tensor], None]
SOFTMAXES = (torch.softmax, functional.softmax, Tensor.softmax)


@dataclass(frozen=True, eq=False)
class Window:
    """How an image's tokens are dealt out to windows.

    ``rows_columns`` holds for each window and token where in the image it lies, in units of the
    layer's grid (token (0, 0) has its centre at 0, 0); it is NaN for padding. ``None``: unknown.
    """

    count: int
    rows_columns: Float[Tensor, "windows tokens 2"] | None = None

    def coordinates(self, grid: tuple[int, int]) -> Float[Tensor, "windows tokens 2"]:
        """Where each window's tokens lie in the image, in units of ``grid``'s cells.

        Raises:
            InputError: it is not known, because tokens were mixed or reordered before.
        """
        if self.rows_columns is None:
            raise InputError("where these windows lie in the image is not known")
        return self.rows_columns


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One place where a softmax over keys weighs values.

    ``layer`` is the place whose piece contains it. ``grid`` is (h, w) of the keys and ``prefix``
    how many keys before them are class, distillation or register tokens. ``window`` is None where
    every query sees every key. ``queries`` and ``keys`` count tokens of one window.
    """

    name: str
    layer: int
    heads: int
    grid: tuple[int, int]
    prefix: int
    queries: int
    keys: int
    window: Window | None = None
    located: bool = True
    module: str = field(default="", repr=False)
    call: int = field(default=0, repr=False)
    outer: str = field(default="", repr=False)  # the module around it that still sees whole images

    @property
    def is_self_attention(self) -> bool:
        """Queries and keys are the same tokens, whose places in the image are known."""
        return self.queries == self.keys and self.located


# --------------------------------------------------------------------------------- seeing


@dataclass
class _Seen:
    """One attention computation: its scores or probabilities, and q and k where they are known."""

    probabilities: Callable[[], Tensor]
    shape: tuple[int, ...]  # of the probabilities
    query: Tensor | None = None
    key: Tensor | None = None
    scores: Tensor | None = None
    value: Tensor | None = None
    output: Tensor | None = None


class _Watch(TorchFunctionMode):
    """See every attention computation that happens in the watched modules."""

    def __init__(self, on_seen: Callable[[str, int, _Seen], None]):
        super().__init__()
        self.on_seen = on_seen
        self.stack: list[list[Any]] = []  # [module name, computations so far]

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.stack:
            return result
        seen = None
        if func is functional.scaled_dot_product_attention:
            seen = _fused(result, *args, **kwargs)
        elif func in SOFTMAXES:
            seen = _unfused(result, *args, **kwargs)
        if seen is not None:
            frame = self.stack[-1]
            frame[1] += 1
            with torch.no_grad():
                self.on_seen(frame[0], frame[1] - 1, seen)
        return result


def _fused(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> _Seen:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(repeats, -3)
        value = value.repeat_interleave(repeats, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale

    def probabilities() -> Tensor:
        # half precision scores would round the probabilities by a hundredth
        kind = torch.float32 if query.dtype in (torch.float16, torch.bfloat16) else query.dtype
        scores = (query.to(kind) * factor) @ key.to(kind).mT
        if is_causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(ahead, -math.inf)
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, -math.inf)
            else:
                scores = scores + attn_mask
        return scores.softmax(-1)

    leading = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*leading, query.shape[-2], key.shape[-2])
    return _Seen(probabilities, shape, query, key, None, value, output)


def _unfused(output: Tensor, scores: Tensor, dim: int | None = None, *_: Any, **kwargs: Any) -> Any:
    dim = kwargs.get("dim", dim)
    if dim is None or output.ndim < 3 or dim % output.ndim != output.ndim - 1:
        return None
    return _Seen(output.detach, tuple(output.shape), scores=scores)


@contextmanager
def _watching(module: nn.Module, names: Sequence[str], watch: _Watch) -> Iterator[None]:
    """Watch while these modules run; whatever happens, nothing stays on them."""
    with ExitStack() as stack:
        for name in names:
            child = module.get_submodule(name)

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                watch.stack.append([name, 0])

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                watch.stack.pop()

            stack.callback(child.register_forward_pre_hook(enter).remove)
            stack.callback(child.register_forward_hook(leave, always_call=True).remove)
        stack.enter_context(watch)
        yield


class observe_attention:
    """While this context lasts, ``callback(site, probabilities)`` is called for each attention.

    ``probabilities`` are (batch, heads, queries, keys), rows summing to one; with windows
    (batch * windows, heads, n, n), an image's windows together. Only one layer's map is alive at
    a time. Works for ``net(x)`` and for ``net.run`` in pieces; the output does not change.

    ``layers`` restricts it to some of :func:`attention_layers`.
    """

    def __init__(
        self, net: Network, callback: Callback, layers: Sequence[AttentionLayer] | None = None
    ):
        self.net = net
        self.callback = callback
        self.sites = {
            (site.module, site.call): site
            for site in (attention_layers(net) if layers is None else layers)
        }
        self._open = ExitStack()

    def __enter__(self) -> observe_attention:
        names = list(dict.fromkeys(module for module, _ in self.sites))
        self._open.enter_context(_watching(self.net.module, names, _Watch(self._seen)))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def _seen(self, module: str, call: int, seen: _Seen) -> None:
        site = self.sites.get((module, call))
        if site is not None:
            self.callback(site, by_head(seen.probabilities(), site.heads))


def by_head(p: Tensor, heads: int) -> Float[Tensor, "batch heads queries keys"]:
    """Bring a module's own layout of its probabilities into (batch * windows, heads, n, m)."""
    if p.ndim == 3:  # (batch * heads, n, m)
        return p.unflatten(0, (-1, heads))
    if p.ndim == 4:
        if p.shape[1] == heads:
            return p
        # (batch * heads, blocks, n, m), as in halo attention
        return p.unflatten(0, (-1, heads)).transpose(1, 2).flatten(0, 1)
    # (batch, heads, windows, n, m) or (batch, windows, heads, n, m)
    axis = 1 if p.shape[1] == heads else 2
    return p.movedim(axis, -3).flatten(0, -4)


# --------------------------------------------------------------------------------- finding


def attention_layers(net: Network) -> tuple[AttentionLayer, ...]:
    """Every attention layer of a network over positions, in the order in which they run.

    Found by running it once. Attention over channels (XCiT, DaViT's second kind) is not among
    them; nor is linear attention, which has no probabilities.
    """
    cached = net.__dict__.get("_attention_layers")
    if cached is None or cached[0] is not net.module:
        cached = (net.module, tuple(_find(net)))
        net.__dict__["_attention_layers"] = cached
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
    sites = [site for site in (_describe(net, f, batch=3) for f in found) if site]
    return _locate(net, sites)


def _run_once(module: nn.Module, images: Tensor) -> list[_Found]:
    found: list[_Found] = []
    inputs: dict[str, tuple[int, ...]] = {}

    def note(name: str, call: int, seen: _Seen) -> None:
        around = {n: s for n, s in inputs.items() if not n or (name + ".").startswith(n + ".")}
        found.append(_Found(name, call, seen.shape, around))

    def enter(name: str) -> Callable:
        def hook(_: nn.Module, args: tuple) -> None:
            if args and isinstance(args[0], Tensor):
                inputs[name] = tuple(args[0].shape)

        return hook

    names = [n for n, m in module.named_modules() if not isinstance(m, nn.Softmax)]
    handles = [m.register_forward_pre_hook(enter(n)) for n, m in module.named_modules()]
    try:
        with torch.no_grad(), _watching(module, names, _Watch(note)):
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
    positions = {math.prod(s) for s in _spatial_shapes(found.inputs[outer])}
    prefixes = {0, 1, 2, int(getattr(net.module, "num_prefix_tokens", 0) or 0)}
    wide = {p + sign * k for p in positions for k in prefixes for sign in (1, -1)}
    seen = {windows * queries, windows * keys}
    padded = windows > 1 and any(p <= windows * queries <= 2 * p for p in positions)
    if not padded and not seen & wide:
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
        window=Window(windows) if windows > 1 else None,
        located=False,
        module=found.module,
        call=found.call,
        outer=outer,
    )
    if windows == 1:
        prefix, grid = _keys_grid(net, layer, keys)
        return replace(site, prefix=prefix, grid=grid, located=grid[0] * grid[1] > grid[1])
    inside = raster(found.inputs[outer], net.input_shape)
    return replace(site, grid=inside[0]) if inside else site


def _outer(found: _Found, batch: int) -> str | None:
    """The innermost module around an attention whose input is still whole images."""
    whole = [n for n, s in found.inputs.items() if s[0] == batch and len(s) > 2 and n]
    return max(whole, key=len, default=None)


def _spatial_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The possible grids in an activation's shape: (B, N, C), (B, C, H, W) or (B, H, W, C)."""
    if len(shape) == 3:
        return [(shape[1],)]
    return [shape[2:], shape[1:-1]] if len(shape) == 4 else [shape[1:-1]]


def _keys_grid(net: Network, place: int, keys: int) -> tuple[int, tuple[int, int]]:
    """Prefix and grid of the keys, from the place's own where the number fits."""
    layer = net.layers[place]
    if layer.grid and math.prod(layer.grid) + layer.prefix == keys:
        return layer.prefix, layer.grid
    return token_grid(keys, int(getattr(net.module, "num_prefix_tokens", 0) or 0), net.input_shape)


# -------------------------------------------------------------------------------- locating


def raster(
    shape: tuple[int, ...], image: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, ...], int] | None:
    """Grid of an activation that holds whole images, its axes, and its prefix tokens.

    ``shape`` has the batch in front. None where no axes have the image's proportions.
    """
    if len(shape) == 3:
        prefix, grid = token_grid(shape[1], 0, image)
        return None if grid[0] == 1 < grid[1] else (grid, (1,), prefix)
    if len(shape) != 4:
        return None
    fitting = [
        axes
        for axes in ((2, 3), (1, 2))
        if math.isclose(shape[axes[0]] / shape[axes[1]], image[1] / image[2], rel_tol=0.2)
    ]
    if not fitting:
        return None
    axes = fitting[0]
    return (shape[axes[0]], shape[axes[1]]), axes, 0


def _locate(net: Network, sites: list[AttentionLayer]) -> list[AttentionLayer]:
    """Find where windows lie: change tokens in halves, quarters, eighths ... of the image."""
    windowed = {site.outer for site in sites if site.window}
    ordered = _tokens_in_order(net) if any(len(r.shape) == 2 for r in net.layers) else True
    if not ordered:
        sites = [replace(s, located=False) for s in sites]
    calls: dict[str, tuple[tuple, dict]] = {}

    def keep(name: str) -> Callable:
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            calls.setdefault(name, (args, kwargs))

        return hook

    handles = [
        net.module.get_submodule(name).register_forward_pre_hook(keep(name), with_kwargs=True)
        for name in windowed
    ]
    try:
        with torch.no_grad():
            if windowed:
                net(_image(net))
            return [
                _with_places(net, site, *calls[site.outer])
                if site.window and ordered and site.queries == site.keys and site.outer in calls
                else site
                for site in sites
            ]
    finally:
        for handle in handles:
            handle.remove()


def _image(net: Network, seed: int = 0) -> Tensor:
    parameter = next(net.module.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, *net.input_shape, generator=generator).to(parameter)


def _tokens_in_order(net: Network) -> bool:
    """Whether the first token sequence is the image row by row (Hiera's is not)."""
    layer = next(r for r in net.layers if r.layout == "tokens")
    if layer.index not in net.block_layers[:1] or layer.grid is None:
        return True  # it comes after maps, which have rows and columns of their own
    height, width = layer.grid
    step = (net.input_shape[1] // height, net.input_shape[2] // width)
    image = _image(net)
    with torch.no_grad():
        before = net.run(image, stop=layer.index)
        for row, column in ((0, width - 1), (height // 2, width // 3), (height - 1, 1)):
            changed = image.clone()
            rows = slice(row * step[0], (row + 1) * step[0])
            changed[:, :, rows, column * step[1] : (column + 1) * step[1]] += 3
            moved = (net.run(changed, stop=layer.index) - before).abs().sum(-1)[0, layer.prefix :]
            if int(moved.argmax()) != row * width + column:
                return False
    return True


def _with_places(net: Network, site: AttentionLayer, args: tuple, kwargs: dict) -> AttentionLayer:
    """The site with the places of its windows' tokens, where they can be told."""
    assert site.window is not None
    tokens = args[0]
    inside = raster(tuple(tokens.shape), net.input_shape)
    if inside is None:
        return site
    grid, axes, prefix = inside
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(tokens.shape, generator=generator).to(tokens) * tokens.std() * 3

    def moved(mask: Tensor) -> tuple[Tensor, Tensor]:
        shape = [1] * tokens.ndim
        for axis in axes:
            shape[axis] = tokens.shape[axis]
        if len(axes) == 1:
            mask = torch.cat([mask.new_zeros(prefix), mask.flatten()])
        seen = _scores(net, site, (tokens + noise * mask.view(shape).to(tokens), *args[1:]), kwargs)
        return _changed(still, seen)

    still = _scores(net, site, args, kwargs)
    row_index = torch.arange(grid[0])[:, None].expand(grid)
    column_index = torch.arange(grid[1])[None].expand(grid)
    places = []
    for index, size in ((row_index, grid[0]), (column_index, grid[1])):
        bits = max(1, (size - 1).bit_length())
        ones = [moved(((index >> j) & 1).bool()) for j in range(bits)]
        zeros = [moved(~((index >> j) & 1).bool()) for j in range(bits)]
        for which in (0, 1):  # of the queries, of the keys
            places.append(_decode([o[which] for o in ones], [z[which] for z in zeros]))
    query_rows, key_rows, query_columns, key_columns = places
    if query_rows is None or key_rows is None or query_columns is None or key_columns is None:
        return site
    rows_columns = torch.stack([key_rows, key_columns], -1)
    if not torch.equal(rows_columns, torch.stack([query_rows, query_columns], -1)):
        return site
    return replace(site, window=Window(site.window.count, rows_columns), located=True)


def _scores(net: Network, site: AttentionLayer, args: tuple, kwargs: dict) -> _Seen:
    found: list[_Seen] = []

    def note(name: str, call: int, seen: _Seen) -> None:
        if call == site.call:
            found.append(seen)

    with _watching(net.module, [site.module], _Watch(note)):
        net.module.get_submodule(site.outer)(*args, **kwargs)

    def ordered(part: Tensor | None) -> Tensor | None:
        return None if part is None else by_head(part, site.heads).clone()

    seen = found[0]
    return replace(
        seen,
        query=ordered(seen.query),
        key=ordered(seen.key),
        scores=ordered(seen.scores),
    )


def _changed(before: _Seen, after: _Seen) -> tuple[Tensor, Tensor]:
    """Which queries and which keys of each window are others now: two of (windows, n)."""

    def differs(a: Tensor, b: Tensor) -> Tensor:
        finite = a.isfinite() & b.isfinite()
        scale = a[a.isfinite()].abs().max()
        return torch.where(finite, (a - b).abs() > 1e-5 * scale, torch.zeros_like(finite))

    if before.query is not None and after.query is not None:
        assert before.key is not None
        assert after.key is not None
        query = differs(before.query, after.query).any(-1).any(1)
        return query, differs(before.key, after.key).any(-1).any(1)
    assert before.scores is not None
    assert after.scores is not None
    either = differs(before.scores, after.scores).any(1)  # where the query or the key has changed
    return either.all(2), either.all(1)


def _decode(ones: list[Tensor], zeros: list[Tensor]) -> Tensor | None:
    """Coordinates from their binary digits; a token made of aligned others lies in their middle."""
    place = torch.zeros(ones[0].shape, dtype=torch.float64)
    open_below = torch.ones_like(ones[0])
    for j, (one, zero) in enumerate(zip(ones, zeros, strict=True)):
        both = one & zero
        if not bool((one | zero).all()) or bool((both & ~open_below).any()):
            return None
        open_below = both
        place += torch.where(both, 0.5, one.double()).cpu() * 2**j
    return place


def attention_error(
    net: Network, x: Float[Tensor, "batch channels height width"]
) -> dict[str, float]:
    """How far probabilities @ values is from what each fused attention gave, relative to its size.

    Attention that is not fused is seen as it is, with no recomputation, and has no error.
    """
    errors: dict[str, float] = {}
    sites = {(site.module, site.call): site for site in attention_layers(net)}

    def compare(module: str, call: int, seen: _Seen) -> None:
        if (module, call) in sites and seen.value is not None and seen.output is not None:
            again = seen.probabilities().to(seen.value.dtype) @ seen.value
            error = (again - seen.output).abs().max() / seen.output.abs().max().clamp_min(1e-12)
            errors[sites[module, call].name] = float(error)

    names = list(dict.fromkeys(module for module, _ in sites))
    with torch.no_grad(), _watching(net.module, names, _Watch(compare)):
        net(x)
    return errors

"""Where in the image the tokens of an attention window lie, found by changing tokens.

Windows are cut, shifted, padded and dealt out in a different way in every family. Instead of
knowing each, change the tokens whose row (or column) has its j-th binary digit set, run the block,
and see which queries and keys are others: twice log2(rows) + log2(columns) runs of one block
spell out where every token of every window comes from.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aptheory.networks.attention_calls import AttentionLayer, Seen, Watch, Window, by_head, watching
from aptheory.networks.geometry import token_grid
from aptheory.networks.hooks import of_this_thread
from aptheory.networks.network import Network

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def raster(
    shape: tuple[int, ...], image: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, ...], int] | None:
    """Grid of an activation that holds whole images, its axes, and its prefix tokens.

    ``shape`` has the batch in front. None where no axes have the image's proportions.
    """
    if len(shape) == 3:
        prefix, grid = token_grid(shape[1], 0, image)
        return None if grid is None else (grid, (1,), prefix)
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


def rows_are_positions(net: Network, site: AttentionLayer) -> bool:
    """Whether an attention's rows are positions, where the shapes leave it open; else channels.

    One position of the input is changed: then some rows change and others stay. Of attention
    over channels every row changes.
    """
    calls = _calls(net, {site.outer})
    if site.outer not in calls:
        return False
    args, kwargs = calls[site.outer]
    changed = args[0].clone()
    if changed.ndim == 3:
        changed[:, -1] += 1 + changed[:, -1].abs()
    else:
        inside = raster(tuple(changed.shape), net.input_shape)
        if inside is None:
            return False
        corner: list[slice | int] = [slice(None)] * changed.ndim
        for axis in inside[1]:
            corner[axis] = 0
        changed[tuple(corner)] += 1 + changed[tuple(corner)].abs()
    with torch.no_grad():
        still = _scores(net, site, args, kwargs)
        rows, _ = _changed(still, _scores(net, site, (changed, *args[1:]), kwargs))
    return bool(rows.any()) and not bool(rows.all())


def _calls(net: Network, names: set[str]) -> dict[str, tuple[Args, Kwargs]]:
    """The arguments with which these modules are first called for one image."""
    calls: dict[str, tuple[Args, Kwargs]] = {}

    def keep(name: str) -> Callable[[nn.Module, Args, Kwargs], None]:
        def hook(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
            calls.setdefault(name, (args, kwargs))

        return hook

    handles = [
        net.module.get_submodule(name).register_forward_pre_hook(
            of_this_thread(keep(name)), with_kwargs=True
        )
        for name in names
    ]
    try:
        if names:
            with torch.no_grad():
                net(_image(net))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def locate(net: Network, sites: list[AttentionLayer]) -> list[AttentionLayer]:
    """Find where windows lie: change tokens in halves, quarters, eighths ... of the image."""
    windowed = {site.outer for site in sites if site.window}
    ordered = _tokens_in_order(net) if any(len(r.shape) == 2 for r in net.layers) else True
    if not ordered:
        sites = [replace(s, located=False) for s in sites]
    calls = _calls(net, windowed)
    with torch.no_grad():
        return [
            _with_places(net, site, *calls[site.outer])
            if site.window and ordered and site.queries == site.keys and site.outer in calls
            else site
            for site in sites
        ]


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
            difference = net.run(changed, stop=layer.index) - before
            moved = layer.positions(difference).abs().sum(-1)[0]
            share = (moved / moved.sum()).view(height, width).double().cpu()
            found_row = float(share.sum(1) @ torch.arange(height, dtype=torch.float64))
            found_column = float(share.sum(0) @ torch.arange(width, dtype=torch.float64))
            if math.hypot(found_row - row, found_column - column) > 1.5:
                return False
    return True


def _with_places(net: Network, site: AttentionLayer, args: Args, kwargs: Kwargs) -> AttentionLayer:
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
    queries = torch.stack([query_rows, query_columns], -1)
    if not torch.equal(rows_columns.nan_to_num(-1), queries.nan_to_num(-1)):
        return site
    return replace(site, window=Window(site.window.count, rows_columns), located=True)


class _Enough(Exception):
    """The scores are known; the rest of the block need not run."""


def _scores(net: Network, site: AttentionLayer, args: Args, kwargs: Kwargs) -> Seen:
    found: list[Seen] = []

    def note(name: str, call: int, seen: Seen) -> None:
        if call == site.call:
            found.append(seen)
            raise _Enough

    with contextlib.suppress(_Enough), watching(net.module, [site.module], Watch(note)):
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


def _changed(before: Seen, after: Seen) -> tuple[Tensor, Tensor]:
    """Which queries and which keys of each window are others now: two of (windows, n)."""
    if before.query is not None and after.query is not None:
        assert before.key is not None
        assert after.key is not None
        query = (before.query != after.query).any(-1).any(1)
        return query, (before.key != after.key).any(-1).any(1)
    assert before.scores is not None
    assert after.scores is not None
    other = before.scores != after.scores  # a token's score with itself is its own affair
    token = other.diagonal(dim1=-2, dim2=-1).any(1)
    return token, token


def _decode(ones: list[Tensor], zeros: list[Tensor]) -> Tensor | None:
    """Coordinates from binary digits: (windows, n), NaN for padding; None where they are unclear.

    A token made of 2 x 2 aligned others lies in their middle.
    """
    place = torch.zeros(ones[0].shape, dtype=torch.float64)
    padding = ~torch.stack([*ones, *zeros]).any(0)
    open_below = torch.ones_like(ones[0])
    for j, (one, zero) in enumerate(zip(ones, zeros, strict=True)):
        both = one & zero
        if not bool((one | zero | padding).all()) or bool((both & ~open_below).any()):
            return None
        open_below = both
        place += torch.where(both, 0.5, one.double()).cpu() * 2**j
    return place.masked_fill(padding.cpu(), math.nan)

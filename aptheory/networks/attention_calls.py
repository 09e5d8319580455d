"""What one attention computation is, and how it is seen while a network runs.

A ``TorchFunctionMode`` sees every call of ``scaled_dot_product_attention``, every softmax over
the last axis, and what nn.MultiheadAttention calls, whose fused kernels torch itself leaves aside
while a mode looks on; hooks say inside which module it happens.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from aptheory.errors import InputError
from aptheory.networks.hooks import of_this_thread

SOFTMAXES = (torch.softmax, functional.softmax, Tensor.softmax)


@dataclass(frozen=True, eq=False)
class Window:
    """How an image's tokens are dealt out to windows.

    ``rows_columns`` holds for each window and token where in the image it lies, in units of the
    layer's grid (token (0, 0) has its centre at 0, 0); it is NaN for padding. ``None``: unknown.
    """

    count: int
    rows_columns: Float[Tensor, "windows tokens 2"] | None = field(default=None, repr=False)

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
class Seen:
    """One attention computation: its scores or probabilities, and q and k where they are known."""

    probabilities: Callable[..., Tensor]  # takes a tensor to write into, or nothing
    shape: tuple[int, ...]  # of the probabilities
    query: Tensor | None = None
    key: Tensor | None = None
    scores: Tensor | None = None
    value: Tensor | None = None
    output: Tensor | None = None
    project: Callable[[Tensor], Tensor] = lambda heads: heads
    """From probabilities @ value to what ``output`` is compared with."""


class Watch(TorchFunctionMode):
    """See every attention computation that happens in the watched modules."""

    def __init__(self, on_seen: Callable[[str, int, Seen], None]):
        super().__init__()
        self.on_seen = on_seen
        self.stack: list[list[Any]] = []  # [module name, computations so far]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.stack:
            return result
        seen = None
        if func is functional.scaled_dot_product_attention:
            seen = _fused(result, *args, **kwargs)
        elif func is functional.multi_head_attention_forward:
            seen = _multi_head(result, *args, **kwargs)
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
) -> Seen:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(repeats, -3)
        value = value.repeat_interleave(repeats, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale

    def probabilities(buffer: Tensor | None = None) -> Tensor:
        # half precision scores would round the probabilities by a hundredth
        kind = torch.float32 if query.dtype in (torch.float16, torch.bfloat16) else query.dtype
        fits = buffer is not None and buffer.dtype == kind and buffer.device == query.device
        out = buffer if buffer is not None and fits and tuple(buffer.shape) == shape else None
        # One tensor is written to throughout: a fresh one costs as much as what is put into it.
        scores = torch.matmul(query.to(kind) * factor, key.to(kind).mT, out=out)
        if is_causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores.masked_fill_(ahead, -math.inf)
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                scores.masked_fill_(~attn_mask, -math.inf)
            else:
                scores += attn_mask
        return torch.softmax(scores, -1, out=scores)

    leading = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*leading, query.shape[-2], key.shape[-2])
    return Seen(probabilities, shape, query, key, None, value, output)


def _multi_head(result: tuple[Tensor, Tensor | None], *args: Any, **kwargs: Any) -> Seen:
    """What nn.MultiheadAttention computes: it takes (tokens, batch, width), and gives its
    probabilities when it is asked for them, head by head, as it makes them."""
    given = inspect.signature(functional.multi_head_attention_forward).bind(*args, **kwargs)
    given.apply_defaults()
    values = given.arguments
    heads, query, value = values["num_heads"], values["query"], values["value"]
    keys = values["key"].shape[0] if values["static_k"] is None else values["static_k"].shape[1]
    keys += (values["bias_k"] is not None) + bool(values["add_zero_attn"])
    batch = () if query.dim() == 2 else (query.shape[1],)
    plain = not values["use_separate_proj_weight"] and keys == values["key"].shape[0]

    def probabilities(buffer: Tensor | None = None) -> Tensor:
        again = {**values, "need_weights": True, "average_attn_weights": False, "dropout_p": 0.0}
        found = functional.multi_head_attention_forward(**again)[1]
        assert found is not None
        return found

    def project(mixed: Tensor) -> Tensor:  # (batch, heads, queries, width of a head)
        tokens_first = mixed.movedim(-2, 0).flatten(-2)
        return functional.linear(tokens_first, values["out_proj_weight"], values["out_proj_bias"])

    def by_heads() -> Tensor:
        bias = values["in_proj_bias"]
        weight = values["in_proj_weight"].chunk(3)[2]
        made = functional.linear(value, weight, None if bias is None else bias.chunk(3)[2])
        return made.unflatten(-1, (heads, -1)).movedim(0, -2)

    return Seen(
        probabilities,
        (*batch, heads, query.shape[0], keys),
        value=by_heads() if plain else None,
        output=result[0],
        project=project,
    )


def _unfused(output: Tensor, scores: Tensor, dim: int | None = None, *_: Any, **kwargs: Any) -> Any:
    dim = kwargs.get("dim", dim)
    if dim is None or output.ndim < 3 or dim % output.ndim != output.ndim - 1:
        return None
    return Seen(output.detach, tuple(output.shape), scores=scores)


@contextmanager
def watching(module: nn.Module, names: Sequence[str], watch: Watch) -> Iterator[None]:
    """Watch while these modules run; whatever happens, nothing stays on them."""
    with ExitStack() as stack:
        for name in names:
            child = module.get_submodule(name)

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                watch.stack.append([name, 0])

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                watch.stack.pop()

            hook, after = of_this_thread(enter), of_this_thread(leave)
            stack.callback(child.register_forward_pre_hook(hook).remove)
            stack.callback(child.register_forward_hook(after, always_call=True).remove)
        stack.enter_context(watch)
        yield


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

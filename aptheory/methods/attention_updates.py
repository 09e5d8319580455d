"""Low-rank updates of nn.MultiheadAttention, whose projections are weights that no layer calls."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Of queries, keys and values: the first where they have one width, else the others."""


class UpdatedAttention(nn.Module):
    """``inner`` with W + (alpha / r) B A for its projections of queries, keys and values.

    A starts as Kaiming uniform, as peft's does, and B at zero, so that it starts as ``inner``.
    """

    def __init__(self, inner: nn.MultiheadAttention, rank: int, alpha: float) -> None:
        super().__init__()
        self.inner, self.scaling = inner, alpha / rank
        self.weights = [name for name in PROJECTIONS if getattr(inner, name) is not None]
        like = inner.out_proj.weight.detach()
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        for name in self.weights:
            rows, columns = getattr(inner, name).shape
            self.down[name] = nn.Parameter(like.new_empty(rank, columns))
            self.up[name] = nn.Parameter(like.new_zeros(rows, rank))
        self.reset()

    def reset(self) -> None:
        """Draw A again from torch's generator, and put B to zero."""
        for name in self.weights:
            nn.init.kaiming_uniform_(self.down[name], a=math.sqrt(5))
            nn.init.zeros_(self.up[name])

    def updates(self) -> dict[str, Tensor]:
        """What is added to each projection."""
        return {name: self.scaling * self.up[name] @ self.down[name] for name in self.weights}

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        moved = {n: getattr(self.inner, n) + update for n, update in self.updates().items()}
        return functional_call(self.inner, moved, args, kwargs)

    @torch.no_grad()
    def fold_into(self, attention: Any) -> None:
        """Add the updates to the weights of a plain module."""
        for name, update in self.updates().items():
            getattr(attention, name).add_(update)

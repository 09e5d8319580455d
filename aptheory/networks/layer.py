"""A place in a network: what the activation that enters it looks like, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.arguments import Count, Whole, check_fields
from aptheory.errors import InputError

POOLINGS = ("mean", "class", "both", "all")
"""How an activation becomes one vector an image: see `Layer.pooled`."""


@dataclass(frozen=True)
class Layer:
    """A place in a network, and how to read the activation that enters it.

    ``shape`` leaves the batch out. ``layout`` says which axes are which: ``map`` is (C, H, W),
    ``map_last`` (H, W, C), ``tokens`` (N, D) with ``prefix`` class, distillation or register
    tokens in front and ``suffix`` behind, ``vector`` (D,). ``grid`` is (h, w) of the spatial
    positions, row by row; None where it is not known which position is where.
    """

    index: Whole
    name: str
    shape: tuple[Count, ...]
    layout: Literal["map", "map_last", "tokens", "vector"]
    prefix: Whole = 0
    grid: tuple[Count, Count] | None = None
    suffix: Whole = 0

    def __post_init__(self) -> None:
        check_fields(self, "a layer")

    def __repr__(self) -> str:
        # digests are made of this text: what joined the fields later shows where it says something
        shown = [f for f in fields(self) if f.name != "suffix" or self.suffix]
        return f"Layer({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

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
        return z[:, self.prefix : z.shape[1] - self.suffix]

    def pooled(self, z: Tensor, how: str = "mean") -> Tensor:
        """One vector an image: (B, D), or (B, positions * D) for ``all``.

        ``mean`` averages the spatial positions, ``class`` takes the first prefix token (the mean
        where there is none), ``both`` puts these two side by side (the mean alone where there is
        no prefix), ``all`` puts all spatial positions in a row.
        """
        if how == "both" and self.prefix:
            return torch.cat([self.pooled(z, "class"), self.pooled(z, "mean")], dim=1)
        if how == "class" and self.prefix:
            return z[:, 0]
        if how == "all":
            return self.positions(z).flatten(1)
        if how not in ("mean", "class", "both"):
            raise InputError(f"pooling must be {', '.join(POOLINGS)}; got {how!r}.")
        return self.positions(z).mean(1)

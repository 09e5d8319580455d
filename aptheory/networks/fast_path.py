"""torch's fused kernels of whole transformer layers, which read weights past the layers' parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def has_fast_path(module: nn.Module) -> bool:
    """Whether a part of a module may hand the weights of its own parts to one kernel."""
    fused = (nn.TransformerEncoderLayer, nn.MultiheadAttention)
    return any(isinstance(part, fused) for part in module.modules())


@contextmanager
def fast_path_off() -> Iterator[None]:
    """Within: nn.TransformerEncoderLayer and nn.MultiheadAttention call their parts one by one.

    In evaluation without gradients torch hands the weights of a layer's norms and linear maps to
    one kernel: whatever stands in for such a part would silently do nothing. torch.compile cannot
    read the switch, so it is for those networks alone that `has_fast_path` finds.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

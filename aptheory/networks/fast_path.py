"""torch's fused kernels of whole transformer layers, which read weights past the layers' parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fast_path_off() -> Iterator[None]:
    """Within: nn.TransformerEncoderLayer and nn.MultiheadAttention call their parts one by one.

    In evaluation without gradients torch hands the weights of a layer's norms and linear maps to
    one kernel: whatever stands in for such a part would silently do nothing.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

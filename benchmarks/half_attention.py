"""What half precision costs on a processor: attention fused as torch takes it, and as we do.

    python -m benchmarks.half_attention [--threads 1]

One training step's attention, forward and backward, of a ViT's heads at several numbers of tokens:
float32 and bfloat16 as torch computes them, and bfloat16 as `aptheory.devices.autocast` has it.
Ratios are to float32, measured in turns in this one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.functional import scaled_dot_product_attention

from aptheory.devices import autocast

CPU = torch.device("cpu")
WAYS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[None]]]] = {
    "float32": (torch.float32, nullcontext),
    "bfloat16, fused": (torch.bfloat16, nullcontext),
    "bfloat16, ours": (torch.bfloat16, lambda: autocast(CPU, "bfloat16")),
}


def seconds(shape: tuple[int, int, int, int], *, repeats: int = 5) -> dict[str, float]:
    """The best of ``repeats`` of every way, the ways taking turns, the first turn not counted."""
    best = dict.fromkeys(WAYS, float("inf"))
    for turn in range(repeats + 1):
        for name, (dtype, context) in WAYS.items():
            query, key, value = (
                torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)
            )
            start = time.perf_counter()
            with context():
                output = scaled_dot_product_attention(query, key, value)
            torch.autograd.backward(output, torch.ones_like(output))
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print("images x heads x tokens x width   " + "".join(f"{name:>18}" for name in WAYS))
    for shape in ((256, 3, 37, 64), (64, 3, 65, 64), (64, 3, 197, 64)):
        best = seconds(shape)
        ratios = "".join(f"{best[name] / best['float32']:>18.2f}" for name in WAYS)
        print(f"{' x '.join(map(str, shape)):<34}{ratios}")


if __name__ == "__main__":
    main()

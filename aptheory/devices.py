"""Where the arithmetic happens and in which precision: one place that knows what a machine has."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from aptheory.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one, else the CPU.

    A number picks one of several GPUs: "cuda:1". Apple's GPU is taken only by its name, since it
    has no float64.

    Raises:
        InputError: no such kind of device, or this machine has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdigit())):
        raise InputError(f"device is {name!r}; expected one of {', '.join(DEVICES)}, or cuda:1.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} was asked for, but there is no such GPU; use 'auto'.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' was asked for, but there is no Apple GPU; use 'auto'.")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What the device is called by its maker, for a record of what made a result."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision on ``device``; nothing for float32."""
    if precision == "float32":
        return nullcontext()
    if precision not in DTYPES:
        raise InputError(f"precision is {precision!r}; expected one of {', '.join(DTYPES)}.")
    if device.type == "cpu":
        return _autocast_on_cpu(DTYPES[precision])
    return torch.autocast(device.type, dtype=DTYPES[precision])


def own_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute in the precision that it is told, whatever autocast its caller has
    switched on around it."""

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        with ExitStack() as stack:
            for kind in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **options)

    return called


@contextmanager
def _autocast_on_cpu(dtype: torch.dtype) -> Iterator[None]:
    """Mixed precision with attention as two matrix products and a softmax.

    The fused attention that torch takes on a CPU makes no use of the processor's half-precision
    products: forward and backward of 37 tokens took seven times as long with it, of 197 two and a
    half times (``benchmarks/half_attention.py``). In exchange every head's probabilities are held.
    """
    reduced = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    # In spite of its name the setting counts on every device; without it the products are float32.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with torch.autocast("cpu", dtype=dtype), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduced)

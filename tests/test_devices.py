"""Mixed precision on a processor: close to float64, and torch left as it was."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from aptheory.devices import autocast

CPU = torch.device("cpu")


def products_may_be_half() -> bool:
    return torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_half_attention_is_the_attention_to_three_digits():
    generator = torch.Generator().manual_seed(0)
    exact = [
        torch.randn(4, 3, 37, 16, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    ]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    expected = scaled_dot_product_attention(*exact)
    with autocast(CPU, "bfloat16"):
        output = scaled_dot_product_attention(*half)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (expected * weights).sum().backward()
    (output * weights.bfloat16()).sum().backward()
    pairs = [(output, expected), *((h.grad, e.grad) for h, e in zip(half, exact, strict=True))]
    for found, wanted in pairs:
        assert (found.double() - wanted).norm() < 0.01 * wanted.norm()


def _fail_in_half_precision():
    with autocast(CPU, "bfloat16"):
        assert products_may_be_half()
        assert torch.is_autocast_enabled("cpu")
        assert not torch.backends.cuda.flash_sdp_enabled()
        raise ZeroDivisionError


@pytest.mark.parametrize("before", [False, True])
def test_torchs_settings_are_given_back(before):
    found = products_may_be_half()
    try:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
        with pytest.raises(ZeroDivisionError):
            _fail_in_half_precision()
        assert products_may_be_half() is before
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(found)


def test_float32_changes_nothing():
    with autocast(CPU, "float32"):
        assert not torch.is_autocast_enabled("cpu")
        assert torch.backends.cuda.flash_sdp_enabled()

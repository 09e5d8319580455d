"""The precision that is faster here, on a clock that is known."""

import itertools

import pytest

import aptheory as ap
from aptheory.training.pace import fastest_precision


@pytest.mark.parametrize(
    ("half", "expected"), [(5.0, "bfloat16"), (9.5, "float32"), (20.0, "float32")]
)
def test_bfloat16_is_taken_where_it_pays(half, expected):
    steps = itertools.cycle([0.0, 10.0, 0.0, half])  # start and end of a step of each
    net = ap.load("aptheory_vit_mini")
    precision, ratio = fastest_precision(net, images=1, repeats=1, clock=steps.__next__)
    assert (precision, ratio) == (expected, half / 10)

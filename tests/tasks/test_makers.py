"""`Task.from_arrays` and its like take data, and refuse anything else in one sentence."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from aptheory.errors import InputError
from aptheory.tasks import Task

LABELS = np.arange(12) % 2
PIXELS = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), dtype=np.uint8)
FLOATS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
TABLE = pd.DataFrame({"path": ["a.png"], "label": ["x"]})
SAMPLES = list(zip(PIXELS, LABELS.tolist(), strict=True))
RAGGED = [PIXELS[0], PIXELS[1][:5]]
with warnings.catch_warnings(action="ignore"):  # torch calls one a prototype, one old
    NESTED = torch.nested.nested_tensor([torch.rand(3, 8, 8), torch.rand(3, 9, 8)])
    QUANTIZED = torch.quantize_per_tensor(FLOATS, 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    ("maker", "data", "options", "reason"),
    [
        ("from_frame", ("t.csv",), {}, "the table is a str"),
        ("from_frame", (None,), {}, "the table is a NoneType"),
        ("from_frame", ({"path": ["a.png"]},), {}, "the table is a dict"),
        ("from_frame", (TABLE,), {"root": 5}, "root of Task.from_frame is 5"),
        ("from_frame", (TABLE,), {"foo": 1}, "no option 'foo'; it has path, label"),
        ("from_frame", (TABLE,), {"path": ["a"]}, "expected a text or None"),
        ("from_hub", ("x",), {}, "the data set is a str"),
        ("from_hub", (None,), {}, "the data set is a NoneType"),
        ("from_hub", ([1],), {}, "the data set is a list"),
        ("from_arrays", (None, LABELS), {}, r"x has shape \(\)"),
        ("from_arrays", (RAGGED, [0, 1]), {}, "no array of images of one size"),
        ("from_arrays", (torch.tensor(1.0), LABELS), {}, r"x has shape \(\)"),
        ("from_arrays", (FLOATS.to("meta"), LABELS), {}, "x is a meta tensor"),
        ("from_arrays", (FLOATS.to_sparse(), LABELS), {}, "x is a sparse tensor"),
        ("from_arrays", (QUANTIZED, LABELS), {}, "x is a quantized tensor"),
        ("from_arrays", (NESTED, [0, 1]), {}, "x is a nested tensor"),
        ("from_arrays", (PIXELS, None), {}, "y: None is no list of labels"),
        ("from_arrays", (PIXELS, NESTED), {}, "labels is nested"),
        ("from_arrays", ({"train": PIXELS}, LABELS), {}, "give both by split"),
        ("from_arrays", (np.ma.masked_less(PIXELS, 9), LABELS), {}, "x has a mask"),
        ("from_arrays", (PIXELS, np.ma.array(LABELS, mask=LABELS)), {}, "labels have a mask"),
        ("from_arrays", (PIXELS, LABELS), {"classes": 5}, "no option 'classes'"),
        ("from_arrays", (PIXELS, LABELS), {"seed": -1}, "from 0 to"),
        ("from_dataset", (SAMPLES,), {"foo": 1}, "no option 'foo'"),
        ("from_dataset", (SAMPLES,), {"together": lambda s: 1 / 0}, "ZeroDivisionError.*mend it"),
        ("from_dataset", (SAMPLES,), {"together": 7}, "a sample has no 7"),
        ("from_dataset", ({"foo": None},), {}, "expected one train"),
    ],
)
def test_what_is_no_data_or_no_option_is_refused(maker, data, options, reason):
    with pytest.raises(InputError, match=reason):
        getattr(Task, maker)(*data, **options)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("pets/1.png", "is a str; expected a picture"),
        (b"abc", "is a bytes; expected a picture"),
        (None, "is a NoneType; expected a picture"),
        (Image.new("RGB", (0, 0)), r"is of shape \(0, 0\); expected a picture"),
        (np.zeros((1, 2, 3, 4)), r"is of shape \(1, 2, 3, 4\); expected a picture"),
        (np.ma.masked_less(PIXELS[0], 9), "has a mask"),
    ],
)
def test_a_sample_without_a_picture_is_named(odd, reason):
    samples = [*SAMPLES]
    samples[7] = (odd, samples[7][1])
    with pytest.raises(InputError, match=f"data set: 7 {reason}"):
        Task.from_dataset(samples)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_floats_of_every_precision_are_read(kind):
    task = Task.from_arrays(FLOATS.to(kind), LABELS)
    assert len(task.train) + len(task.val) + len(task.test) == len(LABELS)

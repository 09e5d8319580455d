"""What a measure may be given: tensors and NumPy arrays, whole numbers too.

Measures are written for floating-point tensors. `arrays` stands above each of them, so that what
NumPy or scikit-learn gives needs no conversion, and what cannot be measured is refused in one
sentence, the same one everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from aptheory.errors import InputError

Result = TypeVar("Result")


def arrays(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function of tensors take NumPy arrays and whole numbers; ``labels`` stay whole.

    Sequences of arrays, such as one a layer, are read one by one. Raises InputError on an array
    that holds no numbers, or images without any.
    """
    names = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def measured(*args: Any, **options: Any) -> Result:
        args = tuple(_read(name, value) for name, value in zip(names, args, strict=False)) + tuple(
            args[len(names) :]
        )
        return function(*args, **{name: _read(name, value) for name, value in options.items()})

    return measured


def _read(name: str, value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return tensor(value, name)
    if isinstance(value, list | tuple) and any(isinstance(v, Tensor | np.ndarray) for v in value):
        return [tensor(each, f"{name}[{index}]") for index, each in enumerate(value)]
    return value


def tensor(values: Tensor | np.ndarray, name: str) -> Tensor:
    """``values`` as a tensor: floating point as it is, whole numbers as float64, but for labels.

    Raises:
        InputError: no numbers, complex ones, or images of width 0.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise InputError(
                f"{name} holds {values.dtype}; expected an array of numbers, one row an image."
            )
        if values.dtype.kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        values = torch.as_tensor(np.ascontiguousarray(values))
    if values.is_complex():
        raise InputError(f"{name} holds complex numbers; give their parts, or their magnitude.")
    if name == "labels":
        return values
    if values.ndim > 1 and 0 in values.shape[1:]:
        raise InputError(
            f"{name} has shape {tuple(values.shape)}: its images hold no numbers at all; expected "
            "(images, ...) with a width of at least 1."
        )
    return values if values.is_floating_point() else values.to(torch.float64)

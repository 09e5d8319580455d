"""What a measure may be given: tensors and NumPy arrays, whole numbers too.

Measures are written for floating-point tensors. `arrays` stands above each of them, so that what
NumPy or scikit-learn gives needs no conversion, and what cannot be measured is refused in one
sentence, the same one everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from aptheory.arguments import Between, checked_arguments, declared
from aptheory.errors import InputError

Result = TypeVar("Result")

Groups = Annotated[int, Between(1, 10_000)]
"""Into how many the images are dealt, for an interval."""
Side = Annotated[int, Between(1, 10_000)]
"""Rows or columns of a grid."""
Estimator = Literal["unbiased", "biased"]
Kernel = Literal["linear", "rbf"]


def arrays(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function of tensors take NumPy arrays and whole numbers; ``labels`` stay whole.

    Every argument is held against the type that is declared for it, tensors by their dimensions:
    those of one name are equally long. Sequences of arrays, such as one a layer, are read one by
    one.

    Raises:
        InputError: in a call, an array that holds no numbers, images without any, another number of
            dimensions, or any other argument that `checked_arguments` refuses.
    """
    signature = inspect.signature(function)
    checked = checked_arguments(function)

    @wraps(function)
    def measured(*args: Any, **options: Any) -> Result:
        bound = signature.bind(*args, **options)
        hints, sizes = declared(function), dict[str, tuple[int, str]]()
        for name, value in bound.arguments.items():
            hint = hints.get(name)
            value = bound.arguments[name] = _read(name, value, hint)
            if is_array(hint):
                _hold(name, value, hint, sizes)
        return checked(*bound.args, **bound.kwargs)

    return measured


LARGEST = 1e140
"""Of a feature whose squares are summed: what is larger overflows float64."""


def is_array(hint: Any) -> bool:
    """Whether a declared type is one of jaxtyping's, of a tensor with named dimensions."""
    return isinstance(getattr(hint, "dim_str", None), str)


def _read(name: str, value: Any, hint: Any) -> Any:
    if is_array(hint) and not isinstance(value, Tensor | np.ndarray):
        try:
            value = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):
            raise InputError(f"{name} is no array of numbers, one row an image.") from None
    if isinstance(value, Tensor | np.ndarray):
        value = tensor(value, name)
        if hint != Sequence[Tensor]:
            return value
        value = list(value) if value.ndim else [value]
    if isinstance(value, list | tuple) and any(isinstance(v, Tensor | np.ndarray) for v in value):
        return [
            tensor(each, f"{name}[{index}]") if isinstance(each, Tensor | np.ndarray) else each
            for index, each in enumerate(value)
        ]
    return value


def _hold(name: str, value: Tensor, hint: Any, sizes: dict[str, tuple[int, str]]) -> None:
    """Refuse a tensor whose dimensions are not those declared, or not as long as others'.

    ``sizes`` holds, by the names of dimensions, how long they are and whose they were.
    """
    words, shape = hint.dim_str.split(), tuple(value.shape)
    free = next((place for place, word in enumerate(words) if word.startswith("*")), None)
    if len(shape) != len(words) if free is None else len(shape) < len(words) - 1:
        raise InputError(f"{name} has shape {shape}; expected ({', '.join(words)}).")
    behind = 0 if free is None else len(words) - free - 1
    fixed = words if free is None else words[:free] + words[free + 1 :]
    lengths = shape if free is None else shape[:free] + shape[len(shape) - behind :]
    for word, length in zip(fixed, lengths, strict=True):
        known, whose = sizes.setdefault(word, (int(word) if word.isdigit() else length, name))
        if length != known:
            of = "" if whose == name else f" with the {known} {word} of {whose}"
            raise InputError(f"{name} has shape {shape}; expected ({', '.join(words)}){of}.")


def tensor(values: Tensor | np.ndarray, name: str) -> Tensor:
    """``values`` as a tensor: floating point as it is, whole numbers as float64, but for labels.

    Raises:
        InputError: no numbers, complex or masked ones, images of width 0, or a tensor without
            plain values.
    """
    if isinstance(values, np.ndarray):
        if np.ma.is_masked(values):
            raise InputError(f"{name} has masked entries; leave these images out, or fill them.")
        if values.dtype.kind not in "fiub":
            raise InputError(
                f"{name} holds {values.dtype}; expected an array of numbers, one row an image."
            )
        if values.dtype.kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)  # of old files
        values = torch.as_tensor(np.ascontiguousarray(values).reshape(values.shape))
    if values.is_nested:
        raise InputError(f"{name} is a nested tensor; give a plain one, of rows of one length.")
    if values.is_complex():
        raise InputError(f"{name} holds complex numbers; give their parts, or their magnitude.")
    if values.is_meta or values.is_quantized or values.layout != torch.strided:
        kind = "meta" if values.is_meta else "quantized" if values.is_quantized else "sparse"
        raise InputError(f"{name} is a {kind} tensor; give a plain one that holds its values.")
    if name == "labels":
        return values
    if values.ndim > 1 and 0 in values.shape[1:]:
        raise InputError(
            f"{name} has shape {tuple(values.shape)}: its images hold no numbers at all; expected "
            "(images, ...) with a width of at least 1."
        )
    return values if values.is_floating_point() else values.to(torch.float64)

"""Augmentation of the user's own: any callable, drawn anew for every training picture."""

import hashlib
import inspect
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from aptheory.errors import InputError, reason_of
from aptheory.preprocessing import Size, as_transform, fit_pixels
from aptheory.tasks.base import Task
from aptheory.tasks.resizing import resize_of
from aptheory.tasks.split import Indices, Split, Steady, as_indices, digest_of

Transform = Callable[[Any], Any]


def augmented(task: Task, transform: Transform) -> Task:
    """The task with ``transform`` drawn anew at every look at a training picture.

    ``transform`` takes a Pillow image of the network's input size (or, where it does not, a uint8
    tensor (channels, height, width)) and gives an image, a uint8 tensor or floats from 0 to 1:
    torchvision's transforms and timm's do. Normalisation is not part of it: the network does that.
    Validation and test pictures are left as they are.
    """
    if not callable(transform):
        raise InputError(f"augment is {transform!r}; expected a callable that takes an image.")
    return replace(task, train=Augmented(task.train, transform))


class Augmented(Steady):
    """A split whose pictures pass a transform whenever they are asked for.

    ``split`` is the one without it. What is drawn is decided by ``generator`` where one is given,
    else by torch's own.
    """

    random = True

    def __init__(self, split: Split, transform: Transform) -> None:
        self.split = split
        self.transform = transform
        self.labels = split.labels
        self._takes_pillow: bool | None = None

    @property
    def resize(self) -> str:
        return resize_of(self.split)

    def __len__(self) -> int:
        return len(self.labels)

    def images(
        self, indices: Indices, size: Size, *, generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "n channels height width"]:
        images = self.split.images(as_indices(indices, len(self)), size)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        with seeded(seed):
            drawn = [self._drawn(image)[None] for image in images]
        sides = as_transform(size).size
        return torch.cat([fit_pixels(image, sides) for image in drawn])

    def _images(self, indices: np.ndarray, size: Size) -> UInt8[Tensor, "n channels height width"]:
        return self.images(indices, size)

    @cached_property
    def digest(self) -> str:
        text = f"augmented {digest_of(self.split)} {described(self.transform)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _drawn(self, image: UInt8[Tensor, "channels height width"]) -> Tensor:
        if self._takes_pillow is None:
            self._takes_pillow = len(image) in (1, 3) and self._works(_pillow(image))
        try:
            out = self.transform(_pillow(image) if self._takes_pillow else image.clone())
        except Exception as error:
            reason = reason_of(error)
            raise InputError(
                f"augment cannot be applied to a picture ({type(error).__name__}: {reason}); "
                "expected a callable of an image."
            ) from error
        return _bytes(out)

    def _works(self, image: Any) -> bool:
        try:
            self.transform(image)
        except Exception:  # it may want a tensor; if not, the next call says what is wrong
            return False
        return True


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of torch, numpy and the standard library at ``seed``, and back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - transforms draw there
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def described(transform: Transform) -> str:
    """What a transform is, in words that are the same in every process."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(transform))
    with_source = transform if hasattr(transform, "__code__") else type(transform)
    try:
        text += hashlib.sha256(inspect.getsource(with_source).encode()).hexdigest()
    except (OSError, TypeError):
        code = getattr(transform, "__code__", None)
        text += hashlib.sha256(code.co_code if code else b"").hexdigest()
    return text


def _pillow(image: Tensor) -> Any:
    from PIL import Image

    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _bytes(out: Any) -> Tensor:
    if hasattr(out, "getbands"):
        array = np.array(out, dtype=np.uint8)
        return torch.from_numpy(array[..., None] if array.ndim == 2 else array).permute(2, 0, 1)
    if not isinstance(out, Tensor) or out.ndim != 3:
        kind = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"augment gives {kind}; expected an image, or a tensor of three axes.")
    out = torch.as_tensor(out)
    if out.dtype == torch.uint8:
        return out
    if not bool(((out >= 0) & (out <= 1)).all()):
        raise InputError(
            f"augment gives values from {float(out.min()):g} to {float(out.max()):g}; expected "
            "bytes, or floats from 0 to 1: leave normalisation out, the network does it."
        )
    return (out * 255).round().to(torch.uint8)

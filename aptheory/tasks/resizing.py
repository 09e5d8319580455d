"""Which of the ways to make a picture an image a split wants on a network."""

from dataclasses import replace
from typing import Any

from aptheory.errors import InputError
from aptheory.preprocessing import RESIZES, Size, Transform

CHOICES = ("network", *RESIZES)
"""What may be chosen: the network's own evaluation transform, or one of the three by name."""


def resize_of(split: Any) -> str:
    """The choice that a split carries: "network" for pictures that come in sizes of their own,
    "squash" for arrays and for protocols that say so, as VTAB's, and for a split without one."""
    return getattr(split, "resize", "squash")


def checked_resize(resize: str) -> str:
    """``resize`` itself, or an `InputError` where it is none of the choices."""
    if resize not in CHOICES:
        raise InputError(f"resize is {resize!r}; expected one of {', '.join(CHOICES)}.")
    return resize


def transform_of(split: Any, net: Any) -> Transform:
    """How the pictures of ``split`` become images of ``net``.

    "network": as the network's own configuration says. "squash": whole, bilinear, whatever the
    network says, but for what was given to `load` by hand. "center" and "border": that geometry,
    with the network's crop and interpolation.
    """
    resize = checked_resize(resize_of(split))
    if resize == "network":
        return net.transform
    if resize == "squash":
        return net.transform.squashed()
    return replace(net.transform, resize=resize)


def view(split: Any, net: Any) -> Size:
    """What to ask ``split.images`` for: a plain size where that is the whole transform."""
    transform = transform_of(split, net)
    return transform.size if transform.plain else transform

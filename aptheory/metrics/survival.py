"""Token survival: how much of a single token is left at a layer, by perturbation.

One patch of an image is replaced by the same patch of another image, and the change is followed
through the network. At a layer with activation z, of an image x, of x with the patch replaced (x'),
and of the other image (x''),

    survival = ‖z(x') − z(x)‖² / (s ‖z(x'') − z(x)‖²),     s = the patch's share of the image.

At the image it is 1 on average over patches, by definition: a patch holds its share of the
difference of two images. Above 1, single patches count for more than their share (they are
amplified, or what all patches share is lost); towards 0, a single patch drowns in what is averaged
over all. A layer that takes the mean of its tokens and nothing else keeps s of it, 1/P for P
tokens. The theorem's two-layer network prefers the place at which its one discriminative token is
still there: this carries that index to real networks, CNNs included (with a small patch for token).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.metrics.intervals import Estimate, RunningMean


def token_survival(
    versions: Float[Tensor, "images 3 *features"], *, share: float
) -> Float[Tensor, " images"]:
    """Survival of one patch for each image (see the module); float64.

    versions : activations of the image, of the image with one patch replaced, and of the other
        image, in that order. share : of the image that the patch covers, in (0, 1].

    Raises InputError where the two images give the same activation, or one is not finite.

    >>> token_survival(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]]), share=0.5)
    tensor([1.], dtype=torch.float64)
    """
    values = _survival(versions, share)
    if not bool(values.isfinite().all()):
        raise InputError(
            "Two different images give the same activation, or one that is not finite: nothing "
            "can survive there."
        )
    return values


def _survival(versions: Tensor, share: float) -> Tensor:
    if versions.ndim < 3 or versions.shape[1] != 3:
        raise InputError(
            f"The versions have shape {tuple(versions.shape)}; expected (images, 3, features)."
        )
    if not 0 < share <= 1:
        raise InputError(f"A patch's share of the image lies in (0, 1], got {share}.")
    plain, token, other = versions.flatten(2).double().unbind(1)
    changed, replaced = (token - plain).square().sum(1), (other - plain).square().sum(1)
    return changed / (share * replaced)


def replace_patch(
    images: Float[Tensor, "images colours height width"],
    others: Float[Tensor, "images colours height width"],
    grid: tuple[int, int],
    patches: Tensor,
) -> Float[Tensor, "images colours height width"]:
    """Each image with one patch, numbered row by row on ``grid``, taken from another image."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) * grid[0] // height
    columns = torch.arange(width, device=images.device) * grid[1] // width
    number = rows[:, None] * grid[1] + columns
    inside = number == patches.to(images.device)[:, None, None]
    return torch.where(inside[:, None], others, images)


class TokenSurvival:
    """Streaming mean over images and patches. Images that equal their neighbour are left out."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.running = RunningMean()
        self.left_out = 0

    def update(self, versions: Float[Tensor, "images 3 *features"]) -> None:
        """Add activations of the image, with one patch replaced, and of the other image."""
        values = _survival(versions, self.share)
        good = values.isfinite()
        self.left_out += int((~good).sum())
        self.running.update(values[good])

    def merge(self, other: "TokenSurvival") -> None:
        """Take over what ``other`` has seen."""
        if other.share != self.share:
            raise InputError(
                f"Survivals of patches of {self.share} and {other.share} of the image cannot be "
                "merged: use one grid."
            )
        self.running.merge(other.running)
        self.left_out += other.left_out

    def compute(self, *, level: float = 0.95) -> Estimate:
        """Mean survival with its interval over images and patches."""
        if self.running.count == 0:
            raise InputError("No two images differ there: no token survives or is lost.")
        return self.running.compute(level=level)

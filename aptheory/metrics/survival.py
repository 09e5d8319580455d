"""Token survival: how much of a single token is left at a layer, by perturbation.

One patch of an image is replaced by the same patch of another image, and the change is followed
through the network. At a layer with activation z, of an image x, of x with the patch replaced (x'),
and of the other image (x''),

    survival = mean ‖z(x') − z(x)‖² / (s · mean ‖z(x'') − z(x)‖²),   s = the patch's share of x,

means over images and patches.

At the image it is 1 on average over patches, by definition: a patch holds its share of the
difference of two images. Above 1, single patches count for more than their share (they are
amplified, or what all patches share is lost); towards 0, a single patch drowns in what is averaged
over all. A mean over P tokens keeps 1/P of it where an image's tokens say the same, and all of it
where they have nothing in common (then the mean of all is as small). The theorem's two-layer
network prefers the place at which its one discriminative token is still there: this carries that
index to real networks, CNNs included (with a small patch for token).
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from aptheory.arguments import Level
from aptheory.errors import InputError
from aptheory.metrics.inputs import Groups, Side, arrays
from aptheory.metrics.intervals import Estimate, deal, group_jackknife
from aptheory.metrics.registry import FREE, INFINITE, measure


@measure(
    "versions",
    0,
    INFINITE,
    unchanged_by=FREE,
    greater_means="more of a single token is left",
    source="ours, by perturbation",
)
@arrays
def token_survival(
    versions: Float[Tensor, "images 3 *features"], *, share: float
) -> Float[Tensor, ""]:
    """Survival of one patch an image (see the module), a ratio of means over images; float64.

    versions : activations of the image, of the image with one patch replaced, and of the other
        image, in that order. share : of the image that the patch covers, in (0, 1].

    Raises InputError where the images give one activation, or one that is not finite.

    >>> token_survival(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]]), share=0.5)
    tensor(1., dtype=torch.float64)
    """
    survival = TokenSurvival(share)
    survival.update(versions)
    return survival.compute().value


@arrays
def replace_patch(
    images: Float[Tensor, "images colours height width"],
    others: Float[Tensor, "images colours height width"],
    grid: tuple[Side, Side],
    patches: Shaped[Tensor, " images"],
) -> Float[Tensor, "images colours height width"]:
    """Each image with one patch, numbered row by row on ``grid``, taken from another image."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) * grid[0] // height
    columns = torch.arange(width, device=images.device) * grid[1] // width
    number = rows[:, None] * grid[1] + columns
    inside = number == patches.to(images.device)[:, None, None]
    return torch.where(inside[:, None], others, images)


class TokenSurvival:
    """Streaming `token_survival`, with a jackknife interval over ``groups`` groups of images."""

    @arrays
    def __init__(self, share: float, *, groups: Groups = 8) -> None:
        if not 0 < share <= 1:
            raise InputError(f"A patch's share of the image lies in (0, 1], got {share}.")
        self.share = share
        self.sums = torch.zeros(groups, 2, dtype=torch.float64)  # Σ ‖z(x') − z‖², Σ ‖z(x'') − z‖²
        self.images = 0

    @arrays
    def update(self, versions: Float[Tensor, "images 3 *features"]) -> None:
        """Add activations of the image, with one patch replaced, and of the other image."""
        plain, token, other = versions.detach().flatten(2).double().unbind(1)
        moved = [(changed - plain).square().sum(1) for changed in (token, other)]
        both = torch.stack(moved, 1).cpu()
        if not bool(both.isfinite().all()):
            raise InputError("An activation is not finite: look at the network or the images.")
        for group, part in deal(len(both), self.images, len(self.sums)):
            self.sums[group] += both[part].sum(0)
        self.images += len(both)

    @arrays
    def merge(self, other: "TokenSurvival") -> None:
        """Take over what ``other`` has seen."""
        if other.share != self.share or len(other.sums) != len(self.sums):
            raise InputError(
                f"Survivals of patches of {self.share} and {other.share} of the image cannot be "
                "merged: use one grid and one number of groups."
            )
        self.sums = self.sums + other.sums
        self.images += other.images

    @arrays
    def compute(self, *, level: Level = 0.95) -> Estimate:
        """Survival with its interval; raises InputError where all images look the same."""
        total = self.sums.sum(0)
        if not total[1] > 0:
            raise InputError("No two images differ there: no token can survive or be lost.")
        rest = total - self.sums
        without = [self._ratio(sums) for sums in rest] if bool((rest[:, 1] > 0).all()) else []
        return group_jackknife(self._ratio(total), without, images=self.images, level=level)

    def _ratio(self, sums: Tensor) -> Tensor:
        return sums[0] / (self.share * sums[1])

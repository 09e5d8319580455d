"""Mixup and CutMix: training images that are blends of two, with blended labels.

Zhang et al., "mixup", ICLR 2018, arXiv 1710.09412; Yun et al., "CutMix", ICCV 2019, arXiv
1905.04899; both as torchvision's transforms compute them. Images are blended before the network,
so nothing of a training image can be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from aptheory.tasks.augmenting import seeded

MIXES = ("none", "mixup", "cutmix")


class Mix:
    """Blends the images of each run among themselves, drawn from the run's own generator.

    The images arrive normalised: blending commutes with that. ``targets`` are the blended labels,
    once the images have passed.
    """

    targets: Float[Tensor, "samples classes"]

    def __init__(
        self,
        how: str,
        labels: Int64[Tensor, " samples"],
        classes: int,
        generators: Sequence[torch.Generator],
    ) -> None:
        from torchvision.transforms import v2

        kind = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[how]
        self.blend = kind(num_classes=classes)
        self.labels, self.classes, self.generators = labels, classes, generators

    def __call__(
        self, images: Float[Tensor, "samples channels height width"]
    ) -> Float[Tensor, "samples channels height width"]:
        runs = len(self.generators)
        blended, targets = [], []
        for x, y, generator in zip(
            images.chunk(runs), self.labels.chunk(runs), self.generators, strict=True
        ):
            seed = int(torch.randint(2**31, (1,), generator=generator))
            if len(x) == 1:  # nothing to blend with
                z, t = x, F.one_hot(y, self.classes).float()
            else:
                with seeded(seed):
                    z, t = self.blend(x, y)
            blended.append(z)
            targets.append(t)
        self.targets = torch.cat(targets)
        return torch.cat(blended)

"""Token survival: one patch of an image replaced, its trace followed through the network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.networks.network import Network
from aptheory.profiling.watchers.base import Row, Settings, Watcher

# Images that go through the network together, and patches that are replaced in each, one at a time.
_AT_ONCE = 8
_PATCHES = 4
#: Patches a side of networks that have none of their own.
_SIDE = 8


class TokenSurvivalWatcher(Watcher):
    """How much of a single token, or of a patch a 64th of the image for a CNN, survives to a layer.

    Costs four forward passes more on the first ``gradient_images`` images; each image's neighbour
    in its batch is the other image. Patches are drawn with the seed.
    """

    measures = ("token_survival",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.left = settings.gradient_images
        self.grid = token_grid(settings.net)
        share = 1 / (self.grid[0] * self.grid[1])
        self.each = {layer.index: metrics.TokenSurvival(share) for layer in settings.layers}
        self.draw = torch.Generator().manual_seed(settings.seed)

    def see_images(self, x: Tensor) -> None:
        """Take normalised images, and run them with one patch replaced, several times."""
        net, places = self.settings.net, self.grid[0] * self.grid[1]
        while len(x) > 1 and self.left > 1:
            count = min(_AT_ONCE, self.left, len(x))
            part, x = x[:count], x[count:]
            self.left -= count
            if count < 2:
                return
            others = part.roll(1, 0)
            versions = [part]
            for _ in range(_PATCHES):
                patches = torch.randint(places, (count,), generator=self.draw)
                versions.append(metrics.replace_patch(part, others, self.grid, patches))
            for layer, z in net.walk(torch.cat(versions), stops=self.settings.layers):
                plain, *changed = z.flatten(1).split(count)
                for token in changed:
                    triple = torch.stack([plain, token, plain.roll(1, 0)], 1)
                    self.each[layer.index].update(triple)

    def rows(self) -> Iterator[Row]:
        for layer in self.settings.layers:
            found = self.defined(layer, self.each[layer.index].compute)
            if found is not None:
                yield self.row(layer, "token_survival", found)


def token_grid(net: Network) -> tuple[int, int]:
    """The grid of the network's own tokens, where it has some; 8 × 8 patches for any other."""
    for layer in net.layers[1:]:
        if layer.layout in ("tokens", "map_last") and layer.grid is not None:
            return layer.grid
    return min(_SIDE, net.input_shape[1]), min(_SIDE, net.input_shape[2])

"""The effective receptive field: the one measure that needs gradients."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.profiling.watchers.base import Row, Settings, Watcher, pixels_of

# Images whose graph through the whole network is alive at once, and images looked at in all.
_AT_ONCE = 8


class ReceptiveFieldWatcher(Watcher):
    """Radius of the gradient of each layer's middle position with respect to the image, in pixels.

    Costs one forward and one backward pass a layer on the first ``gradient_images`` images.
    """

    measures = ("receptive_radius", "receptive_extent")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        height, width = settings.net.input_shape[1:]
        self.left = settings.gradient_images
        self.position: dict[int, int] = {}
        self.each: dict[int, metrics.ReceptiveField] = {}
        for layer in settings.layers:
            if layer.grid is not None and layer.index > 0:
                position, centre = metrics.middle(
                    layer.grid, (height, width), pixels=pixels_of(settings.net, layer.grid)
                )
                self.position[layer.index] = position
                self.each[layer.index] = metrics.ReceptiveField(centre)

    def see_images(self, x: Tensor) -> None:
        """Take normalised images, and run them with gradients."""
        net = self.settings.net
        while len(x) and self.left > 0 and self.each:
            count = min(_AT_ONCE, self.left, len(x))
            seed = self.settings.seed + self.left
            part, x = x[:count], x[count:]
            self.left -= count
            with torch.inference_mode(False), torch.enable_grad():
                image = part.clone().requires_grad_()
                for layer, z in net.walk(image, stops=self.each):
                    gradient = metrics.position_gradient(
                        layer.positions(z), image, position=self.position[layer.index], seed=seed
                    )
                    self.each[layer.index].update(gradient)

    def rows(self) -> Iterator[Row]:
        for layer in self.settings.layers:
            if layer.index not in self.each:
                continue
            field = self.each[layer.index]
            found = self.defined(layer, field.compute)
            if found is None:
                continue
            if "receptive_radius" in self.wanted:
                yield self.row(layer, "receptive_radius", found)
            if "receptive_extent" in self.wanted:
                nothing = torch.tensor(float("nan"), dtype=torch.float64)
                extent = torch.tensor(field.extent(), dtype=torch.float64)
                estimate = metrics.Estimate(extent, nothing, nothing, found.images)
                yield self.row(layer, "receptive_extent", estimate)

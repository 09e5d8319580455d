"""Attention distance, entropy and prefix share, from probabilities that are not kept."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.network import Network
from aptheory.watchers.base import Row, Settings, Watcher


class AttentionWatcher(Watcher):
    """Attention distance, entropy and prefix share, of each head and their mean over heads.

    ``observe`` is called by the network with one attention layer's probabilities, and keeps none.
    """

    measures = ("attention_distance", "attention_entropy", "prefix_share")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.each: dict[str, dict[str, Any]] = {}
        self.sites: dict[str, Any] = {}

    def observe(self, site: Any, probabilities: Tensor) -> None:
        """One attention layer's probabilities (batch, heads, queries, keys)."""
        if site.name not in self.each:
            self.sites[site.name] = site
            self.each[site.name] = {name: self._start(name, site) for name in self.wanted}
        for accumulator in self.each[site.name].values():
            accumulator.update(probabilities)

    def _start(self, name: str, site: Any) -> Any:
        mass = self.settings.prefix_mass
        windows = 1 if site.window is None else site.window.count
        if name == "attention_distance":
            return metrics.AttentionDistance(
                site_distances(self.settings.net, site), prefix=site.prefix, prefix_mass=mass
            )
        if name == "attention_entropy":
            return metrics.AttentionEntropy(prefix=site.prefix, prefix_mass=mass, windows=windows)
        return metrics.PrefixShare(prefix=site.prefix, windows=windows)

    def rows(self) -> Iterator[Row]:
        by_index = {layer.index: layer for layer in self.settings.net.layers}
        for name, accumulators in self.each.items():
            layer = by_index[self.sites[name].layer]
            for measure, accumulator in accumulators.items():
                mean = self.defined(layer, accumulator.compute_mean)
                if mean is None:
                    continue
                yield self.row(layer, measure, mean, head="mean", module=name)
                heads = accumulator.compute(level=self.settings.level)
                for head in range(len(heads.value)):
                    yield self.row(layer, measure, heads, (head,), head=head, module=name)


def site_distances(net: Network, site: Any) -> Tensor:
    """Distances in pixels between the tokens of an attention layer, or within each window."""
    height, width = net.input_shape[1:]
    pixels = (height / site.grid[0], width / site.grid[1])
    if site.window is None:
        return metrics.grid_distances(site.grid, pixels)
    coordinates = site.window.coordinates(site.grid)
    scale = torch.tensor(pixels, dtype=torch.float64)
    return metrics.window_distances(coordinates.to(torch.float64) * scale)

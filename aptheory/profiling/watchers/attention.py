"""Attention distance, entropy and prefix share, from probabilities that are not kept."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.networks.attention import AttentionLayer, attention_layers, observe_attention
from aptheory.networks.network import Network
from aptheory.profiling.watchers.base import Row, Settings, Watcher, pixels_of, warn_undefined


class AttentionWatcher(Watcher):
    """Attention distance, entropy and prefix share, of each head and their mean over heads.

    ``observe`` is called by the network with one attention layer's probabilities, and keeps none.
    """

    measures = ("attention_distance", "attention_entropy", "prefix_share")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        chosen = {layer.index for layer in settings.layers}
        known = attention_layers(settings.net)
        self.sites = {site.name: site for site in known if site.layer in chosen}
        if not self.sites:
            where = "there" if known else "that can be seen"
            raise InputError(
                f"{settings.net.name} has no attention {where}: leave out {', '.join(self.wanted)}."
            )
        self.stop = max(site.layer for site in self.sites.values()) + 1
        self.each: dict[str, dict[str, Any]] = {}
        for name, site in self.sites.items():
            wanted = self.wanted
            if not placed(site) and set(wanted) - {"attention_entropy"}:
                warn_undefined(
                    f"Where the queries and keys of {name} lie in the image is not known (pooled, "
                    "dilated or reordered tokens): only their entropy is measured."
                )
                wanted = tuple(each for each in wanted if each == "attention_entropy")
            self.each[name] = {each: self._start(each, site) for each in wanted}

    def observing(self) -> observe_attention:
        """The context within which runs of the network are seen."""
        return observe_attention(
            self.settings.net, self.observe, tuple(self.sites.values()), reuse=True
        )

    def observe(self, site: AttentionLayer, probabilities: Tensor) -> None:
        """One attention layer's probabilities (batch, heads, queries, keys)."""
        for accumulator in self.each[site.name].values():
            accumulator.update(probabilities)

    def _start(self, name: str, site: AttentionLayer) -> Any:
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


def placed(site: AttentionLayer) -> bool:
    """Whether queries and keys are the same tokens, at known places in the image."""
    return site.is_self_attention and (site.window is None or site.window.rows_columns is not None)


def site_distances(net: Network, site: AttentionLayer) -> Tensor:
    """Distances in pixels between the tokens of an attention layer, or within each window."""
    pixels = pixels_of(net, site.grid)
    if site.window is None:
        return metrics.grid_distances(site.grid, pixels)
    coordinates = site.window.coordinates(site.grid)
    scale = torch.tensor(pixels, dtype=torch.float64)
    return metrics.window_distances(coordinates.to(torch.float64) * scale)

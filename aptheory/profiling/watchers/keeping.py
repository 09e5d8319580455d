"""The measures that need every image's features at once: probes, LogME, Procrustes, neighbours.

They keep the pooled features, images × channels numbers a layer in float32, and so grow with the
images. Everything else in this folder streams. A function of features, or of features and labels,
that is registered as a measure and does not stream is computed here, whoever wrote it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.profiling.watchers.base import Row, Settings, Sight, Watcher


class KeepingWatcher(Watcher):
    """Keeps pooled features of every layer, and labels where a measure asks for them."""

    measures = ("procrustes", "mutual_neighbours")

    @classmethod
    def known(cls) -> tuple[str, ...]:
        return (*_plain("labelled"), *cls.measures, *_plain("features"))

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.features: dict[int, list[Tensor]] = {layer.index: [] for layer in settings.layers}
        self.labels: list[Tensor] = []
        self.labelled = tuple(name for name in self.wanted if name in _plain("labelled"))

    def see(self, sight: Sight) -> None:
        pooled = sight.pooled(self.settings.pooled)
        self.features[sight.layer.index].append(pooled.detach().to("cpu", torch.float32).clone())
        if self.labelled and sight.layer is self.settings.layers[0]:
            self.labels.append(sight.need_labels(self.labelled).cpu())

    def rows(self) -> Iterator[Row]:
        joined = {index: torch.cat(parts) for index, parts in self.features.items()}
        labels = (torch.cat(self.labels),) if self.labels else ()
        of_features = tuple(name for name in self.wanted if name in _plain("features"))
        for layer in self.settings.layers:
            features = joined[layer.index]
            for name in self.labelled + of_features:
                given = (features, *labels) if name in self.labelled else (features,)
                found = self.defined(layer, self._estimate, name, given)
                if found is not None:
                    yield self.row(layer, name, found, features=self.settings.pooled)
        for name in self.wanted:
            if name == "procrustes":
                yield from self._pairs(name, joined, metrics.procrustes_of_grams)
            elif name == "mutual_neighbours":
                yield from self._pairs(name, joined, metrics.mutual_neighbours_of_grams)

    def _estimate(self, name: str, given: tuple[Any, ...], *, level: float) -> metrics.Estimate:
        if name == "probe_accuracy":
            probe = metrics.probe_accuracy(*given, seed=self.settings.seed, level=level)
            value, low, high = (torch.tensor(each, dtype=torch.float64) for each in probe[:3])
            return metrics.Estimate(value, low, high, probe.images)
        return _without_interval(float(metrics.MEASURES[name].function(*given)), len(given[0]))

    def _pairs(
        self, name: str, joined: dict[int, Tensor], function: Callable[..., float]
    ) -> Iterator[Row]:
        options: dict[str, Any] = {}
        images = len(next(iter(joined.values())))
        if name == "procrustes":
            options["seed"] = self.settings.seed
        elif images <= 10:
            options["neighbours"] = max(1, images // 2)

        def compute(first: Tensor, second: Tensor, *, level: float) -> metrics.Estimate:
            return _without_interval(function(first, second, **options), images)

        layers = self.settings.layers
        for i, layer in enumerate(layers):
            first = metrics.linear_gram(joined[layer.index].double())
            for other in layers[i:]:
                second = metrics.linear_gram(joined[other.index].double())
                found = self.defined(layer, compute, first, second)
                if found is None:
                    continue
                kind = self.settings.pooled
                yield self.row(layer, name, found, other_layer=other.index, features=kind)
                if other is not layer:
                    yield self.row(other, name, found, other_layer=layer.index, features=kind)


def _without_interval(value: float, images: int) -> metrics.Estimate:
    """No resampling of images is sound for this measure (a repeated image is a new fact)."""
    unknown = torch.tensor(float("nan"), dtype=torch.float64)
    return metrics.Estimate(torch.tensor(value, dtype=torch.float64), unknown, unknown, images)


def _plain(takes: str) -> tuple[str, ...]:
    """The registered functions that need no accumulator of their own."""
    return tuple(
        name
        for name, measure in metrics.MEASURES.items()
        if measure.takes == takes and not measure.streams
    )

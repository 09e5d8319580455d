"""The measures of features that stream: what is kept does not grow with the number of images."""

from collections.abc import Iterator

from aptheory import metrics
from aptheory.metrics.inputs import Kernel
from aptheory.profiling.watchers.base import Row, Settings, Sight, Watcher, warn_undefined


class CKAWatcher(Watcher):
    """All pairs of layers, unbiased, streaming."""

    measures = ("cka", "cka_rbf")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        kernels: dict[str, Kernel] = {"cka": "linear", "cka_rbf": "rbf"}
        count = len(settings.layers)
        self.maps = {name: metrics.CKA(count, kernel=kernels[name]) for name in self.wanted}

    def see(self, sight: Sight) -> None:
        how = self.settings.cka_pooled
        features = sight.everything() if how == "all" else sight.pooled(how)
        for each in self.maps.values():
            each.add(features)

    def end_batch(self) -> None:
        for each in self.maps.values():
            each.end_batch()

    def rows(self) -> Iterator[Row]:
        layers = self.settings.layers
        for name, each in self.maps.items():
            estimate = each.compute(level=self.settings.level, undefined="nan")
            for i, layer in enumerate(layers):
                if estimate.value[i, i].isnan():
                    warn_undefined(
                        f"Layer {layer.index} ({layer.name}) never varies or is not finite: no "
                        f"{name}."
                    )
                    continue
                for j, other in enumerate(layers):
                    if not estimate.value[i, j].isnan():
                        yield self.row(
                            layer,
                            name,
                            estimate,
                            (i, j),
                            other_layer=other.index,
                            features=self.settings.cka_pooled,
                        )


_RANKS = (
    "effective_rank",
    "effective_rank_centred",
    "stable_rank",
    "stable_rank_centred",
    "participation_ratio",
    "numerical_rank",
)


class RankWatcher(Watcher):
    """The rank family on pooled features; with ``token_`` before the name, on token features."""

    measures = _RANKS + tuple("token_" + name for name in _RANKS)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        groups = 8 if settings.intervals else 1
        self.pooled: dict[int, metrics.Rank] = {}
        self.tokens: dict[int, metrics.Rank] = {}
        self.pooled_measures = tuple(n for n in self.wanted if not n.startswith("token_"))
        self.token_measures = tuple(n[6:] for n in self.wanted if n.startswith("token_"))
        for layer in settings.layers:
            if self.pooled_measures:
                self.pooled[layer.index] = metrics.Rank(groups=groups)
            if self.token_measures and layer.grid is not None:
                self.tokens[layer.index] = metrics.Rank(groups=groups)

    def see(self, sight: Sight) -> None:
        index = sight.layer.index
        if index in self.pooled:
            self.pooled[index].update(sight.pooled(self.settings.pooled))
        if index in self.tokens:
            self.tokens[index].update_tokens(sight.layer.positions(sight.z))

    def rows(self) -> Iterator[Row]:
        for layer in self.settings.layers:
            for prefix, ranks, names in (
                ("", self.pooled, self.pooled_measures),
                ("token_", self.tokens, self.token_measures),
            ):
                if layer.index not in ranks:
                    continue
                rank = ranks[layer.index]
                found = self.defined(layer, rank.compute, names)
                features = "positions" if prefix else self.settings.pooled
                for name, estimate in (found or {}).items():
                    yield self.row(layer, prefix + name, estimate, features=features)


class GlobalityWatcher(Watcher):
    """Share of variance carried by the spatial mean, where there are positions."""

    measures = ("globality",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.each = {
            layer.index: metrics.Globality()
            for layer in settings.layers
            if layer.grid is not None and layer.grid[0] * layer.grid[1] > 1
        }

    def see(self, sight: Sight) -> None:
        if sight.layer.index in self.each:
            self.each[sight.layer.index].update(sight.layer.positions(sight.z))

    def rows(self) -> Iterator[Row]:
        for layer in self.settings.layers:
            if layer.index in self.each:
                found = self.defined(layer, self.each[layer.index].compute)
                if found is not None:
                    yield self.row(layer, "globality", found)


class FrequencyWatcher(Watcher):
    """Relative log amplitude at the highest frequency, where there is a map."""

    measures = ("relative_log_amplitude",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.each = {
            layer.index: metrics.RelativeLogAmplitude()
            for layer in settings.layers
            if layer.grid is not None and min(layer.grid) > 1
        }

    def see(self, sight: Sight) -> None:
        if sight.layer.index in self.each:
            self.each[sight.layer.index].update(sight.maps())

    def rows(self) -> Iterator[Row]:
        for layer in self.settings.layers:
            if layer.index in self.each:
                found = self.defined(layer, self.each[layer.index].compute)
                if found is not None:
                    yield self.row(layer, self.measures[0], found, (len(found.value) - 1,))


class ClassDistanceWatcher(Watcher):
    """Distances between class means over distances within classes, on pooled features."""

    measures = ("class_distance_ratio",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.each = {layer.index: metrics.ClassDistanceRatio() for layer in settings.layers}

    def see(self, sight: Sight) -> None:
        features = sight.pooled(self.settings.pooled)
        self.each[sight.layer.index].update(features, sight.need_labels(self.measures))

    def rows(self) -> Iterator[Row]:
        for layer in self.settings.layers:
            found = self.defined(layer, self.each[layer.index].compute)
            if found is not None:
                yield self.row(layer, self.measures[0], found, features=self.settings.pooled)

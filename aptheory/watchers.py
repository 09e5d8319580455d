"""What watches a network while its images pass: one watcher a family of measures.

A watcher is shown each layer's activation in turn, one layer's batch at a time, and keeps only the
sums that its accumulators need. It writes the rows of the table at the end.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from aptheory import metrics
from aptheory.errors import InputError
from aptheory.network import Layer, Network

Row = dict[str, Any]


class UndefinedWarning(UserWarning):
    """A measure does not exist at a layer (constant features, say), and its row is absent."""


@dataclass
class Sight:
    """One layer's batch, as the watchers see it; what several of them need is made once."""

    layer: Layer
    z: Tensor
    labels: Tensor | None
    _pooled: dict[str, Tensor] = field(default_factory=dict)

    def pooled(self, how: str) -> Tensor:
        """(images, width): "mean" over positions, "class" token, or "all" positions in a row."""
        if how not in self._pooled:
            self._pooled[how] = self.layer.pooled(self.z, how)  # type: ignore[arg-type]
        return self._pooled[how]

    def everything(self) -> Tensor:
        """All positions, (images, ...), in whatever order costs no copy: for Gram matrices."""
        if self.layer.layout == "tokens" and self.layer.prefix:
            return self.z[:, self.layer.prefix :]
        return self.z


@dataclass
class Settings:
    """What the watchers of one profile share."""

    net: Network
    layers: tuple[Layer, ...]
    measures: tuple[str, ...]
    pooled: str
    cka_pooled: str
    level: float
    intervals: bool
    prefix_mass: Any = "exclude"


class Watcher:
    """Base: ``measures`` names what a subclass can compute."""

    measures: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.wanted = tuple(name for name in settings.measures if name in self.measures)

    def see(self, sight: Sight) -> None:
        """Take what is needed of one layer's batch."""

    def end_batch(self) -> None:
        """All layers of the batch have been seen."""

    def rows(self) -> Iterator[Row]:
        """The rows of the table, without the columns that every row shares."""
        raise AssertionError("a watcher has rows")

    def row(
        self,
        layer: Layer,
        measure: str,
        estimate: metrics.Estimate,
        index: tuple[int, ...] = (),
        **more: Any,
    ) -> Row:
        """One row, from the element ``index`` of an estimate."""
        return {
            "layer": layer.index,
            "measure": measure,
            "value": float(estimate.value[index]),
            "low": float(estimate.low[index]),
            "high": float(estimate.high[index]),
            "images": estimate.images,
            **more,
        }

    def defined(self, layer: Layer, make: Callable[..., Any], *args: Any) -> Any:
        """``make(*args, level=...)``, or None with a warning that names the layer where it is undefined."""
        try:
            return make(*args, level=self.settings.level)
        except InputError as error:
            warn_undefined(f"Layer {layer.index} ({layer.name}): {error}")
            return None


def warn_undefined(message: str) -> None:
    """Say that a row is left out, and why."""
    warnings.warn(message, UndefinedWarning, stacklevel=3)


class CKAWatcher(Watcher):
    """All pairs of layers, unbiased, streaming."""

    measures = ("cka", "cka_rbf")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        kernels = {"cka": "linear", "cka_rbf": "rbf"}
        count = len(settings.layers)
        self.maps = {
            name: metrics.CKA(count, kernel=kernels[name])  # type: ignore[arg-type]
            for name in self.wanted
        }

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
                    warn_undefined(f"Layer {layer.index} ({layer.name}) never varies: no {name}.")
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


WATCHERS: tuple[type[Watcher], ...] = (
    AttentionWatcher,
    CKAWatcher,
    RankWatcher,
    GlobalityWatcher,
)


def known_measures() -> tuple[str, ...]:
    """Every measure that a profile can compute."""
    return tuple(name for watcher in WATCHERS for name in watcher.measures)


def start(settings: Settings) -> list[Watcher]:
    """The watchers that the wanted measures need."""
    unknown = [name for name in settings.measures if name not in known_measures()]
    if unknown:
        raise InputError(
            f"Unknown measure {', '.join(unknown)}; known are {', '.join(known_measures())}."
        )
    return [
        watcher(settings) for watcher in WATCHERS if set(watcher.measures) & set(settings.measures)
    ]

"""The two coordinates of a prompt: the place that it is added to, and the place that is read.

A `Cell` is such a pair. On the diagonal nothing but the head learns (a full prompt at the place
that is read would only shift the features): the probe of that layer, at the network's end the
linear probe. Read at the end, a prompt is the one of the papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from aptheory.choosing.trials import Prices
from aptheory.methods import ActivationPrompt, LayerProbe, LinearProbe
from aptheory.methods.base import Method
from aptheory.networks.network import Network, Places


@dataclass(frozen=True, order=True)
class Cell:
    """Prompt what enters place ``layer``, read what enters place ``read``; equal ones: a probe."""

    layer: int
    read: int

    @property
    def is_probe(self) -> bool:
        return self.layer == self.read

    def method(self, net: Network, *, pooling: str = "mean") -> Method:
        """What is trained in this cell; ``pooling`` is that of a reading before the end."""
        at_end = self.read == len(net.layers) - 1
        if self.is_probe:
            return LinearProbe() if at_end else LayerProbe(layer=self.read, pooling=pooling)
        if at_end:
            return ActivationPrompt(layer=self.layer)
        return ActivationPrompt(layer=self.layer, read=self.read, pooling=pooling)

    def words(self, net: Network) -> str:
        """What to do, with the names of the places."""
        layer, read = (f"{net.layers[i].name} ({i})" for i in (self.layer, self.read))
        return f"probe {read}" if self.is_probe else f"prompt {layer}, read {read}"


def cells(net: Network, layers: Places, reads: Places | None = None) -> list[Cell]:
    """The cells of a map: all probes, then all prompts, each in the order of its places.

    ``reads`` are by default the ``layers``. The network's end is always read as well: the linear
    probe and the published prompts are what every other cell is compared with.

    Raises:
        InputError: there is no such place.
    """
    end = len(net.layers) - 1
    heads = sorted(
        {*(place.index for place in net.places(layers if reads is None else reads)), end}
    )
    probes = [Cell(read, read) for read in heads]
    prompts = [
        Cell(place.index, read)
        for place in net.places(layers)
        for read in heads
        if place.index < read
    ]
    return probes + prompts


def with_neighbours(scores: Mapping[Cell, float]) -> dict[Cell, float]:
    """The mean of each prompt's score and those of the prompts beside it on the map.

    Beside it is the next place of the map that is prompted, before or behind, and the next that is
    read. Validation accuracies of a few hundred images differ by points between cells whose truth
    hardly differs; a mean over up to five of them differs less. Probes keep their own.
    """
    layers, reads = (
        {place: number for number, place in enumerate(sorted(set(places)))}
        for places in ([cell.layer for cell in scores], [cell.read for cell in scores])
    )

    def apart(one: Cell, other: Cell) -> int:
        across = abs(layers[one.layer] - layers[other.layer])
        return across + abs(reads[one.read] - reads[other.read])

    return {
        cell: fmean(
            score
            for other, score in scores.items()
            if apart(cell, other) <= 1 and other.is_probe == cell.is_probe
        )
        for cell in scores
    }


def operations(
    prices: Prices,
    runs: Iterable[tuple[Cell, int]],
    *,
    walks: Sequence[int],
    stops: Sequence[int],
) -> float:
    """Operations of trained cells, from kept activations.

    Args:
        runs: the cell and the number of epochs of each run.
        walks: the last place of each walk through the places, a pass of all images each.
        stops: epochs after which runs that came so far are validated.

    As everywhere in `aptheory.choosing.trials`, heads and test images are left out.
    """
    images = prices.train + prices.val
    total = images * float(sum(sum(prices.operations.forward[:last]) for last in walks))
    for cell, epochs in runs:
        validations = max(1, sum(stop <= epochs for stop in stops))
        forward, _ = prices.after(cell.layer, cell.read)
        total += epochs * prices.epoch(cell.layer, cell.read) + validations * prices.val * forward
    return total


def map_operations(prices: Prices, chosen: Sequence[Cell], *, epochs: int, seeds: int) -> float:
    """Operations of a map whose cells are all trained to the end: probes first, then prompts."""
    runs = [(cell, epochs) for cell in chosen for _ in range(seeds)]
    walks = [
        max((cell.layer for cell in chosen if cell.is_probe == probes), default=0)
        for probes in (True, False)
    ]
    return operations(prices, runs, walks=walks, stops=[epochs])

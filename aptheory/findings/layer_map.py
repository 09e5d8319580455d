"""The map of a network and a task: accuracy over the prompted place and the place that is read.

    chart = layer_map(net, task, layers="blocks", seeds=(0, 1, 2))
    print(chart)
    plots.layer_map(chart.cells)

The diagonal holds the layer probes, the last row the published prompts, their corner the linear
probe (`aptheory.choosing.cells`). Probes are trained first, in one walk through the network: they
leave their features and the starts of the heads to the prompts, which take a second walk. Runs that
share a prompted place share its kept activations; seeds of one cell train as a stack.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from aptheory.arguments import Between, Count, Whole, checked_arguments, fits
from aptheory.choosing.cells import (
    Cell,
    cells,
    map_operations,
    operations,
    with_neighbours,
)
from aptheory.choosing.trials import Prices, share_text
from aptheory.errors import InputError
from aptheory.findings.pictures import paired_pictures, two_source_interval
from aptheory.findings.statistics import Interval
from aptheory.findings.verdict import verdict
from aptheory.networks.network import Network, Places
from aptheory.studies.steps import Steps, shaped
from aptheory.tasks import task as open_task
from aptheory.training.cost import piece_operations
from aptheory.training.fit import fit_many, kept_for
from aptheory.training.halving import halving as search_by_halving
from aptheory.training.judging import JUDGES, Score
from aptheory.training.outcome import Outcome, is_packed
from aptheory.training.recipe import Recipe, Run

Trained = list[tuple[Cell, Outcome]]


@dataclass(eq=False)
class LayerMap:
    """Accuracy over (layer, read), with what it cost.

    ``table`` has a row a run: ``network, task, layer, read, layer_name, read_name, method, seed,
    epochs, val_accuracy, val_loss, test_accuracy, low, high``; accuracies are fractions, the bounds
    those of the test accuracy over other test pictures. A run that halving dropped has the
    validation scores of its last epoch and no test accuracy. ``correct`` holds which test pictures
    a run knew, by layer, read and seed. ``operations`` are those of the map, ``full_operations``
    those of all its cells trained to the end, ``sweep_operations`` of its cells read at the end.
    """

    net: Network
    task: str
    table: pd.DataFrame
    correct: dict[tuple[int, int, int], np.ndarray]
    operations: float
    full_operations: float
    sweep_operations: float
    judge: str = "accuracy"

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row a cell: means over seeds; ``low`` and ``high`` hold test pictures and training.

        ``finished`` says whether the cell was trained to the end, and ``chosen`` marks the one that
        is best on validation images, as ``judge`` has it.
        """
        rows = []
        names = ["network", "task", "layer", "read", "layer_name", "read_name", "method"]
        for key, runs in self.table.groupby(names, sort=False):
            about: dict[str, Any] = dict(zip(names, key, strict=True))
            interval = self.interval(Cell(int(about["layer"]), int(about["read"])))
            rows.append(
                {
                    **about,
                    "seeds": len(runs),
                    "epochs": int(runs["epochs"].max()),
                    "val_accuracy": runs["val_accuracy"].mean(),
                    "val_loss": runs["val_loss"].mean(),
                    "test_accuracy": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "finished": bool(runs["test_accuracy"].notna().any()),
                }
            )
        cells = pd.DataFrame(rows)
        best = self._best(cells)
        at_best = (cells["layer"] == best.layer) & (cells["read"] == best.read) if best else False
        return cells.assign(chosen=at_best, judge=self.judge)

    def interval(self, cell: Cell) -> Interval:
        """Test accuracy of a cell over test pictures and seeds; nan where it has none."""
        correct = list(self._seeds(cell).values())
        if not correct:
            return Interval(float("nan"), note="not trained to the end")
        return two_source_interval(np.stack(correct))

    def difference(self, cell: Cell, other: Cell) -> Interval:
        """Test accuracy of a cell minus that of another, on the same pictures and seeds."""
        ours, theirs = self._seeds(cell), self._seeds(other)
        shared = sorted(ours.keys() & theirs.keys())
        if not shared:
            return Interval(float("nan"), note="no seed of both was trained to the end")
        return paired_pictures(
            np.stack([ours[seed] for seed in shared]), np.stack([theirs[seed] for seed in shared])
        )

    def _seeds(self, cell: Cell) -> dict[int, np.ndarray]:
        return {
            seed: correct
            for (layer, read, seed), correct in self.correct.items()
            if (layer, read) == (cell.layer, cell.read)
        }

    @property
    def best(self) -> Cell | None:
        """The best cell on validation images of those trained to the end."""
        return self._best(self.cells)

    @property
    def best_with_neighbours(self) -> Cell | None:
        """The best cell by the mean validation accuracy of it and those beside it.

        See `aptheory.choosing.cells.with_neighbours`. None where not every cell was trained to the
        end, as halving leaves a map, and where the loss judges, of which nothing was measured.
        """
        if self.judge != "accuracy" or not self.cells["finished"].all():
            return None
        scores = {
            Cell(int(row["layer"]), int(row["read"])): float(row["val_accuracy"])
            for row in self.cells.dropna(subset="val_accuracy").to_dict("records")
        }
        meaned = with_neighbours(scores)
        return max(meaned, key=lambda cell: meaned[cell])

    @property
    def best_probe(self) -> Cell | None:
        """The best layer probe on validation images."""
        return self._best(self.cells[self.cells["layer"] == self.cells["read"]])

    @property
    def best_published(self) -> Cell | None:
        """The best prompt that is read at the network's end; None where halving dropped them."""
        at_end = self.cells["read"] == self.linear_probe.read
        return self._best(self.cells[at_end & (self.cells["layer"] < self.cells["read"])])

    @property
    def linear_probe(self) -> Cell:
        """The corner: nothing but a head, at the network's end."""
        return Cell(len(self.net.layers) - 1, len(self.net.layers) - 1)

    def _best(self, rows: pd.DataFrame) -> Cell | None:
        scores = {
            Cell(int(row["layer"]), int(row["read"])): Score(row["val_accuracy"], row["val_loss"])
            for row in rows[rows["finished"]].to_dict("records")
        }
        return min(scores, key=lambda cell: scores[cell].cost(self.judge)) if scores else None

    def __str__(self) -> str:
        lines = [f"{self.net.name} on {self.task}: {self.cells.shape[0]} cells"]
        steady = self.best_with_neighbours
        for title, cell in (
            ("best on validation", self.best),
            *([("best with its neighbours", steady)] if steady else []),
            ("best layer probe", self.best_probe),
            ("best prompt read at the end", self.best_published),
            ("linear probe", self.linear_probe),
        ):
            what = self._scored(cell) if cell else "none was trained to the end"
            lines.append(f"  {title}: {what}")
        if self.best and self.best_probe and self.best != self.best_probe:
            over = self.difference(self.best, self.best_probe).times(100)
            lines.append(f"  minus the best layer probe: {over:+.1f points}, {verdict(over).value}")
        lines.append(
            f"  cost: {share_text(self.operations / self.full_operations)} of all cells trained to "
            f"the end, {share_text(self.operations / self.sweep_operations)} of a full sweep of "
            "these layers read at the end (operations)"
        )
        return "\n".join([*lines, "", *self._grid()])

    def _grid(self) -> list[str]:
        """The map in letters, as the picture has it: layers across, readings up."""
        columns = sorted(set(self.cells["layer"]))
        by_place = self.cells.set_index(["layer", "read"])
        lines = ["test accuracy (%); dropped cells in brackets, by validation; * is the best"]
        for read in sorted(set(self.cells["read"]), reverse=True):
            texts = [
                _cell_text(by_place.loc[(layer, read)]) if (layer, read) in by_place.index else ""
                for layer in columns
            ]
            name = f"read {read} ({self.net.layers[read].name})"
            lines.append(f"{name:>24} " + "".join(f"{text:>8}" for text in texts))
        lines.append(f"{'prompt':>24} " + "".join(f"{layer:>8}" for layer in columns))
        return [line.rstrip() for line in lines]

    def _scored(self, cell: Cell) -> str:
        row: Any = self.cells.set_index(["layer", "read"]).loc[(cell.layer, cell.read)]
        return (
            f"{cell.words(self.net)}: validation {100 * row['val_accuracy']:.1f} %, "
            f"test {self.interval(cell).times(100):.1f %}"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@checked_arguments
def layer_map(
    net: Network,
    task: Any,
    *,
    layers: Places = "blocks",
    reads: Places | None = None,
    recipe: Recipe | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    halving: bool = True,
    judge: str | None = None,
    pooling: str = "mean",
    steps: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> LayerMap:
    """Train the cells (l, k), l ≤ k: prompt what enters place l, read what enters place k.

    Args:
        task: a task, or whatever `aptheory.task` makes one of.
        layers: places that are prompted.
        reads: places that are read, by default the ``layers``; the network's end always is.
        halving: successive halving over the prompts, judged on validation images: most cells
            train for a few epochs and one seed only and have no test accuracy. Probes are always
            trained to the end. False trains every cell alike, as evidence needs it.
        judge: what is better on validation images, "accuracy" or "loss" (the other breaks ties); by
            default what the recipe says.
        pooling: of a reading before the end: see `Layer.pooled`.
        steps: a file that keeps every cell that was trained to the end, and the whole of halving
            once it is over, so that the same call goes on after an interruption; what is about
            another network, task or setting is not used.

    Raises:
        InputError: an unknown place, pooling or judge; no seed, or one twice; a file of ``steps``
            that cannot be written.
    """
    if judge not in (None, *JUDGES):
        raise InputError(f"judge must be one of {', '.join(JUDGES)}; got {judge!r}.")
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds must be one or several different numbers; got {list(seeds)!r}.")
    task, recipe = open_task(task), recipe or Recipe()
    net, judge = net.in_float32(), judge or recipe.judge
    runs = [Run(seed=seed) for seed in seeds]
    chosen, end = cells(net, layers, reads), len(net.layers) - 1
    probes = [cell for cell in chosen if cell.is_probe]
    prompts = [cell for cell in chosen if not cell.is_probe]
    options: dict[str, Any] = {
        "recipe": recipe,
        "kept": kept_for(net, task, recipe, log=log),
        "log": log,
    }
    finished = Steps.of(steps, net, task, recipe.settings(), list(seeds), pooling)

    def is_run(value: Any) -> bool:
        """Whether it is the record of a run of this map, as `Outcome.record` gives it."""
        return (
            shaped(value, Outcome.RECORD)
            and isinstance(value["method"].get("method"), str)
            and value["seed"] in seeds
            and all(fits(p, dict) and shaped(p, dict.fromkeys(p, float)) for p in value["curve"])
            and (value["correct"] is None or is_packed(value["correct"], len(task.test)))
        )

    def to_the_end(cell: Cell) -> Trained:
        def train() -> list[dict[str, Any]]:
            method = cell.method(net, pooling=pooling)
            return [o.record() for o in fit_many(method, net, task, runs=runs, **options)]

        def usable(value: Any) -> bool:
            return isinstance(value, list) and len(value) == len(runs) and all(map(is_run, value))

        records = finished.value(f"layer {cell.layer}, read {cell.read}", train, usable=usable)
        return [(cell, Outcome.from_record(record)) for record in records]

    def halved() -> dict[str, Any]:
        methods = {cell: cell.method(net, pooling=pooling) for cell in prompts}
        search = search_by_halving(
            list(methods.values()), net, task, runs=runs, judge=judge, **options
        )
        by_settings = {str(method.settings()): cell for cell, method in methods.items()}
        found = [(by_settings[str(o.method)], o) for o in search.outcomes + search.dropped]
        return {
            "trained": [[cell.layer, cell.read, outcome.record()] for cell, outcome in found],
            "walks": search.table.groupby("rung")["layer"].max().tolist(),
            "stops": sorted({int(epoch) for epoch in search.table["epochs"]}),
        }

    trained = [run for cell in probes for run in to_the_end(cell)]
    walks, stops = [end], [recipe.epochs]
    if prompts and halving:
        places = [[cell.layer, cell.read] for cell in prompts]

        def usable(value: Any) -> bool:
            return (
                shaped(value, {"trained": list, "walks": list, "stops": list})
                and value["trained"]
                and all(fits(each, tuple[Whole, Whole, Any]) for each in value["trained"])
                and all([l, k] in places and is_run(run) for l, k, run in value["trained"])
                and fits(value["walks"], Sequence[Annotated[int, Between(0, end)]])
                and fits(value["stops"], Sequence[Count])
            )

        search = finished.value(f"halving {places}, by {judge}", halved, usable=usable)
        trained += [(Cell(l, k), Outcome.from_record(record)) for l, k, record in search["trained"]]
        walks += search["walks"]
        stops = search["stops"]
    elif prompts:
        trained += [run for cell in prompts for run in to_the_end(cell)]
        walks.append(prompts[-1].layer)
    options["kept"].close()
    prices = Prices(piece_operations(net), len(task.train), len(task.val))
    size: dict[str, int] = {"epochs": recipe.epochs, "seeds": len(seeds)}
    epochs = [(cell, outcome.epochs) for cell, outcome in trained]
    sweep = [cell for cell in chosen if cell.read == end]
    return LayerMap(
        net=net,
        task=task.name,
        table=_table(net, trained),
        correct={
            (cell.layer, cell.read, outcome.seed): outcome.correct
            for cell, outcome in trained
            if outcome.correct is not None
        },
        operations=operations(prices, epochs, walks=walks, stops=stops),
        full_operations=map_operations(prices, chosen, **size),
        sweep_operations=map_operations(prices, sweep, **size),
        judge=judge,
    )


def _cell_text(cell: pd.Series) -> str:
    if not cell["finished"]:
        return f"({100 * cell['val_accuracy']:.1f})"
    return f"{'*' if cell['chosen'] else ''}{100 * cell['test_accuracy']:.1f}"


def _table(net: Network, trained: Trained) -> pd.DataFrame:
    rows = []
    for cell, outcome in sorted(trained, key=lambda pair: (pair[0], pair[1].seed)):
        interval = Interval(float("nan"))
        if outcome.correct is not None:
            interval = two_source_interval(outcome.correct)
        last = outcome.curve[-1] if outcome.curve and outcome.failed else vars(outcome)
        rows.append(
            {
                "network": net.name,
                "task": outcome.task,
                "layer": cell.layer,
                "read": cell.read,
                "layer_name": net.layers[cell.layer].name,
                "read_name": net.layers[cell.read].name,
                "method": outcome.method["method"],
                "seed": outcome.seed,
                "epochs": outcome.epochs,
                "val_accuracy": last.get("val_accuracy", float("nan")),
                "val_loss": last.get("val_loss", float("nan")),
                "test_accuracy": outcome.test_accuracy,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return pd.DataFrame(rows)

"""Choose both places, where to prompt and where to read, for a small share of the map's cost.

Where a layer probe reads best is where a prompt should be read as well. All layer probes cost one
pass through the network, so they choose the reading place k; the prompts before it are then
searched by successive halving, from kept activations and no further than k. The probe of k is the
prompt's rival: the answer may be that no prompt is needed. Test images are never read.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from aptheory.arguments import Seed, checked_arguments
from aptheory.choosing.cells import Cell, cells, map_operations, operations
from aptheory.choosing.trials import Prices, share_text
from aptheory.errors import InputError
from aptheory.networks.network import Network, Places
from aptheory.tasks import task as open_task
from aptheory.training.cost import piece_operations
from aptheory.training.fit import fit_many, kept_for
from aptheory.training.halving import halving
from aptheory.training.judging import JUDGES, WORST, Score
from aptheory.training.recipe import Recipe, Run

MAP_SEEDS = 3
"""Of the map that the cost is a share of."""


@dataclass(eq=False)
class PlaceChoice:
    """Where to prompt and where to read, what was looked at, and what that cost.

    ``layer == read`` means the probe of that place, without a prompt. ``table`` has a row a cell
    that was looked at: ``layer, read, layer_name, read_name, method, epochs, val_accuracy,
    val_loss``, the last two as after ``epochs``. ``rival`` is the best of the other kind: the probe
    beside a prompt, a prompt beside the probe; None where no place lies before the reading place,
    or no prompt there came to a usable model. ``images`` counts the validation images.
    ``operations`` are those of the choice, ``cost`` their share of the full map's.
    """

    net: Network
    task: str
    layer: int
    read: int
    rival: Cell | None
    table: pd.DataFrame
    operations: float
    cost: float
    judge: str = "accuracy"
    images: int = 0

    @property
    def cell(self) -> Cell:
        return Cell(self.layer, self.read)

    @cached_property
    def margin(self) -> Score:
        """The chosen cell's validation accuracy minus the rival's, and the same of the loss."""
        if self.rival is None:
            return Score(float("nan"), float("nan"))
        ours, theirs = self.score(self.cell), self.score(self.rival)
        return Score(ours.accuracy - theirs.accuracy, ours.loss - theirs.loss)

    def score(self, cell: Cell) -> Score:
        """Validation accuracy and loss of a cell that was looked at."""
        row: Any = self.table.set_index(["layer", "read"]).loc[(cell.layer, cell.read)]
        return Score(float(row["val_accuracy"]), float(row["val_loss"]))

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.net.name} on {self.task}: {self.cell.words(self.net)}",
                f"  on {self.images} validation images: {self._compared()}",
                f"  cost: {share_text(self.cost)} of the map of these places (operations, "
                f"{MAP_SEEDS} seeds), {self.operations:.3g} operations in all",
                "",
                self.table.to_string(index=False, float_format="{:.3f}".format),
            ]
        )

    def _compared(self) -> str:
        ours = self._scored(self.cell)
        if self.rival is None:
            if (self.table["layer"] == self.table["read"]).all():
                return f"{ours}; no place to prompt lies before it"
            return f"{ours}; no prompt before it came to a usable model"
        points, nats = 100 * self.margin.accuracy, self.margin.loss
        return (
            f"{ours}; the rival is {self.rival.words(self.net)} with {self._scored(self.rival)}: "
            f"{points:+.1f} points and {nats:+.3f} of loss for the first, judged by {self.judge}; "
            "the same images chose both out of "
            f"{len(self.table)}, so this is a choice and no gain that was tested"
        )

    def _scored(self, cell: Cell) -> str:
        score = self.score(cell)
        return f"{100 * score.accuracy:.1f} % (loss {score.loss:.3f})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@checked_arguments
def recommend_places(
    net: Network,
    task: Any,
    *,
    layers: Places = "blocks",
    reads: Places | None = None,
    recipe: Recipe | None = None,
    judge: str | None = None,
    pooling: str = "mean",
    seed: Seed = 0,
    log: Callable[[str], None] | None = None,
) -> PlaceChoice:
    """Choose the place to prompt and the place to read, or the probe that needs no prompt.

    Args:
        task: a task, or whatever `aptheory.task` makes one of.
        layers: places that may be prompted.
        reads: places that may be read, by default the ``layers``; the network's end always may.
        recipe: of the probes and the prompts.
        judge: what is compared on validation images: "accuracy", or "loss", which still moves where
            accuracies are tied; the other one breaks ties. By default what the recipe says.
        pooling: of a reading before the end: see `Layer.pooled`.
        seed: of every run.

    Raises:
        InputError: an unknown place, pooling or judge; no probe that came to a usable model.
    """
    if judge not in (None, *JUDGES):
        raise InputError(f"judge must be one of {', '.join(JUDGES)}; got {judge!r}.")
    task, recipe, run = open_task(task), recipe or Recipe(), Run(seed=seed)
    net, judge = net.in_float32(), judge or recipe.judge
    chosen = cells(net, layers, reads)
    blind = replace(task, test=task.val)
    prices = Prices(piece_operations(net), len(task.train), len(task.val))
    kept = kept_for(net, blind, recipe, log=log)
    probes = [cell for cell in chosen if cell.is_probe]
    outcomes = fit_many(
        [cell.method(net, pooling=pooling) for cell in probes],
        net,
        blind,
        runs=[run] * len(probes),
        recipe=recipe,
        kept=kept,
        log=log,
    )
    scores = {cell: o.score for cell, o in zip(probes, outcomes, strict=True) if not o.failed}
    if not scores:
        raise InputError("no layer probe came to a usable model; try a smaller learning rate.")
    epochs = {cell: outcome.epochs for cell, outcome in zip(probes, outcomes, strict=True)}
    probe = min(scores, key=lambda cell: scores[cell].cost(judge))
    prompts = [cell for cell in chosen if not cell.is_probe and cell.read == probe.read]
    spent = operations(prices, epochs.items(), walks=[probes[-1].read], stops=[recipe.epochs])
    prompt = None
    if prompts:
        methods = [cell.method(net, pooling=pooling) for cell in prompts]
        search = halving(
            methods, net, blind, runs=[run], recipe=recipe, judge=judge, kept=kept, log=log
        )
        ends = search.table.drop_duplicates("configuration", keep="last")
        for row in ends.sort_values("configuration").to_dict("records"):
            cell = prompts[row["configuration"]]
            scores[cell] = Score(row["val_accuracy"], row["val_loss"])
            epochs[cell] = int(row["epochs"])
        best = prompts[methods.index(search.best[0])]
        prompt = best if math.isfinite(scores[best].accuracy) else None
        stops = sorted({int(epoch) for epoch in search.table["epochs"]})
        walks = search.table.groupby("rung")["layer"].max().tolist()
        spent += operations(
            prices, [(cell, epochs[cell]) for cell in prompts], walks=walks, stops=stops
        )
    kept.close()
    ranked = sorted([probe, *([prompt] if prompt else [])], key=lambda c: scores[c].cost(judge))
    full = map_operations(prices, chosen, epochs=recipe.epochs, seeds=MAP_SEEDS)
    return PlaceChoice(
        net=net,
        task=task.name,
        layer=ranked[0].layer,
        read=ranked[0].read,
        rival=ranked[1] if prompt else None,
        table=_table(net, [*probes, *prompts], scores, epochs, pooling),
        operations=spent,
        cost=spent / full,
        judge=judge,
        images=len(task.val),
    )


def _table(
    net: Network,
    looked_at: list[Cell],
    scores: dict[Cell, Score],
    epochs: dict[Cell, int],
    pooling: str,
) -> pd.DataFrame:
    rows = []
    for cell in looked_at:
        score = scores.get(cell, WORST)
        rows.append(
            {
                "layer": cell.layer,
                "read": cell.read,
                "layer_name": net.layers[cell.layer].name,
                "read_name": net.layers[cell.read].name,
                "method": cell.method(net, pooling=pooling).name,
                "epochs": epochs[cell],
                "val_accuracy": score.accuracy,
                "val_loss": score.loss,
            }
        )
    return pd.DataFrame(rows)

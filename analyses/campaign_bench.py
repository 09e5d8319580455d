"""One network and task of the campaign, where methods are trained in turn and told as plain rows.

A bench keeps the activations, and what it has trained in a file of parts, so that a unit that was
killed goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aptheory as ap
from analyses.campaign_plan import RATES, RECIPE
from aptheory.networks.network import Network
from aptheory.training.fit import kept_for
from aptheory.training.outcome import packed

Row = dict[str, Any]
LADDER = (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
"""The rates that a search goes on to while its best lies at the edge."""


@dataclass(frozen=True)
class Machine:
    """Where a unit is trained: the folder of weights and images, the device and precision, and the
    file of what an earlier try of the unit came to."""

    assets: Path
    device: str = "cpu"
    precision: str = "float32"
    parts: Path | None = None


def _finished_parts(parts: Path | None) -> dict[str, list[Row]]:
    """The rows of each method that a killed unit had trained, by what they are of."""
    found: dict[str, list[Row]] = {}
    if parts is not None and parts.is_file():
        for line in parts.read_text().splitlines():
            try:
                key, rows = json.loads(line)
            except ValueError:  # a kill cut it short
                continue
            found[key] = rows
    return found


class Bench:
    """One network and task with its kept activations, where methods are trained in turn."""

    def __init__(
        self,
        net: Network,
        task: ap.Task,
        *,
        seed: int,
        on: Machine,
        recipe: ap.Recipe = RECIPE,
    ) -> None:
        self.net = net.to(on.device)
        self.task, self.seed = task, seed
        self.recipe = recipe.but(precision=on.precision)
        self.parts = on.parts
        self._finished = _finished_parts(on.parts)
        self.kept = kept_for(self.net, task, self.recipe)

    def train(self, method: ap.Method, *, rates: Sequence[float] = RATES) -> list[ap.Outcome]:
        """Outcomes of one method, one a rate."""
        runs = [ap.Run(seed=self.seed, lr=rate) for rate in rates]
        return ap.fit_many(
            method,
            self.net,
            self.task,
            runs=runs,
            recipe=self.recipe,
            kept=self.kept,
            keep_models=True,
        )

    def rows(
        self, label: str, method: ap.Method, *, rates: Sequence[float] = RATES, **more: Any
    ) -> Iterator[Row]:
        """Train a method and say what came of it, a row a rate; what a killed unit had come to is
        taken as it was."""
        what = [self.task.digest, self.recipe.precision, label, method.settings(), [*rates], more]
        key = json.dumps(what, sort_keys=True)
        if key not in self._finished:
            read = method.attach(self.net, classes=len(self.task.classes)).exit
            outcomes = self.train(method, rates=rates)
            rows = list(self.told(label, outcomes, read=read, **more))
            self._finished[key] = rows
            if self.parts is not None:
                self.parts.parent.mkdir(parents=True, exist_ok=True)
                with open(self.parts, "a") as file:
                    file.write("\n" + json.dumps([key, rows]))
        yield from self._finished[key]

    def rows_with_best_inside(
        self, label: str, method: ap.Method, *, rates: Sequence[float]
    ) -> Iterator[Row]:
        """As `rows`, with further rates of `LADDER` while the best is the greatest or the least."""
        found: list[Row] = []
        tried: Sequence[float] = rates
        while tried:
            new = list(self.rows(label, method, rates=tried))
            yield from new
            found += new
            tried = beyond_the_edge(found)

    def told(
        self, label: str, outcomes: Sequence[ap.Outcome], *, read: int, **more: Any
    ) -> Iterator[Row]:
        """A row an outcome; a run that failed has no network that says where it was read."""
        for outcome in outcomes:
            adapted = outcome.adapted
            assert adapted is not None or outcome.failed
            yield {
                "network": self.net.name,
                "task": self.task.name,
                "seed": self.seed,
                "method": label,
                "layer": outcome.first_layer,
                "read": read,
                "places": len(self.net.layers),
                "lr": outcome.lr,
                "parameters": outcome.parameters_without_head,
                "epochs": outcome.epochs,
                "precision": self.recipe.precision,
                "device": self.net.device.type,
                "converged": outcome.converged,
                "train_accuracy": _rounded(outcome.train_accuracy),
                "val_loss": _rounded(outcome.val_loss),
                "val_accuracy": _rounded(outcome.val_accuracy),
                "test_loss": _rounded(outcome.test_loss),
                "test_accuracy": _rounded(outcome.test_accuracy),
                "norm": None if adapted is None else _rounded(prompt_norm(adapted)),
                "correct": None if outcome.correct is None else packed(outcome.correct),
                **more,
            }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def beyond_the_edge(rows: Sequence[Row]) -> list[float]:
    """The next rate of `LADDER` behind the edge at which the best of some runs lies; none where it
    lies inside, where the ladder ends, or where no run came to an end."""
    ended = [row for row in rows if row["val_accuracy"] is not None]
    if not ended:
        return []
    best_rate = min(ended, key=cost)["lr"]
    tried = [row["lr"] for row in rows]
    if best_rate == max(tried):
        return [rate for rate in LADDER if rate > best_rate][-1:]
    if best_rate == min(tried):
        return [rate for rate in LADDER if rate < best_rate][:1]
    return []


def prompt_norm(adapted: Any) -> float | None:
    """The L2 norm of the prompt of one run, where there is one."""
    prompts = [edit for place in adapted.places for edit in adapted.edits_at(place)]
    values = [edit.value()[0] for edit in prompts if hasattr(edit, "value")]
    return float(torch.cat([v.detach().flatten() for v in values]).norm()) if values else None


def cost(row: Row) -> tuple[float, float]:
    """By what validation pictures choose among rows, the least first: accuracy, ties by the loss.

    A run that failed comes last.
    """
    if row["val_accuracy"] is None:
        return float("inf"), float("inf")
    return -row["val_accuracy"], row["val_loss"]

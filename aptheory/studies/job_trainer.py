"""Training the batches of one job: the network and task loaded once, activations carried along.

Everything that could make two executions of one batch differ is fixed here: threads, what is kept
and in which type, who trains together, and where the kept activations start from.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aptheory.devices import device_name, device_of
from aptheory.errors import InputError
from aptheory.methods import from_settings, register, save
from aptheory.studies.plan import Batch, Job
from aptheory.studies.records import Record, canonical
from aptheory.studies.sources import (
    load_network,
    load_task,
    network_identity,
    task_identity,
    view_identity,
)
from aptheory.training.drawing import images_kept
from aptheory.training.fit import Kept, Outcome, fit_many, kept_for
from aptheory.training.recipe import Recipe, Run

if TYPE_CHECKING:
    from aptheory.methods import Method
    from aptheory.networks.network import Network
    from aptheory.studies.study import Opened
    from aptheory.tasks import Task

KEPT_BYTES = 2 * 2**30
"""Activations of one place, all splits, up to this size are kept in memory; larger ones are
computed again when they are needed. A constant, where `Recipe.keep` "auto" would look at the free
memory, because what is kept decides which images are multiplied together, and so the rounding."""

_COSTS = ("seconds", "peak_memory", "kept", "notes")


class JobTrainer:
    """Trains the batches of one job, in the order in which they are given.

    ``opened`` are networks and tasks that this process has loaded already.
    """

    def __init__(self, job: Job, opened: Opened | None = None) -> None:
        self.job = job
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products
        for kind in job.classes:
            register(kind)
        self.device = device_of(job.runtime.device)
        if opened is None:
            self.net = _network(job.network, str(self.device), job.beside)
            self.task = _task(job.task)
        else:
            self.net = opened.net(job.network).to(self.device)
            self.task = opened.task(job.task)
        self._kept: dict[tuple[Any, ...], Kept] = {}
        self.models = Path(job.models) if job.models else None

    def __call__(self, batch: Batch, lead: Sequence[Record]) -> list[dict[str, Any]]:
        """One outcome a run of ``batch``; ``lead`` are the records of the runs that it follows."""
        self._check(batch)
        recipe = Recipe(**batch.recipe).but(together=self.job.runtime.together)
        methods = _methods(batch, lead, self.job.beside)
        with _fixed(self.job.runtime.threads, self.device):
            if batch.identities[0]["protocol"] == "vtab":
                outcomes = self._vtab(batch, methods, recipe)
            else:
                outcomes = self._standard(batch, methods, recipe)
        return outcomes

    def _check(self, batch: Batch) -> None:
        """Refuse to train on other weights or data than the plan was made for."""
        identity = batch.identities[0]
        if canonical(identity["network"]) != canonical(network_identity(self.net)):
            raise InputError(f"{self.net.name} is no longer what it was when the study was planned")
        view = view_identity(self.net, self.task)
        if canonical(identity.get("view")) != canonical(view.get("view")):
            raise InputError(f"{self.net.name} no longer sees {self.task.name} as was planned")
        if canonical(identity["task"]) != canonical(task_identity(self.task)):
            raise InputError(f"the data of {self.task.name} changed since the study was planned")

    def _standard(
        self, batch: Batch, methods: Sequence[Method], recipe: Recipe
    ) -> list[dict[str, Any]]:
        """Train every candidate with every seed; each seed takes its best by validation."""
        candidates = _candidates(batch)
        runs = [
            Run(seed=seed, lr=lr, weight_decay=decay)
            for seed in batch.seeds
            for lr, decay in candidates
        ]
        each = [method for method in methods for _ in candidates]
        outcomes = self._fit(each, runs, self.task, recipe, batch)
        size = len(candidates)
        return [
            self._outcome(outcomes[k * size : (k + 1) * size], batch, key)
            for k, key in enumerate(batch.run_keys)
        ]

    def _vtab(
        self, batch: Batch, methods: Sequence[Method], recipe: Recipe
    ) -> list[dict[str, Any]]:
        """Select on validation with one seed, then train on both splits with every seed."""
        seed = batch.identities[0]["search_seed"]
        runs = [Run(seed=seed, lr=lr, weight_decay=decay) for lr, decay in _candidates(batch)]
        tried = self._fit([methods[0]] * len(runs), runs, self.task, recipe, batch)
        selected = self._outcome(tried, batch)
        if "failed" in selected:
            return [selected] * len(methods)
        final = recipe.but(patience=None, validate_every=0)
        runs = [
            Run(seed=seed, lr=selected["lr"], weight_decay=selected["weight_decay"])
            for seed in batch.seeds
        ]
        outcomes = []
        results = self._fit(methods, runs, self._whole, final, batch)
        for trained, key in zip(results, batch.run_keys, strict=True):
            outcome = self._outcome([trained], batch, key)
            for measure in (
                "val_accuracy",
                "val_loss",
                "val_correct",
            ):  # its own would be on trained images
                if "failed" not in outcome:
                    outcome[measure] = selected[measure]
            outcomes.append(outcome | {"search": selected["search"]})
        return outcomes

    @cached_property
    def _whole(self) -> Task:
        """The task with its training and validation images together to train on."""
        return replace(self.task, train=self.task.train_and_val)

    def _fit(
        self,
        methods: Sequence[Method],
        runs: Sequence[Run],
        task: Task,
        recipe: Recipe,
        batch: Batch,
    ) -> list[Outcome]:
        kept = self._activations(task, recipe, batch.place)
        prompted = methods[0].role == "prompt"
        wanted = prompted or self.models is not None
        outcomes = fit_many(
            methods, self.net, task, runs=runs, recipe=recipe, kept=kept, keep_models=wanted
        )
        for outcome in outcomes:
            if prompted and outcome.adapted is not None:
                control = outcome.adapted.method.control(outcome.adapted)
                if control is not None and hasattr(control, "norm"):
                    outcome.method["prompt_norm"] = control.norm
            if self.models is None:
                outcome.adapted = None
        return outcomes

    def _activations(self, task: Task, recipe: Recipe, place: int) -> Kept:
        """What enters ``place``, carried on from the place before where that changes no bit."""
        key = (
            *(task is self.task, recipe.augment, recipe.views, recipe.mix, recipe.precision),
            *(recipe.keep, recipe.keep_dtype, recipe.channels_last),
        )
        if key not in self._kept:
            self._kept[key] = kept_for(self.net, task, recipe)
        kept = self._kept[key]
        exact = recipe.precision == "float32" and recipe.keep_dtype == "float32"
        if place != kept.layer and not exact:
            kept.close()  # rounded activations would remember at which place the walk began
        keep = recipe.keep
        if keep == "auto":
            size = 4 * images_kept(task, recipe) * math.prod(self.net.layers[place].shape)
            keep = "memory" if size <= KEPT_BYTES else "recompute"
        kept.policy = replace(kept.policy, keep=keep)
        return kept

    def _outcome(
        self, tried: Sequence[Outcome], batch: Batch, key: str | None = None
    ) -> dict[str, Any]:
        """The plain values of the candidate that is best by the recipe's judge.

        Ties go to the other measure (accuracy, loss), then to the earlier candidate. What that one
        has learned is kept under ``key``, where models are kept.
        """
        search = [
            {
                "lr": outcome.lr,
                "weight_decay": outcome.weight_decay,
                "val_accuracy": outcome.val_accuracy,
                "val_loss": outcome.val_loss,
                "stopped_reason": outcome.stopped_reason,
            }
            for outcome in tried
        ]
        costs: dict[str, Any] = {
            "seconds": sum(outcome.seconds for outcome in tried),
            "peak_memory": max(outcome.peak_memory for outcome in tried),
            "device": device_name(self.device),
            "dtype": batch.recipe["precision"],
        }
        usable = [run for run in tried if not run.failed]
        if not usable:
            return {"failed": tried[0].stopped_reason, "search": search, "costs": costs}
        judge = batch.recipe.get("judge", "accuracy")
        best = min(usable, key=lambda outcome: outcome.score.cost(judge))
        if self.models is not None and key is not None and best.adapted is not None:
            save(best.adapted, self.models / f"{key}.safetensors")
        values = best.record()
        for word in ("network", "task", "recipe", "seed"):  # the identity says them
            del values[word]
        costs = {**{word: values.pop(word) for word in _COSTS}, **costs}
        method = dict(values.pop("method"))
        if "prompt_norm" in method:
            values["prompt_norm"] = method["prompt_norm"]
        if "norm" in method:
            values["norm"] = method["norm"]
        return {**values, "search": search, "candidates": len(tried), "costs": costs}


def _methods(batch: Batch, lead: Sequence[Record], beside: Sequence[str]) -> list[Method]:
    """The method of each run; a control takes the norm that its prompt came to."""
    methods = []
    for position, identity in enumerate(batch.identities):
        settings = dict(identity["method"])
        if lead and "norm" in settings:
            settings["norm"] = lead[position].outcome.get("prompt_norm")
            if settings["norm"] is None:
                raise InputError(
                    f"the outcome {lead[position].key} of the prompt that this control takes its "
                    "norm from does not state one; delete that file and run the study again."
                )
        methods.append(from_settings(settings, beside=beside))
    return methods


def _candidates(batch: Batch) -> list[tuple[float | None, float | None]]:
    search = batch.identities[0]["search"]
    return list(itertools.product(search.get("lr") or [None], search.get("weight_decay") or [None]))


@contextmanager
def _fixed(threads: int, device: torch.device) -> Iterator[None]:
    """Hold the number of threads, and on a GPU deterministic kernels, while a batch trains."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


def _network(spec: Any, device: str, beside: tuple[str, ...]) -> Network:
    if isinstance(spec, Mapping):
        return _cached_network(canonical(spec), device, beside)
    return load_network(spec).to(device)


def _task(spec: Any) -> Task:
    return _cached_task(canonical(spec)) if isinstance(spec, Mapping) else spec


@lru_cache(maxsize=1)
def _cached_network(spec: str, device: str, beside: tuple[str, ...]) -> Network:
    """Workers go through many jobs of one network: load it once."""
    return load_network(json.loads(spec), beside=beside).to(device)


@lru_cache(maxsize=2)
def _cached_task(spec: str) -> Task:
    return load_task(json.loads(spec))

"""Finished sweeps as cases to judge ways of choosing a layer on: scores, accuracies, prices."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aptheory.choosing.ranking import ranking
from aptheory.choosing.rule import Pair
from aptheory.choosing.scores import PLACES, kind_of, layer_scores, place_scores, score_operations
from aptheory.choosing.trials import Prices
from aptheory.errors import InputError
from aptheory.exploration import write_table
from aptheory.networks.network import Network
from aptheory.studies.files import write_atomically
from aptheory.studies.records import key_of
from aptheory.studies.sources import load_network, load_task
from aptheory.studies.study import Study
from aptheory.training.cost import Operations, piece_operations
from aptheory.training.recipe import Recipe

SHARE = 0.02  # of a sweep's operations that the scores may cost
FORMAT = 3  # of the kept scores: raise it when what they mean changes


@dataclass
class Case:
    """One network on one task: how to load it, what the sweep measured, and its scores."""

    network: str
    task: str
    network_spec: Any
    task_spec: Any
    recipe: Recipe
    tests: pd.DataFrame  # test accuracy, seeds down, layers across
    vals: pd.DataFrame
    scores: pd.DataFrame
    facts: dict[str, Any]

    @cached_property
    def pair(self) -> Pair:
        """For the rule: accuracy at every layer, nan where it was not swept."""
        accuracy = self.tests.mean().reindex(self.scores["layer"]).to_numpy(float)
        return Pair(self.network, self.task, self.scores, accuracy)

    @cached_property
    def layers(self) -> list[int]:
        """The swept layers."""
        return [int(layer) for layer in self.tests.columns]

    @cached_property
    def validated(self) -> int:
        """The swept layer that validation accuracy chooses; ties are drawn."""
        means = self.vals.mean()
        return int(means.index[ranking(means.to_numpy(), key=f"{self.network}|{self.task}")[0]])

    @cached_property
    def prices(self) -> Prices:
        """Operations of trials."""
        operations = Operations(tuple(self.facts["forward"]), tuple(self.facts["backward"]))
        return Prices(operations, self.facts["train"], self.facts["val"])

    @cached_property
    def sweep_cost(self) -> float:
        """Operations of the sweep that was run."""
        seeds = len(self.tests)
        return self.prices.sweep(self.layers, epochs=self.recipe.epochs, seeds=seeds)

    @cached_property
    def score_cost(self) -> float:
        """Operations of the scores."""
        facts = self.facts
        return score_operations(self.prices.operations, facts["images"], facts["classes"])

    def regret(self, layer: int) -> float:
        """Points lost against the best mean over seeds."""
        means = 100 * self.tests.mean()
        return float(means.max() - means[layer])

    def fresh_regret(self, layer: int) -> float:
        """Points lost against the layer best with the other seeds, each seed judging once.

        Unbiased, hence below 0 at times; nan with a single seed.
        """
        lost = []
        for seed in self.tests.index if len(self.tests) > 1 else ():
            best = self.tests.drop(index=seed).mean().idxmax()
            lost.append(self.tests.loc[seed, best] - self.tests.loc[seed, layer])
        return 100 * float(np.mean(lost)) if lost else float("nan")

    def another_seed(self) -> list[tuple[int, float]]:
        """For each seed: the layer best on its test accuracy, and what the others lose by it."""
        found = []
        for seed in self.tests.index if len(self.tests) > 1 else ():
            layer = int(self.tests.loc[seed].idxmax())
            rest = 100 * self.tests.drop(index=seed).mean()
            found.append((layer, float(rest.max() - rest[layer])))
        return found


def gather(folders: Sequence[Path], out: Path, *, images: int) -> list[Case]:
    """Every (network, task) of finished sweeps with its scores, which are kept in OUT/scores.

    A folder that cannot be used is reported and passed over; a pair that stands in two folders is
    taken from the first.
    """
    cases: dict[tuple[str, str], Case] = {}
    for folder in folders:
        try:
            study = study_of(folder)
            accuracy = pd.read_csv(folder / "accuracy.csv")
        except (InputError, OSError, ValueError, KeyError) as error:
            print(f"left out: {folder}: {error}", file=sys.stderr)
            continue
        rows = accuracy[accuracy["method"] == "ap"]
        if "recipe" in rows and rows["recipe"].nunique() > 1:
            rows = rows[rows["recipe"] == rows["recipe"].iloc[0]]
        for network_spec in study.networks:
            of_network = rows[rows["network"].isin(_names(network_spec))]
            if of_network.empty or of_network["network"].str.contains("random").all():
                continue
            net = load_network(network_spec)
            for task_spec in study.tasks:
                task = load_task(task_spec)
                some = of_network[of_network["task"] == task.name]
                if (net.name, task.name) in cases or some["layer"].nunique() < 4:
                    continue
                if reason := _changed(folder, net, task):
                    print(f"left out: {net.name} on {task.name}: {reason}", file=sys.stderr)
                    continue
                print(f"{net.name} on {task.name}: {folder}", file=sys.stderr, flush=True)
                tests, recipe = _table(some, "test_accuracy"), _recipe(study)
                sizes = (tests.columns.tolist(), recipe.epochs, len(tests))
                scores, facts = _scored(net, task, out, images, *sizes)
                cases[net.name, task.name] = Case(
                    net.name,
                    task.name,
                    network_spec,
                    task_spec,
                    recipe,
                    tests,
                    _table(some, "val_accuracy"),
                    scores,
                    facts,
                )
    return list(cases.values())


def study_of(folder: Path) -> Study:
    """The study that a sweep left in its folder (plan.json, or study.toml beside it)."""
    if (folder / "study.toml").is_file():
        return Study.from_toml(folder / "study.toml")
    if not (folder / "plan.json").is_file():
        raise InputError("no plan.json: expected a folder that a sweep wrote to")
    said = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["study"]
    words = ("name", "networks", "tasks", "layers", "recipes", "seeds")
    return Study.from_dict({word: said[word] for word in words if word in said})


def _names(spec: Any) -> list[str]:
    """What the network of an entry may be called in a table."""
    if not isinstance(spec, dict):
        return [getattr(spec, "name", str(spec))]
    factory = str(spec.get("factory", "")).partition(":")[2]
    return [name for name in (spec.get("label"), spec.get("name"), factory) if name]


def _recipe(study: Study) -> Recipe:
    entry = study.recipes[0]
    if isinstance(entry, Recipe):
        return entry
    if isinstance(entry, str):
        return Recipe.named(entry)
    values = dict(entry)
    base = values.pop("base", None) or values.get("name", "quick")
    values.pop("name", None)
    return Recipe.named(base, **values)


def _table(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Seeds down, layers across; layers that lack a seed are left out."""
    some = rows[rows["measure"] == measure]
    return some.pivot_table(index="seed", columns="layer", values="value").dropna(axis=1)


def _changed(folder: Path, net: Network, task: Any) -> str:
    """Why the sweep is not one of this network and task, if the folder says so."""
    path = folder / "settings.json"
    if not path.is_file():
        return ""
    said = json.loads(path.read_text(encoding="utf-8"))
    if said.get("networks", {}).get(net.name, net.digest) != net.digest:
        return "its weights have changed since the sweep; run the sweep again"
    if not said.get("tasks", {}).get(task.name, task.digest).startswith(task.digest):
        return "its images have changed since the sweep; run the sweep again"
    return ""


def _scored(
    net: Network, task: Any, out: Path, most: int, layers: list[int], epochs: int, seeds: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The scores and what prices need, computed once and kept.

    As many images are looked at as `SHARE` of the sweep's operations buys, ``most`` at most, and
    never fewer than ten or one a class.
    """
    operations, classes = piece_operations(net), len(task.classes)
    sweep = Prices(operations, len(task.train), len(task.val)).sweep(
        layers, epochs=epochs, seeds=seeds
    )
    bought = int(SHARE * sweep / score_operations(operations, 1, classes))
    images = min(most, len(task.train), max(10, classes, bought))
    identity = {"net": net.digest, "task": task.digest, "images": images, "format": FORMAT}
    stem = out / "scores" / f"{net.name}-{task.name}-{key_of(identity)[:8]}".replace(" ", "_")
    table, facts = stem.with_name(stem.name + ".csv"), stem.with_name(stem.name + ".json")
    if not (table.is_file() and facts.is_file()):
        start = time.process_time()
        scores = layer_scores(net, task, images=images)
        values = {
            "forward": operations.forward,
            "backward": operations.backward,
            "train": len(task.train),
            "val": len(task.val),
            "classes": classes,
            "images": images,
            "paper_layer": paper_layer(net),
            "cpu_seconds": round(time.process_time() - start, 2),
        }
        write_table(scores.drop(columns=list(PLACES)), table)
        write_atomically(facts, json.dumps(values) + "\n")
    # What follows from the place costs nothing, and files that hold it under an older name serve.
    scores = pd.read_csv(table).assign(**place_scores(net))
    return scores, json.loads(facts.read_text(encoding="utf-8"))


def paper_layer(net: Network) -> int:
    """The paper's fixed place: a ViT's third block, a CNN's input of the last stage.

    The last stage starts where the map shrinks for the last time; a ViT has no stages.
    """
    if kind_of(net) == "vit" and any(layer.layout == "tokens" for layer in net.layers):
        return net.block_layers[min(2, len(net.block_layers) - 1)]
    sizes = [layer.grid[0] * layer.grid[1] if layer.grid else 0 for layer in net.layers]
    shrinks = [l for l in range(1, len(sizes)) if 0 < sizes[l] < sizes[l - 1]]
    return shrinks[-1] - 1 if shrinks else net.block_layers[-1]


def found_sweeps(root: Path) -> list[Path]:
    """Folders under ROOT with a finished sweep: the one that swept the most layers first.

    The first folder that holds a pair is the one that counts.
    """
    folders = [p.parent for p in root.rglob("plan.json") if (p.parent / "accuracy.csv").is_file()]
    return sorted(folders, key=lambda folder: (-_layers_swept(folder), folder))


def _layers_swept(folder: Path) -> int:
    try:
        table = pd.read_csv(folder / "accuracy.csv", usecols=["method", "layer"])
    except (OSError, ValueError):
        return 0  # `gather` says what is wrong with it
    return int(table.loc[table["method"] == "ap", "layer"].nunique())

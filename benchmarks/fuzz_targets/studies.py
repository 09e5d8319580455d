"""Studies, plans, outcomes and journals."""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fuzz_targets.registry import Case, file_case, target
from benchmarks.mutations import (
    either,
    encoded,
    harm_bytes,
    harm_text,
    harm_value,
)

STUDY: dict[str, Any] = {
    "name": "where",
    "networks": [{"name": "aptheory_resnet_mini", "weights": "random", "seed": 1, "options": {}}],
    "tasks": [{"name": "digits", "train": 40, "val": 20, "test": 20, "label": "d"}],
    "methods": ["ap", "vpt:tokens=5", {"name": "lora", "rank": 2}],
    "layers": [0, 0.5, "head", -2],
    "recipes": [{"name": "quick", "epochs": 2, "lr": 0.1}],
    "seeds": [0, 1],
    "search": {"lr": [0.1, 0.01]},
    "together": 4,
    "device": "auto",
    "protocol": "standard",
}


@target
def study_values(folder: Path) -> Case:
    from aptheory.studies.study import Study

    return lambda draw: Study.from_dict(harm_value(STUDY, draw))


@target
def study_files(folder: Path) -> Case:
    from aptheory.studies.study import Study

    text = """
name = "where"
networks = ["aptheory_vit_mini", { name = "x", weights = "w.safetensors", options = { a = 1 } }]
tasks = ["digits", { name = "textures", train = 200, val = 100, test = 500 }]
methods = ["ap", "ap:shape=channel", "vpt:tokens=5"]
layers = "all"
recipe = { name = "quick", epochs = 10 }
seeds = [0, 1, 2]
search = { lr = [0.1, 0.01], weight_decay = [0.0, 1e-4] }
"""
    path = folder / "study.toml"

    def structured(draw: random.Random) -> bytes:
        return harm_text(text, draw).encode("utf-8", "surrogatepass")

    whole = text.encode()
    return file_case(path, either(structured, whole), lambda: Study.from_toml(path))


@target
def plans(folder: Path) -> Case:
    """A harmed study that is still a study, laid out on its network."""
    from aptheory.studies.planning import make_plan
    from aptheory.studies.sources import load_network, load_task
    from aptheory.studies.study import Opened, OpenNetwork, OpenTask, Study

    spec, task_spec = STUDY["networks"][0], STUDY["tasks"][0]
    network = OpenNetwork(spec, load_network(spec))
    task = OpenTask(task_spec, load_task(task_spec))
    network.identity, task.identity, network.predictor.pace  # noqa: B018 (remembered)

    def case(draw: random.Random) -> Any:
        part = {key: STUDY[key] for key in ("methods", "layers", "recipes", "seeds", "search")}
        harmed = harm_value(part, draw)
        study = Study.from_dict({**harmed, "networks": [spec], "tasks": [task_spec]})
        if len(study.seeds) * len(study.recipes) * len(study.methods) > 200:
            return None
        return make_plan(Opened(study, (network,), (task,)))

    return case


@target
def kept_steps(folder: Path) -> Case:
    """What a comparison that goes on reads, with checksums that are right."""
    import aptheory as ap
    from aptheory.findings import norm_and_prompt
    from aptheory.studies.steps import Steps

    net = ap.load("aptheory_resnet_mini", weights="random")
    task = ap.task("digits").subset(train=20, val=20, test=20)
    path, recipe = folder / "table.steps", ap.Recipe(epochs=1)
    ap.compare_norm(net, task, layers=[3], recipe=recipe, lrs=[0.01], steps=path)
    whole = path.read_bytes()
    entries = [json.loads(json.loads(line)["value"]) for line in whole.splitlines() if line]
    bench = norm_and_prompt.Bench(net, task, recipe, [], None)

    def case(draw: random.Random) -> Any:
        if draw.random() < 0.3:
            path.write_bytes(harm_bytes(whole, draw))
            return Steps(path, "something else")
        path.unlink(missing_ok=True)
        steps = Steps(path, "harmed")
        for number, entry in enumerate(entries):
            harmed = harm_value(entry, draw) if draw.random() < 0.5 else entry
            steps._keep(path, str(number), encoded(harmed))
        again = Steps(path, "harmed")
        kept = [again.value(str(n), dict) for n in range(len(entries)) if str(n) in again]
        usable = [entry for entry in kept if bench.is_entry(entry) and "row" in entry]
        return usable and str(norm_and_prompt.comparison("n", "t", usable))

    return case


def _records() -> list[Any]:
    from aptheory.studies.records import Record, key_of

    records = []
    for seed in range(2):
        identity = {
            "network": {"name": "n", "digest": "0"},
            "task": {"name": "t", "digest": "0", "group": "user"},
            "method": {"method": "ap", "layer": 1},
            "layer": {"index": 1, "name": "b", "depth": 0.5},
            "seed": seed,
        }
        outcome = {"test_accuracy": 0.5, "val_accuracy": 0.5, "labels": {"method": "ap"}}
        key = key_of(identity)
        records.append(Record(key, identity, "done", outcome, {"batch_seconds": 1.0}))
    return records


def _study_folder(folder: Path) -> Any:
    from aptheory.studies.store import Store

    store = Store(folder).create()
    records = _records()
    store.write_batch("a", records)
    labels = {"method": "ap", "role": "prompt", "recipe": "quick", "settings": ""}
    batch = {"runs": [record.key for record in records], "seconds": 1.0, "labels": labels}
    plan = {"name": "x", "not_applicable": [], "batches": {"a": batch}, "workers": 1}
    (folder / "plan.json").write_text(json.dumps(plan))
    return store


def _table_and_status(folder: Path) -> Any:
    from aptheory.studies.status import status
    from aptheory.studies.tables import runs, table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return status(folder).text(), len(table(folder)), len(runs(folder))


@target
def outcomes(folder: Path) -> Case:
    from aptheory.studies.records import checksum, key_of

    store = _study_folder(folder)
    record = _records()[0]
    whole = record.text().encode()

    def structured(draw: random.Random) -> bytes:
        """What somebody who can compute a checksum would write."""
        body = harm_value(json.loads(whole), draw)
        with contextlib.suppress(Exception):
            body.pop("checksum", None)
            if draw.random() < 0.5:
                body["key"] = key_of(body["identity"])
            body["checksum"] = checksum(body)
        return encoded(body).encode("utf-8", "surrogatepass")

    path = store.path(record.key)
    return file_case(path, either(structured, whole), lambda: _table_and_status(folder))


@target
def journals(folder: Path) -> Case:
    from aptheory.studies.records import FORMAT, checksum

    store = _study_folder(folder)
    body = {"format": FORMAT, "records": [record.text() for record in _records()]}
    body["checksum"] = checksum(body)
    path = store.journal / "b.json"

    def structured(draw: random.Random) -> bytes:
        changed = harm_value(body, draw)
        with contextlib.suppress(Exception):
            changed.pop("checksum", None)
            changed["checksum"] = checksum(changed)
        return encoded(changed).encode("utf-8", "surrogatepass")

    whole = json.dumps(body).encode()
    return file_case(path, either(structured, whole), store.recover)


@target
def plan_files(folder: Path) -> Case:
    _study_folder(folder)
    path = folder / "plan.json"
    whole = path.read_bytes()

    def structured(draw: random.Random) -> bytes:
        return encoded(harm_value(json.loads(whole), draw)).encode("utf-8", "surrogatepass")

    return file_case(path, either(structured, whole), lambda: _table_and_status(folder))

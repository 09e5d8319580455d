"""Trainers and plans without networks, for tests of the machinery that runs a study.

Workers import this module by its name, so its functions live here and not in a test.
"""

import os
import signal
import time
from pathlib import Path

from aptheory.studies.plan import Batch, Job, Plan
from aptheory.studies.records import key_of


def identity(task: str, layer: int, seed: int, method: str = "ap", **more):
    return {
        "network": {"name": "net", "digest": "0"},
        "task": {"name": task, "digest": "0", "group": "user"},
        "method": {"method": method, "layer": layer},
        "layer": {"index": layer, "name": f"block{layer}", "depth": layer / 10},
        "seed": seed,
        **more,
    }


def plan(*, tasks=2, layers=3, seeds=2, seconds=0.05, folder="", follow=True) -> Plan:
    """``tasks`` jobs of ``layers`` batches of ``seeds`` runs, each followed by a control."""
    jobs = []
    for task in range(tasks):
        batches = []
        for layer in range(layers):
            runs = tuple(identity(f"task{task}", layer, seed) for seed in range(seeds))
            recipe = {"sleep": seconds, "folder": str(folder)}
            labels = {"recipe": "quick", "settings": ""}
            batch = Batch(runs, recipe, layer, labels, seconds=seconds)
            batches.append(batch)
            if follow:
                controls = tuple(
                    identity(f"task{task}", layer, seed, "random_perturbation", follows=key)
                    for seed, key in enumerate(batch.run_keys)
                )
                led = Batch(controls, recipe, layer, labels, follows=batch.key, seconds=seconds)
                batches.append(led)
        jobs.append(Job("net", f"task{task}", tuple(batches)))
    return Plan("fake", tuple(jobs))


def value(run: dict, lead: float = 0.0) -> float:
    """An accuracy that depends on the identity alone."""
    return int(key_of(run), 16) % 9973 / 9973 * 0.5 + lead / 2


def trainer(job: Job):
    """Sleeps, notes that it trained each run, and gives an accuracy made from the identity."""

    def train(batch: Batch, lead):
        time.sleep(batch.recipe["sleep"])
        outcomes = []
        for position, run in enumerate(batch.identities):
            before = lead[position].outcome["test_accuracy"] if lead else 0.0
            outcomes.append({"test_accuracy": value(run, before), "val_accuracy": 0.5})
        note(batch)
        return outcomes

    return train


def note(batch: Batch) -> None:
    """One line a finished training, in a file of this process (none where no folder is given)."""
    if batch.recipe["folder"]:
        with open(Path(batch.recipe["folder"]) / f"trained.{os.getpid()}", "a") as file:
            file.write(batch.key + "\n")


def trainings(folder: Path) -> list[str]:
    return [line for path in folder.glob("trained.*") for line in path.read_text().splitlines()]


def failing(job: Job):
    """Fails on the batches of layer 1 while there is no file ``mended`` in the folder."""
    train = trainer(job)

    def fail(batch: Batch, lead):
        mended = Path(batch.recipe["folder"]) / "mended"
        if batch.place == 1 and batch.follows is None and not mended.exists():
            raise RuntimeError("loss is not finite")
        return train(batch, lead)

    return fail


def deadly(job: Job):
    """Kills its own process on the prompt of layer 1 of the first task."""
    train = trainer(job)

    def die(batch: Batch, lead):
        if batch.place == 1 and batch.follows is None and job.task == "task0":
            os.kill(os.getpid(), signal.SIGKILL)
        return train(batch, lead)

    return die

"""What is run: runs that train as one stack, and the jobs of a worker.

The plan depends on the study alone. Whatever is finished already, however many workers there are
and wherever they run, the same runs train together, because the rounding of a batched product
depends on what else is in the batch.

- A *run* is one row of the final table, known by its identity.
- A *batch* is runs that differ in the seed alone; they train as one stack.
- A *job* is batches of one network and task at neighbouring layers: one worker walks through
  them and carries the kept activations from layer to layer.

`aptheory.studies.planning` makes it. A worker reads nothing but this, so no network is imported
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aptheory.studies.records import key_of
from aptheory.studies.runtime import Runtime


@dataclass(frozen=True)
class Batch:
    """Runs that train as one stack: one identity each, the same but for the seed.

    ``labels`` are for tables: what to call the method and the recipe, and unusual settings.
    ``follows`` is the key of the batch whose learned prompts give this one its norm. ``place`` is
    the first place that feels what is learned: what comes before is kept. ``reads_best``: it reads
    at the place that the study's probes found. ``seconds`` and ``operations`` (2 a multiply-add)
    are predictions.
    """

    identities: tuple[dict[str, Any], ...]
    recipe: dict[str, Any]
    place: int
    labels: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    follows: str | None = None
    reads_best: bool = False
    seconds: float = 1.0
    operations: float = 0.0

    @cached_property
    def run_keys(self) -> tuple[str, ...]:
        return tuple(key_of(identity) for identity in self.identities)

    @cached_property
    def key(self) -> str:
        return key_of(self.run_keys)

    @property
    def layer(self) -> str:
        """The layer that the runs are about: "layer 5 (blocks.4)"."""
        layer = self.identities[0]["layer"]
        return f"layer {layer['index']} ({layer['name']})"

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(identity["seed"] for identity in self.identities)


@dataclass(frozen=True)
class Job:
    """What one worker does in one go. ``network`` and ``task`` are specs or the objects.

    ``beside`` are the folders in which the user's modules may lie; ``classes`` are methods that
    were defined in the user's script or notebook, where no other process can import them.
    ``models`` is the folder in which what a run has learned is kept, KEY.safetensors; None keeps
    nothing.
    """

    network: Any
    task: Any
    batches: tuple[Batch, ...]
    runtime: Runtime = field(default_factory=Runtime)
    beside: tuple[str, ...] = ()
    classes: tuple[type, ...] = ()
    models: str | None = None

    @property
    def key(self) -> str:
        return key_of([batch.key for batch in self.batches])

    @property
    def seconds(self) -> float:
        return sum(batch.seconds for batch in self.batches)


@dataclass(frozen=True)
class Plan:
    """Every run of a study, and the combinations that make no sense with the reason why.

    ``waits``: further runs follow, once its probes have found the place that they read. ``unused``
    are the methods of the study that fit none of its networks.
    """

    name: str
    jobs: tuple[Job, ...]
    not_applicable: tuple[str, ...] = ()
    study: dict[str, Any] = field(default_factory=dict)
    waits: bool = False
    unused: tuple[str, ...] = ()

    @property
    def batches(self) -> Iterator[Batch]:
        return (batch for job in self.jobs for batch in job.batches)

    def __len__(self) -> int:
        return sum(len(batch.identities) for batch in self.batches)

    @property
    def run_keys(self) -> list[str]:
        return [key for batch in self.batches for key in batch.run_keys]

    @property
    def identity(self) -> str:
        """What two sweeps of one study share, whether its probes have ended or not."""
        known = [batch.run_keys for batch in self.batches if not batch.reads_best]
        return key_of([self.name, sorted(key for keys in known for key in keys)])

    @property
    def seconds(self) -> float:
        """Predicted time of all runs, one after the other."""
        return sum(job.seconds for job in self.jobs)

    def to_dict(self) -> dict[str, Any]:
        """What `status` needs to know without loading a network."""
        batches = {
            batch.key: {
                "runs": list(batch.run_keys),
                "seconds": batch.seconds,
                "labels": {**batch.labels, "place": batch.layer},
            }
            for batch in self.batches
        }
        return {
            "name": self.name,
            "study": self.study,
            "batches": batches,
            "not_applicable": list(self.not_applicable),
            "unused": list(self.unused),
        }

    def table(self) -> Any:
        """One row a run: what it is, its key and batch, the predicted seconds and operations."""
        import pandas as pd

        rows = []
        for number, job in enumerate(self.jobs):
            for batch in job.batches:
                share = 1 / len(batch.identities)
                for identity, key in zip(batch.identities, batch.run_keys, strict=True):
                    rows.append(
                        {
                            "network": identity["network"]["name"],
                            "task": identity["task"]["name"],
                            "method": batch.labels.get("method", identity["method"]["method"]),
                            "role": batch.labels.get("role", ""),
                            "layer": identity["layer"]["index"],
                            "layer_name": identity["layer"]["name"],
                            "settings": batch.labels.get("settings", ""),
                            "recipe": batch.labels.get("recipe", ""),
                            "seed": identity["seed"],
                            "parameters": batch.parameters,
                            "seconds": batch.seconds * share,
                            "operations": batch.operations * share,
                            "job": number,
                            "batch": batch.key,
                            "run": key,
                        }
                    )
        return pd.DataFrame(rows)

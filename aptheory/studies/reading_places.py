"""Where a study reads, where it says ``read=best``: found by the probes that it trains anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aptheory.methods import LayerProbe, LinearProbe
from aptheory.studies.plan import Batch, Plan
from aptheory.studies.store import Store
from aptheory.training.judging import Score

Pair = tuple[str, str]
"""A network's name and a task's."""


@dataclass(frozen=True)
class ReadingPlace:
    """The place of a network whose own probe is best on the validation images of a task.

    ``score`` is the probe's mean over recipes and seeds; ``looked_at`` counts the places that had a
    probe; ``at_end`` says that it is the linear probe's own, so that nothing is read earlier.
    """

    network: str
    task: str
    index: int
    name: str
    score: Score
    looked_at: int
    judge: str
    at_end: bool = False

    def __str__(self) -> str:
        end = ", the network's end, so that nothing is read earlier" if self.at_end else ""
        return (
            f"{self.network} on {self.task} reads best at place {self.index} ({self.name}){end}: "
            f"of {self.looked_at} places its own probe is best on validation images by "
            f"{self.judge}, {100 * self.score.accuracy:.1f} % (loss {self.score.loss:.3f})"
        )


def reading_places(plan: Plan, store: Store) -> dict[Pair, ReadingPlace]:
    """The reading place of every network and task whose probes, all that are planned, have ended.

    Probes that failed do not take part; test images never do.
    """
    probes: dict[Pair, list[Batch]] = {}
    for batch in plan.batches:
        identity = batch.identities[0]
        if _is_probe(identity["method"]):
            pair = (identity["network"]["name"], identity["task"]["name"])
            probes.setdefault(pair, []).append(batch)
    found = {pair: _best(pair, batches, store) for pair, batches in probes.items()}
    return {pair: place for pair, place in found.items() if place is not None}


def _is_probe(settings: Mapping[str, Any]) -> bool:
    """Whether a head learns on the mean of one place, as a prompt's that is read there does."""
    layer = settings.get("layer", 0)
    plain = [LinearProbe().settings()]
    if isinstance(layer, int):
        plain.append(LayerProbe(layer=layer).settings())
    return dict(settings) in plain


def _best(pair: Pair, batches: Sequence[Batch], store: Store) -> ReadingPlace | None:
    scores: dict[tuple[int, str], list[Score]] = {}
    judge, end = "accuracy", LinearProbe().settings()
    ends = {one["layer"]["index"] for b in batches if (one := b.identities[0])["method"] == end}
    for batch in batches:
        judge = batch.recipe.get("judge", judge)
        layer = batch.identities[0]["layer"]
        for key in batch.run_keys:
            record = store.believed(key)
            if record is None:
                return None
            if record.status == "done":
                outcome = record.outcome
                score = Score(float(outcome["val_accuracy"]), float(outcome["val_loss"]))
                scores.setdefault((layer["index"], layer["name"]), []).append(score)
    if not scores:
        return None
    means = {
        place: Score(*(sum(values) / len(values) for values in zip(*some, strict=True)))
        for place, some in scores.items()
    }
    place = min(sorted(means), key=lambda each: means[each].cost(judge))
    return ReadingPlace(*pair, *place, means[place], len(means), judge, place[0] in ends)

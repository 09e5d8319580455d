"""What a table of accuracies shows for each network and task: the place, its rivals, its controls.

A prompt is compared with four things, each paired by seed and picture:

- the **linear probe**, which learns a head and nothing else;
- the **best earlier probe**: a head on the features of the layer that validation data choose. It
  costs less than any prompt, and is its strongest rival;
- a **random pattern** of the prompt's norm at the prompt's place: a control;
- the prompt at the **last place**, the classifier's input, where it can express exactly what the
  linear probe can: a control of the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from aptheory.errors import InputError
from aptheory.findings.chosen import chosen_layer, depth_of, last_place, layer_name, swept_prompt
from aptheory.findings.gaps import Runs, gap, mean_accuracy, runs_of
from aptheory.findings.statistics import Interval
from aptheory.findings.verdict import Verdict, verdict

LINEAR_PROBE, LAYER_PROBE, RANDOM = "linear_probe", "layer_probe", "random_perturbation"


@dataclass(frozen=True)
class Place:
    """A layer that validation data chose for a method, and its test accuracy in percent."""

    layer: int
    name: str
    accuracy: Interval

    def __str__(self) -> str:
        return f"layer {self.layer} ({self.name})"


@dataclass(frozen=True)
class Case:
    """One network on one task with one recipe.

    ``last`` is the index of the network's last place, None where the table does not tell it.
    """

    network: str
    task: str
    recipe: str
    method: str
    prompt: Place
    seeds: int
    last: int | None
    probe: Place | None
    runs: dict[tuple[str, int], Runs]

    @property
    def depth(self) -> float:
        """The share of the network before the prompt's place; nan where it is unknown."""
        return depth_of(self.prompt.layer, self.last)

    @cached_property
    def linear_probe(self) -> Interval:
        """Test accuracy of the linear probe in percent."""
        runs = self._linear_probe
        return Interval(float("nan"), note="not run") if runs is None else mean_accuracy(runs)

    @cached_property
    def gain(self) -> Interval:
        """The prompt minus the linear probe, in points; as are all differences."""
        return gap(self._prompt, self._linear_probe)

    @cached_property
    def over_probe(self) -> Interval:
        """The prompt minus the best earlier probe."""
        probe = self.runs.get((LAYER_PROBE, self.probe.layer)) if self.probe else None
        return gap(self._prompt, probe)

    @cached_property
    def over_image(self) -> Interval:
        """The prompt minus a prompt on the image; nan where the image itself was chosen."""
        image = self.runs.get((self.method, 0)) if self.prompt.layer else None
        return gap(self._prompt, image)

    @cached_property
    def over_random(self) -> Interval:
        """The prompt minus a random pattern of its norm at the same place."""
        return gap(self._prompt, self.random)

    @cached_property
    def over_last(self) -> Interval:
        """The prompt minus a prompt at the last place; nan where that itself was chosen."""
        at_end = self.prompt.layer == self.last
        return gap(self._prompt, None if at_end else self._last)

    @cached_property
    def moved(self) -> Interval:
        """The prompt at the last place minus the linear probe: what training alone moves."""
        return gap(self._last, self._linear_probe)

    @cached_property
    def doubts(self) -> list[str]:
        """The controls that take a gain back, in words."""
        doubts = []
        at_end = self.prompt.layer == self.last
        has_random = self.random is not None and not at_end
        if has_random and verdict(self.over_random) is not Verdict.GAIN:
            doubts.append("it is not clearly more than a random pattern of its norm there")
        if self._last is not None or at_end:
            as_much = not abs(self.moved.value) < self.gain.value
            if at_end or as_much or verdict(self.over_last) is not Verdict.GAIN:
                doubts.append(
                    "a prompt at the last place, which can do nothing that the linear probe "
                    "cannot, moves as much"
                )
        return doubts

    @property
    def verdict(self) -> Verdict:
        """Whether the network gains: over the linear probe, and by more than its controls move."""
        over_probe = verdict(self.gain)
        return Verdict.UNCLEAR if over_probe is Verdict.GAIN and self.doubts else over_probe

    @property
    def advice(self) -> str:
        """Prompt here, or probe there; empty where no earlier probe was run."""
        if self.probe is None:
            return ""
        here, there = f"prompt {self.prompt}", f"probe {self.probe}"
        match verdict(self.over_probe):
            case Verdict.GAIN:
                return here if self.verdict is Verdict.GAIN else f"{here}, or {there}: not decided"
            case Verdict.LOSS:
                return there
            case _:
                return f"{here}, or {there}: not decided"

    @property
    def random(self) -> Runs | None:
        """The random pattern at the prompt's place; None where it was not run."""
        names = (RANDOM, f"{RANDOM}:{self.method}")
        return next(
            (r for n in names if (r := self.runs.get((n, self.prompt.layer))) is not None), None
        )

    @property
    def _prompt(self) -> Runs | None:
        return self.runs.get((self.method, self.prompt.layer))

    @property
    def _last(self) -> Runs | None:
        return None if self.last is None else self.runs.get((self.method, self.last))

    @property
    def _linear_probe(self) -> Runs | None:
        return next((runs for (name, _), runs in self.runs.items() if name == LINEAR_PROBE), None)


def cases(accuracy: pd.DataFrame) -> list[Case]:
    """A case for each network, task and recipe that a prompt was run on, in the table's order.

    The prompt is `swept_prompt` of the case. A case whose layer cannot be chosen, for want of
    validation accuracies, is left out.
    """
    return [case for rows in groups(accuracy) if (case := _case(rows, accuracy)) is not None]


def groups(accuracy: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each network, task and recipe."""
    if accuracy.empty:
        return
    if "recipe" not in accuracy:
        accuracy = accuracy.assign(recipe="")
    keys = ["network", "task", "recipe"]
    for _, rows in accuracy.fillna({"recipe": ""}).groupby(keys, sort=False):
        yield rows


def _case(rows: pd.DataFrame, accuracy: pd.DataFrame) -> Case | None:
    runs, method = runs_of(rows), swept_prompt(rows)
    network, task, recipe = (str(rows[name].iloc[0]) for name in ("network", "task", "recipe"))
    last = last_place(accuracy[accuracy["network"] == network])
    prompt = _place(rows, runs, method)
    if prompt is None:
        return None
    earlier = rows if last is None else rows[rows["layer"] < last]
    return Case(
        network=network,
        task=task,
        recipe=recipe if "recipe" in accuracy and accuracy["recipe"].nunique() > 1 else "",
        method=method,
        prompt=prompt,
        seeds=runs[method, prompt.layer]["seed"].nunique(),
        last=last,
        probe=_place(earlier, runs, LAYER_PROBE),
        runs=runs,
    )


def _place(rows: pd.DataFrame, runs: dict[tuple[str, int], Runs], method: str) -> Place | None:
    """The layer that validation data choose for a method, of those that were tested."""
    tested = [layer for name, layer in runs if name == method]
    rows = rows[(rows["method"] == method) & rows["layer"].isin(tested)]
    if rows.empty:
        return None
    try:
        layer = chosen_layer(rows)
    except InputError:
        return None
    return Place(layer, layer_name(rows, layer), mean_accuracy(runs[method, layer]))

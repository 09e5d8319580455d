"""A prompt beside the normalisation at the same place: what each gains, and what they share.

    print(compare_norm(net, task, layers="blocks"))

At every place: a full prompt, a prompt with one number a channel, beta of the norms there, gamma
and beta there; beside them all betas, all norms and the linear probe. Then each trained prompt is
taken apart at the next norm, and each trained gamma and beta is read backwards, as a prompt at the
next place (`aptheory.findings.prompt_parts`).
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aptheory.arguments import Amount, Seed, Share, Whole, checked_arguments
from aptheory.choosing.ranking import ranking
from aptheory.errors import InputError
from aptheory.findings.pictures import paired_pictures
from aptheory.findings.prompt_parts import PARTS, read_as_prompt, take_apart
from aptheory.methods import ActivationPrompt, LinearProbe, NormTuning
from aptheory.methods.base import Adapted, Method
from aptheory.networks.network import Layer, Network, Places
from aptheory.studies.steps import Steps, shaped
from aptheory.tasks import Task
from aptheory.tasks import task as open_task
from aptheory.training.cost import Operations, piece_operations, predict
from aptheory.training.fit import fit_many, kept_for
from aptheory.training.kept import Kept
from aptheory.training.outcome import Outcome, is_packed, packed, unpacked
from aptheory.training.recipe import Recipe, Run

_log = logging.getLogger("aptheory")

RATES = (1e-3, 1e-2, 3e-2)
"""Learning rates that every method is trained at; validation images choose."""

ROW = {
    **dict.fromkeys(("method", "layer_name"), str),
    **dict.fromkeys(("step", "seconds"), Amount),
    **dict.fromkeys(("parameters", "memory"), Whole),
    **dict.fromkeys(("val_accuracy", "test_accuracy"), Share),
    "layer": Whole | None,
    "lr": Amount,
}
PLACE = {"layer": Whole, "layer_name": str}
TAKEN_APART = {
    **PLACE,
    **dict.fromkeys(("shape", "norm"), str),
    **dict.fromkeys(("exact", "unseen", "beta", "gamma", "left", "val_loss"), float),
    **dict.fromkeys(("val_accuracy", "more", "more_low", "more_high"), float),
    **{f"{what} {part}": float for what in ("logits", "kept", "retrained") for part in PARTS},
}
BACKWARDS = {**PLACE, "full": float, "channel": float}


@dataclass(eq=False)
class NormComparison:
    """``table``: a row a method and place: ``method, layer, layer_name, parameters, step`` (the
    predicted cost of a training step from kept activations, as a share of visual prompting's),
    ``seconds``, ``memory``, ``lr, val_accuracy, test_accuracy``, ``gain, gain_low, gain_high``
    (points on the linear probe). ``parts``: a row a prompt, as `take_apart` gives it.
    ``backwards``: a row a place: ``full`` and ``channel``, as `read_as_prompt` gives them.
    """

    network: str
    task: str
    table: pd.DataFrame
    parts: pd.DataFrame
    backwards: pd.DataFrame

    def __str__(self) -> str:
        def text(frame: pd.DataFrame, columns: Sequence[str]) -> str:
            shown = frame[[name for name in columns if name in frame]]
            if "layer" in shown:
                places = ["-" if pd.isna(place) else f"{place:.0f}" for place in shown["layer"]]
                shown = shown.assign(layer=places)
            if "lr" in shown:
                shown = shown.assign(lr=[f"{rate:g}" for rate in shown["lr"]])
            if shown.empty:
                return "none"
            return str(shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))

        whole = self.parts[self.parts["shape"] == "full"]
        said = [
            f"{self.network} on {self.task}: a prompt and the normalisation at the same place",
            "(gain: points on the linear probe, with 95 % bounds of the test pictures alone: one "
            "seed; step: share of visual prompting's training step)",
            text(
                self.table,
                [
                    *("method", "layer", "layer_name", "parameters", "step", "seconds", "lr"),
                    *("test_accuracy", "gain", "gain_low", "gain_high"),
                ],
            ),
            "",
            "What a trained prompt is at the next norm (shares of the change there; logits: share",
            "of the change of the logits; kept: test accuracy of the part alone, head as trained)",
            text(
                self.parts,
                [
                    *("layer", "shape", "norm", "exact", "beta", "gamma", "left"),
                    *("logits beta", "logits gamma and beta", "kept none", "kept beta"),
                    *("kept gamma and beta", "kept rest", "kept whole"),
                ],
            ),
            "",
            "A tuned gamma and beta, read as a prompt at the next place (shares that are the same",
            "for every input)",
            text(self.backwards, ("layer", "layer_name", "full", "channel")),
        ]
        if len(whole):
            scores = (whole[name].to_numpy(float) for name in ("val_accuracy", "val_loss"))
            best = whole.iloc[int(ranking(*scores, key=f"{self.network}|{self.task}")[0])]
            said.append(
                f"\nAt place {int(best['layer'])}, the best on validation images, the prompt is "
                f"what gamma and beta of {best['norm']} imitate plus {best['more']:+.1f} points "
                f"[{best['more_low']:+.1f}, {best['more_high']:+.1f}] (test pictures alone)."
            )
        return "\n".join(said)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@checked_arguments
def compare_norm(
    net: Network,
    task: Any,
    *,
    layers: Places = "blocks",
    recipe: Recipe | None = None,
    lrs: Sequence[Amount] = RATES,
    seed: Seed = 0,
    steps: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> NormComparison:
    """Train prompts and norms at the same places, at the same rates, and take them apart.

    Args:
        task: a task, or whatever `aptheory.task` makes one of.
        layers: places; the classifier's input, where a prompt is a probe, is left out.
        lrs: rates that every method is trained at; validation images choose.
        seed: of every run.
        steps: a file that keeps what each method at each place came to, so that the same call goes
            on after an interruption; what is about another network, task or setting is not used.

    Raises:
        InputError: no place, no rate, or a network without normalisation; a file of ``steps`` that
            cannot be written.
    """
    task, recipe, say = open_task(task), recipe or Recipe(), log or _log.info
    places = [place for place in net.places(layers) if place.index < len(net.layers) - 1]
    if not places or not lrs:
        raise InputError("give at least one place before the classifier's input, and one rate.")
    NormTuning().layers(net)  # refuses a network that has none
    finished = Steps.of(steps, net, task, recipe.settings(), list(lrs), seed)
    bench = Bench(net, task, recipe, [Run(seed=seed, lr=lr) for lr in lrs], log)
    entries: list[dict[str, Any]] = []

    def add(label: str, method: Method, place: Layer | None) -> None:
        name = label if place is None else f"{label} at {place.index}"
        entry = finished.value(
            name, lambda: bench.trained(label, method, place), usable=bench.is_entry
        )
        if place is None and "row" not in entry:
            raise InputError(f"{label} came to no usable model ({entry['said']}); try other rates.")
        if entry["said"]:
            say(entry["said"])
        entries.append(entry)

    try:
        add("linear probe", LinearProbe(), None)
        add("all beta", NormTuning(scale=False), None)
        add("all norms", NormTuning(), None)
        bench.close()  # the places are walked through from the image on
        for place in places:
            for label, method in _methods_at(net, place):
                add(label, method, place)
    finally:
        bench.close()
    return comparison(net.name, task.name, [entry for entry in entries if "row" in entry])


def _methods_at(net: Network, place: Layer) -> Iterator[tuple[str, Method]]:
    """The two prompts at a place, and the two ways to tune the norms between it and the next."""
    yield "prompt", ActivationPrompt(layer=place.index)
    yield "prompt, channels", ActivationPrompt(layer=place.index, shape="channel")
    for label, scale in (("beta", False), ("gamma and beta", True)):
        method = NormTuning(layer=place.index, scale=scale)
        try:
            method.layers(net)
        except InputError:
            continue  # no norm runs there
        yield label, method


@dataclass
class Bench:
    """Trains one method after the other on kept activations, and says in plain values what came."""

    net: Network
    task: Task
    recipe: Recipe
    runs: list[Run]
    log: Callable[[str], None] | None
    _kept: Kept | None = None

    @cached_property
    def operations(self) -> Operations:
        return piece_operations(self.net)

    def trained(self, label: str, method: Method, place: Layer | None) -> dict[str, Any]:
        """``said``: what is to be told of it; where a run came to a usable model also its ``row``
        of the table, the test pictures that it has right as ``correct`` and, at a place,
        its row of ``parts`` or ``backwards``."""
        if self._kept is None:
            self._kept = kept_for(self.net, self.task, self.recipe, log=self.log)
        outcomes = fit_many(
            *(method, self.net, self.task),
            runs=self.runs,
            recipe=self.recipe,
            kept=self._kept,
            keep_models=True,
            log=self.log,
        )
        best = min(outcomes, key=lambda outcome: outcome.score.cost("accuracy"))
        if best.failed:
            reason = str(best.stopped_reason)
            left_out = f"{label} at layer {place.index} is left out: {reason}" if place else reason
            return {"said": left_out}
        seconds = sum(outcome.seconds for outcome in outcomes)
        entry = {
            "said": None,
            "row": _row(label, best, place, self.operations, seconds),
            "correct": packed(np.asarray(best.correct)),
        }
        if place is None:
            return entry
        about = {"layer": place.index, "layer_name": place.name}
        if isinstance(method, ActivationPrompt):
            about |= {"shape": method.shape, "val_accuracy": best.val_accuracy}
            about |= {"val_loss": best.val_loss}
            try:
                entry["parts"] = about | take_apart(_model(best), self.task)
            except InputError as error:
                entry["said"] = f"{label} at layer {place.index} is not taken apart: {error}"
        elif label == "gamma and beta":
            full, channel = read_as_prompt(_model(best), self.task, place.index)
            entry["backwards"] = about | {"full": full, "channel": channel}
        return entry

    def is_entry(self, value: Any) -> bool:
        """Whether a value is what `trained` gives: who reads it finds what he looks for."""
        if shaped(value, {"said": str}):
            return True
        known = {"said": str | None, "row": dict, "correct": str, "parts": dict, "backwards": dict}
        return (
            isinstance(value, dict)
            and {"said", "row", "correct"} <= value.keys() <= known.keys()
            and shaped(value, {name: known[name] for name in value})
            and shaped(value["row"], ROW)
            and is_packed(value["correct"], len(self.task.test))
            and ("parts" not in value or shaped(value["parts"], TAKEN_APART))
            and ("backwards" not in value or shaped(value["backwards"], BACKWARDS))
        )

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None


def comparison(network: str, task: str, entries: Sequence[dict[str, Any]]) -> NormComparison:
    """The tables of what the methods came to, the linear probe first."""
    rows = [dict(entry["row"]) for entry in entries]
    correct = [unpacked(entry["correct"]) for entry in entries]
    rows[0] |= {"gain": 0.0, "gain_low": np.nan, "gain_high": np.nan}  # the linear probe's own
    for row, right in zip(rows[1:], correct[1:], strict=True):
        gain = paired_pictures(right, correct[0]).times(100)
        row |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    parts = [entry["parts"] for entry in entries if "parts" in entry]
    backwards = [entry["backwards"] for entry in entries if "backwards" in entry]
    return NormComparison(
        *(network, task, pd.DataFrame(rows)),
        pd.DataFrame(parts, columns=None if parts else ["shape"]),
        pd.DataFrame(backwards),
    )


def _model(outcome: Outcome) -> Adapted:
    assert outcome.adapted is not None  # it is kept, of a run that did not fail
    return outcome.adapted


def _row(
    label: str, best: Outcome, place: Layer | None, operations: Operations, seconds: float
) -> dict[str, Any]:
    cost = predict(_model(best), operations)
    return {
        "method": label,
        "layer": None if place is None else place.index,
        "layer_name": "" if place is None else place.name,
        "parameters": best.parameters_without_head,
        "step": cost.step_from_kept / cost.step_of_visual_prompting,
        "seconds": round(seconds, 2),
        "memory": best.peak_memory,
        "lr": best.lr,
        "val_accuracy": best.val_accuracy,
        "test_accuracy": best.test_accuracy,
    }

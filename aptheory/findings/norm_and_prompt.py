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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aptheory.arguments import Amount, Seed, checked_arguments
from aptheory.choosing.ranking import ranking
from aptheory.errors import InputError
from aptheory.findings.pictures import paired_pictures
from aptheory.findings.prompt_parts import read_as_prompt, take_apart
from aptheory.methods import ActivationPrompt, LinearProbe, NormTuning
from aptheory.methods.base import Adapted, Method
from aptheory.networks.network import Layer, Network, Places
from aptheory.tasks import task as open_task
from aptheory.training.cost import Operations, piece_operations, predict
from aptheory.training.fit import fit_many, kept_for
from aptheory.training.outcome import Outcome
from aptheory.training.recipe import Recipe, Run

_log = logging.getLogger("aptheory")

RATES = (1e-3, 1e-2, 3e-2)
"""Learning rates that every method is trained at; validation images choose."""


@dataclass
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
                places = [f"{place:.0f}" if place == place else "-" for place in shown["layer"]]
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
    log: Callable[[str], None] | None = None,
) -> NormComparison:
    """Train prompts and norms at the same places, at the same rates, and take them apart.

    Args:
        task: a task, or whatever `aptheory.task` makes one of.
        layers: places; the classifier's input, where a prompt is a probe, is left out.
        lrs: rates that every method is trained at; validation images choose.
        seed: of every run.

    Raises:
        InputError: no place, no rate, or a network without normalisation.
    """
    task, recipe = open_task(task), recipe or Recipe()
    places = [place for place in net.places(layers) if place.index < len(net.layers) - 1]
    if not places or not lrs:
        raise InputError("give at least one place before the classifier's input, and one rate.")
    NormTuning().layers(net)  # refuses a network that has none
    operations = piece_operations(net)
    kept = kept_for(net, task, recipe, log=log)
    runs = [Run(seed=seed, lr=lr) for lr in lrs]
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    backwards: list[dict[str, Any]] = []
    correct: list[np.ndarray] = []

    say = log or _log.info

    def train(label: str, method: Method, place: Layer | None) -> Outcome | None:
        outcomes = fit_many(
            method, net, task, runs=runs, recipe=recipe, kept=kept, keep_models=True, log=log
        )
        best = min(outcomes, key=lambda outcome: outcome.score.cost("accuracy"))
        if best.failed and place is None:
            raise InputError(
                f"{label} came to no usable model ({best.stopped_reason}); try smaller rates."
            )
        if best.failed and place is not None:
            say(f"{label} at layer {place.index} is left out: {best.stopped_reason}")
            return None
        rows.append(_row(label, best, place, operations, sum(o.seconds for o in outcomes)))
        correct.append(np.asarray(best.correct))
        return best

    try:
        train("linear probe", LinearProbe(), None)
        train("all beta", NormTuning(scale=False), None)
        train("all norms", NormTuning(), None)
    finally:
        kept.close()
    kept = kept_for(net, task, recipe, log=log)
    for place in places:
        for label, shape in (("prompt", "full"), ("prompt, channels", "channel")):
            found = train(label, ActivationPrompt(layer=place.index, shape=shape), place)
            if found is None:
                continue
            about = {"layer": place.index, "layer_name": place.name, "shape": shape}
            about |= {"val_accuracy": found.val_accuracy, "val_loss": found.val_loss}
            try:
                parts.append(about | take_apart(_model(found), task))
            except InputError as error:
                say(f"{label} at layer {place.index} is not taken apart: {error}")
        for label, scale in (("beta", False), ("gamma and beta", True)):
            method = NormTuning(layer=place.index, scale=scale)
            try:
                method.layers(net)
            except InputError:
                continue  # no norm runs between this place and the next
            found = train(label, method, place)
            if scale and found is not None:
                full, channel = read_as_prompt(_model(found), task, place.index)
                about = {"layer": place.index, "layer_name": place.name}
                backwards.append(about | {"full": full, "channel": channel})
    kept.close()
    rows[0] |= {"gain": 0.0, "gain_low": np.nan, "gain_high": np.nan}  # the linear probe's own
    for row, right in zip(rows[1:], correct[1:], strict=True):
        gain = paired_pictures(right, correct[0]).times(100)
        row |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    return NormComparison(
        net.name,
        task.name,
        pd.DataFrame(rows),
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

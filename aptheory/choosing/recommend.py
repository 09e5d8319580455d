"""Choose the layer to prompt without a sweep.

Every layer gets a handful of scores from a few passes over a small labelled sample
(`aptheory.choosing.scores`); a linear rule that was fitted on *other* networks and tasks
(`aptheory.choosing.rule`) turns them into a preference; the layer with the highest one is the
recommendation. The rule is a dozen numbers in ``rule.json`` beside this file, small enough to
print, and says which networks and tasks it was fitted on and what regret it had on those that it
had not seen. ``analyses/layer_choice.py`` makes both again.

With a budget prompts are tried out: one run of the full length at each of up to five layers that
are spread inside the network, judged on validation images; or, for a third of a careful sweep, at
every layer and rate, with a pull to the middle (`aptheory.choosing.trials`). Rate and pull were
learnt on other networks and tasks (``analyses/layer_front.py``).
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from aptheory.arguments import Count, Seed, checked_arguments
from aptheory.choosing.ranking import ranking
from aptheory.choosing.rule import Rule
from aptheory.choosing.scores import (
    SCORES,
    layer_scores,
    place_scores,
    score_operations,
    standardise,
)
from aptheory.choosing.trials import (
    Plan,
    Prices,
    full_trials,
    pulled,
    run_trials,
    share_text,
)
from aptheory.errors import InputError
from aptheory.networks.network import Network
from aptheory.tasks import Task
from aptheory.tasks import task as open_task
from aptheory.training.cost import piece_operations
from aptheory.training.recipe import Recipe

SEEDS, RATES = 3, 4
"""Of the careful full sweep that every cost is a share of: at every layer, so many runs."""

SHOWN = (
    *("tangent_explained", "gradient_agreement", "attention_distance"),
    *("effective_rank", "logme", "probe"),
)
"""Scores that are printed even where the rule does not read them."""


@dataclass(eq=False)
class Recommendation:
    """The layer to prompt, the ranked table behind it, and what the choice cost.

    ``table`` has a row a layer, best first by the rule: ``rank, layer, layer_name, preference``,
    the scores, and where trials were run ``epochs`` and ``val_accuracy``, the last it came to.
    ``images`` counts those that the scores looked at. ``cost`` is the share of a full sweep's
    operations, ``score_cost`` that of the scores alone.
    """

    network: str
    task: str
    layer: int
    table: pd.DataFrame
    rule: Rule
    cost: float
    score_cost: float
    trials: int = 0
    rates: int = 1
    epochs: int = 20
    budget: float | None = None
    images: int = 0

    @cached_property
    def reasons(self) -> list[str]:
        """What speaks most for the chosen layer: up to three scores, in words, with their pull.

        A score speaks for a layer where it is high and the rule likes it high, or low and low.
        """
        row = self.table[self.table["layer"] == self.layer].index[0]
        scores = standardise(self.table).loc[row]
        pulls = {name: w * scores[name] for name, w in self.rule.weights.items()}
        best = sorted(pulls, key=lambda name: -pulls[name])[:3]
        return [
            f"{'high' if scores[name] > 0 else 'low'} among the layers: {SCORES[name]} "
            f"(pull {pulls[name]:+.2f})"
            for name in best
            if pulls[name] > 0.005
        ]

    @cached_property
    def rival(self) -> str:
        """The best layer to probe instead, as the sample tells it; "" where no score does.

        Leave-one-out accuracies of linear probes: the same images choose the layer and score it,
        so the number is somewhat too high. Layers that tie are drawn from.
        """
        if "probe" not in self.table or self.table["probe"].isna().all():
            return ""
        probes = self.table.sort_values("layer").set_index("layer")
        about = f"{self.network}|{self.task}|probe"
        best = int(probes.index[ranking(probes["probe"].to_numpy(), key=about)[0]])
        scores, end = 100 * probes["probe"], int(probes.index.max())
        names: Any = probes["layer_name"]
        where = f"layer {best} ({names[best]})"
        reached = f"there and {scores[end]:.1f} % at the network's end"
        if best == end:
            where, reached = "the network's end", "there and no more at any layer before it"
        return (
            f"or probe {where}: a linear probe reaches {scores[best]:.1f} % {reached} (leave one "
            f"out, on the {self.images} images that chose the layer); --read trains and compares "
            "both"
        )

    def __str__(self) -> str:
        place: Any = self.table.set_index("layer").loc[self.layer]
        lines = [
            f"{self.network} on {self.task}: prompt layer {self.layer} ({place['layer_name']})",
            *self._because(place),
            *([f"  {self.rival}"] if self.rival else []),
            f"  cost: {share_text(self.cost)} of a full sweep (operations of {len(self.table)} "
            f"layers × {RATES} rates × {SEEDS} seeds × {self.epochs} epochs); {self._trained()}",
            f"  expected regret: {self._expected()}",
            *self._probe(),
            f"  rule{f' ({self.rule.family})' if self.rule.family else ''}: {self.rule}",
        ]
        shown = ["rank", "layer", "layer_name", "preference", *self.rule.weights]
        if self.trials:
            shown[4:4] = ["epochs", "val_accuracy"]
        unread = [name for name in SHOWN if name in self.table and name not in shown]
        unread = [name for name in unread if self.table[name].nunique() > 1]
        if unread:
            lines.append(f"  for the reader, not for the rule: {', '.join(unread)}")
        table = self.table[[name for name in [*shown, *unread] if name in self.table]]
        return (
            "\n".join(lines)
            + "\n\n"
            + table.to_string(
                index=False,
                na_rep="-",
                float_format="{:.3f}".format,
                formatters={"epochs": lambda count: "-" if count != count else f"{count:.0f}"},
            )
        )

    def _because(self, place: pd.Series) -> list[str]:
        lines = []
        if self.trials:
            lines.append(
                f"  because of trials at {self.trials} layers it was best on validation images"
                f"{self._pull()}: {100 * place['val_accuracy']:.1f} % after "
                f"{int(place['epochs'])} epochs; the rule ranked it {int(place['rank'])} of "
                f"{len(self.table)}"
            )
        if tuple(self.rule.weights) == ("distance_from_middle",):
            if not self.trials:
                lines.append(
                    "  because it lies nearest the middle, and the rule asks for nothing else"
                )
        elif self.reasons:
            lines.append("  what speaks for it (weight × standardised score):")
            lines += [f"    {reason}" for reason in self.reasons]
        elif not self.trials:
            lines.append("  no score speaks for it: the rule sees no difference between layers")
        return lines

    def _pull(self) -> str:
        if self.rates == 1:
            return ""
        pull = self.rule.trials.pull
        return (
            f", at the best of {self.rates} rates and with {pull:g} points taken off towards "
            "both ends of the network"
        )

    def _trained(self) -> str:
        unread = "" if self.rule.needs_images else ", which this rule does not read"
        if self.trials and not self.score_cost:
            return "all for the trials"
        if self.trials:
            return f"{share_text(self.score_cost)} for the scores{unread}, the rest for the trials"
        if self.budget is not None:
            return f"nothing trained: a budget of {share_text(self.budget)} buys no second trial"
        return f"all for the scores{unread}; nothing trained"

    def _expected(self) -> str:
        found = self.rule.trials.expected(self.cost if self.trials else 0.0)
        if found is None:
            return self._expected_of_ranking()
        said = _regret(found.regret, found.high)
        if found.cost > 0:
            nothing = self.rule.trials.expected(0.0)
            said += f" for {share_text(found.cost)} of a sweep"
            said += "" if nothing is None else f", the middle layer's being {nothing.regret:.1f},"
        said += f" over {self.rule.trials.pairs} pairs of a real network and a task, each left out"
        return said + " in turn; part of it is the luck of the best, which nothing can choose"

    def _expected_of_ranking(self) -> str:
        rule = self.rule
        if math.isnan(rule.regret):
            return "unknown for this rule"
        said = _regret(rule.regret, rule.regret_high)
        if not math.isnan(rule.baseline):
            said += f", the middle layer's being {rule.baseline:.1f},"
        said += f" over {len(rule.fitted_on)} pairs of a network and a task, each left out in turn"
        if self.trials:
            said += "; for the ranking alone, before the trials"
        if any(pair.startswith(f"{self.network} on ") for pair in rule.fitted_on):
            said += "; this network is one of them"
        return said

    def _probe(self) -> list[str]:
        """How often a prompt was not what was needed."""
        found = self.rule.trials.expected(self.cost if self.trials else 0.0)
        if found is None:
            return []
        return [
            f"  of these {self.rule.trials.pairs} pairs the best layer's own probe, without a "
            f"prompt, was the better choice in {100 * found.probe:.0f} % (recommend --read trains "
            "the probes)"
        ]

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _regret(mean: float, high: float) -> str:
    """A mean regret with the upper end of its interval, both in accuracy points."""
    return f"{mean:.1f} accuracy points on average (95 % interval over networks: up to {high:.1f})"


@checked_arguments
def recommend_layer(
    net: Network,
    task: Any,
    *,
    images: Count = 256,
    budget: float | None = None,
    recipe: Recipe | None = None,
    rule: Rule | None = None,
    seed: Seed = 0,
) -> Recommendation:
    """Name the layer where an activation prompt should work best.

    Args:
        task: a task, or whatever `aptheory.task` makes one of.
        images: labelled training images that the scores look at; no others are looked at unless
            there is a budget, and test images never.
        budget: share of a careful full sweep's operations (all layers, four rates, three seeds,
            the recipe's epochs) that may be spent, the scores included. It buys one run each at
            up to five layers that are spread inside the network, or every layer and rate, judged
            on validation images. Where it does not buy two runs the ranking decides. Scores that
            the rule does not read are left out, so that trials get the whole of it. None trains
            nothing.
        recipe: of the trials, and of the sweep that the cost is compared with.
        rule: instead of the packaged one.
        seed: of the sample, the sketches and the trials.

    Raises:
        InputError: too few labelled images or classes, or a budget that is no share.
    """
    if budget is not None and not 0 < budget <= 1:
        raise InputError(
            f"the budget is {budget:g}; expected a share of a full sweep's cost, above 0 and up to "
            "1, such as 0.1 for a tenth."
        )
    net, task = net.in_float32(), open_task(task)
    rule = rule or Rule.packaged()
    recipe = recipe or Recipe()
    operations = piece_operations(net)
    if budget is None or rule.needs_images:
        scores = layer_scores(net, task, images=images, seed=seed)
        scoring = score_operations(operations, min(images, len(task.train)), len(task.classes))
    else:  # the whole budget goes into trials
        scores, scoring = _places(net), 0.0
    table = _ranked(scores, rule, net, task, seed)
    prices = Prices(operations, len(task.train), len(task.val))
    full = prices.sweep(range(len(net.layers)), epochs=recipe.epochs, seeds=RATES * SEEDS)
    layer, bought = int(table["layer"].iloc[0]), Plan()
    how = rule.trials
    if budget is not None:
        bought = full_trials(
            prices,
            range(len(net.layers) - 1),  # at the classifier's input a prompt is a probe
            budget=budget * full - scoring,
            epochs=recipe.epochs,
            lr=how.lr,
            lrs=how.lrs,
        )
    if bought.layers:
        found = run_trials(net, task, bought, recipe=recipe, seed=seed)
        table["epochs"] = table["layer"].map(dict.fromkeys(found, bought.epochs))
        table["val_accuracy"] = table["layer"].map({l: s.accuracy for l, s in found.items()})
        values = pulled(found, len(net.layers), how.pull if len(bought.lrs) > 1 else 0.0)
        layer = max(values, key=lambda one: values[one])
    return Recommendation(
        network=net.name,
        task=task.name,
        layer=layer,
        table=table,
        rule=rule,
        cost=(scoring + bought.operations) / full,
        score_cost=scoring / full,
        trials=len(bought.layers),
        rates=len(bought.lrs),
        epochs=recipe.epochs,
        budget=budget,
        images=min(images, len(task.train)),
    )


def layer_by_rule(net: Network, task: Task, *, rule: Rule | None = None, seed: int = 0) -> int:
    """The layer that `recommend_layer` names without a budget, and nothing beside it.

    No image is looked at where the rule reads none.

    Raises:
        InputError: too few labelled images or classes, for a rule that reads images.
    """
    net, rule = net.in_float32(), rule or Rule.packaged()
    scores = layer_scores(net, task, seed=seed) if rule.needs_images else _places(net)
    return int(_ranked(scores, rule, net, task, seed)["layer"].iloc[0])


def _places(net: Network) -> pd.DataFrame:
    """The scores of the layers that follow from their place."""
    names = {"layer": range(len(net.layers)), "layer_name": [one.name for one in net.layers]}
    return pd.DataFrame(names | place_scores(net))


def _ranked(scores: pd.DataFrame, rule: Rule, net: Network, task: Task, seed: int) -> pd.DataFrame:
    """The layers by the rule's preference, best first."""
    scores.insert(2, "preference", rule.predict(scores))
    order = ranking(scores["preference"].to_numpy(), key=f"{net.name}|{task.name}", seed=seed)
    table = scores.iloc[order].reset_index(drop=True)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table

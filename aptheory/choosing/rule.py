"""The rule that turns the scores of layers into one preference, fitted on other networks and tasks.

The rule is a ridge regression of AP's accuracy curve on a *family* of scores. Which family and
which penalty is decided by leaving out networks and tasks among those that the rule is fitted on,
never by looking at the pair that it is judged on; so a regret that is measured by leaving pairs
out once more (`analyses/layer_choice.py`) holds the choice of the family too. The families and
penalties were written down before the evidence was made and are all that is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from aptheory.checked import json_table, read_text, shown
from aptheory.choosing.scores import PLACES, SCORES, standardise
from aptheory.errors import InputError
from aptheory.writing import beside

_DEPTH = ("depth", "distance_from_middle")
_TANGENT = ("tangent_explained", "tangent_dimension", "tangent_variation", "tangent_reach")
_GRADIENT = ("gradient_gain", "gradient_agreement")
_FEATURES = ("attention_distance", "globality", "effective_rank", "logme", "probe")

FAMILIES: dict[str, tuple[str, ...]] = {
    "the middle": ("distance_from_middle",),
    "depth": _DEPTH,
    "depth by kind": PLACES,
    "prompt's derivative": (*_TANGENT, *_GRADIENT),
    "features": _FEATURES,
    "prompt's derivative and depth by kind": (*_TANGENT, *_GRADIENT, *PLACES),
    "all": (*PLACES, *_TANGENT, *_GRADIENT, *_FEATURES),
}
"""What a rule may look at, simplest first: the first wins where two are equally good."""

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the ridge, relative to the number of pairs."""

POINT = 0.01
"""Curves that move by less than about one accuracy point hardly count in the fit."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One network on one task: its scores, and AP's test accuracy where it was measured.

    ``scores`` has a row for every layer; ``accuracy`` (fractions) is nan at the layers that were
    not swept. Scores are standardised over all layers, as they are where a rule is used.
    """

    network: str
    task: str
    scores: pd.DataFrame
    accuracy: Float[np.ndarray, " layers"]
    _design: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.accuracy) or np.isfinite(self.accuracy).sum() < 2:
            raise InputError(
                f"{self.network} on {self.task} has accuracies at "
                f"{int(np.isfinite(self.accuracy).sum())} of {len(self.scores)} layers; expected "
                "at least two, and one number a layer"
            )
        design = standardise(self.scores)[list(SCORES)].to_numpy()
        object.__setattr__(self, "_design", design)

    @property
    def swept(self) -> np.ndarray:
        """The layers with a measured accuracy, as a mask."""
        return np.isfinite(self.accuracy)

    def curve(self) -> tuple[Float[np.ndarray, "swept scores"], Float[np.ndarray, " swept"]]:
        """Design and target at the swept layers, both centred.

        The target is in units of the curve's own spread (plus one point), so that a tall curve
        does not outvote a flat one and a flat, noisy one says little.
        """
        accuracy = self.accuracy[self.swept]
        centred = accuracy - accuracy.mean()
        design = self._design[self.swept]
        return design - design.mean(0), centred / np.hypot(centred.std(), POINT)

    def regret(self, preference: Float[np.ndarray, " layers"]) -> float:
        """Points lost at the swept layer of the highest preference; the mean of those that tie."""
        accuracy, preference = self.accuracy[self.swept], preference[self.swept]
        best = preference >= preference.max() - 1e-9
        return 100 * float(accuracy.max() - accuracy[best].mean())


class Budget(NamedTuple):
    """What a share of a careful full sweep's cost was found to buy, on pairs that were left out.

    ``regret``: mean points lost against the layer with the best measured accuracy, ``high`` the
    upper end of its 95 % interval over networks. ``probe``: share of pairs in which the probe of
    the best layer, without a prompt, was better than the prompt at the chosen layer.
    """

    cost: float
    regret: float
    high: float
    probe: float


@dataclass(frozen=True)
class Trials:
    """How prompts are tried out and judged where a budget allows it, and what to expect of it.

    ``lr``: the learning rate where only one is tried, None the recipe's. ``lrs``: those of every
    layer where the budget allows it; then ``pull`` points are taken off towards both ends of the
    network (`aptheory.choosing.trials.pulled`). ``budgets``: cheapest first, the first one without
    any trial; ``pairs``: of how many networks and tasks they are means.
    """

    lr: float | None = None
    lrs: tuple[float, ...] = ()
    pull: float = 0.0
    budgets: tuple[Budget, ...] = ()
    pairs: int = 0

    def expected(self, cost: float) -> Budget | None:
        """The dearest budget that costs no more; None where nothing is known."""
        return max((one for one in self.budgets if one.cost <= cost + 1e-9), default=None)


@dataclass(frozen=True)
class Rule:
    """A linear rule on scores that are standardised over the layers of one network and task.

    ``regret``: mean accuracy points lost against the best layer, over networks and tasks that
    were left out of the fit and of the choice of the family; ``regret_high`` is the upper end of
    its 95 % interval; ``baseline`` the mean regret of the middle layer on the same. ``trials``
    says how to go on where a budget allows it.
    """

    weights: dict[str, float]
    family: str = ""
    penalty: float = float("nan")
    fitted_on: tuple[str, ...] = ()
    regret: float = float("nan")
    regret_high: float = float("nan")
    baseline: float = float("nan")
    trials: Trials = field(default_factory=Trials)

    def __post_init__(self) -> None:
        if not isinstance(self.weights, dict):
            raise InputError(f"the weights of a rule are {shown(self.weights)}; expected a table.")
        if unknown := sorted(set(self.weights) - set(SCORES)):
            raise InputError(
                f"the rule weighs {', '.join(unknown)}, which no score is called; the scores are "
                f"{', '.join(SCORES)}"
            )

    @property
    def needs_images(self) -> bool:
        """Whether it weighs anything but the place's depth and the network's kind."""
        return bool(set(self.weights) - set(PLACES))

    @classmethod
    def packaged(cls) -> Rule:
        """The rule that comes with the package."""
        return cls.load(Path(__file__).parent / "rule.json")

    @classmethod
    def load(cls, path: str | Path) -> Rule:
        """Read a rule that `save` wrote.

        Raises:
            InputError: no such file, or not a rule.
        """
        try:
            text = read_text(path)
        except FileNotFoundError:
            raise InputError(f"cannot read the rule {path}: there is no such file.") from None
        try:
            values = json_table(text, name=str(path), finite=False)
            trials = values.pop("trials", {})
            budgets = tuple(Budget(*map(float, one)) for one in trials.pop("budgets", ()))
            trials |= {"lrs": tuple(trials.pop("lrs", ())), "budgets": budgets}
            values |= {"trials": Trials(**trials)}
            rule = cls(**{**values, "fitted_on": tuple(values["fitted_on"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a rule ({error}); python -m analyses.layer_choice writes one."
            ) from None
        numbers = (rule.penalty, rule.regret, rule.regret_high, rule.baseline, rule.trials.pull)
        weights = rule.weights.values()
        if not (
            all(isinstance(n, int | float) for n in (*numbers, *weights))
            and all(abs(weight) < 1e9 for weight in weights)
            and all(isinstance(text, str) for text in (rule.family, *rule.fitted_on))
        ):
            raise InputError(
                f"{path} is not a rule (a weight is no number, or a name no text); "
                "python -m analyses.layer_choice writes one."
            )
        return rule

    def save(self, path: str | Path) -> None:
        """Write the rule as JSON."""
        with beside(Path(path)) as part:
            part.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def predict(self, scores: pd.DataFrame) -> Float[np.ndarray, " layers"]:
        """The predicted preference of each row of one network and task: higher is better.

        In units of the accuracy curve's spread over layers.
        """
        design = standardise(scores)
        return sum(
            (weight * design[name].to_numpy() for name, weight in self.weights.items()),
            start=np.zeros(len(scores)),
        )

    def __str__(self) -> str:
        terms = [f"{weight:+.2f} {name}" for name, weight in self.weights.items()]
        return " ".join(terms) + "  (each score standardised over the layers)"


class Fitter:
    """Ridge regressions over many subsets of pairs: each pair's moments are formed once."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        self.names = tuple(SCORES)
        curves = [pair.curve() for pair in self.pairs]
        self.gram = np.stack([x.T @ x / len(x) for x, _ in curves])
        self.cross = np.stack([x.T @ y / len(x) for x, y in curves])
        self.power = np.array([y @ y / len(y) for _, y in curves])

    def weights(self, on: Sequence[int], family: Sequence[str], penalty: float) -> np.ndarray:
        """One weight a score (0 outside the family), fitted on the pairs with these numbers."""
        at = [self.names.index(name) for name in family]
        gram = self.gram[on].mean(0)[np.ix_(at, at)] + penalty * np.eye(len(at))
        found = np.zeros(len(self.names))
        found[at] = np.linalg.solve(gram, self.cross[on].mean(0)[at])
        return found

    def error(self, number: int, weights: np.ndarray) -> float:
        """Mean squared error of the predicted curve of one pair."""
        gram, cross = self.gram[number], self.cross[number]
        return float(weights @ gram @ weights - 2 * weights @ cross + self.power[number])

    def unlike(self, number: int, among: Sequence[int]) -> list[int]:
        """The pairs among these that share neither network nor task with one; where there are
        none, those of other networks."""
        pair = self.pairs[number]
        others = [i for i in among if self.pairs[i].network != pair.network]
        return [i for i in others if self.pairs[i].task != pair.task] or others

    def choose(
        self, on: Sequence[int], families: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[str, float]:
        """The family and the penalty that do best on left-out pairs among these.

        The penalty of each family is the one with the smallest squared error of the predicted
        curves; then the family is the one with the smallest mean regret, the first of them where
        two are equal. With a single network nothing can be left out: the simplest family.
        """
        families = FAMILIES if families is None else families
        held = {i: self.unlike(i, on) for i in on}
        judged = [i for i in on if held[i]]
        if not judged:
            return next(iter(families)), 1.0
        best = (float("inf"), "", 1.0)
        for name, family in families.items():
            fits = {
                penalty: [self.weights(held[i], family, penalty) for i in judged]
                for penalty in PENALTIES
            }
            errors = {
                penalty: np.mean([self.error(i, w) for i, w in zip(judged, found, strict=True)])
                for penalty, found in fits.items()
            }
            penalty = min(errors, key=lambda one: errors[one])
            regret = float(
                np.mean(
                    [
                        self.pairs[i].regret(self.pairs[i]._design @ w)
                        for i, w in zip(judged, fits[penalty], strict=True)
                    ]
                )
            )
            if regret < best[0] - 1e-9:
                best = (regret, name, penalty)
        return best[1], best[2]

    def rule(
        self, on: Sequence[int] | None = None, families: Mapping[str, Sequence[str]] | None = None
    ) -> Rule:
        """The rule of these pairs (all by default): family, penalty and weights.

        Raises:
            InputError: no pairs.
        """
        on = range(len(self.pairs)) if on is None else on
        if not len(on):
            raise InputError("there is no network and task to fit a rule on: give at least one")
        families = FAMILIES if families is None else families
        family, penalty = self.choose(on, families)
        found = dict(zip(self.names, self.weights(on, families[family], penalty), strict=True))
        weights = {name: round(float(found[name]), 4) for name in families[family]}
        fitted_on = tuple(sorted(f"{self.pairs[i].network} on {self.pairs[i].task}" for i in on))
        return Rule(weights, family, penalty, fitted_on)


def fit_rule(pairs: Sequence[Pair]) -> Rule:
    """The rule of these pairs: the family and penalty that do best on left-out ones, refitted."""
    return Fitter(pairs).rule()

"""Choose the layer to prompt without a sweep.

Every layer gets a handful of scores from a few passes over a small labelled sample; a linear rule
that was fitted on *other* networks and tasks turns them into a predicted gain; the layer with the
highest one is the recommendation. The rule is a dozen numbers in ``rule.json`` beside this file,
small enough to print, and says which networks and tasks it was fitted on and what regret it had on
those that it had not seen. ``analyses/layer_choice.py`` makes both again.

With a budget, the ranking says where to look first: full trials are run on validation data, best
first, until the budget is spent.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.cost import piece_operations
from aptheory.errors import InputError
from aptheory.methods import ActivationPrompt
from aptheory.network import Network
from aptheory.profile import profile
from aptheory.recipe import Recipe
from aptheory.tasks import Task, loader
from aptheory.theory import tangent
from aptheory.training import fit

METRICS = ("globality", "effective_rank", "logme")
"""Metrics of the profile that become scores: one forward pass gives them all."""

SCORES = {
    "depth": "place in the network, 0 the image and 1 the classifier's input",
    "tangent_gain": "accuracy that a small prompt adds on images it was not fitted to",
    "tangent_explained": "share of the held-out residual that a small prompt explains",
    "tangent_alignment": "alignment of the prompt's kernel with the residual",
    "tangent_dimension": "log of the number of directions in which a prompt moves the logits",
    "gradient_gain": "log of the loss's first decrease per relative step",
    "gradient_agreement": "log of how much the images' gradients agree",
    "globality": "share of variance carried by the spatial mean",
    "effective_rank": "log effective rank of the pooled features",
    "logme": "log evidence for the labels given this layer's features",
}
_LOGARITHMIC = ("tangent_dimension", "gradient_gain", "gradient_agreement", "effective_rank")


def layer_scores(
    net: Network,
    task: Task,
    *,
    images: int = 256,
    width: int = 512,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Every score of every layer, from a seeded, class-balanced sample of training images.

    A ridge classifier on the clean features stands in for the head; its residual is that of the
    leave-one-out prediction, so that a head with more weights than images still leaves one. Then
    one backward pass a class gives the tangent kernel of a prompt at every layer at once.

    Returns:
        One row a layer: ``layer, layer_name`` and the columns of `SCORES`. The columns named
        "log" are logarithms; a score that is undefined at a layer is nan.

    Raises:
        InputError: fewer than ten images, or a sample with one class.
    """
    some = task.subset(train=min(images, len(task.train)), seed=seed)
    if len(some.train) < 10 or len(set(some.train.labels.tolist())) < 2:
        raise InputError(
            f"{len(some.train)} images of {len(set(some.train.labels.tolist()))} classes are too "
            "few to score layers: give ten labelled images of two classes at least"
        )
    device = next(iter(net.parameters())).device
    dtype = next(iter(net.parameters())).dtype
    last = len(net.layers) - 1

    def batches() -> list[Tensor]:
        return [x.to(device, dtype) for x, _ in loader(some.train, net, batch_size)]

    labels = torch.as_tensor(np.asarray(some.train.labels))
    with torch.no_grad():
        features = torch.cat([net.run(x, stop=last).float().cpu() for x in batches()])
        norms = _activation_norms(net, batches()[0])
    head = RidgeHead.fit(features, labels, len(some.classes))
    weight = head.weight.to(device, dtype)
    stages = [_stage(net, layer) for layer in range(last)] + [lambda z: z @ weight.T]
    rows = tangent.tangent_features(stages, batches(), width=width, seed=seed)
    residual = head.targets - head.left_out
    table = []
    for layer, row in enumerate(rows):
        row = row.cpu()
        found = tangent.prompt_regression(row, residual, head.left_out, labels, seed=seed)
        slope = tangent.gradient(row, residual, scale=norms[layer])
        table.append(
            {
                "layer": layer,
                "layer_name": net.layers[layer].name,
                "depth": layer / last,
                "tangent_gain": found.accuracy - found.before,
                "tangent_explained": found.explained,
                "tangent_alignment": tangent.alignment(row, residual),
                "tangent_dimension": tangent.effective_dimension(row),
                "gradient_gain": slope.gain,
                "gradient_agreement": slope.agreement,
            }
        )
    scores = pd.DataFrame(table).merge(_metrics(net, some, seed), on="layer", how="left")
    for name in _LOGARITHMIC:
        scores[name] = np.log(scores[name].clip(lower=1e-12))
    return scores


@dataclass(frozen=True)
class RidgeHead:
    """A ridge classifier on features, with its leave-one-out predictions in closed form.

    One-hot targets, centred; ŷ₋ᵢ = (ŷᵢ − hᵢ yᵢ)/(1 − hᵢ) with h the leverages (Allen 1974). The
    penalty is the one with the smallest leave-one-out error.
    """

    weight: Float[Tensor, "classes width"]
    left_out: Float[Tensor, "images classes"]
    targets: Float[Tensor, "images classes"]

    @classmethod
    def fit(
        cls, features: Float[Tensor, "images width"], labels: Tensor, classes: int
    ) -> RidgeHead:
        """Fit on features (n, D) and labels (n,), in float64."""
        x = features.double()
        x = x - x.mean(0)
        y = torch.nn.functional.one_hot(labels, classes).double()
        y = y - y.mean(0)
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        best: tuple[float, Any] = (float("inf"), None)
        for penalty in values[0] ** 2 * torch.logspace(-5, 1, 13, dtype=torch.float64):
            shrink = values**2 / (values**2 + penalty)
            leverage = (left**2 * shrink).sum(1, keepdim=True) + 1 / len(x)
            fitted = left * shrink @ (left.T @ y)
            out = (fitted - leverage * y) / (1 - leverage).clamp_min(1e-6)
            error = float((out - y).square().sum())
            if error < best[0]:
                weight = (right.T * (shrink / values.clamp_min(1e-30))) @ (left.T @ y)
                best = (error, (weight.T, out))
        weight, out = best[1]
        return cls(weight, out, y)


@dataclass(frozen=True)
class Rule:
    """A linear rule on scores that are standardised over the layers of one network and task.

    ``regret``: mean accuracy points lost against the best layer, over networks that were left out
    of the fit; ``regret_high`` is the upper end of its 95 % interval.
    """

    weights: dict[str, float]
    fitted_on: tuple[str, ...] = ()
    regret: float = float("nan")
    regret_high: float = float("nan")

    @classmethod
    def packaged(cls) -> Rule:
        """The rule that comes with the package."""
        values = json.loads((Path(__file__).parent / "rule.json").read_text(encoding="utf-8"))
        return cls(**values | {"fitted_on": tuple(values["fitted_on"])})

    def save(self, path: str | Path) -> None:
        """Write the rule as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def predict(self, scores: pd.DataFrame) -> Float[np.ndarray, " layers"]:
        """The predicted preference of each row of one network and task: higher is better."""
        design = standardise(scores)
        return sum(
            (weight * design[name].to_numpy() for name, weight in self.weights.items()),
            start=np.zeros(len(scores)),
        )

    def __str__(self) -> str:
        terms = [f"{weight:+.2f} {name}" for name, weight in self.weights.items()]
        return " ".join(terms) + "  (each score standardised over the layers)"


def standardise(scores: pd.DataFrame) -> pd.DataFrame:
    """Every score to mean 0 and variance 1 over the layers; undefined and constant ones to 0."""
    table = scores[list(SCORES)].astype(float)
    spread = table.std(ddof=0)
    return ((table - table.mean()) / spread.where(spread > 0)).fillna(0.0)


def fit_rule(
    pairs: Sequence[tuple[pd.DataFrame, Float[np.ndarray, " layers"]]],
    *,
    names: Sequence[str] = tuple(SCORES),
    penalty: float = 1.0,
) -> Rule:
    """Ridge regression of accuracy on scores over many (network, task) pairs.

    Args:
        pairs: the scores of one network and task, and AP's accuracy at the same layers.
        names: the scores that may be used.
        penalty: of the ridge, relative to the number of pairs.

    Accuracy is standardised within each pair like the scores, so a pair with a tall curve does not
    outvote a flat one.
    """
    gram, cross = np.zeros((len(names), len(names))), np.zeros(len(names))
    for scores, accuracy in pairs:
        design = standardise(scores)[list(names)].to_numpy()
        spread = accuracy.std()
        target = (accuracy - accuracy.mean()) / spread if spread > 0 else 0 * accuracy
        gram += design.T @ design / len(design)
        cross += design.T @ target / len(design)
    weights = np.linalg.solve(gram + penalty * len(pairs) * np.eye(len(names)), cross)
    return Rule({name: round(float(w), 4) for name, w in zip(names, weights, strict=True)})


@dataclass
class Recommendation:
    """The layer to prompt, the ranked table behind it, and what the choice cost.

    ``table`` has a row a layer, best first: ``layer, layer_name, preference``, the scores, and
    ``val_accuracy`` where a trial was run. ``cost`` is the share of a full sweep's operations.
    """

    network: str
    task: str
    layer: int
    table: pd.DataFrame
    rule: Rule
    cost: float
    trials: int = 0

    @cached_property
    def reasons(self) -> list[str]:
        """The three scores that speak most for the chosen layer, in words."""
        row = self.table[self.table["layer"] == self.layer].index[0]
        design = standardise(self.table)
        pulls = {name: w * design.loc[row, name] for name, w in self.rule.weights.items()}
        best = sorted(pulls, key=lambda name: -pulls[name])[:3]
        return [f"{SCORES[name]} ({pulls[name]:+.2f})" for name in best if pulls[name] > 0]

    def __str__(self) -> str:
        shown = ["layer", "layer_name", "preference", *self.rule.weights]
        if self.trials:
            shown.insert(3, "val_accuracy")
        name = self.table.set_index("layer").loc[self.layer, "layer_name"]
        lines = [
            f"{self.network} on {self.task}: prompt layer {self.layer} ({name})",
            *(f"  because of the {reason}" for reason in self.reasons),
            f"  cost: {100 * self.cost:.2f} % of a full sweep"
            + (f", {self.trials} trials" if self.trials else ", nothing trained"),
            f"  expected regret: {self.rule.regret:.1f} accuracy points (95 % below "
            f"{self.rule.regret_high:.1f}) on networks that the rule has not seen",
            f"  rule: {self.rule}",
            self.table[shown].to_string(index=False, float_format=lambda v: f"{v:.3f}"),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def recommend_layer(
    net: Network,
    task: Task,
    *,
    images: int = 256,
    budget: float | None = None,
    recipe: Recipe | None = None,
    rule: Rule | None = None,
    seed: int = 0,
) -> Recommendation:
    """Name the layer where an activation prompt should work best.

    Args:
        images: labelled training images that the scores look at.
        budget: share of a full sweep's operations (all layers, three seeds) that may be spent on
            trials, best first by the rule, judged on validation data; None trains nothing.
        recipe: of the trials and of the sweep that the cost is compared with.
        rule: instead of the packaged one.
        seed: of the sample, the sketches and the trials.
    """
    rule = rule or Rule.packaged()
    recipe = recipe or Recipe()
    scores = layer_scores(net, task, images=images, seed=seed)
    scores.insert(2, "preference", rule.predict(scores))
    table = scores.sort_values("preference", ascending=False, kind="stable").reset_index(drop=True)
    operations = piece_operations(net).forward
    full = sweep_operations(operations, len(task.train), recipe.epochs)
    classes, sample = len(task.classes), min(images, len(task.train))
    spent = sample * (3 + classes) * sum(operations)
    trials: dict[int, float] = {}
    if budget is not None:
        for layer in table["layer"]:
            price = sweep_operations(operations, len(task.train), recipe.epochs, [layer], seeds=1)
            if spent + price > budget * full:
                break
            adapted = ActivationPrompt(layer=int(layer)).attach(net, classes=classes, seed=seed)
            trials[int(layer)] = fit(adapted, task, recipe=recipe, seed=seed).val_accuracy
            spent += price
        table["val_accuracy"] = table["layer"].map(trials)
    layer = max(trials, key=lambda one: trials[one]) if trials else int(table["layer"].iloc[0])
    return Recommendation(net.name, task.name, layer, table, rule, spent / full, len(trials))


def sweep_operations(
    operations: Sequence[float],
    images: int,
    epochs: int,
    layers: Sequence[int] | None = None,
    *,
    seeds: int = 3,
) -> float:
    """Operations of a sweep from kept activations: 2·F_after(l) per image, epoch, layer, seed."""
    places = range(len(operations)) if layers is None else layers
    return float(sum(2.0 * sum(operations[layer:]) for layer in places) * images * epochs * seeds)


def _stage(net: Network, layer: int) -> tangent.Stage:
    return lambda z: net.run(z, start=layer, stop=layer + 1)


@torch.no_grad()
def _activation_norms(net: Network, x: Tensor) -> list[float]:
    """Mean Euclidean norm of the activation entering each layer: the scale of a relative step."""
    norms = []
    for layer in range(len(net.layers)):
        norms.append(float(x.flatten(1).float().norm(dim=1).mean()))
        if layer < len(net.layers) - 1:
            x = net.run(x, start=layer, stop=layer + 1)
    return norms


def _metrics(net: Network, task: Task, seed: int) -> pd.DataFrame:
    """The profile's metrics as columns, one row a layer."""
    table = profile(net, task, measures=METRICS, intervals=False, seed=seed)
    wide = table.pivot_table(index="layer", columns="measure", values="value")
    return wide.reindex(columns=list(METRICS)).reset_index()

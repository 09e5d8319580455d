"""Does the linear theory predict the measured curve? Predicted against measured gain, by layer.

For every pair of network and task whose curve was measured: head and prompt are trained together to
first order (`theory.joint`) on a sample of training images, for every place from one forward and
one backward pass a class, and the gain over the head alone is predicted on test images. Nothing of
the measured curve is used.

    python -m analyses.predicted_curves [--assets DIR] [--device cuda] [--out runs/predicted_curves]

Writes predicted_curves.csv: a row a layer, with the predicted and the measured gain in points and
the predicted prompt's norm (where it is not small, the linear theory ends).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from analyses import evidence, layer_preference, real_weights
from analyses.evidence import NotMeasured
from analyses.results import Results
from analyses.theory_output import part
from aptheory.findings.relate import spearman
from aptheory.findings.statistics import Interval, correlation_interval, mean_correlation
from aptheory.networks.network import Network
from aptheory.studies.sources import load_network, load_task
from aptheory.tasks import Split, Task, loader
from aptheory.theory.joint import Joint, Move, Prediction, best_ridge, predict
from aptheory.theory.tangent import Stage, change_along, sketches_of, tangent_features

NAME = "predicted_curves"


def measured_curves(results: Results) -> pd.DataFrame:
    """Measured gain of AP over the linear probe: network, task, layer, depth, measured (points).

    Means over seeds of the test accuracy. The only function that knows how sweeps are stored.
    """
    accuracy = results.gathered("accuracy")
    rows = accuracy[accuracy["measure"] == "test_accuracy"]
    keys = ["network", "task"]
    probe = rows[rows["method"] == "linear_probe"].groupby(keys)["value"].mean().rename("probe")
    ap = rows[rows["method"] == "ap"].groupby([*keys, "layer", "depth"], as_index=False)["value"]
    table = ap.mean().merge(probe, on=keys)
    return table.assign(measured=100 * (table["value"] - table["probe"]))[
        [*keys, "layer", "depth", "measured"]
    ]


def pairs(assets: Path | None) -> Iterator[tuple[Any, Any]]:
    """(network, task) as the studies describe them; those on real weights where they are there."""
    studies = [layer_preference.study(group) for group in ("pretrained", "more")]
    studies += list(real_weights.studies(assets).values()) if assets else []
    for study in studies:
        for network in study.networks:
            for task in study.tasks:
                yield network, task


def predicted_curve(
    net: Network,
    task: Task,
    *,
    layers: Sequence[int] | None = None,
    train: int = 200,
    test: int = 300,
    width: int = 256,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Predicted gain at every place, or at some: layer, depth, predicted, applied, norm, ...

    Gains are points of accuracy (predicted_loss: nats) on test images, over the head retrained
    without a prompt. `predicted` is the linear model's; `applied` is what the same prompt and head
    bring when the network runs with them: where the two part, the linear theory ends. norm is the
    prompt's, relative to the activation that it is added to, whose mean norm is `activation`.

    layers : the places; the image is always one of them. train, test : images that are drawn of
    each split, all where it has no more.
    """
    some = task.subset(train=min(train, len(task.train)), test=min(test, len(task.test)), seed=seed)
    last = len(net.layers) - 1
    places = list(range(last + 1)) if layers is None else sorted({0, *layers})
    inside, outside = (
        _Sample.of(net, split, places, batch_size) for split in (some.train, some.test)
    )
    head = _Head(inside, len(some.classes), seed)
    stages = [
        partial(net.run, start=start, stop=stop)
        for start, stop in zip(places, [*places[1:], last], strict=True)
    ]
    rows = tangent_features(
        [*stages[:-1], lambda z: head.logits(stages[-1](z))],
        inside.batches,
        width=width,
        seed=seed,
    )
    sketches = sketches_of(inside.sizes, width, seed=seed)
    features, logits = head.columns(inside.features), head.logits(inside.features)
    moves, ridges, prompts = [], [], []
    for row, norm, sketch in zip(rows, inside.norms, sketches, strict=True):
        model = Joint(features, norm * row)
        ridges.append(best_ridge(model, logits, inside.labels, seed=seed))
        moves.append(model.cross_entropy(logits, inside.labels, ridges[-1]))
        prompts.append(norm * sketch.transposed(moves[-1].prompt).to(net.dtype))
    before = head.again(inside, outside, seed)
    linear, real = _with_prompts(stages, outside, head, moves, prompts)
    table = []
    for number, layer in enumerate(places):
        found, applied = (
            Prediction.of(
                each[number], outside.labels, norm=moves[number].norm, ridge=ridges[number]
            )
            for each in (linear, real)
        )
        table.append(
            {
                "layer": layer,
                "depth": layer / last,
                "predicted": 100 * (found.accuracy - before.accuracy),
                "applied": 100 * (applied.accuracy - before.accuracy),
                "predicted_loss": before.loss - found.loss,
                "norm": found.norm,
                "activation": inside.norms[number],
                "ridge": found.ridge,
            }
        )
    return pd.DataFrame(table)


class _Sample:
    """Images of one split in batches, their labels, features, and the activations that they have
    at some places: mean norms and sizes."""

    def __init__(
        self, net: Network, places: Sequence[int], batches: list[Tensor], labels: Tensor
    ) -> None:
        self.batches, self.labels = batches, labels
        last = len(net.layers) - 1
        total, parts = dict.fromkeys(places, 0.0), []
        sizes = dict.fromkeys(places, 0)
        with torch.no_grad():
            for x in batches:
                for place, z in net.walk(x, stops=sorted({*places, last})):
                    if place.index in total:
                        total[place.index] += float(z.flatten(1).double().norm(dim=1).sum())
                        sizes[place.index] = z[0].numel()
                parts.append(z)
        self.features = torch.cat(parts)
        self.norms = [value / len(labels) for value in total.values()]
        self.sizes = list(sizes.values())

    @classmethod
    def of(cls, net: Network, split: Split, places: Sequence[int], batch_size: int) -> _Sample:
        batches, labels = zip(*loader(split, net, batch_size), strict=True)
        return cls(
            net,
            places,
            [x.to(net.device, net.dtype) for x in batches],
            torch.cat(labels).to(net.device),
        )


class _Head:
    """The head without a prompt, a ridge one on standardised features: where the model starts."""

    def __init__(self, sample: _Sample, classes: int, seed: int) -> None:
        self.shift, self.spread = sample.features.mean(0), sample.features.std(0)
        self.spread[self.spread <= 1e-6 * self.spread.max()] = 1.0
        self.classes = classes
        alone, nothing = self._alone(sample), self._zeros(sample, classes)
        ridge = best_ridge(alone, nothing, sample.labels, seed=seed)
        self.weight = alone.cross_entropy(nothing, sample.labels, ridge).head

    def columns(self, features: Tensor) -> Tensor:
        """Standardised, with a column of ones for the bias; float64."""
        scaled = ((features - self.shift) / self.spread).double()
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], 1)

    def logits(self, features: Tensor) -> Tensor:
        return self.columns(features) @ self.weight

    def again(self, train: _Sample, test: _Sample, seed: int) -> Prediction:
        """What the head is worth on test images when it is trained on, still without a prompt."""
        logits = self.logits(train.features), self.logits(test.features)
        labels = train.labels, test.labels
        return predict(self._alone(train), self._alone(test), logits, labels, seed=seed)

    def _alone(self, sample: _Sample) -> Joint:
        return Joint(self.columns(sample.features), self._zeros(sample, self.classes, 0))

    def _zeros(self, sample: _Sample, *shape: int) -> Tensor:
        return self.shift.new_zeros(len(sample.labels), *shape)


@torch.no_grad()
def _with_prompts(
    stages: Sequence[Stage],
    sample: _Sample,
    head: _Head,
    moves: Sequence[Move],
    prompts: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Logits with each place's prompt and head: to first order, and of the network itself."""
    linear: list[list[Tensor]] = [[] for _ in moves]
    real: list[list[Tensor]] = [[] for _ in moves]
    for z in sample.batches:
        features = reduce(lambda z, stage: stage(z), stages, z)
        for number, (move, prompt) in enumerate(zip(moves, prompts, strict=True)):
            rest, prompt = stages[number:], prompt.view_as(z[0])
            along = change_along([*rest, head.logits], z, prompt)
            linear[number].append(head.logits(features) + head.columns(features) @ move.head)
            linear[number][-1] += along
            moved = reduce(lambda z, stage: stage(z), rest, z + prompt)
            real[number].append(head.columns(moved) @ (head.weight + move.head))
            z = stages[number](z)
    return [torch.cat(parts) for parts in linear], [torch.cat(parts) for parts in real]


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How a pair's predicted curve goes with the measured one: a row a pair.

    slope and r2 of the line measured = a + slope · predicted over layers; spearman, with the 95 %
    interval for smooth curves; regret: points that the measured curve loses at the predicted best
    place.
    """
    rows = []
    for (network, task), group in table.groupby(["network", "task"]):
        x, y = group["predicted"].to_numpy(), group["measured"].to_numpy()
        if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
            continue
        slope, base = np.polyfit(x, y, 1)
        r2 = 1 - ((y - base - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        low, high = correlation_interval(x, lambda curve, y=y: spearman(curve, y))
        rows.append(
            {
                "network": network,
                "task": task,
                "kind": "ViTs" if evidence.is_vit(str(network)) else "CNNs",
                "layers": len(x),
                "slope": slope,
                "r2": r2,
                "spearman": float(spearman(x, y)),
                "low": low,
                "high": high,
                "regret": float(y.max() - y[int(x.argmax())]),
                "norm": float(group["norm"].median()),
            }
        )
    if not rows:
        raise NotMeasured("curves of four layers or more")
    return pd.DataFrame(rows)


def summary(each: pd.DataFrame, by: str | None = None) -> dict[str, Interval]:
    """Mean rank correlation over pairs, networks as the units: of all, or by a column."""
    groups = each.groupby(by) if by else [("all pairs", each)]
    return {
        str(name): mean_correlation(group["spearman"], group["network"], group["task"])
        for name, group in groups
    }


def findings(table: pd.DataFrame) -> list[str]:
    """The result in words."""
    each = agreement(table)
    lines = [
        f"{row.network} on {row.task}: slope {row.slope:+.2f}, R² {row.r2:.2f}, Spearman "
        f"{row.spearman:+.2f} [{row.low:+.2f}, {row.high:+.2f}] over {row.layers} layers"
        for row in each.itertuples()
    ]
    for by in (None, "kind", *(["shift"] if "shift" in each else [])):
        for name, found in summary(each, by).items():
            lines.append(f"{name}: mean Spearman {found:+.2f} over {found.n} {found.unit}")
    lines.append(
        f"Median R² {each['r2'].median():.2f}; median prompt norm {each['norm'].median():.2f} of "
        f"the activation's; the predicted best place loses {each['regret'].mean():.2f} points."
    )
    return lines


def main(
    out: str | Path = f"runs/{NAME}",
    *,
    results: str | Path = "results",
    assets: Path | None = None,
    only: Sequence[str] = (),
    device: str = "cpu",
) -> pd.DataFrame:
    """Predict every pair that was measured (kept under `out`); write and return the table."""
    out, measured, frames = Path(out), measured_curves(Results(results)), []
    for network, task in tqdm(list(pairs(assets)), desc=NAME, unit="pair"):
        net, images = load_network(network).to(device), load_task(task)
        if only and net.name not in only:
            continue
        name = f"{net.name}_{images.name}".replace("/", "-")
        table = part(out, name, lambda net=net, images=images: predicted_curve(net, images))
        frames.append(table.assign(network=net.name, task=images.name))
    table = pd.concat(frames).merge(measured, on=["network", "task", "layer"], suffixes=("", "_"))
    table = table.drop(columns="depth_")
    table.to_csv(out / f"{NAME}.csv", index=False, float_format="%.5g")
    print("\n".join(findings(table)))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs") / NAME)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--assets", type=Path, help="folder of real weights and images")
    parser.add_argument("--only", action="append", default=[], help="a network's name")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    main(
        given.out, results=given.results, assets=given.assets, only=given.only, device=given.device
    )

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
from aptheory.findings.statistics import Interval, mean_correlation
from aptheory.networks.network import Network
from aptheory.studies.sources import load_network, load_task
from aptheory.tasks import Split, Task, loader
from aptheory.theory.joint import Joint, best_ridge, predict
from aptheory.theory.tangent import tangent_features

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
    train: int = 200,
    test: int = 300,
    width: int = 256,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Predicted gain at every place: layer, depth, predicted, predicted_loss, norm, ridge.

    Gains are points of accuracy (and nats) on test images, over the head retrained without a
    prompt; norm is the prompt's, relative to the activation that it is added to.
    """
    some = task.subset(train=train, test=test, seed=seed)
    inside, outside = (_Sample.of(net, split, batch_size) for split in (some.train, some.test))
    shift, spread = inside.features.mean(0), inside.features.std(0)
    spread[spread <= 1e-6 * spread.max()] = 1.0
    features = [
        torch.cat(
            [(each.features - shift) / spread, each.features.new_ones(len(each.labels), 1)], 1
        ).double()
        for each in (inside, outside)
    ]
    classes = len(some.classes)
    alone = Joint(features[0], shift.new_zeros(len(inside.labels), classes, 0))
    nothing = shift.new_zeros(len(inside.labels), classes)
    ridge = best_ridge(alone, nothing, inside.labels, seed=seed)
    head = alone.cross_entropy(nothing, inside.labels, ridge).head
    logits = features[0] @ head, features[1] @ head

    weight = (head[:-1] / spread[:, None]).to(net.device, net.dtype)
    last = len(net.layers) - 1
    stages = [_stage(net, layer) for layer in range(last)] + [lambda z: z @ weight]
    rows = [
        tangent_features(stages, each.batches, width=width, seed=seed) for each in (inside, outside)
    ]
    labels = inside.labels, outside.labels
    without = [Joint(phi, row[0]).without_prompt for phi, row in zip(features, rows, strict=True)]
    before = predict(*without, logits, labels, seed=seed)
    table = []
    for layer in range(len(net.layers)):
        models = [
            Joint(phi, inside.norms[layer] * row[layer])
            for phi, row in zip(features, rows, strict=True)
        ]
        found = predict(*models, logits, labels, seed=seed)
        table.append(
            {
                "layer": layer,
                "depth": layer / last,
                "predicted": 100 * (found.accuracy - before.accuracy),
                "predicted_loss": before.loss - found.loss,
                "norm": found.norm,
                "ridge": found.ridge,
            }
        )
    return pd.DataFrame(table)


class _Sample:
    """Images of one split in batches, their labels, features and norms of the activations."""

    def __init__(self, net: Network, batches: list[Tensor], labels: Tensor) -> None:
        self.batches, self.labels = batches, labels
        total, parts = np.zeros(len(net.layers)), []
        with torch.no_grad():
            for x in batches:
                for place, z in net.walk(x, stops=net.layers):
                    total[place.index] += float(z.flatten(1).double().norm(dim=1).sum())
                parts.append(z.float())
        self.features = torch.cat(parts)
        self.norms = (total / len(labels)).tolist()

    @classmethod
    def of(cls, net: Network, split: Split, batch_size: int) -> _Sample:
        batches, labels = zip(*loader(split, net, batch_size), strict=True)
        return cls(
            net, [x.to(net.device, net.dtype) for x in batches], torch.cat(labels).to(net.device)
        )


def _stage(net: Network, layer: int):
    return lambda z: net.run(z, start=layer, stop=layer + 1)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How a pair's predicted curve goes with the measured one: a row a pair.

    slope and r2 of the line measured = a + slope · predicted over layers; spearman, with the 95 %
    interval of Fisher's z (Bonett & Wright's variance); regret: points that the measured curve
    loses at the predicted best place.
    """
    rows = []
    for (network, task), group in table.groupby(["network", "task"]):
        x, y = group["predicted"].to_numpy(), group["measured"].to_numpy()
        if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
            continue
        slope, base = np.polyfit(x, y, 1)
        r2 = 1 - ((y - base - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        rho = float(spearman(x, y))
        half = 1.96 * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
        z = np.arctanh(np.clip(rho, -0.999, 0.999))
        rows.append(
            {
                "network": network,
                "task": task,
                "kind": "ViTs" if evidence.is_vit(network) else "CNNs",
                "layers": len(x),
                "slope": slope,
                "r2": r2,
                "spearman": rho,
                "low": float(np.tanh(z - half)),
                "high": float(np.tanh(z + half)),
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

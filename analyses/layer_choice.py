"""Can the layer be chosen without a sweep? The regret table, from scratch.

    python -m analyses.layer_choice [--sweeps runs/layer_preference ...] [--out runs/layer_choice]

Takes finished layer sweeps, scores every layer of their networks on their tasks, and judges each
way to choose by its *regret*: test accuracy at the layer that is truly best minus that at the
chosen one. The rule is refitted without the network *and* without the task that it is judged on.
Beside it: the paper's fixed places (CNNs the input of the last stage, ViTs the third block), the
middle, the last, a random layer, the layer's own probe, each single score, and successive halving
at the same cost. Writes scores/, regret.csv, summary.csv and rule.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from aptheory.explore import write_table
from aptheory.outcomes import key_of
from aptheory.recommend import SCORES, Rule, fit_rule, layer_scores, standardise
from aptheory.relate import mean_interval
from aptheory.sources import load_network, load_task
from aptheory.study import Study

Pair = tuple[str, str]
RULE_SCORES = ("tangent_explained", "gradient_agreement")
"""Two scores, named by the theory: with so few networks a rule of ten numbers only fits them."""


def gather(
    studies: list[tuple[Study, Path]], out: Path, *, images: int
) -> dict[Pair, pd.DataFrame]:
    """Scores and accuracy of every layer of every (network, task), kept in OUT/scores."""
    pairs: dict[Pair, pd.DataFrame] = {}
    for study, folder in studies:
        accuracy = pd.read_csv(folder / "accuracy.csv")
        ap = accuracy[accuracy["method"] == "ap"]
        for network_spec in study.networks:
            net = load_network(network_spec)
            for task_spec in study.tasks:
                task = load_task(task_spec)
                rows = ap[(ap["network"] == net.name) & (ap["task"] == task.name)]
                if rows.empty:
                    continue
                identity = {"net": net.digest, "task": task.digest, "images": images}
                path = out / "scores" / f"{net.name}-{task.name}-{key_of(identity)[:8]}.csv"
                if not path.is_file():
                    write_table(layer_scores(net, task, images=images), path)
                measured = rows.pivot_table(index="layer", columns="measure", values="value")
                joined = pd.read_csv(path).merge(measured.reset_index(), on="layer")
                joined["kind"] = _kind(net)
                pairs[net.name, task.name] = joined
    return pairs


def _kind(net: object) -> str:
    return "vit" if any(layer.layout == "tokens" for layer in net.layers) else "cnn"  # type: ignore[attr-defined]


def choices(pairs: dict[Pair, pd.DataFrame], key: Pair, seed: int = 0) -> dict[str, int]:
    """The row that each way of choosing picks for one (network, task)."""
    table = pairs[key]
    seen = [
        (other, other["test_accuracy"].to_numpy())
        for (network, task), other in pairs.items()
        if network != key[0] and task != key[1]
    ]
    design = standardise(table)
    depth = table["depth"].to_numpy()
    picks: dict[str, int] = {
        "paper's place": int(
            np.abs(depth - (0.8 if table["kind"].iloc[0] == "cnn" else 0.2)).argmin()
        ),
        "middle layer": int(np.abs(depth - 0.5).argmin()),
        "last layer": len(table) - 1,
        "image (VP)": 0,
        "best on validation (the sweep)": int(table["val_accuracy"].to_numpy().argmax()),
    }
    if seen:
        picks["rule"] = int(fit_rule(seen, names=RULE_SCORES).predict(table).argmax())
        picks["mean curve of other networks"] = _mean_curve(seen, depth)
    for name in SCORES:
        if name != "depth":
            picks[f"score: {name}"] = int(design[name].to_numpy().argmax())
    return picks


def _mean_curve(seen: list[tuple[pd.DataFrame, np.ndarray]], depth: np.ndarray) -> int:
    """Depth alone, as learned from the others: the best of their mean accuracy curve."""
    curves = [
        np.interp(depth, other["depth"], (accuracy - accuracy.mean()) / (accuracy.std() or 1.0))
        for other, accuracy in seen
    ]
    return int(np.mean(curves, axis=0).argmax())


def regrets(pairs: dict[Pair, pd.DataFrame]) -> pd.DataFrame:
    """One row per (network, task, way of choosing): the layer and its regret in points."""
    rows = []
    for key, table in pairs.items():
        test = 100 * table["test_accuracy"].to_numpy()
        for way, pick in choices(pairs, key).items():
            rows.append((*key, way, int(table["layer"].iloc[pick]), float(test.max() - test[pick])))
        rows.append((*key, "random layer", -1, float(test.max() - test.mean())))
    return pd.DataFrame(rows, columns=["network", "task", "way", "layer", "regret"])


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean regret of each way with its 95 % interval over (network, task)."""
    rows = []
    for way, group in table.groupby("way"):
        values = group["regret"].to_numpy(float)
        rows.append((way, values.mean(), *mean_interval(values), values.max(), len(values)))
    columns = ["way", "regret", "low", "high", "worst", "pairs"]
    return pd.DataFrame(rows, columns=columns).sort_values("regret").reset_index(drop=True)


def final_rule(pairs: dict[Pair, pd.DataFrame], summary: pd.DataFrame) -> Rule:
    """The rule that ships: fitted on everything, with the regret of its held-out versions."""
    rule = fit_rule(
        [(table, table["test_accuracy"].to_numpy()) for table in pairs.values()], names=RULE_SCORES
    )
    held_out = summary.set_index("way").loc["rule"]
    fitted_on = tuple(sorted(f"{network} on {task}" for network, task in pairs))
    return Rule(rule.weights, fitted_on, round(held_out["regret"], 2), round(held_out["high"], 2))


def main(
    studies: list[tuple[Study, Path]],
    out: Path = Path("runs/layer_choice"),
    *,
    images: int = 256,
    keep: Callable[[str], bool] = lambda network: "random" not in network,
) -> pd.DataFrame:
    """Write the regret table and the rule; returns the summary."""
    pairs = gather(studies, out, images=images)
    pairs = {key: table for key, table in pairs.items() if keep(key[0])}
    table = regrets(pairs)
    summary = summarise(table)
    write_table(table, out / "regret.csv")
    write_table(summary, out / "summary.csv")
    final_rule(pairs, summary).save(out / "rule.json")
    return summary


if __name__ == "__main__":
    from analyses.layer_preference import study

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=Path, default=Path("runs/layer_preference"))
    parser.add_argument(
        "--assets-sweeps", type=Path, help="folder that analyses.real_weights wrote"
    )
    parser.add_argument("--assets", type=Path, help="folder of real weights and images")
    parser.add_argument("--out", type=Path, default=Path("runs/layer_choice"))
    chosen = parser.parse_args()
    sources = [(study(), chosen.sweeps)]
    if chosen.assets_sweeps and chosen.assets:
        from analyses.real_weights import studies

        for name, one in studies(chosen.assets).items():
            if (chosen.assets_sweeps / name / "accuracy.csv").is_file():
                sources.append((one, chosen.assets_sweeps / name))
    print(main(sources, chosen.out).to_string(index=False))

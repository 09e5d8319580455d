"""Is a layer preference the architecture's, or that of one run of the pretraining?

    python -m analyses.campaign_pretraining [--out results/evidence]

The packaged ResNet and ViT, each pretrained from three seeds (`weights/seeds`; 0 is the packaged
one), through the campaign's sweep on five tasks. OUT/pretraining.csv has a row a network and task;
OUT/pretraining_curves.csv the gain over places; OUT/judged_pretraining.csv for each architecture
the mean statistics with intervals over pretraining seeds, and how the curves over places differ:
the share of their variance that lies between tasks, between pretraining seeds, and in neither.
Exploratory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.campaign_plan import MINIS
from analyses.campaign_section import lines
from analyses.campaign_tables import curves, looked_at, pairs, read_journal
from analyses.results import Results
from aptheory.findings.relate import spearman
from aptheory.findings.statistics import Interval, clustered_mean, mean_correlation

QUESTION = "pretraining"
NAMES = {"cnn": "ResNet", "vit": "ViT"}
POINTS = {
    "AP at the end − linear probe": ("ap_end", "linear_probe"),
    "AP at the end − a random pattern of its norm": ("ap_end", "random_end"),
    "AP read early − best layer's probe": ("ap_read_early", "layer_probe"),
    "AP read early − probe of all layers": ("ap_read_early", "all_layers_probe"),
    "the image − AP at the chosen place, read at the end": ("vp_end", "ap_end"),
}
SLOPES = {
    "Spearman(depth, accuracy), read at the end": "slope_end",
    "Spearman(depth, accuracy), read early": "slope_read_early",
}
PERMUTATIONS = 2000


def about(table: pd.DataFrame) -> pd.DataFrame:
    """The packaged network that a row is of, and the seed of its pretraining."""
    seeds = table["network"].str.extract(r"_(\d)$")[0].fillna("0").astype(int)
    return table.assign(
        architecture=table["network"].str.replace(r"_\d$", "", regex=True), pretraining=seeds
    )


def grid(
    gains: pd.DataFrame, kind: str
) -> tuple[Float[np.ndarray, "seeds tasks places"], list[str]]:
    """Gain in points of each pretraining seed, task and place, and the tasks' names."""
    some = about(gains[gains["kind"] == kind])
    table = some.pivot_table(index=["pretraining", "task"], columns="layer", values="measured")
    seeds, tasks = (table.index.unique(level) for level in (0, 1))
    index = pd.MultiIndex.from_product([seeds, tasks])
    values = table.reindex(index).to_numpy(float)
    return values.reshape(len(seeds), len(tasks), -1), [str(task) for task in tasks]


def shares(
    values: Float[np.ndarray, "seeds tasks places"],
) -> dict[str, float]:
    """Of the variance of curves over places, each less its own mean: what lies between tasks,
    between seeds, and in neither (the two together, and the noise of a run).

    Two-way analysis of variance without repetition, sums of squares added over places. Chance gives
    each of T tasks and S seeds a share too: (T − 1) / (T S − 1) and (S − 1) / (T S − 1).
    """
    curves = values - values.mean(2, keepdims=True)
    rest = curves - curves.mean((0, 1))
    whole = float((rest**2).sum())
    seeds, tasks = curves.shape[:2]
    of_task = seeds * float((rest.mean(0) ** 2).sum())
    of_seed = tasks * float((rest.mean(1) ** 2).sum())
    return {
        "task": of_task / whole,
        "pretraining seed": of_seed / whole,
        "neither": 1 - (of_task + of_seed) / whole,
    }


def chance(values: Float[np.ndarray, "seeds tasks places"], what: str) -> tuple[float, float]:
    """(share that ``what`` has by chance, p of the share that it has): curves are shuffled over
    tasks within each seed, or over seeds within each task."""
    generator = np.random.default_rng(0)
    seen, found = shares(values)[what], []
    for _ in range(PERMUTATIONS):
        if what == "task":
            shuffled = np.stack([row[generator.permutation(len(row))] for row in values])
        else:
            columns = values.transpose(1, 0, 2)
            shuffled = np.stack([row[generator.permutation(len(row))] for row in columns])
            shuffled = shuffled.transpose(1, 0, 2)
        found.append(shares(shuffled)[what])
    more = sum(share >= seen - 1e-12 for share in found)
    return float(np.mean(found)), (1 + more) / (1 + PERMUTATIONS)


def likeness(values: Float[np.ndarray, "seeds tasks places"]) -> pd.DataFrame:
    """Spearman over places between two curves: of one task and two seeds, of one seed and two
    tasks; ``by`` names what they share."""
    seeds, tasks = values.shape[:2]
    rows = [
        {"by": "task", "of": task, "value": spearman(values[one, task], values[other, task])}
        for one, other in combinations(range(seeds), 2)
        for task in range(tasks)
    ]
    rows += [
        {"by": "seed", "of": seed, "value": spearman(values[seed, one], values[seed, other])}
        for one, other in combinations(range(tasks), 2)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def between_draws(gains: pd.DataFrame) -> Interval:
    """Mean Spearman over places between the curves of two draws of one real network and task."""
    found = []
    for (network, task), rows in gains.groupby(["network", "task"]):
        both = rows.pivot_table(index="layer", columns="seed", values="measured").dropna()
        if both.shape[1] == 2:
            a, b = both.to_numpy(float).T
            found.append((network, task, spearman(a, b)))
    table = pd.DataFrame(found, columns=["network", "task", "value"]).dropna()
    return mean_correlation(table["value"], table["network"], table["task"])


def judged(table: pd.DataFrame, gains: pd.DataFrame, real: pd.DataFrame) -> pd.DataFrame:
    """A row a statistic. Of one architecture, its pretraining seeds are the units."""
    rows: list[dict[str, Any]] = []
    for kind, part in table.groupby("kind"):
        name, values = NAMES[str(kind)], grid(gains, str(kind))[0]
        for words, column in SLOPES.items():
            mean = mean_correlation(part[column], part["network"], part["task"])
            rows.append(looked_at(f"{words}, {name}", mean, part))
        for words, (one, other) in POINTS.items():
            gap = 100 * (part[one] - part[other])
            known = gap.notna()
            mean = clustered_mean(gap[known], part["network"][known], part["task"][known])
            rows.append(looked_at(f"{words} (points), {name}", mean, part))
        for words, share in shares(values).items():
            row = looked_at(f"share of {words} in the curves, {name}", _alone(share, part), part)
            if words != "neither":
                by_chance, p = chance(values, words)
                row |= {"by_chance": by_chance, "p": p}
            rows.append(row)
        alike = likeness(values).dropna().groupby("by")["value"].mean()
        for by, words in (("task", "two seeds on one task"), ("seed", "two tasks of one seed")):
            mean = _alone(float(alike[by]), part)
            rows.append(looked_at(f"Spearman of the curves of {words}, {name}", mean, part))
    draws = between_draws(real)
    words = "Spearman of the curves of two draws of one task, real networks"
    rows.append({**looked_at(words, draws, real), "pairs": draws.n, "runs_still_moving": ""})
    return pd.DataFrame(rows)


def _alone(value: float, part: pd.DataFrame) -> Interval:
    """A number without an interval: it is one of all the seeds together."""
    return Interval(value, n=part["network"].nunique(), unit="networks")


def section(results: Results) -> str:
    """What the page says of it, or nothing where the tables are missing."""
    if not results.has("evidence/judged_pretraining"):
        return ""
    table = results.table("evidence/pretraining")
    found = results.table("evidence/judged_pretraining")
    moving, runs = int(table["moving"].sum()), int(table["runs"].sum())
    return "\n\n".join(
        [
            "## Pretraining seeds",
            "Is a preference the architecture's, or that of one run of its pretraining? Our small "
            "ResNet and ViT, each pretrained from three seeds (`python -m weights.train NAME "
            "--seed N`; the packaged weights are seed 0, the others stand in `weights/seeds`), "
            f"through the campaign's sweep on {table['task'].nunique()} tasks "
            f"({', '.join(table['task'].unique())}). The units are pretraining seeds, 95 %; "
            "networks of other pretraining are another question. By the plan's rule "
            f"{moving} of {runs} chosen runs were still moving. Exploratory. Made by `python -m "
            "analyses.campaign --question pretraining --assets DIR` and `python -m "
            "analyses.campaign_pretraining`; figure `results/figures/pretraining_seeds.png`.",
            "\n".join(_said(found)),
        ]
    )


def _said(found: pd.DataFrame) -> Iterator[str]:
    for number in range(len(found)):
        row = found.iloc[[number]]
        line = lines(row).replace(" networks", " pretraining seeds")
        if row["statistic"].iloc[0].endswith("real networks"):
            line = lines(row)
        p = row["p"].iloc[0] if "p" in row else float("nan")
        if np.isfinite(p):
            by_chance = row["by_chance"].iloc[0]
            line += f"; by chance {by_chance:.2f} (permutation p {p:.3g})"
        yield line


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    journal = read_journal(out)
    own = journal[journal["network"].isin(MINIS)]
    table = about(pairs(own, question=QUESTION))
    gains = curves(own, question=QUESTION)
    verdicts = judged(table, gains, curves(journal))
    for name, frame in (
        ("pretraining", table),
        ("pretraining_curves", about(gains)),
        ("judged_pretraining", verdicts),
    ):
        frame.round(6).to_csv(out / f"{name}.csv", index=False)
    print(verdicts.round(2).to_string())


if __name__ == "__main__":
    main()

"""Does the shift from the pretraining say where a prompt works, and how much it gains?

    python -m analyses.shift_law [--results results]

From evidence/shift.csv (`analyses.campaign_shift`) and evidence/pairs.csv: within each network the
rank correlation over its tasks of the shift (mean over places) with what its prompts did; then the
mean over networks with Student's t (Fisher's z). Writes evidence/shift_pairs.csv and
evidence/shift_law.csv. Decided after the campaign's runs: exploratory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analyses.campaign_tables import mean_over_draws
from analyses.results import Results
from aptheory.findings.relate import spearman
from aptheory.findings.statistics import mean_correlation

KEYS = ["network", "kind", "task", "near"]
OUTCOMES = {
    "slope_end": "Spearman(depth, accuracy), read at the end",
    "slope_read_early": "Spearman(depth, accuracy), read early",
    "depth_end": "depth of the chosen prompt",
    "read": "depth of the best probe",
    "gain_end": "AP − linear probe",
    "gain_probe": "best layer's probe − linear probe",
    "gain_early": "AP read early − best layer's probe",
}


def of_pairs(shift: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """A row a pair and origin of the moments: the shift, and what its prompts did, the mean over
    draws of the training pictures."""
    means = shift.groupby([*KEYS, "origin"])["shift"].mean().reset_index()
    table = means.merge(mean_over_draws(pairs), on=KEYS)
    return table.assign(
        gain_end=table["ap_end"] - table["linear_probe"],
        gain_probe=table["layer_probe"] - table["linear_probe"],
        gain_early=table["ap_read_early"] - table["layer_probe"],
    )[[*KEYS, "origin", "shift", *OUTCOMES]]


def law(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over networks of the rank correlation over tasks, for each origin, kind and outcome."""
    rows = []
    for origin, some in table.groupby("origin"):
        for kind, part in (("all", some), *some.groupby("kind")):
            for outcome, words in OUTCOMES.items():
                found = {
                    str(network): spearman(tasks["shift"].to_numpy(), tasks[outcome].to_numpy())
                    for network, tasks in part.dropna(subset=[outcome]).groupby("network")
                    if len(tasks) >= 3
                }
                known = pd.Series(found, dtype=float).dropna()
                if len(known) < 2:
                    continue
                mean = mean_correlation(known, known.index)
                rows.append(
                    {"origin": origin, "kind": kind, "outcome": words, "value": mean.value}
                    | {"low": mean.low, "high": mean.high, "networks": mean.n}
                )
    return pd.DataFrame(rows)


def section(results: Results) -> str:
    """What the page says of it, or nothing where the tables are missing."""
    if not results.has("evidence/shift_law"):
        return ""
    table = results.table("evidence/shift_law")
    shifts = results.table("evidence/shift_pairs")
    near = shifts.groupby(["origin", "near"])["shift"].mean()
    parts = [
        "## The shift from the pretraining",
        "Channel by channel the distance of a task's activations from those of the pretraining, "
        "without labels (`aptheory shift`, measure `moment_shift`): from BatchNorm's running "
        "moments in CNNs, and in all networks from the activations on images like the "
        "pretraining's (CIFAR-10's test pictures; Caltech-101's for ImageNet). LayerNorm keeps no "
        "moments, so a ViT has the second alone. Rank correlations over a network's five tasks of "
        "the mean shift over places, mean over networks, 95 %. Exploratory. Made by `python -m "
        "analyses.campaign_shift --assets DIR` and `python -m analyses.shift_law`; figure "
        "`results/figures/shift_law.png`.",
        "; ".join(
            f"Mean shift by {origin}: far tasks {near[origin, False]:.2f}, near ones "
            f"{near[origin, True]:.2f}"
            for origin in near.index.get_level_values(0).unique()
        )
        + ".",
    ]
    for (origin, kind), rows in table.groupby(["origin", "kind"]):
        names = {"all": "all networks", "cnn": "CNNs", "vit": "ViTs"}
        said = "; ".join(
            f"{row.outcome} {row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
            for row in rows.itertuples()
        )
        count = int(rows["networks"].max())
        parts.append(f"- {names[str(kind)]} ({count}), by {origin}: {said}.")
    return "\n\n".join(parts)


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    folder = parser.parse_args().results
    results = Results(folder)
    table = of_pairs(results.table("evidence/shift"), results.table("evidence/pairs"))
    found = law(table)
    table.round(5).to_csv(folder / "evidence" / "shift_pairs.csv", index=False)
    found.round(5).to_csv(folder / "evidence" / "shift_law.csv", index=False)
    print(found.round(2).to_string(index=False))


if __name__ == "__main__":
    main()

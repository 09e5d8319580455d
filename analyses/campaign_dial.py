"""J11, the dialled shifts: the same pictures shifted in steps, and where the prompt then works.

    python -m analyses.campaign_dial [--out results/evidence]

OUT/dial_curves.csv has the gain of the prompt at every place, read at the end; OUT/dial.csv a row
a network, dial and step with what was chosen there (0: the pictures as they are, from the sweep and
the map, at the places that were swept on the shifted ones too); OUT/judged_dial.csv the change from
step 0 to the last, with networks as units. Everything is chosen on validation pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.campaign_tables import best_rates, chosen, looked_at, place_slope, read_journal
from aptheory.findings.statistics import clustered_mean

OUTCOMES = {
    "depth_end": "depth of the chosen prompt, read at the end",
    "slope_end": "Spearman(depth, accuracy), read at the end",
    "gain_end": "AP at the end − probe of the last place (points)",
    "gain_early": "AP read early − best layer's probe (points)",
}
STEP = ["network", "kind", "pictures", "seed", "dial", "step"]


def steps(journal: pd.DataFrame) -> pd.DataFrame:
    """A row a network, dial and step: what validation pictures choose there."""
    rows = [{**at, **_outcome(part)} for at, part in _parts(journal)]
    return pd.DataFrame(rows, columns=None if rows else [*STEP, *OUTCOMES])


def curves(journal: pd.DataFrame) -> pd.DataFrame:
    """A row a network, dial, step and place: the gain of the prompt there, read at the end."""
    rows = []
    for at, part in _parts(journal):
        last = int(part["places"].iloc[0]) - 1
        probe = part[(part["method"] == "layer_probe") & (part["layer"] == last)]
        base = probe["test_accuracy"].iloc[0]
        ends = part[(part["method"] == "ap") & (part["read"] == last)].sort_values("layer")
        gains = zip(ends["layer"], 100 * (ends["test_accuracy"] - base), strict=True)
        rows += [{**at, "depth": layer / last, "gain": gain} for layer, gain in gains]
    return pd.DataFrame(rows)


def _parts(journal: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Every network, dial and step with its runs, at the rate that validation chooses."""
    runs = journal[journal["question"] == "dial"]
    if runs.empty:
        return
    runs = best_rates(runs.assign(pictures=runs["task"].str.partition("+")[0]))
    levels = runs.groupby("dial")["level"].transform(lambda level: level.rank(method="dense"))
    runs["step"] = levels.astype(int)
    sweeps = best_rates(journal[journal["question"].isin(["sweep", "map"])])
    for keys, some in runs.groupby(["network", "kind", "pictures", "seed", "dial"]):
        network, _, pictures, seed, _ = keys
        places = set(some.loc[some["method"] == "ap", "layer"])
        plain = sweeps[
            (sweeps["network"] == network)
            & (sweeps["task"] == pictures)
            & (sweeps["seed"] == seed)
            & ((sweeps["method"] != "ap") | sweeps["layer"].isin(places))
        ]
        dialled = [(int(step), part) for step, part in some.groupby("step")]
        for step, part in [(0, plain), *dialled]:
            if len(part):
                yield dict(zip(STEP, (*keys, step), strict=True)), part


def _outcome(runs: pd.DataFrame) -> dict[str, float]:
    last = int(runs["places"].iloc[0]) - 1
    probes, prompts = runs[runs["method"] == "layer_probe"], runs[runs["method"] == "ap"]
    probe, final = chosen(probes), probes[probes["layer"] == last].iloc[0]
    end = prompts[prompts["read"] == last]
    at_end = chosen(end)
    early = chosen(prompts[prompts["read"] == probe["read"]])
    return {
        "depth_end": at_end["layer"] / last,
        "slope_end": place_slope(end),
        "gain_end": 100 * (at_end["test_accuracy"] - final["test_accuracy"]),
        "gain_early": 100 * (early["test_accuracy"] - probe["test_accuracy"]),
        "last_probe": final["test_accuracy"],
        "layer_probe": probe["test_accuracy"],
        "runs": 4,
        "moving": sum(run["converged"] != True for run in (at_end, early, probe, final)),  # noqa: E712
    }


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network and dial: each outcome at the last step minus that of step 0."""
    rows = []
    for keys, part in table.groupby([name for name in STEP if name != "step"]):
        ordered = part.sort_values("step")
        first, last = ordered.iloc[0], ordered.iloc[-1]
        if first["step"] == 0 < last["step"]:
            row = dict(zip([name for name in STEP if name != "step"], keys, strict=True))
            row |= {name: last[name] - first[name] for name in OUTCOMES}
            rows.append({**row, "runs": part["runs"].sum(), "moving": part["moving"].sum()})
    return pd.DataFrame(rows)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """J11 for each dial and for all: the mean change over networks."""
    moved = changes(table)
    rows = []
    for name, part in (("all dials", moved), *((str(d), p) for d, p in moved.groupby("dial"))):
        for outcome, words in OUTCOMES.items():
            interval = clustered_mean(part[outcome], part["network"], part["dial"])
            networks = part["network"].nunique()  # of which the dials of one are none
            interval = replace(interval, n=networks)
            rows.append(looked_at(f"change of {words}, {name}", interval, part, judged="J11"))
    return pd.DataFrame(rows)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    journal = read_journal(out)
    table = steps(journal)
    if table.empty:
        print("no dialled unit is in the journal; `python -m analyses.campaign --question dial`")
        return
    said = judged(table)
    curves(journal).round(6).to_csv(out / "dial_curves.csv", index=False)
    table.round(6).to_csv(out / "dial.csv", index=False)
    said.round(6).to_csv(out / "judged_dial.csv", index=False)
    print(table.round(2).to_string(), said.round(2).to_string(), sep="\n")


if __name__ == "__main__":
    main()

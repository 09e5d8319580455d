"""How well can the layer be chosen for how much? Regret against cost, from stored tables alone.

    python -m analyses.layer_front [--results results]

Judges every way of `analyses.choice_ways` on the campaign's 40 pairs and on the 25 older ones, and
those of `analyses.choice_cells` on the place that is read and on both places. What a way learns it
learns on other networks and tasks than those that it is judged on. Cost is the
share of a careful full sweep: every place, every rate, three seeds, to the end. Intervals are
Student's t over networks, 95 %. Writes evidence/choice.csv (a row a draw and way) and
evidence/choice_summary.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses.campaign_tables import read_journal
from analyses.choice_cells import judged_maps, maps, reading_curves, reading_ways
from analyses.choice_curves import SEEDS, Curve, read_curves, with_other_draws
from analyses.choice_ways import Way, learnt, ways
from analyses.results import Results
from aptheory.findings.statistics import clustered_mean

MIDDLE = "the middle"
BASELINES = {
    "campaign": MIDDLE,
    "campaign, both draws": MIDDLE,
    "older sweeps": MIDDLE,
    "reading place": "the end (linear probe)",
    "both places": "the middle, read at the end",
}
"""What is done without any choice: what every way's gain is counted from."""


def judged(curves: Sequence[Curve], among: Sequence[Way], data: str) -> pd.DataFrame:
    """A row a pair and way: its regret, what it learnt elsewhere, and its cost."""
    found: list[dict[str, Any]] = []
    for way in among:
        for curve, (free, (preference, bought)) in zip(curves, learnt(way, curves), strict=True):
            rate = curve.rates[free.rates[0]] if len(free.rates) == 1 else float("nan")
            row = _row(way.name, curve, preference, curve.cost(bought))
            found.append(
                {"data": data, **row, "rate": rate, "pull": free.pull, "share": free.share}
            )
    return pd.DataFrame(found)


def _row(way: str, curve: Curve, preference: np.ndarray, cost: float) -> dict[str, Any]:
    return {
        "way": way,
        "network": curve.network,
        "kind": curve.kind,
        "task": curve.task,
        "draw": curve.draw,
        "layer": int(curve.layers[int(np.argmax(preference))]),
        "regret": curve.regret(preference),
        "regret_fresh": curve.fresh_regret(preference),
        "cost": cost,
        "luck": curve.luck,
        "probe_better": curve.probe_is_better(preference),
    }


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Each way: mean regret, its interval over networks, the same of its gain on `BASELINES`."""
    rows = []
    for (data, way), group in table.groupby(["data", "way"], sort=False):
        baseline = table[(table["data"] == data) & (table["way"] == BASELINES[str(data)])]
        keys = ["network", "task", "draw"]
        gain = baseline.set_index(keys)["regret"] - group.set_index(keys)["regret"]
        regret = clustered_mean(group["regret"], group["network"], group["task"])
        fresh = clustered_mean(group["regret_fresh"], group["network"], group["task"])
        better = clustered_mean(gain, gain.index.get_level_values("network"))
        rows.append(
            {
                "data": data,
                "way": way,
                "cost": group["cost"].mean(),
                "regret": regret.value,
                "low": regret.low,
                "high": regret.high,
                "fresh": fresh.value,
                "fresh_low": fresh.low,
                "fresh_high": fresh.high,
                "better": better.value,
                "better_low": better.low,
                "better_high": better.high,
                "worst": group["regret"].max(),
                "luck": group["luck"].mean(),
                "probe_better": group["probe_better"].mean(),
                "pairs": len(group.drop_duplicates(["network", "task"])),
                "networks": regret.n,
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    campaign, older = read_curves(results)
    journal = read_journal(results / "evidence")
    found = list(maps(journal, Results(results).table("evidence/operations")))
    scored = all(curve.scores is not None for curve in campaign)
    rates = len(campaign[0].rates)
    both = with_other_draws(campaign)
    of_both = [way for way in ways(rates, 2) if "2 seeds" in way.name or way.name == MIDDLE]
    parts = [
        judged(campaign, ways(rates, 1, scored=scored), "campaign"),
        judged(both, of_both, "campaign, both draws"),
        judged(older, ways(1, SEEDS, known_place=False), "older sweeps"),
        judged(reading_curves(campaign, journal), reading_ways(), "reading place"),
        judged_maps(found, _row).assign(data="both places"),
    ]
    table = pd.concat(parts)
    summary = summarise(table)
    table.round(5).to_csv(results / "evidence" / "choice.csv", index=False)
    summary.round(5).to_csv(results / "evidence" / "choice_summary.csv", index=False)
    print(summary.sort_values(["data", "cost"]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()

"""The comparison of all methods in the campaign: every method at its own best rate and place.

    python -m analyses.campaign_methods [--out results/evidence]

OUT/methods.csv has a row a network, task and method (reading at the end and earlier apart): what
validation pictures chose of it, of AP the place too, so that AP has several times the runs.
OUT/judged_methods.csv has the mean gains over the linear probe, ranks and what AP has more, with
networks as units. Exploratory while a network has one task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analyses.campaign_questions import beyond_the_edge
from analyses.campaign_tables import chosen, read_journal
from aptheory.findings.statistics import clustered_mean

EARLY = ", read early"
PAIR = ["network", "kind", "task", "near", "seed"]


def methods(journal: pd.DataFrame) -> pd.DataFrame:
    """What validation pictures chose of each method on each pair, with its gain and its rank."""
    runs = journal[journal["question"] == "methods"].copy()
    early = runs["read"] < runs["places"] - 1
    probe = runs["method"] == "layer_probe"
    runs["method"] = runs["method"].where(~early | probe, runs["method"] + EARLY)
    rows = []
    for keys, part in runs.groupby([*PAIR, "method"], sort=False):
        best = chosen(part)
        same = part[(part["layer"] == best["layer"]) & (part["read"] == best["read"])]
        row = dict(zip([*PAIR, "method"], keys, strict=True))
        columns = ["layer", "read", "lr", "parameters", "converged", "val_accuracy"]
        row |= {name: best[name] for name in (*columns, "test_accuracy")}
        ended = same.astype(object).where(same.notna(), None)
        row["best_rate_inside"] = not beyond_the_edge(ended.to_dict("records"))
        rows.append({**row, "runs": len(part)})
    table = pd.DataFrame(rows)
    linear = table[table["method"] == "linear_probe"].set_index(PAIR)["test_accuracy"]
    base = table.set_index(PAIR).index.map(linear)
    table["gain"] = 100 * (table["test_accuracy"] - base)
    read_early = table["method"].str.endswith(EARLY)
    for name, at in (("ap", ~read_early), ("ap" + EARLY, read_early)):
        prompt = table[table["method"] == name].set_index(PAIR)["test_accuracy"]
        own = table[at].set_index(PAIR).index.map(prompt)
        table.loc[at, "ap_has_more"] = 100 * (own - table.loc[at, "test_accuracy"].to_numpy())
    table["rank"] = table.groupby(PAIR)["test_accuracy"].rank(ascending=False)
    return table


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over the linear probe and mean rank of each method, over networks."""
    rows = []
    for method, part in table.groupby("method", sort=False):
        gain = clustered_mean(part["gain"], part["network"])
        rank = clustered_mean(part["rank"], part["network"])
        more = clustered_mean(part["ap_has_more"], part["network"])
        rows.append(
            {
                "method": method,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "rank": rank.value,
                "rank_low": rank.low,
                "rank_high": rank.high,
                "ap_has_more": more.value,
                "ap_has_more_low": more.low,
                "ap_has_more_high": more.high,
                "networks": gain.n,
                "pairs": len(part),
                "moving": int((~part["converged"].astype(bool)).sum()),
                "rate_at_the_edge": int((~part["best_rate_inside"]).sum()),
                "parameters": int(part["parameters"].median()),
            }
        )
    return pd.DataFrame(rows).sort_values("gain", ascending=False, ignore_index=True)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    table = methods(read_journal(out))
    verdicts = judged(table)
    table.round(6).to_csv(out / "methods.csv", index=False)
    verdicts.round(6).to_csv(out / "judged_methods.csv", index=False)
    print(verdicts.round(1).to_string())


if __name__ == "__main__":
    main()

"""The comparison of all methods in the campaign: every method at its own best rate and place.

    python -m analyses.campaign_methods [--out results/evidence]

OUT/methods.csv has a row a network, task and method (reading at the end and earlier apart): what
validation pictures chose of it. Of AP they chose the place too, so that it has several times the
runs; "ap, middle" is AP at the swept place nearest the middle, whose search is that of any other
method. OUT/judged_methods.csv has the mean gains over the linear probe, ranks and what either AP
has more, with networks as units. Exploratory: written down after the first units were seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analyses.campaign_questions import beyond_the_edge
from analyses.campaign_tables import chosen, read_journal
from aptheory.findings.statistics import clustered_mean

EARLY = ", read early"
MIDDLE = "ap, middle"
MORE = {"ap": "ap_has_more", MIDDLE: "middle_has_more"}
"""Columns of what AP has more than a method in pairs, in points of test accuracy."""
PAIR = ["network", "kind", "task", "near", "seed"]


def methods(journal: pd.DataFrame) -> pd.DataFrame:
    """What validation pictures chose of each method on each pair, with its gain and its rank."""
    runs = journal[journal["question"] == "methods"].copy()
    early = runs["read"] < runs["places"] - 1
    probe = runs["method"] == "layer_probe"
    runs["method"] = runs["method"].where(~early | probe, runs["method"] + EARLY)
    runs = pd.concat([runs, _at_the_middle(runs[runs["method"] == "ap"])], ignore_index=True)
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
    for name, at in (("ap", ~read_early), ("ap" + EARLY, read_early), (MIDDLE, ~read_early)):
        prompt = table[table["method"] == name].set_index(PAIR)["test_accuracy"]
        own = table[at].set_index(PAIR).index.map(prompt)
        more = 100 * (own - table.loc[at, "test_accuracy"].to_numpy())
        table.loc[at, MORE[name.removesuffix(EARLY)]] = more
    once = table["method"] != MIDDLE  # a case of "ap", which has its rank
    table["rank"] = table[once].groupby(PAIR)["test_accuracy"].rank(ascending=False)
    return table


def _at_the_middle(prompts: pd.DataFrame) -> pd.DataFrame:
    """The runs of AP at the place of each pair that lies nearest the middle of its network."""
    off = (prompts["layer"] / (prompts["places"] - 1) - 0.5).abs()
    nearest = off.groupby([prompts[name] for name in PAIR]).transform("min")
    tied = prompts[off == nearest]
    first = tied.groupby(PAIR)["layer"].transform("min")
    return tied[tied["layer"] == first].assign(method=MIDDLE)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over the linear probe and mean rank of each method, over networks."""
    rows = []
    for method, part in table.groupby("method", sort=False):
        gain = clustered_mean(part["gain"], part["network"])
        rank = clustered_mean(part["rank"], part["network"])
        of_ap = {name: clustered_mean(part[name], part["network"]) for name in MORE.values()}
        more = {
            name + end: value
            for name, mean in of_ap.items()
            for end, value in (("", mean.value), ("_low", mean.low), ("_high", mean.high))
        }
        rows.append(
            {
                "method": method,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "rank": rank.value,
                "rank_low": rank.low,
                "rank_high": rank.high,
                **more,
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

"""The comparison of all methods in the campaign: every method at its own best rate and place.

    python -m analyses.campaign_methods [--out results/evidence]

OUT/methods.csv has a row a network, task and method (reading at the end and earlier apart): what
validation pictures chose of it. Of AP they chose the place too, so that it has several times the
runs; "ap, middle" is AP at the swept place nearest the middle, whose search is that of any other
method. The control of either is the random pattern of the sweeps on the same pair, of the norm that
a trained prompt had at its place, with a trained head. OUT/judged_methods.csv has the mean gains
over the linear probe, ranks and what either AP has more, with networks as units; "rank_small" is
the rank among the methods of a pair that train no more parameters than AP does at its chosen place.
Exploratory: written down after the first units were seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.campaign_bench import beyond_the_edge
from analyses.campaign_tables import chosen, read_journal
from aptheory.findings.statistics import clustered_mean

EARLY = ", read early"
MIDDLE = "ap, middle"
RANDOM, RANDOM_MIDDLE = "random pattern", "random pattern, middle"
UNRANKED = (MIDDLE, RANDOM, RANDOM_MIDDLE)
"""A place's own case of another row, and controls that nobody would choose."""
MORE = {"ap": "ap_has_more", MIDDLE: "middle_has_more"}
"""Columns of what AP has more than a method in pairs, in points of test accuracy."""
PAIR = ["network", "kind", "task", "near", "seed"]


def methods(journal: pd.DataFrame) -> pd.DataFrame:
    """What validation pictures chose of each method on each pair, with its gain and its rank."""
    runs = journal[journal["question"] == "methods"].copy()
    early = runs["read"] < runs["places"] - 1
    probe = runs["method"] == "layer_probe"
    runs["method"] = runs["method"].where(~early | probe, runs["method"] + EARLY)
    middle = _at_the_middle(runs[runs["method"] == "ap"]).assign(method=MIDDLE)
    runs = pd.concat([runs, middle, *_random(journal, runs)], ignore_index=True)
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
    own = table.set_index(PAIR).index
    table["gain"] = 100 * (table["test_accuracy"] - own.map(linear))
    table[[*MORE.values()]] = float("nan")
    read_early = table["method"].str.endswith(EARLY)
    for name, at in (("ap", ~read_early), ("ap" + EARLY, read_early), (MIDDLE, ~read_early)):
        prompt = table[table["method"] == name].set_index(PAIR)["test_accuracy"]
        if not len(prompt):
            continue
        there = table[at].set_index(PAIR).index.map(prompt)
        more = 100 * (there - table.loc[at, "test_accuracy"].to_numpy())
        table.loc[at, MORE[name.removesuffix(EARLY)]] = more
    once = ~table["method"].isin(UNRANKED)
    table["rank"] = table[once].groupby(PAIR)["test_accuracy"].rank(ascending=False)
    of_prompt = table[table["method"] == "ap"].set_index(PAIR)["parameters"]
    small = once & (table["parameters"].to_numpy() <= own.map(of_prompt).to_numpy())
    table["rank_small"] = table[small].groupby(PAIR)["test_accuracy"].rank(ascending=False)
    return table


def _at_the_middle(prompts: pd.DataFrame) -> pd.DataFrame:
    """The runs of AP at the place of each pair that lies nearest the middle of its network."""
    off = (prompts["layer"] / (prompts["places"] - 1) - 0.5).abs()
    nearest = off.groupby([prompts[name] for name in PAIR]).transform("min")
    tied = prompts[off == nearest]
    first = tied.groupby(PAIR)["layer"].transform("min")
    return tied[tied["layer"] == first]


def _random(journal: pd.DataFrame, runs: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The sweeps' random patterns on the same pairs, read at the end: at any place, and at the
    middle."""
    asked = journal["question"].isin(["sweep", "pretraining"]) & (journal["method"] == "random")
    same = pd.MultiIndex.from_frame(journal[PAIR]).isin(pd.MultiIndex.from_frame(runs[PAIR]))
    found = journal[asked & same & (journal["read"] == journal["places"] - 1)]
    if len(found):
        yield found.assign(method=RANDOM)
        yield _at_the_middle(found).assign(method=RANDOM_MIDDLE)


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over the linear probe and mean rank of each method, over networks."""
    rows = []
    for method, part in table.groupby("method", sort=False):
        gain = clustered_mean(part["gain"], part["network"])
        rank = clustered_mean(part["rank"], part["network"])
        ranked = part.dropna(subset=["rank_small"])
        small = clustered_mean(ranked["rank_small"], ranked["network"])
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
                "rank_small": small.value,
                "rank_small_low": small.low,
                "rank_small_high": small.high,
                "pairs_small": len(ranked),
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

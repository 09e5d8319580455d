"""The claims that compare methods (9, 10, 23, V5), from the campaign's comparison of all methods.

Every method read at the end, at its own best rate; AP at the place that validation chose, so with
several times the runs. Networks are the units. Where chosen runs were still moving by the plan's
rule the numbers are shown and nothing is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analyses.campaign_methods import EARLY, MIDDLE, PAIR, UNRANKED
from analyses.evidence import NotMeasured
from analyses.judges import Finding, Judge, all_or_part, verdict, where_settled
from analyses.results import Results
from aptheory.findings.statistics import Interval, clustered_mean

NOT_OF_THE_CLAIM = (*UNRANKED, "full", "layer_probe", "vp", "vp_rank1", "vp_rank4")
"""What is no parameter-efficient method beside AP, or another name of it at the image."""


def gap(table: pd.DataFrame, one: str, other: str) -> Interval:
    """Mean of one method's test accuracy less another's on the same pairs, in points.

    Raises:
        NotMeasured: no pair has both.
    """
    first, second = (
        table[table["method"] == method].set_index(PAIR)["test_accuracy"] for method in (one, other)
    )
    both = (100 * (first - second)).dropna()
    if both.empty:
        raise NotMeasured(f"{one} − {other}")
    return clustered_mean(both, both.index.get_level_values("network"))


def _of_kind(results: Results, vit: bool | None) -> pd.DataFrame:
    table = results.table("evidence/methods")
    return table if vit is None else table[(table["kind"] == "vit") == vit]


def _where_settled(finding: Finding, table: pd.DataFrame, methods: Sequence[str]) -> Finding:
    """The finding, not judged where a chosen run of these methods was still moving."""
    used = table[table["method"].isin(methods)]
    return where_settled(finding, int((~used["converged"].astype(bool)).sum()), len(used))


def order(results: Results) -> Finding:
    """AP is no worse than NORM-TUNE, and NORM-TUNE beats the linear probe."""
    table = _of_kind(results, None)
    first, second = gap(table, "ap", "norm_tuning"), gap(table, "norm_tuning", "linear_probe")
    middle = gap(table, MIDDLE, "norm_tuning")
    finding = Finding(
        f"{first:+.2f} points",
        verdict(first.low >= 0 and second.low > 0, first.high < 0 or second.high < 0),
        n=first.n,
        unit="networks",
        further=(
            f"NORM-TUNE − LINEAR-PROBE: {second:+.2f} points",
            f"AP at the place nearest the middle (equal search) − NORM-TUNE: {middle:+.2f} points",
        ),
    )
    return _where_settled(finding, table, ("ap", MIDDLE, "norm_tuning", "linear_probe"))


def beats(one: str, other: str, *, vit: bool | None = None) -> Judge:
    """One method beats another."""

    def judge(results: Results) -> Finding:
        table = _of_kind(results, vit)
        gain = gap(table, one, other)
        judged = verdict(gain.low > 0, gain.high < 0)
        finding = Finding(f"{gain:+.2f} points", judged, n=gain.n, unit="networks")
        return _where_settled(finding, table, (one, other))

    return judge


def rank(results: Results) -> Finding:
    """AP's place among the parameter-efficient methods, by a ViT's mean accuracy over tasks."""
    table = _of_kind(results, vit=True)
    table = table[~table["method"].str.endswith(EARLY)]
    table = table[~table["method"].isin(NOT_OF_THE_CLAIM)]
    said, places = [], []
    for network, rows in table.groupby("network"):
        means = rows.groupby("method")["test_accuracy"].mean().sort_values(ascending=False)
        if "ap" not in means:
            continue
        place = list(means.index).index("ap") + 1
        listed = ", ".join(f"{name} {100 * value:.1f}" for name, value in means.items())
        said.append(
            f"{network} ({rows['task'].nunique()} tasks): AP ranks {place} of {len(means)}: "
            f"{listed}"
        )
        places.append(place)
    if not places:
        raise NotMeasured("AP on ViTs")
    finding = Finding(
        "ranks " + ", ".join(map(str, places)),
        all_or_part([2 <= place <= 4 for place in places]),
        n=len(places),
        unit="networks",
        further=tuple(said),
    )
    return _where_settled(finding, table, tuple(table["method"].unique()))

"""The claims about prompts and their places (7, 8, 11 to 13, 25, 27), from the campaign's sweeps.

About 210 optimiser steps, four rates at every place, two draws of most pairs. Networks are the
units. Where chosen runs were still moving by the plan's rule, the numbers are shown and nothing is
judged.
"""

from __future__ import annotations

import pandas as pd

from analyses import evidence
from analyses.campaign_tables import mean_over_draws
from analyses.evidence import NotMeasured
from analyses.judges import UNDECIDED, Finding, Judge, verdict, where_settled
from analyses.results import Results
from aptheory.findings.statistics import Interval, clustered_mean, mean_correlation

PLACES = {
    "ap_papers_place": "at the paper's place",
    "ap_elsewhere": "at the place that the network's other tasks choose",
}
SHIFT = {False: "far from the pretraining", True: "near it"}


def _pairs(results: Results, vit: bool | None = None) -> pd.DataFrame:
    table = results.table("evidence/pairs")
    table = table if vit is None else table[(table["kind"] == "vit") == vit]
    if table.empty:
        raise NotMeasured("a sweep of the campaign")
    return table


def _gap(table: pd.DataFrame, one: str, other: str) -> Interval:
    """Mean of a rival's test accuracy less another's, in points."""
    known = table.dropna(subset=[one, other])
    if known.empty:
        raise NotMeasured(f"{one} − {other}")
    return clustered_mean(100 * (known[one] - known[other]), known["network"], known["task"])


def _told(
    interval: Interval,
    judged: str,
    table: pd.DataFrame,
    *further: str,
    spec: str = "+.2f points",
    why: str = "",
) -> Finding:
    """The finding that stands on one interval, judged where the runs had settled."""
    finding = Finding(
        format(interval, spec), judged, n=interval.n, unit="networks", why=why, further=further
    )
    return where_settled(finding, int(table["moving"].sum()), int(table["runs"].sum()))


def _at_other_places(table: pd.DataFrame, rival: str, words: str) -> list[str]:
    """The same difference where AP's place was not chosen on the pair itself."""
    return [
        f"AP {where} − {words}: {_gap(table, column, rival):+.2f} points"
        for column, where in PLACES.items()
        if table[column].notna().any()
    ]


def against_vp(*, vit: bool) -> Judge:
    """AP at the place that validation chooses beats VP, which is AP at the image."""

    def judge(results: Results) -> Finding:
        table = _pairs(results, vit)
        gain = _gap(table, "ap_end", "vp_end")
        random = _gap(table, "ap_end", "random_end")
        further = (
            *_at_other_places(table, "vp_end", "VP"),
            f"AP − random pattern of its norm at the same place: {random:+.2f} points",
        )
        return _told(gain, verdict(gain.low > 0, gain.high < 0), table, *further)

    return judge


def preference(*, vit: bool) -> Judge:
    """CNNs are better prompted deep, ViTs shallow: the correlation of accuracy and depth."""

    def judge(results: Results) -> Finding:
        table = _pairs(results, vit)

        def trend(column: str, rows: pd.DataFrame = table) -> Interval:
            return mean_correlation(rows[column], rows["network"], rows["task"])

        end = trend("slope_end")
        deep, shallow = end.low > 0, end.high < 0
        further = [f"read at the best probe's place: {trend('slope_read_early'):+.2f}"]
        further += [
            f"on tasks {words}: {trend('slope_end', table[table['near'] == near]):+.2f}"
            for near, words in SHIFT.items()
        ]
        depth = mean_over_draws(table)["depth_end"]
        further.append(
            f"best place at {depth.median():.2f} of the depth (median of {len(depth)} pairs)"
        )
        judged = verdict(shallow, deep) if vit else verdict(deep, shallow)
        return _told(end, judged, table, *further, spec="+.2f")

    return judge


def architecture(results: Results) -> Finding:
    """Most of the variance of the best place's depth lies between networks, not between tasks."""
    table = _pairs(results)
    depths = mean_over_draws(table).rename(columns={"depth_end": "depth"})
    share = evidence.share_between_networks(depths)
    why = (
        "the share of the variance of the best place's depth that lies between networks "
        "(intraclass correlation); the claim holds where it is above one half"
    )
    judged = verdict(share.low > 0.5, share.high < 0.5)
    return _told(share, judged, table, spec="+.2f", why=why)


def small(results: Results) -> Finding:
    """What AP gains over the linear probe; the campaign's networks are all small."""
    table = _pairs(results)
    return _told(_gap(table, "ap_end", "linear_probe"), UNDECIDED, table)


def more_than_probe(results: Results) -> Finding:
    """AP beats the linear probe and the probe of the place that it stands at."""
    table = _pairs(results)
    linear, own = _gap(table, "ap_end", "linear_probe"), _gap(table, "ap_end", "own_probe")
    best = _gap(table, "ap_end", "layer_probe")
    random = _gap(table, "ap_end", "random_end")
    further = (
        f"AP − probe of the same place: {own:+.2f} points",
        *_at_other_places(table, "linear_probe", "LINEAR-PROBE"),
        f"AP − random pattern of its norm at the same place: {random:+.2f} points",
        f"AP − probe of the place best on validation: {best:+.2f} points",
    )
    judged = verdict(linear.low > 0 and own.low > 0, linear.high < 0 or own.high < 0)
    why = "AP − linear probe, and AP − the probe of its own place, must both be above zero"
    return _told(linear, judged, table, *further, why=why)

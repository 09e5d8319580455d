"""From result tables to a finding: the judges that the claims name.

A judge reads tables and returns what was measured with the verdict that the numbers give; the
verdict is computed, never typed. Where a judge has options, a function of them returns it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analyses import evidence
from analyses.evidence import NotMeasured
from analyses.results import Results
from aptheory.errors import InputError
from aptheory.findings.relate import across
from aptheory.findings.statistics import Interval

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
PARTLY, UNDECIDED = "partly reproduced", "undecided"
NOT_TESTABLE, NOT_WITH_THESE = "not testable here", "not testable with these runs"


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim, the verdict, and the reason where one is owed.

    ``number`` is the one that the verdict stands on, ``n`` counts its independent ``unit``s, and
    ``further`` are other numbers, each with what it is.
    """

    number: str
    verdict: str
    why: str = ""
    n: int = 0
    unit: str = ""
    further: tuple[str, ...] = ()


Judge = Callable[[Results], Finding]


def verdict(holds: bool, fails: bool) -> str:
    """Reproduced where the interval says so, not where it says the contrary, else undecided."""
    return REPRODUCED if holds else NOT_REPRODUCED if fails else UNDECIDED


def all_or_part(each: list[bool]) -> str:
    """Reproduced where every case agrees, partly where one does."""
    return REPRODUCED if all(each) else PARTLY if any(each) else NOT_REPRODUCED


def _on(interval: Interval, judged: str, spec: str = "+.2f points", **more: Any) -> Finding:
    """The finding that stands on one interval; its note becomes the reason where there is none."""
    number = format(replace(interval, note=""), spec)
    return Finding(
        number, judged, n=interval.n, unit=interval.unit, **({"why": interval.note} | more)
    )


def _sign(interval: Interval) -> str:
    return verdict(interval.low > 0, interval.high < 0)


def _kind(table: pd.DataFrame, vit: bool) -> pd.DataFrame:
    return table[table["network"].map(evidence.is_vit) == vit]


def _method(accuracy: pd.DataFrame, method: str) -> pd.DataFrame:
    """Test accuracies of a method: VP is AP at the image, AP stands where validation puts it."""
    if method == "vp":
        return evidence.at_layer(accuracy, "ap", 0)
    if method == "ap":
        return evidence.chosen(accuracy)
    return evidence.at_layer(accuracy, method)


def equivalence(claim: int, *, differs: bool = False) -> Judge:
    """The worst case over networks: equalities within 1e-6, differences (if any) above 1e-3."""

    def judge(results: Results) -> Finding:
        table = results.table("equivalence")
        rows = table[table["claim"] == claim]
        unequal = rows["measure"].str.startswith("smallest")
        errors, networks = rows[~unequal]["value"].max(), rows["network"].nunique()
        smallest = rows[unequal].groupby("statement")["value"].min()
        holds = errors <= 1e-6 and bool((smallest > 1e-3).all())
        return Finding(
            f"largest error {errors:.1g}",
            verdict(holds and (len(smallest) > 0 or not differs), not holds),
            n=networks,
            unit="networks",
            further=tuple(f"{what}: at least {value:.2g}" for what, value in smallest.items()),
        )

    return judge


def ap_against_vp(*, vit: bool) -> Judge:
    """AP at the layer chosen on validation beats VP on networks of one kind, in the sweeps."""

    def judge(results: Results) -> Finding:
        accuracy = _kind(results.gathered("accuracy"), vit)
        ap = evidence.chosen(accuracy)
        gain = evidence.gap(ap, evidence.at_layer(accuracy, "ap", 0), "AP − VP")
        return _on(gain, _sign(gain), further=tuple(_over_random(ap, accuracy)))

    return judge


def _at_same(ap: pd.DataFrame, accuracy: pd.DataFrame, method: str) -> pd.DataFrame:
    """Test accuracy of another method at the layers where AP stands."""
    rows = accuracy[(accuracy["method"] == method) & (accuracy["measure"] == "test_accuracy")]
    keys = ["network", "task", "seed", "layer"]
    return rows[[*keys, "value"]].merge(ap[keys], on=keys)


def _over_random(ap: pd.DataFrame, accuracy: pd.DataFrame) -> list[str]:
    """AP minus an untrained pattern of its norm at the same layer, where that was run."""
    random = _at_same(ap, accuracy, "random_perturbation")
    if random.empty:
        return []
    gain = evidence.gap(ap, random, "AP − random pattern")
    return [f"AP − random pattern of its norm at the same layer: {gain:+.2f} points"]


def order(results: Results) -> Finding:
    """AP is no worse than NORM-TUNE, and NORM-TUNE beats the linear probe."""
    accuracy = results.methods()
    ap, norm, probe = (_method(accuracy, name) for name in ("ap", "norm_tuning", "linear_probe"))
    first = evidence.gap(ap, norm, "AP − NORM-TUNE")
    second = evidence.gap(norm, probe, "NORM-TUNE − LINEAR-PROBE")
    judged = verdict(first.low >= 0 and second.low > 0, first.high < 0 or second.high < 0)
    return _on(first, judged, further=(f"NORM-TUNE − LINEAR-PROBE: {second:+.2f} points",))


def beats(a: str, b: str, *, vit_only: bool = False) -> Judge:
    """One method beats another in the method comparisons."""

    def judge(results: Results) -> Finding:
        accuracy = results.methods()
        accuracy = _kind(accuracy, True) if vit_only else accuracy
        gain = evidence.gap(_method(accuracy, a), _method(accuracy, b), f"{a} − {b}")
        return _on(gain, _sign(gain))

    return judge


def preference(*, vit: bool) -> Judge:
    """CNNs are better prompted deep, ViTs shallow: the sign of accuracy's trend over depth."""

    def judge(results: Results) -> Finding:
        accuracy = _kind(results.gathered("accuracy"), vit)
        # The classifier's input is the linear probe, so it is no place of a prompt.
        trend = evidence.depth_correlation(_without_last(accuracy))
        depths = evidence.best_depths(accuracy)["depth"]
        median = f"best place at {depths.median():.2f} of the depth (median of {len(depths)} pairs)"
        deep, shallow = trend.low > 0, trend.high < 0
        judged = verdict(shallow, deep) if vit else verdict(deep, shallow)
        return _on(trend, judged, "+.2f", further=(median,))

    return judge


def _without_last(accuracy: pd.DataFrame) -> pd.DataFrame:
    last = accuracy.groupby("network")["layer"].transform("max")
    return accuracy[accuracy["layer"] < last]


def architecture(results: Results) -> Finding:
    """Most of the variance of the best place's depth lies between networks, not between tasks."""
    share = evidence.share_between_networks(evidence.best_depths(results.gathered("accuracy")))
    why = (
        "the share of the variance of the best place's depth that lies between networks "
        "(intraclass correlation); the claim holds where it is above one half"
    )
    return _on(share, verdict(share.low > 0.5, share.high < 0.5), "+.2f", why=why)


def cka(results: Results) -> Finding:
    """On each task the deepest third of a CNN's layers is most like the middle half of a ViT."""
    table = results.table("cka_between/cka")
    further, middle = [], []
    for (cnn, vit, task), rows in table.groupby(["network", "other_network", "task"]):
        wide = rows.pivot_table(index="layer", columns="other_layer", values="value")
        best = wide.idxmax(axis=1) / wide.columns.max()
        depth = float(best[best.index >= 2 / 3 * wide.index.max()].median())
        further.append(f"{task}: deep layers of {cnn} match {vit} at {depth:.2f} of its depth")
        middle.append(0.25 <= depth <= 0.75)
    number = f"in the middle half in {sum(middle)} of {len(middle)}"
    unit = "pairs of networks, per task"
    why = "the layer that is most alike is found on each task, never after averaging over tasks"
    return Finding(number, all_or_part(middle), why, len(middle), unit, tuple(further))


def distance(results: Results) -> Finding:
    """Mean attention distance falls over the blocks of each network, on each of its tasks.

    A network agrees, or contradicts, where the rank correlation of depth and distance is at least
    one half in size and of one sign on all of its tasks.
    """
    profile = results.gathered("profile")
    slopes = evidence.slopes(profile[profile["measure"] == "attention_distance"])
    further, falls, rises = [], [], []
    for network, rhos in slopes.groupby("network")["value"]:
        bounds = f"{rhos.min():+.2f} to {rhos.max():+.2f}" if len(rhos) > 1 else "one task"
        further.append(f"{network}: Spearman {rhos.mean():+.2f} ({bounds})")
        falls.append(bool((rhos <= -0.5).all()))
        rises.append(bool((rhos >= 0.5).all()))
    return Finding(
        f"falls on {sum(falls)}, rises on {sum(rises)} of {len(falls)}",
        PARTLY if any(falls) and not all(falls) else verdict(all(falls), any(rises)),
        "judged network by network: at least 0.5 in size and of one sign on each of its tasks",
        len(falls),
        "networks",
        tuple(further),
    )


def globality(results: Results) -> Finding:
    """Accuracy over layers goes with attention distance and globality."""
    relation = results.gathered("relation")
    rows = relation[(relation["target"] == "ap") & (relation["statistic"] == "spearman")]
    said, holds, fails, networks = [], [], [], []
    for measure in ("attention_distance", "globality"):
        some = rows[rows["measure"] == measure]
        if some.empty:
            continue
        row = across(some).iloc[0]
        said.append(
            f"{measure.replace('_', ' ')} {row['value']:+.2f} [{row['low']:+.2f}, "
            f"{row['high']:+.2f}]"
        )
        holds.append(row["low"] > 0)
        fails.append(row["high"] < 0)
        networks.append(int(row["networks"]))
    if not said:
        raise NotMeasured("attention distance or globality")
    judged = verdict(all(holds), any(fails) and not any(holds))
    return Finding(said[0], judged, n=networks[0], unit="networks", further=tuple(said[1:]))


def theory(claim: str) -> Judge:
    """The verdict that `analyses.theory_verdicts` gave."""

    def judge(results: Results) -> Finding:
        rows = results.table("theory/verdicts/verdicts")
        rows = rows[rows["claim"].astype(str) == claim]
        if rows.empty:
            raise NotMeasured(claim)
        said = rows.iloc[0]
        why = "" if pd.isna(said["why"]) else str(said["why"])
        numbers = tuple(str(said["number"]).split("; "))
        if len(numbers) == 1:
            return Finding(numbers[0], str(said["verdict"]), why)
        number, unit = f"{len(numbers)} numbers, below", "settings"
        return Finding(number, str(said["verdict"]), why, len(numbers), unit, numbers)

    return judge


def cost(kind: str, time: tuple[float, float], memory: float) -> Judge:
    """AP's step takes a share of VP's time within two bounds, and at most ``memory`` of its memory.

    A network agrees where the whole interval of the time and the memory do.
    """

    def judge(results: Results) -> Finding:
        table = results.steps()
        rows = table[(table["kind"] == kind) & (table["method"] == "ap")]
        if rows.empty:
            raise NotMeasured(kind)
        said, met = [], []
        for network, pair in rows.groupby("network", sort=False):
            for row in pair.sort_values("kept").to_dict("records"):
                kept = ", from kept activations" if row["kept"] else ""
                said.append(
                    f"{network}{kept}: time {_interval(row, 'measured_ratio')} of VP's (predicted "
                    f"{row['predicted_ratio']:.2f}), memory {row['memory_ratio']:.2f}"
                )
            plain = pair[~pair["kept"]].iloc[0]
            low, high = plain["measured_ratio_low"], plain["measured_ratio_high"]
            met.append(time[0] <= low and high <= time[1] and plain["memory_ratio"] <= memory)
        why = (
            f"holds for a network where the interval of its time lies in {time[0]:g} to "
            f"{time[1]:g} of VP's and its memory is at most {memory:g}; memory is what a step "
            "allocates beyond the weights and its input"
        )
        return Finding(said[0], all_or_part(met), why, len(met), "networks", tuple(said[1:]))

    return judge


def _interval(row: Mapping[str, Any] | pd.Series, name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def throughput(results: Results) -> Finding:
    """AP's interval reaches 95 % of the frozen network's throughput; every VPT's stays below it."""
    table = results.table("cost/steps")
    table = table[(table["kind"] == "vit") & ~table["kept"]].set_index("method")
    prompts = table[table.index.str.contains("^ap|^vpt|^vapt")]
    said = [f"{name} {_interval(row, 'throughput_ratio')}" for name, row in prompts.iterrows()]
    ap, vpt = table.loc["ap"], table[table.index.str.startswith("vpt")]
    keeps = ap["throughput_ratio_high"] >= 0.95
    less = vpt["throughput_ratio_high"].max() < ap["throughput_ratio_low"]
    why = "shares of the frozen network's throughput, ViT-S/16"
    return Finding(said[0], all_or_part([keeps, less]), why, 1, "network", tuple(said[1:]))


def count(results: Results) -> Finding:
    """AP on the paper's ResNet-101 has about 0.2 M parameters."""
    table = results.table("cost/parameters").set_index("what")["parameters"]
    place = "AP at ResNet-101 layer4's input"
    others = tuple(f"{what}: {count:,}" for what, count in table.drop(place).items())
    judged = REPRODUCED if 1.5e5 <= table[place] <= 2.5e5 else NOT_REPRODUCED
    return Finding(f"{table[place]:,} ({place})", judged, n=1, unit="network", further=others)


def rank(results: Results) -> Finding:
    """AP's place among the parameter-efficient methods, by a ViT's mean accuracy over tasks."""
    accuracy = _kind(results.methods(), True)
    beside = ("layer_probe", "random_perturbation", "full", "ap:read")  # not the claim's methods
    accuracy = accuracy[~accuracy["method"].str.startswith(beside)]
    said, places = [], []
    for network, rows in accuracy.groupby("network"):
        means = {name: _method(rows, name)["value"].mean() for name in rows["method"].unique()}
        if "ap" not in means:
            continue
        ranked = sorted(means, key=lambda name: -means[name])
        place = ranked.index("ap") + 1
        listed = ", ".join(f"{name} {100 * means[name]:.1f}" for name in ranked)
        tasks = rows["task"].nunique()
        over = f"{tasks} tasks" if tasks > 1 else "1 task"
        said.append(f"{network} ({over}): AP ranks {place} of {len(ranked)}: {listed}")
        places.append(place)
    if not places:
        raise NotMeasured("AP on ViTs")
    judged = all_or_part([2 <= place <= 4 for place in places])
    number = "ranks " + " and ".join(map(str, places))
    return Finding(number, judged, n=len(places), unit="networks", further=tuple(said))


def not_testable(why: str) -> Judge:
    """A claim that nothing here can test, and why."""
    return lambda results: Finding("–", NOT_TESTABLE, why)


def where_settled(finding: Finding, moving: int, runs: int) -> Finding:
    """The finding, shown and not judged where some of its runs had not converged."""
    if not moving:
        return finding
    why = (
        f"{moving} of the {runs} chosen runs were still moving at the end by the plan's rule, and "
        "no verdict rests on such runs"
    )
    return replace(finding, verdict=NOT_WITH_THESE, why=f"{finding.why}; {why}".lstrip("; "))


def beside(judge: Judge, other: Judge, words: str) -> Judge:
    """What another judge finds on other runs, as a further number."""

    def both(results: Results) -> Finding:
        finding = judge(results)
        try:
            found = other(results)
        except NotMeasured:
            return finding
        units = f" ({found.n} {found.unit})" if found.n else ""
        return replace(finding, further=(*finding.further, f"{words}{units}: {found.number}"))

    return both


def not_with_these_runs(judge: Judge, why: str) -> Judge:
    """What the runs give is shown and not judged: they cannot decide the claim, and why."""

    def shown(results: Results) -> Finding:
        return replace(judge(results), verdict=NOT_WITH_THESE, why=why)

    return shown


def small(results: Results) -> Finding:
    """What AP gains over the linear probe; the networks of the sweeps are all small."""
    accuracy = results.gathered("accuracy")
    ap, probe = _method(accuracy, "ap"), _method(accuracy, "linear_probe")
    gain = evidence.gap(ap, probe, "AP − LINEAR-PROBE")
    return _on(gain, UNDECIDED)


def seeds(results: Results) -> Finding:
    """The typical spread of AP's accuracy over seeds is at most 0.3 points."""
    spread = evidence.spread_over_seeds(results.gathered("accuracy"))
    return _on(spread, verdict(spread.high <= 0.3, spread.low > 0.3))


def more_than_probe(results: Results) -> Finding:
    """AP beats the linear probe and the probe of the layer that it stands at."""
    accuracy = results.gathered("accuracy")
    ap = evidence.chosen(accuracy)
    linear = evidence.gap(ap, evidence.at_layer(accuracy, "linear_probe"), "AP − LINEAR-PROBE")
    own = evidence.gap(ap, _at_same(ap, accuracy, "layer_probe"), "AP − layer probe")
    judged = verdict(linear.low > 0 and own.low > 0, linear.high < 0 or own.high < 0)
    further = [f"AP − probe of the same layer: {own:+.2f} points"]
    further += _over_random(ap, accuracy)
    with contextlib.suppress(NotMeasured, InputError):
        best = evidence.gap(ap, evidence.chosen(accuracy, "layer_probe"), "AP − best layer probe")
        further.append(f"AP − probe of the layer best on validation: {best:+.2f} points")
    why = "AP − linear probe, and AP − the probe of its own layer, must both be above zero"
    return _on(linear, judged, why=why, further=tuple(further))

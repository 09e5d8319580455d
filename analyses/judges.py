"""From result tables to a finding: the judges that the claims name.

A judge reads tables and returns what was measured with the verdict that the numbers give; the
verdict is computed, never typed. Where a judge has options, a function of them returns it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analyses import evidence
from analyses.evidence import Evidence, NotMeasured
from analyses.results import Results
from aptheory.findings.relate import across

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
PARTLY, UNDECIDED = "partly reproduced", "undecided"


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim, the verdict, and the reason where one is owed."""

    number: str
    verdict: str
    why: str = ""


Judge = Callable[[Results], Finding]


def verdict(holds: bool, fails: bool) -> str:
    """Reproduced where the interval says so, not where it says the contrary, else undecided."""
    return REPRODUCED if holds else NOT_REPRODUCED if fails else UNDECIDED


def all_or_part(each: list[bool]) -> str:
    """Reproduced where every case agrees, partly where one does."""
    return REPRODUCED if all(each) else PARTLY if any(each) else NOT_REPRODUCED


def _above_zero(found: Evidence) -> str:
    return verdict(found.above_zero, found.below_zero)


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
        errors = rows[~unequal]["value"].max()
        said = f"largest error {errors:.1g} over {rows['network'].nunique()} networks"
        holds = errors <= 1e-6
        for row in rows[unequal].groupby(["statement", "measure"])["value"].min().items():
            (statement, _), value = row
            said += f"; {statement}: at least {value:.2g}"
            holds &= value > 1e-3
        return Finding(said, verdict(holds and (unequal.any() or not differs), not holds))

    return judge


def ap_against_vp(*, vit: bool) -> Judge:
    """AP beats VP on networks of one kind, in the layer sweeps."""

    def judge(results: Results) -> Finding:
        accuracy = _kind(results.gathered("accuracy"), vit)
        found = evidence.gap(
            evidence.chosen(accuracy),
            evidence.at_layer(accuracy, "ap", 0),
            "AP at the layer chosen on validation − VP, over network-task pairs",
        )
        return Finding(f"{found} (n = {found.count})", _above_zero(found))

    return judge


def order(results: Results) -> Finding:
    """AP is no worse than NORM-TUNE, and NORM-TUNE beats the linear probe."""
    accuracy = results.methods()
    ap, norm, probe = (_method(accuracy, name) for name in ("ap", "norm_tuning", "linear_probe"))
    first = evidence.gap(ap, norm, "AP − NORM-TUNE")
    second = evidence.gap(norm, probe, "NORM-TUNE − LINEAR-PROBE")
    holds = first.high >= 0 and second.above_zero and first.value >= 0
    fails = first.below_zero or second.below_zero
    return Finding(f"{first}; {second}", verdict(holds, fails))


def beats(a: str, b: str, what: str, *, vit_only: bool = False) -> Judge:
    """One method beats another in the method comparisons."""

    def judge(results: Results) -> Finding:
        accuracy = results.methods()
        accuracy = _kind(accuracy, True) if vit_only else accuracy
        found = evidence.gap(_method(accuracy, a), _method(accuracy, b), what)
        return Finding(str(found), _above_zero(found))

    return judge


def preference(*, vit: bool) -> Judge:
    """CNNs are better prompted deep, ViTs shallow: the sign of accuracy's trend over depth."""

    def judge(results: Results) -> Finding:
        accuracy = _kind(results.gathered("accuracy"), vit)
        # The classifier's input is the linear probe, so it is no place of a prompt.
        found = evidence.depth_correlation(_without_last(accuracy), "Spearman(depth, accuracy)")
        depths = evidence.best_depths(accuracy)["depth"]
        said = (
            f"{found}; best place at {depths.median():.2f} of the depth (median of {len(depths)})"
        )
        holds = found.below_zero if vit else found.above_zero
        fails = found.above_zero if vit else found.below_zero
        return Finding(said, verdict(holds, fails))

    return judge


def _without_last(accuracy: pd.DataFrame) -> pd.DataFrame:
    last = accuracy.groupby("network")["layer"].transform("max")
    return accuracy[accuracy["layer"] < last]


def architecture(results: Results) -> Finding:
    """The best depth differs less between a network's tasks than between networks."""
    depths = evidence.best_depths(results.gathered("accuracy"))
    several = depths.groupby("network").filter(lambda group: len(group) > 1)
    if several.empty:
        raise NotMeasured("several tasks of a network")
    within = float(several.groupby("network")["depth"].std().mean())
    between = float(several.groupby("network")["depth"].mean().std())
    said = (
        f"standard deviation of the best place's depth: {within:.2f} over the tasks of a network, "
        f"{between:.2f} over networks"
    )
    return Finding(
        said,
        REPRODUCED if within < between else NOT_REPRODUCED,
        "" if within < between else "the task moves the best layer more than the network does",
    )


def cka(results: Results) -> Finding:
    """The deepest third of a CNN's layers is most like the middle half of a ViT."""
    table = results.table("cka_between/cka")
    said, slopes = [], []
    for pair, rows in table.groupby(["network", "other_network"]):
        wide = rows.pivot_table(index="layer", columns="other_layer", values="value")
        best = wide.idxmax(axis=1) / wide.columns.max()
        deep = best[best.index >= 2 / 3 * wide.index.max()]
        slopes.append(float(deep.median()))
        said.append(f"deep layers of {pair[0]} match {pair[1]} at {deep.median():.2f} of depth")
    middle = [0.25 <= value <= 0.75 for value in slopes]
    return Finding("; ".join(said), all_or_part(middle))


def distance(results: Results) -> Finding:
    """Mean attention distance falls over the blocks."""
    profile = _kind(results.gathered("profile"), True)
    found = evidence.metric_slope(
        profile, "attention_distance", "Spearman(depth, mean attention distance) over blocks"
    )
    return Finding(str(found), verdict(found.below_zero, found.above_zero))


def globality(results: Results) -> Finding:
    """Accuracy over layers goes with attention distance and globality."""
    relation = results.gathered("relation")
    rows = relation[(relation["target"] == "ap") & (relation["statistic"] == "spearman")]
    said, holds, fails = [], [], []
    for measure in ("attention_distance", "globality"):
        some = rows[rows["measure"] == measure]
        if some.empty:
            continue
        row = across(some).iloc[0]
        clear = int((some["q"] <= 0.05).sum())
        said.append(
            f"{measure.replace('_', ' ')}: {row['value']:+.2f} [{row['low']:+.2f}, "
            f"{row['high']:+.2f}], {clear} of {len(some)} clear after correction"
        )
        holds.append(row["low"] > 0)
        fails.append(row["high"] < 0)
    if not said:
        raise NotMeasured("attention distance or globality")
    return Finding("; ".join(said), verdict(all(holds), any(fails) and not any(holds)))


def theory(claim: str) -> Judge:
    """The verdict that `analyses.theory_verdicts` gave."""

    def judge(results: Results) -> Finding:
        rows = results.table("theory/verdicts/verdicts")
        rows = rows[rows["claim"].astype(str) == claim]
        if rows.empty:
            raise NotMeasured(claim)
        said = rows.iloc[0]
        why = "" if pd.isna(said["why"]) else str(said["why"])
        return Finding(str(said["number"]), str(said["verdict"]), why)

    return judge


def cost(kind: str, low: float, high: float) -> Judge:
    """AP's step takes a share of VP's time between two bounds, on networks of one kind."""

    def judge(results: Results) -> Finding:
        table = results.steps()
        rows = table[(table["kind"] == kind) & (table["method"] == "ap")]
        if rows.empty:
            raise NotMeasured(kind)
        said, met = [], []
        for network, pair in rows.groupby("network", sort=False):
            plain, kept = (pair[pair["kept"] == kept].iloc[0] for kept in (False, True))
            said.append(
                f"{network}: time {_interval(plain, 'measured_ratio')} of VP's (predicted "
                f"{plain['predicted_ratio']:.2f}), memory {plain['memory_ratio']:.2f}; from kept "
                f"activations time {_interval(kept, 'measured_ratio')} (predicted "
                f"{kept['predicted_ratio']:.2f}), memory {kept['memory_ratio']:.2f}"
            )
            met.append(low <= plain["measured_ratio"] <= high)
        why = "memory is what a step allocates beyond the weights and its input"
        return Finding("; ".join(said), all_or_part(met), why)

    return judge


def _interval(row: pd.Series, name: str) -> str:
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
    return Finding(
        f"of the frozen network's, ViT-S/16: {'; '.join(said)}", all_or_part([keeps, less])
    )


def count(results: Results) -> Finding:
    """AP on the paper's ResNet-101 has about 0.2 M parameters."""
    table = results.table("cost/parameters").set_index("what")["parameters"]
    said = "; ".join(f"{what}: {count:,}" for what, count in table.items())
    ap = table["AP at ResNet-101 layer4's input"]
    return Finding(said, REPRODUCED if 1.5e5 <= ap <= 2.5e5 else NOT_REPRODUCED)


def rank(results: Results) -> Finding:
    """AP's place among the parameter-efficient methods, by a ViT's mean accuracy over tasks."""
    accuracy = _kind(results.methods(), True)
    accuracy = accuracy[~accuracy["method"].isin(("layer_probe", "random_perturbation", "full"))]
    said, met = [], []
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
        met.append(2 <= place <= 4)
    if not met:
        raise NotMeasured("AP on ViTs")
    return Finding("; ".join(said), all_or_part(met))


def not_testable(why: str) -> Judge:
    """A claim that nothing here can test, and why."""
    return lambda results: Finding("–", "not testable here", why)


def small(results: Results) -> Finding:
    """AP gains little over the linear probe on small networks."""
    accuracy = results.gathered("accuracy")
    accuracy = accuracy[accuracy["network"].str.contains("tiny|mini|035|resnet56")]
    ap, probe = _method(accuracy, "ap"), _method(accuracy, "linear_probe")
    found = evidence.gap(ap, probe, "AP − LINEAR-PROBE")
    weak = found.high < 4
    return Finding(
        f"{found} over {found.count} pairs of small networks",
        verdict(weak, found.low > 4),
        "weak is read as less than the 4 points that the paper reports as AP's gain over VP",
    )


def seeds(results: Results) -> Finding:
    """The typical spread of AP's accuracy over seeds."""
    found = evidence.spread_over_seeds(results.gathered("accuracy"))
    return Finding(str(found), REPRODUCED if found.value <= 0.3 else NOT_REPRODUCED)


def more_than_probe(results: Results) -> Finding:
    """AP beats the linear probe and the probe of the layer that it stands at."""
    accuracy = results.gathered("accuracy")
    ap = evidence.chosen(accuracy)
    linear = evidence.gap(ap, evidence.at_layer(accuracy, "linear_probe"), "AP − LINEAR-PROBE")
    probes = accuracy[
        (accuracy["method"] == "layer_probe") & (accuracy["measure"] == "test_accuracy")
    ]
    same = ap.merge(probes, on=["network", "task", "seed", "layer"], suffixes=("", "_probe"))
    own = evidence.gap(
        same[["network", "task", "seed", "value"]],
        same[["network", "task", "seed"]].assign(value=same["value_probe"]),
        "AP − probe of the same layer",
    )
    holds = linear.above_zero and own.above_zero
    return Finding(f"{linear}; {own}", verdict(holds, linear.below_zero or own.below_zero))

"""The papers' claims, each with what we measured and the verdict that the numbers give.

A claim is data and one function: `judge` reads result tables and returns a `Finding`. The verdict
is computed, never typed. What the papers say carries the mark of how we know it:

- [read]: the abstract or the proceedings' own page; [2nd]: two independent digests of the text;
- [recalled]: from memory, never to be quoted as the paper's statement; [derived]: proved and
  checked here; [paper], [code]: printed or released by VAPT's authors; [rebuilt]: reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analyses import evidence
from analyses.evidence import NotMeasured

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
PARTLY, UNDECIDED = "partly reproduced", "undecided"
NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim, the verdict, and the reason where one is owed."""

    number: str
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of paper_repro.md."""

    n: str
    says: str
    mark: str
    setting: str
    command: str
    figure: str
    judge: Callable[[Results], Finding]


class Results:
    """The folder of result tables; a table is read once."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._read: dict[str, pd.DataFrame] = {}

    def has(self, name: str) -> bool:
        """Whether the table NAME.csv is there."""
        return (self.folder / f"{name}.csv").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """The table FOLDER/NAME.csv.

        Raises:
            NotMeasured: its analysis has not been run.
        """
        if not self.has(name):
            raise NotMeasured(name)
        if name not in self._read:
            self._read[name] = pd.read_csv(self.folder / f"{name}.csv")
        return self._read[name]

    def gathered(self, name: str) -> pd.DataFrame:
        """NAME.csv of the embedded studies and of all on real weights, pretrained rows only."""
        patterns = (f"real/*/{name}.csv", f"layer_preference/*/{name}.csv")
        return evidence.pretrained(self._together(*patterns, f"layer_preference/{name}.csv"))

    def methods(self) -> pd.DataFrame:
        """Accuracies of the method comparisons, embedded and real."""
        return self._together("methods/accuracy.csv", "methods/*/accuracy.csv")

    def _together(self, *patterns: str) -> pd.DataFrame:
        paths = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
        if not paths:
            raise NotMeasured(patterns[0])
        return pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)


def verdict(holds: bool, fails: bool) -> str:
    """Reproduced where the interval says so, not where it says the contrary, else undecided."""
    return REPRODUCED if holds else NOT_REPRODUCED if fails else UNDECIDED


def _kind(table: pd.DataFrame, vit: bool) -> pd.DataFrame:
    return table[table["network"].map(evidence.is_vit) == vit]


def _equivalence(claim: int, *, differs: bool = False) -> Callable[[Results], Finding]:
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


def _ap_against_vp(vit: bool) -> Callable[[Results], Finding]:
    def judge(results: Results) -> Finding:
        accuracy = _kind(results.gathered("accuracy"), vit)
        found = evidence.gap(
            evidence.chosen(accuracy),
            evidence.at_layer(accuracy, "ap", 0),
            "AP at the layer chosen on validation − VP, over network-task pairs",
        )
        return Finding(f"{found} (n = {found.count})", verdict(found.above_zero, found.below_zero))

    return judge


def _order(results: Results) -> Finding:
    accuracy = results.methods()
    ap, norm, probe = (_method(accuracy, name) for name in ("ap", "norm_tuning", "linear_probe"))
    first = evidence.gap(ap, norm, "AP − NORM-TUNE")
    second = evidence.gap(norm, probe, "NORM-TUNE − LINEAR-PROBE")
    holds = first.high >= 0 and second.above_zero and first.value >= 0
    fails = first.below_zero or second.below_zero
    return Finding(f"{first}; {second}", verdict(holds, fails))


def _norm_against_vp(results: Results) -> Finding:
    accuracy = results.methods()
    vp = _method(accuracy, "vp")
    found = evidence.gap(_method(accuracy, "norm_tuning"), vp, "NORM-TUNE − VP")
    return Finding(str(found), verdict(found.above_zero, found.below_zero))


def _method(accuracy: pd.DataFrame, method: str) -> pd.DataFrame:
    if method == "vp":
        return evidence.at_layer(accuracy, "ap", 0)
    if method == "ap":
        return evidence.chosen(accuracy)
    return evidence.at_layer(accuracy, method)


def _preference(vit: bool) -> Callable[[Results], Finding]:
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


def _architecture(results: Results) -> Finding:
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


def _cka(results: Results) -> Finding:
    table = results.table("cka_between/cka")
    said, slopes = [], []
    for pair, rows in table.groupby(["network", "other_network"]):
        wide = rows.pivot_table(index="layer", columns="other_layer", values="value")
        best = wide.idxmax(axis=1) / wide.columns.max()
        deep = best[best.index >= 2 / 3 * wide.index.max()]
        slopes.append(float(deep.median()))
        said.append(f"deep layers of {pair[0]} match {pair[1]} at {deep.median():.2f} of depth")
    middle = [0.25 <= value <= 0.75 for value in slopes]
    return Finding("; ".join(said), _all_or_part(middle))


def _all_or_part(each: list[bool]) -> str:
    if all(each):
        return REPRODUCED
    return PARTLY if any(each) else NOT_REPRODUCED


def _distance(results: Results) -> Finding:
    profile = _kind(results.gathered("profile"), True)
    found = evidence.metric_slope(
        profile, "attention_distance", "Spearman(depth, mean attention distance) over blocks"
    )
    return Finding(str(found), verdict(found.below_zero, found.above_zero))


def _globality(results: Results) -> Finding:
    relation = results.gathered("relation")
    rows = relation[(relation["target"] == "ap") & (relation["statistic"] == "spearman")]
    from aptheory.relate import across

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


def _theory(name: str, column: str) -> Callable[[Results], Finding]:
    """A verdict row that an analysis of the theory wrote by itself."""

    def judge(results: Results) -> Finding:
        rows = results.table(f"theory/{name}/{name}")
        rows = rows[rows["claim"].astype(str) == column]
        if rows.empty:
            raise NotMeasured(column)
        first = rows.iloc[0]
        return Finding(str(first["number"]), str(first["verdict"]), str(first["why"] or ""))

    return judge


def _cost(kind: str, low: float, high: float) -> Callable[[Results], Finding]:
    def judge(results: Results) -> Finding:
        table = results.table("cost/ap_against_vp")
        rows = table[table["kind"] == kind]
        if rows.empty:
            raise NotMeasured(kind)
        said = [
            f"{row.network}: time {row.time_ratio:.2f} (predicted {row.predicted_ratio:.2f}) and "
            f"memory {row.memory_ratio:.2f} of VP; time from kept activations "
            f"{row.kept_time_ratio:.2f}"
            for row in rows.itertuples()
        ]
        met = [low <= row.time_ratio <= high for row in rows.itertuples()]
        return Finding("; ".join(said), _all_or_part(met))

    return judge


def _throughput(results: Results) -> Finding:
    table = results.table("cost/throughput")
    ratio = table.set_index("method")["throughput_ratio"]
    said = "; ".join(f"{name}: {value:.2f} of the frozen network" for name, value in ratio.items())
    ap, vpt = ratio[ratio.index.str.startswith("ap")], ratio[ratio.index.str.startswith("vpt")]
    return Finding(said, REPRODUCED if ap.min() > 0.95 and vpt.max() < ap.min() else NOT_REPRODUCED)


def _count(results: Results) -> Finding:
    table = results.table("cost/parameters").set_index("what")["parameters"]
    said = "; ".join(f"{what}: {count:,}" for what, count in table.items())
    ap = table["AP at ResNet-101 layer4's input"]
    return Finding(said, REPRODUCED if 1.5e5 <= ap <= 2.5e5 else NOT_REPRODUCED)


def _vapt_count(results: Results) -> Finding:
    counts = results.table("cost/parameters").set_index("what")["parameters"]
    said, fewer = [], []
    for tokens in (10, 50):
        vapt = counts[f"VAPT on ViT-B/16, {tokens} tokens"]
        vpt = counts[f"VPT-deep on ViT-B/16, {tokens} tokens"]
        said.append(f"{tokens} tokens: {vapt:,} against {vpt:,}")
        fewer.append(bool(vapt < vpt))
    return Finding("; ".join(said), _all_or_part(fewer))


def _rank(results: Results) -> Finding:
    # The embedded network alone: there every method ran on every task.
    accuracy = _kind(results.table("methods/accuracy"), True)
    means = {name: _method(accuracy, name)["value"].mean() for name in accuracy["method"].unique()}
    if "ap" not in means:
        raise NotMeasured("AP on ViTs")
    for control in ("layer_probe", "random_perturbation", "full_fine_tuning"):
        means.pop(control, None)
    ranked = sorted(means, key=lambda name: -means[name])
    place = ranked.index("ap") + 1
    listed = ", ".join(f"{name} {100 * means[name]:.1f}" for name in ranked)
    return Finding(
        f"AP ranks {place} of {len(ranked)}: {listed}", verdict(2 <= place <= 4, place > 4)
    )


def _not_testable(why: str) -> Callable[[Results], Finding]:
    return lambda results: Finding("–", "not testable here", why)


def _small(results: Results) -> Finding:
    accuracy = results.gathered("accuracy")
    small = accuracy[accuracy["network"].str.contains("tiny|mini|035|resnet56")]
    found = evidence.gap(
        evidence.chosen(small), evidence.at_layer(small, "linear_probe"), "AP − LINEAR-PROBE"
    )
    weak = found.high < 4
    return Finding(
        f"{found} over {found.count} pairs of small networks",
        verdict(weak, found.low > 4),
        "weak is read as less than the 4 points that the paper reports as AP's gain over VP",
    )


def _seeds(results: Results) -> Finding:
    found = evidence.spread_over_seeds(results.gathered("accuracy"))
    return Finding(str(found), REPRODUCED if found.value <= 0.3 else NOT_REPRODUCED)


def _more_than_probe(results: Results) -> Finding:
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


ANY = "embedded networks and small timm networks, float32 and float64"
EMBEDDED = (
    "four embedded networks on 4 or 6 embedded tasks; ViT-Tiny, MobileNetV2-0.35 and ResNet-56 "
    "on the assets"
)
SWEEP = "python -m analyses.layer_preference; python -m analyses.real_weights --assets DIR"
COMPARED = (
    "embedded networks on 2 tasks, ResNet-56 and ViT-Tiny on the assets; equal epochs and search"
)
METHODS = "python -m analyses.method_comparison --assets DIR"

CLAIMS = (
    Claim(
        "1",
        "VP is AP at the input",
        "derived",
        ANY,
        "python -m analyses.equivalence",
        "",
        _equivalence(1),
    ),
    Claim(
        "2",
        "AP equals BatchNorm's β under the conditions",
        "2nd, derived",
        ANY,
        "python -m analyses.equivalence",
        "",
        _equivalence(2),
    ),
    Claim(
        "3",
        "AP equals LayerNorm's β after it, and not before",
        "2nd, derived",
        ANY,
        "python -m analyses.equivalence",
        "",
        _equivalence(3, differs=True),
    ),
    Claim(
        "4",
        "AP is more flexible than NORM-TUNE",
        "derived",
        ANY,
        "python -m analyses.equivalence",
        "",
        _equivalence(4, differs=True),
    ),
    Claim(
        "5",
        "AP at the last map is the linear probe",
        "derived",
        ANY,
        "python -m analyses.equivalence",
        "",
        _equivalence(5),
    ),
    Claim(
        "6",
        "train-mode BatchNorm cancels channel-constant AP",
        "derived",
        ANY,
        "python -m analyses.equivalence",
        "",
        _equivalence(6),
    ),
    Claim(
        "7",
        "AP beats VP on CNNs (paper: more than +4 points)",
        "2nd",
        EMBEDDED,
        SWEEP,
        "layer_preference",
        _ap_against_vp(False),
    ),
    Claim(
        "8",
        "AP beats VP on ViTs (paper: more than +1.5 points)",
        "2nd",
        EMBEDDED,
        SWEEP,
        "layer_preference",
        _ap_against_vp(True),
    ),
    Claim(
        "9",
        "AP ≥ NORM-TUNE ≥ LINEAR-PROBE",
        "2nd",
        COMPARED,
        METHODS,
        "method_comparison",
        _order,
    ),
    Claim(
        "10",
        "NORM-TUNE beats VP",
        "2nd",
        COMPARED,
        METHODS,
        "method_comparison",
        _norm_against_vp,
    ),
    Claim(
        "11",
        "CNNs prefer deep layers",
        "2nd",
        EMBEDDED,
        SWEEP,
        "layer_preference",
        _preference(False),
    ),
    Claim(
        "12",
        "ViTs prefer shallow layers",
        "2nd",
        EMBEDDED,
        SWEEP,
        "layer_preference",
        _preference(True),
    ),
    Claim(
        "13",
        "the preference is the architecture's, not the data's",
        "2nd",
        EMBEDDED,
        SWEEP,
        "layer_preference",
        _architecture,
    ),
    Claim(
        "14",
        "deep CNN features resemble middle ViT layers",
        "2nd",
        "CKA between the networks, per task",
        "python -m analyses.cka_between",
        "cka_between",
        _cka,
    ),
    Claim(
        "15",
        "mean attention distance falls with depth",
        "2nd",
        EMBEDDED,
        SWEEP,
        "attention_distance",
        _distance,
    ),
    Claim(
        "16",
        "globality explains the preference (the paper: by eye)",
        "2nd",
        EMBEDDED,
        SWEEP,
        "relation",
        _globality,
    ),
    Claim(
        "17",
        "the shallow prompt needs fewer samples",
        "2nd",
        "frozen two-layer attention networks",
        "python -m analyses.sample_complexity",
        "sample_complexity",
        _theory("verdicts", "17"),
    ),
    Claim(
        "18",
        "steps grow with P/η",
        "recalled",
        "frozen two-layer attention networks",
        "python -m analyses.steps_to_zero_error",
        "steps_to_zero_error",
        _theory("verdicts", "18"),
    ),
    Claim(
        "19",
        "AP is cheaper than VP on CNNs (paper: 0.57 of the time, 0.52 of the memory)",
        "2nd",
        "one training step, CPU, no kept activations",
        "python -m analyses.cost_tables --full",
        "cost",
        _cost("cnn", 0.4, 0.75),
    ),
    Claim(
        "20",
        "AP is hardly cheaper than VP on ViTs (derived: 0.96 at layer 3 of 24)",
        "derived",
        "one training step, CPU, no kept activations",
        "python -m analyses.cost_tables --full",
        "cost",
        _cost("vit", 0.85, 1.05),
    ),
    Claim(
        "21",
        "AP keeps the frozen network's throughput, VPT does not",
        "read, derived",
        "inference, CPU",
        "python -m analyses.cost_tables",
        "cost",
        _throughput,
    ),
    Claim(
        "22",
        "AP tunes few parameters (about 0.2 M)",
        "derived",
        "counted, without the head",
        "python -m analyses.cost_tables",
        "",
        _count,
    ),
    Claim(
        "23",
        "AP ranks 2nd to 4th among PEFT methods on ViTs",
        "2nd",
        "embedded ViT on 2 tasks and ViT-Tiny on textures; equal epochs and search",
        METHODS,
        "method_comparison",
        _rank,
    ),
    Claim(
        "24",
        "holds on CLIP and Swin",
        "2nd",
        "needs pretrained CLIP and Swin weights",
        "aptheory run swin_tiny_patch4_window7_224 --task NAME --out DIR",
        "",
        _not_testable(
            "no pretrained Swin or CLIP weights could be had where this was measured; "
            "the command runs on any timm Swin"
        ),
    ),
    Claim("25", "weak on small models", "2nd", EMBEDDED, SWEEP, "layer_preference", _small),
    Claim("26", "spread over seeds is at most 0.3 %", "2nd", EMBEDDED, SWEEP, "", _seeds),
    Claim(
        "27",
        "the prompt adds more than the layer's own probe",
        "derived",
        EMBEDDED,
        SWEEP,
        "layer_preference",
        _more_than_probe,
    ),
    Claim(
        "V1",
        "VAPT tunes fewer parameters than VPT-deep (0.36 % against 0.73 %)",
        "paper, derived",
        "ViT-B/16, r = 8, K = 2, counted",
        "python -m analyses.theory_verdicts",
        "",
        _theory("verdicts", "V1"),
    ),
    Claim(
        "V2",
        "an attention head with prompts is a mixture of experts",
        "paper",
        "a real timm attention layer",
        "python -m analyses.theory_verdicts",
        "",
        _theory("verdicts", "V2"),
    ),
    Claim(
        "V3",
        "adaptive prompts are estimated at about n^(-1/2)",
        "paper, rebuilt",
        "the simulation of the fact sheet, section 4",
        "python -m analyses.experts_rate",
        "experts_rate",
        _theory("verdicts", "V3"),
    ),
    Claim(
        "V4",
        "with 1 % of the data VAPT is far above VPT (60.1 against 3.6 on Stanford Dogs)",
        "paper",
        "embedded ViT, several draws a fraction",
        "python -m analyses.low_data",
        "low_data",
        _theory("verdicts", "V4"),
    ),
    Claim(
        "V5",
        "VAPT beats VPT-deep (VTAB means 72.91 and 69.43)",
        "paper",
        "embedded ViT on 2 tasks and ViT-Tiny on textures; equal epochs and search",
        METHODS,
        "method_comparison",
        lambda results: _pair(results, "vapt", "vpt"),
    ),
)


def _pair(results: Results, a: str, b: str) -> Finding:
    accuracy = _kind(results.methods(), True)
    found = evidence.gap(_method(accuracy, a), _method(accuracy, b), f"{a.upper()} − {b.upper()}")
    return Finding(str(found), verdict(found.above_zero, found.below_zero))


def judge(claim: Claim, results: Results) -> Finding:
    """The finding of a claim; "not run yet" where its tables are missing."""
    try:
        return claim.judge(results)
    except NotMeasured:
        return Finding("–", NOT_RUN, f"its table is not there: run `{claim.command}`")

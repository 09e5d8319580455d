"""Verdicts on the theory's claims from the tables of the theory's analyses. (17, 18, M, V1 to V4)

    python -m analyses.theory_verdicts [--runs runs/theory]

Reads what two_layer, steps_to_zero_error, experts_rate, low_data and token_count wrote (a
``--full`` run in NAME_full is preferred where it is there), rewrites one real attention layer, and
writes verdicts/verdicts.csv: claim, number, verdict, why. A verdict is computed, never typed; a
claim whose table is missing gets no row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analyses import two_layer
from analyses import two_layer_findings as found
from analyses.few_pictures import few_pictures
from analyses.judges import NOT_REPRODUCED, PARTLY, REPRODUCED, UNDECIDED
from analyses.theory_output import Row, interval, table
from aptheory.theory.experts import AttentionWeights, adaptive_prompts, attention_as_experts
from aptheory.theory.slopes import bootstrap_mean, pivot, slope_interval

LEARNT = 25
"""A floor, in percent, above which a place has learnt next to nothing; chance is 50."""


def two_layers(runs: Path) -> pd.DataFrame:
    """All forms of `two_layer` that are there."""
    paths = {form: runs / two_layer.folder(form) / "two_layer.csv" for form in two_layer.FORMS}
    tables = {form: pd.read_csv(path) for form, path in paths.items() if path.is_file()}
    if not tables:
        raise FileNotFoundError("two_layer")
    return found.joined(tables)


def shallow_needs_fewer(runs: Path) -> Row:
    """Claim 17: floor apart from rate, by P and by the discriminative fraction; and the flip."""
    rows = two_layers(runs)
    said, floors, rates = [], [], []
    for (model, prompt, fraction), each in found.by_tokens(rows):
        largest, name = each[-1], f"{model}, {prompt} prompt, {fraction}"
        if min(one.floors[0][0] for one in each) > LEARNT:
            said.append(f"{name}: no prompt helps at either place")
            continue
        floors.append(largest.verdict)
        floor = [found.floor_words(value) for value in largest.floors]
        fitted = [f"{100 * curve.fitted_floor()[0]:.1f} %" for curve in largest.curves]
        said.append(
            f"{name} discriminative: N → ∞ at P = {largest.labels['tokens']}: "
            f"layer 1 {floor[0]}, layer 2 {floor[1]} (by the fit: {fitted[0]}, {fitted[1]})"
        )
        # Where a place learns nothing it is within two points of its floor at once.
        learnt = [one for one in each if max(value[0] for value in one.floors) <= LEARNT]
        grown = found.growth(learnt, [one.labels["tokens"] for one in learnt])
        if grown is None:
            said[-1] += "; both places learn at fewer than two P"
            continue
        rates.append(grown.difference)
        said[-1] += (
            f"; N to within two points of the own floor ~ P^{interval(grown.slopes[0])} and "
            f"P^{interval(grown.slopes[1])}, N(2)/N(1) at P = {learnt[-1].labels['tokens']} "
            f"2^{interval(learnt[-1].doublings)}"
        )
    lower, steeper = floors.count("layer 1"), sum(rate[1] > 0 for rate in rates)
    higher, flatter = floors.count("layer 2"), sum(rate[2] < 0 for rate in rates)
    judged = UNDECIDED
    if steeper == len(rates) and not higher:
        judged = REPRODUCED
    elif steeper or lower:
        judged = PARTLY
    elif flatter or higher:
        judged = NOT_REPRODUCED
    flips, dose = found.flips(rows), found.dose(rows)
    turned = ", ".join(f"{name} {count}" for name, count in flips["turn"].value_counts().items())
    best, deep = dose.loc[dose["advantage"].idxmax()], (dose["better"] == found.PLACES[1]).sum()
    turned += (
        f"; over the ranges as a dial layer 1's advantage is largest, "
        f"{interval(tuple(best[['advantage', 'low', 'high']]), 1)} points, at range "
        f"{best['range_1']:g} of layer 1 and {best['range_2']:g} of layer 2, and layer 2 is "
        f"clearly better at {deep} of {len(dose)} pairs of ranges"
    )
    why = (
        f"of {len(floors)} settings in which a prompt helps, layer 1 has the lower floor (N → ∞) "
        f"in {lower}, the higher in {higher}; from each own floor, where both learn, "
        f"layer 2's samples grow faster with P in {steeper} of {len(rates)}, slower in {flatter}. "
        "A floor is a matter of what a prompt can express in the steps that it is given, growth "
        f"one of samples. No error on {two_layer.TEST_SAMPLES} samples is at most "
        f"{300 / two_layer.TEST_SAMPLES:.1f} %. Exchanging the ranges: {turned}"
    )
    for tokens, each in _fractions(rows):
        grown = found.growth(each, [one.labels["discriminative"] / tokens for one in each])
        why += (
            f". N to within two points of the floor against the fraction α at P = {tokens}: "
            f"α^{interval(grown.slopes[0])} at layer 1, α^{interval(grown.slopes[1])} at layer 2 "
            "(the parent theory: α^-2)"
        )
    return "; ".join(said), judged, why


def _fractions(rows: pd.DataFrame) -> Iterator[tuple[int, list[found.Comparison]]]:
    each = list(found.comparisons(rows, "fraction"))
    for tokens in sorted({one.labels["tokens"] for one in each}):
        some = [one for one in each if one.labels["tokens"] == tokens]
        yield tokens, sorted(some, key=lambda one: one.labels["discriminative"])


def removes_the_nuisance(runs: Path) -> Row:
    """M: the share of the nuisance that learned prompts remove, their norms, what it is worth."""
    rows = two_layers(runs)
    each = found.mechanism(rows)
    cnn = each["model"] == "cnn"
    said, ranks = [], []
    for name, some in (("attention", each[~cnn]), ("convolutions", each[cnn])):
        removed = [found.spread_words(some[f"removed {place}"]) for place in (1, 2)]
        norm = [found.spread_words(some[f"norm {place}"]) for place in (1, 2)]
        rank = found.rank_interval(some["more"].to_numpy(), some["advantage"].to_numpy())
        ranks.append(rank)
        said.append(
            f"{name} ({len(some)} settings): share of the label-free spread removed, median and "
            f"quartiles: {removed[0]} "
            f"at layer 1, {removed[1]} at layer 2, by prompts of norm {norm[0]} and {norm[1]}; "
            f"Spearman (more removed at layer 1, lower error at layer 1) {interval(rank)}"
        )
    listening = sorted(found.comparisons(rows, "listening"), key=lambda c: c.labels["listening"])
    theorem = [one for one in listening if found.arrangement(one.labels) == "layer 1"]
    said.append(
        "how strongly the head listens: advantage of layer 1 in points "
        + ", ".join(f"{one.labels['listening']:g}: {interval(one.advantage, 1)}" for one in theorem)
    )
    judged = REPRODUCED if ranks[0][1] > 0 else NOT_REPRODUCED if ranks[0][2] < 0 else UNDECIDED
    why = (
        "judged on the attention networks: the place whose prompt removes more of the nuisance is "
        "the one that errs less"
    )
    return "; ".join(said), judged, why


def steps_grow(runs: Path) -> Row:
    """Claim 18: the identity called one, and what remains of T ~ P/η judged."""
    rows = table(runs, "steps_to_zero_error")
    said, in_tokens, in_rate = [], [], []
    shared = rows[rows["prompt"] == "shared"]
    for (model, place), group in shared.groupby(["model", "place"]):
        rate = sorted(group.rate.unique())[1]
        tokens = sorted(group.tokens.unique())[1]
        x, y = pivot(group[group.rate == rate], "tokens", "steps")
        in_tokens.append(slope_interval(x, y))
        x, y = pivot(group[group.tokens == tokens], "rate", "steps")
        in_rate.append(slope_interval([1 / v for v in x], y))
        said.append(
            f"{model}, shared prompt, {place}: T ~ P^{interval(in_tokens[-1])}, "
            f"(1/η)^{interval(in_rate[-1])}"
        )
    same = _identity(rows)
    if len(same):
        ratio = bootstrap_mean(np.log2(same["token"] / same["shared"]).to_numpy())
        said.append(
            f"a token prompt at the rate Pη against a shared one at η, {len(same)} runs: "
            f"T(token)/T(shared) = 2^{interval(ratio)}"
        )
    grows = [low > 0.8 for _, low, _ in in_tokens]
    flat = [high < 0.2 for _, _, high in in_tokens]
    inverse = [0.8 <= value <= 1.2 for value, _, _ in in_rate]
    judged = PARTLY
    if all(grows) and all(inverse):
        judged = REPRODUCED
    elif all(flat) and not any(inverse):
        judged = NOT_REPRODUCED
    why = (
        "with a prompt a token each feels 1/P of the gradient, so P steps do the work of one: the "
        "factor P is an identity of the parametrisation, not a property of learning. What remains "
        "is judged on a prompt that all tokens share: 1/η "
        + ("holds" if all(inverse) else "does not hold everywhere")
        + ", a growth with P is "
        + ("there" if all(grows) else "not there" if all(flat) else "not clear")
    )
    return "; ".join(said), judged, why


def _identity(rows: pd.DataFrame) -> pd.DataFrame:
    """Steps of token prompts at the rate Pη beside those of shared prompts at η."""
    keys = ["model", "place", "tokens", "repetition", "shared_rate"]
    token = rows[rows["prompt"] == "token"]
    token = token.assign(shared_rate=(token["rate"] / token["tokens"]).round(6))
    shared = rows[rows["prompt"] == "shared"].assign(shared_rate=lambda t: t["rate"].round(6))
    both = token.merge(shared, on=keys, suffixes=("_token", "_shared"))
    both = both[both["reached_token"] & both["reached_shared"]]
    return both[[*keys, "steps_token", "steps_shared"]].rename(
        columns={"steps_token": "token", "steps_shared": "shared"}
    )


def parameters(runs: Path) -> Row:
    """V1: trainable parameters without the head, counted on a ViT-B/16 with random weights."""
    import aptheory as ap

    net = ap.load("vit_base_patch16_224", weights=None)
    counts = {
        tokens: [
            method.attach(net, classes=2).count(head=False)
            for method in (ap.VAPT(tokens=tokens), ap.VPT(tokens=tokens))
        ]
        for tokens in (1, 5, 10, 50, 100)
    }
    number = "; ".join(f"{p} prompts: {a:,} against {b:,}" for p, (a, b) in counts.items())
    fewer = [p for p, (a, b) in counts.items() if a < b]
    judged = REPRODUCED if len(fewer) == len(counts) else PARTLY if fewer else NOT_REPRODUCED
    return number, judged, f"VAPT is the smaller one at {fewer} prompts of {list(counts)}"


def experts_equal_layer(runs: Path) -> Row:
    """V2: largest difference between a real layer and its rewriting, VPT and VAPT prompts."""
    import aptheory as ap

    layer = ap.load("aptheory_vit_mini").module.blocks[0].attn.double().eval()
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    width = layer.qkv.in_features
    tokens = normal(4, 65, width)
    image = tokens[:, 1:].transpose(1, 2).reshape(4, width, 8, 8)
    adaptive = adaptive_prompts(
        image, normal(2, 2), 0.1 * normal(5, 49), 0.1 * normal(8, width), normal(width, 8)
    )
    worst = []
    for prompts in (normal(1, 5, width), adaptive):
        with torch.no_grad():
            rows = layer(torch.cat([tokens, prompts.expand(4, -1, -1)], 1))[:, :65]
        view = attention_as_experts(AttentionWeights.from_timm(layer), tokens, prompts)
        worst.append(float((view.output() - rows).detach().abs().max()))
    number = f"largest difference {worst[0]:.1e} (VPT), {worst[1]:.1e} (VAPT) in float64"
    return number, REPRODUCED if max(worst) < 1e-6 else NOT_REPRODUCED, ""


def rate_of_adaptive_prompts(runs: Path) -> Row:
    """V3: slopes of well-specified fits; what constants can show, and what flexibility costs."""
    rows = table(runs, "experts_rate")
    said, near, floors = [], [], []
    for (setting, fit, measure), group in rows.groupby(["setting", "fit", "measure"]):
        x, y = pivot(group, "n", "value")
        slope = slope_interval(x, y, summary="median")
        if fit == "constant" and "static" not in setting:
            floor = group[group.n == group.n.max()].value.median()
            floors.append(f"{setting} {floor:.2f} (slope {interval(slope, 3)})")
            continue
        said.append(f"{setting}, {fit}, {measure.replace('_', ' ')}: {interval(slope)}")
        if measure == "function_error":
            near.append(slope[1] <= -0.4 and slope[2] >= -0.65 and -0.7 < slope[0] < -0.4)
    if floors:
        said.append("constants under an adaptive truth stay at " + ", ".join(floors))
    static = rows[rows.setting.str.contains("static") & (rows.measure == "function_error")]
    if len(static):
        wide = static.pivot(index=["repetition", "n"], columns="fit", values="value")
        ratio = np.log2(wide["exact"] / wide["constant"]).groupby("repetition").mean()
        cost = interval(bootstrap_mean(ratio.to_numpy()))
        said.append(
            f"under a static truth adaptive prompts err 2^{cost} times as much as constants"
        )
    judged = REPRODUCED if all(near) else PARTLY if any(near) else NOT_REPRODUCED
    why = (
        f"{sum(near)} of {len(near)} slopes of well-specified fits' error in function are where "
        "the theory puts them (about -1/2); Voronoi losses are reported, not judged. Constants "
        "under an adaptive truth are misspecified: their floor says what they cannot express, and "
        "nothing of a rate; under a static truth, which both classes hold, the ratio of the errors "
        "is the price of flexibility"
    )
    return "; ".join(said), judged, why


CLAIMS: dict[str, Callable[[Path], Row]] = {
    "17": shallow_needs_fewer,
    "18": steps_grow,
    "M": removes_the_nuisance,
    "V1": parameters,
    "V2": experts_equal_layer,
    "V3": rate_of_adaptive_prompts,
    "V4": few_pictures,
}


def main(runs: str | Path = "runs/theory") -> pd.DataFrame:
    """Judge what is there; write and return the table."""
    runs, rows = Path(runs), []
    for claim, judge in CLAIMS.items():
        try:
            number, judged, why = judge(runs)
        except FileNotFoundError as missing:
            print(f"{claim}: {missing} has not been run")
            continue
        rows.append({"claim": claim, "number": number, "verdict": judged, "why": why})
        print(f"{claim}: {judged}. {number}. {why}")
    verdicts = pd.DataFrame(rows)
    path = runs / "verdicts" / "verdicts.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    verdicts.to_csv(path, index=False)
    return verdicts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/theory"))
    main(parser.parse_args().runs)

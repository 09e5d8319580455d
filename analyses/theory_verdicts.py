"""Verdicts on the theory's claims from the tables of the theory's analyses. (17, 18, V1 to V4)

    python -m analyses.theory_verdicts [--runs runs/theory]

Reads what sample_complexity, flip_test, steps_to_zero_error, experts_rate and low_data wrote (a
``--full`` run in NAME_full is preferred where it is there), rewrites one real attention layer, and
writes verdicts/verdicts.csv: claim, number, verdict, why. A verdict is computed, never typed; a
claim whose table is missing gets no row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from analyses.judges import NOT_REPRODUCED, PARTLY, REPRODUCED, UNDECIDED
from analyses.theory_output import interval
from aptheory.findings.statistics import mean_interval
from aptheory.theory.comparison import preference
from aptheory.theory.experts import AttentionWeights, adaptive_prompts, attention_as_experts
from aptheory.theory.slopes import pivot, slope_difference, slope_interval

Row = tuple[str, str, str]  # number, verdict, why


def table(runs: Path, name: str) -> pd.DataFrame:
    """The table of an analysis, the full run's where there is one."""
    for folder in (f"{name}_full", name):
        path = runs / folder / f"{name}.csv"
        if path.is_file():
            return pd.read_csv(path)
    raise FileNotFoundError(name)


def shallow_needs_fewer(runs: Path) -> Row:
    """Claim 17: over the reconstructed networks, how often, by how much; and the flip test."""
    rows = table(runs, "sample_complexity")
    rows = rows[rows.sweep == "tokens"]
    settings, said = [], []
    for labels, group in rows.groupby(["nuisance", "model", "prompt", "epsilon"]):
        if group[group.place != "input"].reached.mean() < 0.5:
            said.append(f"{labels[1]}, {labels[2]} prompt, error ≤ {labels[3]:.0%}: not reached")
            continue
        x, first = pivot(group[group.place == "layer 1"], "tokens", "samples")
        second = pivot(group[group.place == "layer 2"], "tokens", "samples")[1]
        apart = slope_difference(x, first, second)
        places = group[group.place != "input"]
        doublings = preference(places.assign(network=places.tokens))
        settings.append((doublings, apart))
        said.append(
            f"{labels[1]}, {labels[2]} prompt, {labels[0]} nuisance, error ≤ {labels[3]:.0%}: "
            f"N(2)/N(1) = "
            f"2^{interval(doublings)}, difference of slopes {interval(apart)}"
        )
    clear = sum(d[1] > 0 for d, _ in settings)
    against = sum(d[2] < 0 for d, _ in settings)
    steeper = sum(s[1] > 0 for _, s in settings)
    judged = PARTLY if clear else NOT_REPRODUCED if against else UNDECIDED
    if clear == len(settings) == steeper:
        judged = REPRODUCED
    why = (
        f"shallow needs clearly fewer samples in {clear} of {len(settings)} reconstructed "
        f"settings, clearly more in {against}; its slope is clearly smaller in {steeper}"
    )
    try:
        flip = table(runs, "flip_test")
    except FileNotFoundError:
        return "; ".join(said), judged, why
    flip = flip[(flip.question == "flip") & (flip.epsilon == 0.05)]
    turned, kept = 0, 0
    for _, group in flip.groupby(["prompt", "model"]):
        by = {name: preference(part) for name, part in group.groupby("arrangement")}
        kept += by["theorem"][1] > 0
        turned += by["theorem"][1] > 0 and by["flipped"][2] < 0
    why += (
        f". Flip test: of {flip.groupby(['prompt', 'model']).ngroups} kinds of network {kept} "
        f"prefer the shallow prompt when layer 1 is global, and {turned} of these clearly prefer "
        "the deep one when layer 2 is"
    )
    return "; ".join(said), judged, why


def steps_grow(runs: Path) -> Row:
    """Claim 18: exponents of T in P and in 1/η; one is within reach of linear at 0.8 to 1.2."""
    rows = table(runs, "steps_to_zero_error")
    said, exponents = [], {"token": [], "shared": []}
    for (model, shape, place), group in rows.groupby(["model", "prompt", "place"]):
        rate = sorted(group.rate.unique())[1]
        tokens = sorted(group.tokens.unique())[1]
        x, y = pivot(group[group.rate == rate], "tokens", "steps")
        in_tokens = slope_interval(x, y)
        x, y = pivot(group[group.tokens == tokens], "rate", "steps")
        in_rate = slope_interval([1 / v for v in x], y)
        exponents[shape].append((in_tokens[0], in_rate[0]))
        said.append(
            f"{model}, {shape} prompt, {place}: P^{interval(in_tokens)}, (1/η)^{interval(in_rate)}"
        )
    linear = [0.8 <= p <= 1.2 and 0.8 <= r <= 1.2 for p, r in exponents["token"]]
    flat = [abs(p) < 0.2 for p, _ in exponents["shared"]]
    judged = REPRODUCED if all(linear) and linear else NOT_REPRODUCED
    why = "one prompt a token"
    if judged == REPRODUCED and flat and all(flat):
        judged = PARTLY
        why = (
            "linear in P when every token has its own prompt; a prompt that all tokens share takes "
            "steps that do not grow with P; both are close to linear in 1/η"
        )
    return "; ".join(said), judged, why


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
    """V3: slopes of exact and over-fitted fits; the floor of constant prompts."""
    rows = table(runs, "experts_rate")
    said, near = [], []
    for (setting, fit, measure), group in rows.groupby(["setting", "fit", "measure"]):
        x, y = pivot(group, "n", "value")
        slope = slope_interval(x, y, summary="median")
        if fit == "constant":
            floor = group[group.n == group.n.max()].value.median()
            said.append(f"{setting}, constant: slope {interval(slope, 3)}, floor {floor:.2f}")
            near.append(abs(slope[0]) < 0.1)
            continue
        said.append(f"{setting}, {fit}, {measure.replace('_', ' ')}: {interval(slope)}")
        if fit == "exact" or measure == "function_error":
            near.append(slope[1] <= -0.4 and slope[2] >= -0.65 and -0.7 < slope[0] < -0.4)
    judged = REPRODUCED if all(near) else PARTLY if any(near) else NOT_REPRODUCED
    why = (
        f"{sum(near)} of {len(near)} slopes are where the theory puts them (about -1/2, or flat "
        "for constants); over-fitted Voronoi losses are reported, not judged"
    )
    return "; ".join(said), judged, why


def little_data(runs: Path) -> Row:
    """V4: VAPT − VPT with the fewest images, over draws."""
    rows = table(runs, "low_data")
    rows = rows[rows.measure == "test_accuracy"]
    said, gaps = [], {}
    for (task, images), group in rows.groupby(["task", "images_a_class"]):
        wide = 100 * group.pivot(index="seed", columns="method", values="value")
        gap = (wide["VAPT"] - wide["VPT"]).to_numpy()
        gaps[task, images] = found = (gap.mean(), *mean_interval(gap))
        said.append(
            f"{task}, {images} a class ({group.fraction.iloc[0]:.1%}), {len(gap)} draws: "
            f"VAPT − VPT {interval(found, 1)} points, single draws {gap.min():.1f} to "
            f"{gap.max():.1f}; VPT {wide['VPT'].mean():.1f}, VAPT {wide['VAPT'].mean():.1f}, "
            f"AP {wide['AP'].mean():.1f}, linear probe {wide['linear probe'].mean():.1f}"
        )
    fewest = [g for (_, images), g in gaps.items() if images == rows.images_a_class.min()]
    above, small = all(g[1] > 0 for g in fewest), all(g[2] < 20 for g in fewest)
    large = all(g[1] > 20 for g in fewest)
    judged = UNDECIDED
    if above:
        judged = REPRODUCED if large else PARTLY
    elif small:
        judged = NOT_REPRODUCED
    why = "judged at one image a class; reproduced needs a gap above 20 points (published: 56.5)"
    if small:
        why += "; every interval lies below that, so the published size is not seen here"
    return "; ".join(said), judged, why


CLAIMS: dict[str, Callable[[Path], Row]] = {
    "17": shallow_needs_fewer,
    "18": steps_grow,
    "V1": parameters,
    "V2": experts_equal_layer,
    "V3": rate_of_adaptive_prompts,
    "V4": little_data,
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
    found = pd.DataFrame(rows)
    path = runs / "verdicts" / "verdicts.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(path, index=False)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/theory"))
    main(parser.parse_args().runs)

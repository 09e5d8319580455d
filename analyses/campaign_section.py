"""What `paper_repro.md` says of the evidence campaign, written from its tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analyses.campaign_methods import EARLY, PAIR, UNRANKED
from analyses.campaign_parts import at_every_place
from analyses.campaign_tables import number_of_pairs
from analyses.results import Results

QUESTIONS = {
    "J1": "Do far tasks want shallower prompts than near ones?",
    "J2": "Do CNNs prefer deep prompts and ViTs shallow ones (claims 11, 12)?",
    "J3": "Does reading at the best probe's place add to the prompt?",
    "J4": "Does the prompt add to the probe of a layer, and to that of all layers?",
    "J5": "Is a prompt that is read at the end better than the best layer's probe?",
    "J6": "Does a learned prompt beat a random pattern of its norm?",
    "J7": "Is the image a worse place than the chosen one (claims 7, 8)?",
    "J8": "Does a prompt beat the linear probe (claim 27)?",
    "J9": "How much of a prompt is a shift of the norm at its place (claims 9, 10)?",
}


def section(results: Results) -> str:
    """The section, or nothing where the campaign has no tables."""
    if not results.has("evidence/judged"):
        return ""
    judged = results.table("evidence/judged")
    pairs = results.table("evidence/pairs")
    planted = "" if results.has("evidence/judged_planted") else "planted tensors (J10), "
    dialled = "" if results.has("evidence/judged_dial") else "dialled shifts (J11), "
    moving, runs = int(pairs["moving"].sum()), int(pairs["runs"].sum())
    parts = [
        "## The campaign",
        f"The plan was committed before the runs (`analyses/PLAN.md`): {number_of_pairs(pairs)} "
        f"pairs of {pairs['network'].nunique()} real networks and {pairs['task'].nunique()} tasks, "
        "400 training pictures, 30 epochs (about 210 optimiser steps), four rates at every place; "
        f"{_draws(pairs)}. Everything is chosen on validation pictures; networks are the units. "
        "Made by "
        "`python -m analyses.campaign --assets DIR` on a GPU and `python -m "
        "analyses.campaign_tables`; figures `results/figures/where_to_read.png`, "
        "`law_of_the_layer.png` and `norm_and_prompt.png`.",
        f"**No verdict rests on it.** By the plan's own rule {moving} of the {runs} chosen runs "
        "were still moving at the end: their validation loss was not flat (it mostly rises, while "
        "the head grows overconfident). The intervals below are those of these runs; what they "
        f"say of converged ones is open. Not run: {planted}{dialled}"
        "the second draw of ViT-S/14 and second draws of every question but the sweeps.",
    ]
    for number, question in QUESTIONS.items():
        rows = judged[judged["judged"] == number]
        parts += [f"**{number}. {question}**", lines(rows)]
    added = (
        *_norm_costs(results),
        *_methods(results),
        *_dialled(results),
        *_taken_apart(results),
        *_by_accuracy(results),
    )
    return "\n\n".join([*parts, *added])


def _draws(pairs: pd.DataFrame) -> str:
    """How many draws of the training pictures the pairs have."""
    draws = pairs.groupby(["network", "task"])["seed"].nunique().value_counts()
    return ", ".join(
        f"{count} pairs with {number} draw{'s' if int(str(number)) > 1 else ''} of the training "
        "and validation pictures"
        for number, count in draws.items()
    )


def against_the_norm(costs: pd.DataFrame, column: str, of: str = "ap") -> pd.Series:
    """A prompt's cost over that of γ and β, one number a network, place and setting."""
    keys = ["network", "at", "kept"]
    one, other = (
        costs[costs["method"] == method].set_index(keys)[column] for method in (of, "gamma_beta")
    )
    return (one / other).dropna()


def _norm_costs(results: Results) -> list[str]:
    """What the methods of J9 cost beside each other, place by place."""
    if not results.has("evidence/norm_cost"):
        return []
    costs = results.table("evidence/norm_cost")
    said = []
    for kind, name in (("cnn", "CNNs"), ("vit", "ViTs")):
        rows = costs[costs["kind"] == kind]
        networks = rows["network"].nunique()
        for of, words in (("ap", "full"), ("ap_channel", "channel")):
            shares = [
                against_the_norm(rows, column, of)
                for column in ("parameters_without_head", "measured_ratio", "memory_ratio")
            ]
            parameters, time, memory = (share.median() for share in shares)
            low, high = shares[1].quantile([0.25, 0.75])
            said.append(
                f"- {words} prompt against γ and β at its place, {name}, medians over {networks} "
                f"networks and {len(shares[1])} places and settings: parameters "
                f"{parameters:.3g} times, time {time:.2f} (quartiles {low:.2f} and {high:.2f}), "
                f"memory {memory:.2f}"
            )
        for method, words in (("all_norms", "all norms"), ("ap", "full prompt, all places")):
            part = rows[(rows["method"] == method) & ~rows["kept"]]
            time, memory = part["measured_ratio"].median(), part["memory_ratio"].median()
            said.append(
                f"- {words}, {name}, of visual prompting's step from images, median: time "
                f"{time:.2f}, memory {memory:.2f}"
            )
    return [
        "**What they cost.** One training step of each method of J9 at each of its places, batches "
        "of 16 on one CPU thread, processor time in turn with visual prompting's "
        "(`python -m analyses.norm_cost --assets DIR`; figure `results/figures/norm_cost.png`).",
        "\n".join(said),
    ]


def _methods(results: Results) -> list[str]:
    """What the methods gain beside each other, each at its own best rate."""
    if not results.has("evidence/judged_methods"):
        return []
    table = results.table("evidence/methods")
    several = results.table("evidence/judged_methods").query(
        "networks > 1 and method != 'linear_probe'"
    )
    said = []
    for row in several.to_dict("records"):
        more = (
            f"; AP has {row['ap_has_more']:+.1f} [{row['ap_has_more_low']:+.1f}, "
            f"{row['ap_has_more_high']:+.1f}] on it"
        )
        if not row["method"].endswith(EARLY):
            more += (
                f", at the middle place {row['middle_has_more']:+.1f} "
                f"[{row['middle_has_more_low']:+.1f}, {row['middle_has_more_high']:+.1f}]"
            )
        rank = "" if row["method"] in UNRANKED else _rank(row)
        said.append(
            f"- {row['method']}: {row['gain']:+.1f} [{row['gain_low']:+.1f}, "
            f"{row['gain_high']:+.1f}] points{rank}, {row['networks']} networks, "
            f"{row['pairs']} pairs, {row['parameters']:,} parameters; still moving "
            f"{row['moving']}" + ("" if row["method"].startswith(("ap", "linear_probe")) else more)
        )
    return [
        f"**All methods (exploratory).** {len(table[PAIR].drop_duplicates())} pairs of "
        f"{table['network'].nunique()} networks on {', '.join(table['task'].unique())}; every "
        "method at its own best rate, sought until it lay inside, AP at the place that validation "
        "chose, so with several times the runs, and at the middle place, with the search of any "
        "other; a random pattern of a trained prompt's norm, from the sweeps of the same pairs, is "
        "the control of both; gains over the linear probe at the end. *Among the small*: "
        "rank among the methods of a pair that train no more parameters than the prompt at its "
        "chosen place. Made by "
        "`python -m analyses.campaign_methods`; figure `results/figures/campaign_methods.png`.",
        "\n".join(said),
    ]


def _rank(row: Mapping[str, float]) -> str:
    """The mean rank among all methods, and among those no larger than the prompt."""
    said = f", mean rank {row['rank']:.1f} [{row['rank_low']:.1f}, {row['rank_high']:.1f}]"
    if not row["pairs_small"]:
        return said
    return f"{said}, among the small {row['rank_small']:.1f} ({row['pairs_small']:.0f} pairs)"


def _dialled(results: Results) -> list[str]:
    """What becomes of the preferred place when the same pictures are shifted in steps."""
    if not results.has("evidence/judged_dial"):
        return []
    table = results.table("evidence/dial")
    networks = table["network"].unique()
    return [
        "**J11. Does a dialled shift move the best prompt, and the gain of reading early?** "
        f"{len(networks)} of the four planned networks ({', '.join(networks)}), "
        f"{table['dial'].nunique()} dials of two steps each, from the pictures as they are to the "
        "last step; one seed. Expected: shallower, larger. Made by `python -m "
        "analyses.campaign_dial`; figure `results/figures/dialled.png`.",
        lines(results.table("evidence/judged_dial")),
    ]


def _taken_apart(results: Results) -> list[str]:
    """What trained prompts are at the next norm."""
    if not results.has("evidence/judged_parts"):
        return []
    rows = results.table("evidence/judged_parts")
    parts = results.table("evidence/parts")
    backwards = results.table("evidence/backwards")
    chosen = parts[parts["chosen"]]
    full, channel = (chosen[chosen["shape"] == shape] for shape in ("full", "channel"))
    return [
        f"**Exploratory: the prompts taken apart at the next norm.** On {len(full)} pairs of "
        f"{full['network'].nunique()} networks the full prompt, and on {len(channel)} pairs of "
        f"{channel['network'].nunique()} of them the channel prompt, were trained again "
        "at the place that validation chose and at the journal's rate (400 pictures, 30 epochs, "
        "one seed, float32, `python -m analyses.norm_and_prompt --assets DIR`), and what γ and β "
        "of the next norm can imitate of each was fitted on the training pictures and put in its "
        "place (`aptheory/findings/prompt_parts.py`; figure `results/figures/norm_shares.png`).",
        "\n".join(
            f"{_line(row)}; not flat by accuracy: {row['runs_still_moving']} runs"
            for row in _records(rows)
        ),
        "Backwards, γ and β tuned at a place and read as a prompt at the next one: the share of "
        f"their change that is the same for every input is {backwards['full'].mean():.2f} on "
        f"average ({backwards['full'].min():.2f} to {backwards['full'].max():.2f} over "
        f"{len(backwards)} places), {backwards['channel'].mean():.2f} with one value a channel.",
        *_taken_apart_by_depth(results),
    ]


def _taken_apart_by_depth(results: Results) -> list[str]:
    """What the norm's part of a prompt gains in each third of the depth."""
    if not results.has("evidence/judged_parts_by_depth"):
        return []
    rows = results.table("evidence/judged_parts_by_depth")
    table = at_every_place(results.table("evidence/parts"))
    pairs, networks = table[["network", "task"]].drop_duplicates(), sorted(set(table["network"]))
    return [
        f"At every place: the full prompts of {len(pairs)} pairs of {len(networks)} networks "
        f"({', '.join(networks)}; {len(table)} prompts, a new ridge head for each part; figure "
        "`results/figures/norm_part_by_layer.png`), by thirds of the depth:",
        "\n".join(
            f"{_line(row)}; not flat by accuracy: {row['runs_still_moving']} runs"
            for row in _records(rows)
        ),
    ]


def _by_accuracy(results: Results) -> list[str]:
    """Another mark of convergence, decided after the runs: what it counts, and what holds by it."""
    if not results.has("evidence/ends"):
        return []
    ends = results.table("evidence/ends")
    marks = ends["accuracy_flat"].astype("boolean")
    loss = ends["loss_flat"].astype("boolean")
    parts = [
        f"**Exploratory: another mark of convergence.** {len(ends)} of the chosen runs, of "
        f"{len(ends.groupby(['network', 'task']))} pairs of {ends['network'].nunique()} networks, "
        "were trained again (same pictures, seed and rate, float32; the journal keeps no curves: "
        "`python -m analyses.campaign_ends --assets DIR`, the cheapest networks first). Their "
        f"validation *loss* is flat in {int(loss.sum())}; their validation *accuracy* is flat "
        "within one binomial standard error over the last third of the run, counted in learning "
        f"rate, in {int(marks.sum())} (`training/convergence.py`, `accuracy_flat`). On 200 "
        "pictures that error is about 3 points: smaller moves are not seen. The mark was decided "
        "after the runs and moves no verdict.",
    ]
    if results.has("evidence/judged_flat"):
        rows = results.table("evidence/judged_flat")
        whole = results.table("evidence/judged").set_index("statistic")["agrees"]
        said = [
            f"{_line(row)}: {row['agrees']}, on all pairs {whole.get(row['statistic'], '–')}"
            for row in _records(rows)
            if str(row["statistic"]).endswith((", all", "minus near", "CNNs", "ViTs"))
            and str(row["low"]) != "nan"
        ]
        parts += [
            "The statistics on the pairs whose four runs are all flat by it:",
            "\n".join(said),
        ]
    return parts


def lines(rows: pd.DataFrame) -> str:
    """A line a statistic, with its interval, networks and pairs."""
    return "\n".join(_line(row) for row in _records(rows))


def _records(rows: pd.DataFrame) -> list[dict[str, object]]:
    return rows.to_dict("records")  # type: ignore[return-value]


def _line(row: dict[str, object]) -> str:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))  # type: ignore[arg-type]
    interval = f" [{low:+.2f}, {high:+.2f}]" if np.isfinite(low) else ""
    expected = "" if row["expected"] == "none" else f" (expected {row['expected']})"
    return (
        f"- {row['statistic']}: {value:+z.2f}{interval}, {row['networks']} networks, "
        f"{row['pairs']} pairs{expected}"
    )

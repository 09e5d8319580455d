"""What the campaign's prompts are at the next norm: what is judged of `analyses.norm_and_prompt`.

    python -m analyses.campaign_parts [--out results/evidence]

From parts.csv: judged_parts.csv, of the prompts at their chosen places, and, where pairs were taken
apart at every place, judged_parts_by_depth.csv, by thirds of the depth. Exploratory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analyses.campaign_plan import NETWORKS
from analyses.campaign_tables import looked_at
from aptheory.findings.statistics import clustered_mean

PARTS_SAY = {
    "share of the change at the next norm that β imitates": lambda t: t["beta"],
    "that γ and β imitate": lambda t: t["beta"] + t["gamma"],
    "share of the change of the logits that γ and β imitate": lambda t: t["logits gamma and beta"],
    "points that the prompt has on what γ and β imitate of it": lambda t: t["more"],
    "the same, each with a ridge head of its own": (
        lambda t: 100 * (t["retrained whole"] - t["retrained gamma and beta"])
    ),
    "points that the prompt has on no prompt, each with a ridge head of its own": (
        lambda t: 100 * (t["retrained whole"] - t["retrained none"])
    ),
}
"""What is said of a prompt that was taken apart (`analyses.norm_and_prompt`)."""


def parts_judged(parts: pd.DataFrame) -> pd.DataFrame:
    """J9, exploratory: what a prompt at its chosen place is at the next norm, networks as units."""
    at_chosen = parts[parts["chosen"]].assign(
        kind=parts["network"].map({name: spec.kind for name, spec in NETWORKS.items()})
    )
    rows = []
    for shape in ("full", "channel"):
        for kind, name in (("cnn", "CNNs"), ("vit", "ViTs")):
            part = at_chosen[(at_chosen["shape"] == shape) & (at_chosen["kind"] == kind)]
            if part.empty:
                continue
            for words, value in PARTS_SAY.items():
                interval = clustered_mean(value(part), part["network"], part["task"])
                said = f"{words}, {shape} prompt, {name}"
                rows.append(looked_at(said, interval, part, judged="J9"))
                moving = int((part["accuracy_flat"] != True).sum())  # noqa: E712  None is not flat
                rows[-1]["runs_still_moving"] = f"{moving} of {len(part)}"
    return pd.DataFrame(rows)


THIRDS = (("first", 0.0), ("middle", 1 / 3), ("last", 2 / 3))
"""Thirds of the depth, by where they begin."""


def at_every_place(parts: pd.DataFrame) -> pd.DataFrame:
    """The full prompts of the pairs that were taken apart at more than three places, with their
    ``gain``, that ``of norm`` (what gamma and beta imitate) and ``of beta``: points, a new ridge
    head for each."""
    full = parts[parts["shape"] == "full"]
    places = full.groupby(["network", "task"])["layer"].transform("nunique")
    full = full[places > 3]
    bare = full["retrained none"]
    return full.assign(
        **{
            "gain": 100 * (full["retrained whole"] - bare),
            "of norm": 100 * (full["retrained gamma and beta"] - bare),
            "of beta": 100 * (full["retrained beta"] - bare),
        }
    )


def parts_by_depth(parts: pd.DataFrame) -> pd.DataFrame:
    """J9, exploratory: what gamma and beta imitate of a prompt's gain in each third of the depth,
    networks as units."""
    table = at_every_place(parts)
    rows = []
    for number, (third, start) in enumerate(THIRDS):
        end = [*(start for _, start in THIRDS), 2.0][number + 1]
        part = table[(table["depth"] >= start) & (table["depth"] < end)]
        if part.empty:
            continue
        for words, value in (
            ("points that the full prompt gains", part["gain"]),
            ("that what γ and β imitate of it gains", part["of norm"]),
            ("that the prompt has on that", part["gain"] - part["of norm"]),
        ):
            interval = clustered_mean(value, part["network"], part["task"])
            said = f"{words}, {third} third of the depth"
            rows.append(looked_at(said, interval, part, judged="J9"))
            rows[-1]["pairs"] = part[["network", "task"]].drop_duplicates().shape[0]
            moving = int((part["accuracy_flat"] != True).sum())  # noqa: E712  None is not flat
            rows[-1]["runs_still_moving"] = f"{moving} of {len(part)}"
    return pd.DataFrame(rows)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    parts = pd.read_csv(out / "parts.csv")
    for name, said in (("parts", parts_judged(parts)), ("parts_by_depth", parts_by_depth(parts))):
        if len(said):
            said.round(6).to_csv(out / f"judged_{name}.csv", index=False)
            print(said.round(2).to_string())


if __name__ == "__main__":
    main()

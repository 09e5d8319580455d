"""The positive control: does the campaign's sweep find the place at which a tensor was planted?

    python -m analyses.campaign_planted [--out results/evidence]

A fixed tensor is added to what enters one place of a network: a prompt at that place can undo it
exactly, one elsewhere cannot. It is random, in shares of the activation's root mean square, or the
negative of the prompt that the clean network learnt there, so many times. What the journal says of
it goes into planted.csv, a row a case, and J10 of the plan into judged_planted.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analyses.campaign_tables import best_rates, chosen, read_journal
from analyses.results import Results
from aptheory.findings.pictures import wilson

CASE = ["network", "kind", "task", "seed", "plant", "planted_at", "planted_size"]
PLANTS = {"planted": "random", "planted_large": "random", "planted_trained": "trained"}


def planted(journal: pd.DataFrame) -> pd.DataFrame:
    """A row a case: the place that validation pictures choose, and what prompts gain there.

    ``moving`` counts prompts, one a place, whose validation loss was not flat at the end. ``off``
    is the distance in swept places between the chosen place and the planted one, ``gain``
    and ``gain_planted`` points over the linear probe of the flawed network at the chosen and at the
    planted place, ``next_best`` the same at the best other place by test accuracy.
    """
    runs = journal[journal["question"].isin([*PLANTS])]
    runs = runs.assign(plant=runs["question"].map(PLANTS))
    found = []
    for case, own in runs.groupby(CASE):
        prompts = best_rates(own[own["method"] == "ap"])
        probe = best_rates(own[own["method"] == "linear_probe"])["test_accuracy"].iloc[0]
        places = sorted(prompts["layer"])
        row = dict(zip(CASE, case, strict=True))
        best = chosen(prompts)
        gains = 100 * (prompts.set_index("layer")["test_accuracy"] - probe)
        at = int(row["planted_at"])
        found.append(
            {
                **row,
                "planted_at": at,
                "places": len(places),
                "chosen": int(best["layer"]),
                "found": best["layer"] == at,
                "off": abs(places.index(best["layer"]) - places.index(at)),
                "linear_probe": 100 * probe,
                "gain": gains[best["layer"]],
                "gain_planted": gains[at],
                "next_best": gains.drop(at).max(),
                "moving": int(prompts["converged"].ne(True).sum()),
            }
        )
    return pd.DataFrame(found)


def planted_judged(table: pd.DataFrame) -> pd.DataFrame:
    """J10, a row a plant and size: the share of cases whose chosen place is the planted one.

    The interval is Wilson's over cases; cases of one network are no independent draws, so it is
    rather too narrow. Chance is one in as many places as are swept.
    """
    rows = []
    for (plant, size), cases in table.groupby(["plant", "planted_size"]):
        count, found = len(cases), int(cases["found"].sum())
        low, high = wilson(found / count, count)
        rows.append(
            {
                "judged": "J10",
                "statistic": f"place of a {plant} tensor found, size {size:g}",
                "plant": plant,
                "planted_size": size,
                "value": found / count,
                "low": low,
                "high": high,
                "found": found,
                "within_one": int((cases["off"] <= 1).sum()),
                "cases": count,
                "networks": cases["network"].nunique(),
                "chance": float((1 / cases["places"]).mean()),
                "gain_planted": cases["gain_planted"].mean(),
                "next_best": cases["next_best"].mean(),
            }
        )
    return pd.DataFrame(rows)


def section(results: Results) -> str:
    """What `paper_repro.md` says of it, or nothing where it was not run."""
    if not results.has("evidence/judged_planted"):
        return ""
    rows = results.table("evidence/judged_planted")
    cases = results.table("evidence/planted")
    names = ", ".join(sorted(cases["network"].unique()))
    said = [
        f"- {row.statistic}: {row.found} of {row.cases} cases [{100 * row.low:.0f}, "
        f"{100 * row.high:.0f} %] (chance {row.chance:.0%}), at most one swept place off in "
        f"{row.within_one}; a prompt there gains {row.gain_planted:.1f} points, the best one "
        f"elsewhere {row.next_best:.1f}"
        for row in rows.itertuples()
    ]
    return "\n\n".join(
        [
            "### J10. Does the sweep find a planted place?",
            f"A fixed tensor is added to what enters one of two places of {names}; a prompt at "
            "that place can undo it exactly. It is random, in shares of the activation's root mean "
            "square, or trained: the negative of the prompt that the clean network learnt there, "
            "so many times (200 training pictures of gtsrb32, 20 epochs, two rates, one seed, "
            "`python -m analyses.campaign --assets DIR --question planted`, `planted_large`, "
            "`planted_trained`; figure `results/figures/planted.png`). The place is chosen on 200 "
            "validation pictures. Wilson's intervals over cases, which are too narrow where cases "
            "share a network.",
            "\n".join(said),
            *(_cost(own, str(plant)) for plant, own in cases.groupby("plant")),
        ]
    )


NOTICED = 5.0
"""Points that the largest tensor must cost the probe for a prompt to have something to undo."""


def _cost(cases: pd.DataFrame, plant: str) -> str:
    """What the flaw costs a probe that is trained behind it, and what follows for the control."""
    probes = cases.groupby("planted_size")["linear_probe"].mean()
    moving, runs = int(cases["moving"].sum()), int(cases["places"].sum())
    sizes = ", ".join(f"{value:.1f} % at size {size:g}" for size, value in probes.items())
    said = (
        f"{plant.capitalize()} tensors: {moving} of the {runs} prompts were still moving at the "
        f"end. The linear probe, trained on the flawed network, reads {sizes}."
    )
    lost = probes.iloc[0] - probes.iloc[-1]
    if lost < NOTICED:
        said += (
            f" From the smallest tensor to the largest it changes by {-lost:+.1f} points: the head "
            "is trained behind the flaw: there is little to undo, and this is no test of the "
            "sweep's power."
        )
    return said


def main() -> None:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    cases = planted(read_journal(out))
    said = planted_judged(cases)
    cases.round(6).to_csv(out / "planted.csv", index=False)
    said.round(6).to_csv(out / "judged_planted.csv", index=False)
    print(said.round(2).to_string())


if __name__ == "__main__":
    main()

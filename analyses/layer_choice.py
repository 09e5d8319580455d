"""Can the layer be chosen without a sweep? The regret table, from scratch.

    python -m analyses.layer_choice [FOLDER ...] [--out runs/layer_choice] [--no-search]

Takes folders of finished sweeps (all under runs/ that have plan.json and accuracy.csv by default),
scores every layer of their networks on their tasks, and judges each way to choose by its *regret*:
test accuracy at the layer that is truly best minus that at the chosen one.

Everything below was fixed before the evidence was made:

- *rule*: `aptheory.choosing.rule`, its family of scores and penalty chosen and its weights fitted
  without the network and without the task that it is judged on (where nothing else is left,
  without the network). Nothing is chosen by looking at the pair. The scores look at as many
  training images as 2 % of the sweep's operations buy, 256 at most.
- *fixed places*: the paper's (CNNs the input of the last stage, ViTs the third block), the
  middle, the last, the image, a random layer; the best of the other networks' mean curve.
- *searches, trained anew* by `aptheory.choosing.trials` within a share of the sweep's operations,
  results kept in OUT/searches: successive halving over layers that are spread out, at the cost of
  the rule's scores, at 2 % and at 10 %; and the rule's ranking with the rest of 2 % and 10 % spent
  on its best layers. What the budget bought (layers and epochs) stands in searches.csv.
- *noise floor*: the best on validation by the full sweep, and the layer best on test with one
  seed, judged with the others. No way without test data can be expected to do much better.
- *single scores* and the mean rank of the prompt's derivative: looks without a choice, for the
  reader; they take no part in the rule.

``regret`` counts against the best mean over seeds on test data, which is itself lucky;
``regret_fresh`` against the layer best with the other seeds, which is not. Intervals take
networks as the units (cluster-robust, Student's t). Cost is the share of the sweep's operations.
Networks with random weights are left out. Writes scores/, searches/, regret.csv, summary.csv,
searches.csv and rule.json; run again after new sweeps, only what is missing is computed.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses.layer_cases import Case, found_sweeps, gather
from aptheory.choosing.ranking import ranking
from aptheory.choosing.rule import Fitter, Rule
from aptheory.choosing.scores import PLACES, SCORES, standardise
from aptheory.choosing.trials import Plan, plan, search, spread_out
from aptheory.errors import InputError
from aptheory.exploration import write_table
from aptheory.findings.statistics import clustered_mean
from aptheory.studies.files import write_atomically
from aptheory.studies.records import key_of
from aptheory.studies.sources import load_network, load_task

BUDGETS = (0.02, 0.1)
DERIVATIVE = ("tangent_explained", "tangent_dimension", "tangent_variation", "gradient_gain")
GOAL_REGRET, GOAL_COST = 1.0, 0.02


# ------------------------------------------------------------------------------- choosing


def nearest(layers: Sequence[int], wanted: float) -> int:
    """The swept layer nearest to a place; the deeper of two."""
    return min(layers, key=lambda layer: (abs(layer - wanted), -layer))


def held_out_rules(cases: Sequence[Case]) -> dict[int, Rule]:
    """Number of a case -> the rule fitted without its network and task; none for one network."""
    fitter = Fitter([case.pair for case in cases])
    everyone = range(len(cases))
    rules = {}
    for number in everyone:
        on = fitter.unlike(number, [i for i in everyone if i != number])
        if on:
            rules[number] = fitter.rule(on)
    return rules


def _ranking(case: Case, preference: np.ndarray) -> list[int]:
    """The swept layers, best first."""
    order = ranking(preference, key=f"{case.network}|{case.task}")
    return [int(layer) for layer in case.scores["layer"].iloc[order] if layer in case.layers]


def choices(case: Case, rule: Rule | None, others: Sequence[Case]) -> list[tuple[str, int, float]]:
    """(way, layer, cost in operations) of every way that trains nothing anew."""
    last = int(case.scores["layer"].max())
    layers = case.layers
    found = [
        ("paper's place", nearest(layers, case.facts["paper_layer"]), 0.0),
        ("middle layer", nearest(layers, last / 2), 0.0),
        ("last layer", layers[-1], 0.0),
        ("image (VP)", layers[0], 0.0),
        ("best on validation (the sweep)", case.validated, case.sweep_cost),
    ]
    if rule is not None:
        best = _ranking(case, rule.predict(case.scores))[0]
        found.append(("rule", best, _rule_cost(case, rule)))
    if others:
        found.append(("mean curve of other networks", _mean_curve(case, others), 0.0))
    design = standardise(case.scores)
    for name in SCORES:
        if name not in PLACES:
            best = _ranking(case, design[name].to_numpy())[0]
            found.append((f"score: {name}", best, case.score_cost))
    ranks = design[list(DERIVATIVE)].rank().mean(axis=1).to_numpy()
    found.append(("mean rank of derivative scores", _ranking(case, ranks)[0], case.score_cost))
    return found


def _rule_cost(case: Case, rule: Rule) -> float:
    """Of its scores; a rule that came to read depth alone needs none."""
    return case.score_cost if rule.needs_images else 0.0


def _mean_curve(case: Case, others: Sequence[Case]) -> int:
    """Depth alone, as learned from the others: the best of their mean accuracy curve."""
    depth = np.array(case.layers) / case.scores["layer"].max()
    curves = []
    for other in others:
        values = other.tests.mean().to_numpy()
        spread = float(values.std()) or 1.0
        at = np.array(other.layers) / other.scores["layer"].max()
        curves.append(np.interp(depth, at, (values - values.mean()) / spread))
    return case.layers[int(np.mean(curves, axis=0).argmax())]


def searches(case: Case, rule: Rule | None) -> list[tuple[str, Plan, float]]:
    """(way, what its budget buys, cost in operations) of every search for one case."""
    blind = spread_out(case.layers)
    found = []

    def buy(order: Sequence[int], budget: float, enough: int) -> Plan:
        epochs, seeds = case.recipe.epochs, len(case.tests)
        return plan(case.prices, order, budget=budget, epochs=epochs, seeds=seeds, enough=enough)

    for said, budget in (
        ("the scores' cost", case.score_cost),
        *((f"{share:.0%}", share * case.sweep_cost) for share in BUDGETS),
    ):
        bought = buy(blind, budget, len(blind))
        found.append((f"successive halving, {said}", bought, bought.operations))
    if rule is not None:
        order = _ranking(case, rule.predict(case.scores))
        for share in BUDGETS:
            bought = buy(order, share * case.sweep_cost - _rule_cost(case, rule), 4)
            cost = _rule_cost(case, rule) + bought.operations
            found.append((f"rule, then trials, {share:.0%}", bought, cost))
    return found


def carry_out(case: Case, bought: Plan, out: Path, loaded: dict[str, Any]) -> int:
    """The layer that a search finds; its trials are trained once and kept in OUT/searches."""
    identity = {
        "network": case.network,
        "task": case.task,
        "scores": case.facts,
        "layers": sorted(bought.layers),
        "epochs": bought.epochs,
        "seeds": bought.seeds,
        "recipe": case.recipe.settings(),
    }
    path = out / "searches" / f"{key_of(identity)}.json"
    if not path.is_file():
        if loaded.get("of") != (case.network, case.task):
            loaded |= {
                "of": (case.network, case.task),
                "net": load_network(case.network_spec),
                "task": load_task(case.task_spec),
            }
        start = time.process_time()
        found = search(loaded["net"], loaded["task"], bought, recipe=case.recipe)
        rows = found.table[["layer", "rung", "epochs", "val_accuracy", "val_loss", "goes_on"]]
        values = {
            "layer": int(found.best[0].settings()["layer"]),
            "cpu_seconds": round(time.process_time() - start, 2),
            "trials": json.loads(rows.to_json(orient="records")),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(values) + "\n")
    return int(json.loads(path.read_text(encoding="utf-8"))["layer"])


# ------------------------------------------------------------------------------- judging


def regrets(
    cases: Sequence[Case], out: Path, *, train: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per (network, task, way): the layer, its regrets, its cost; and what searches bought.

    ``train=False`` leaves the searches out, unless they are kept from before.
    """
    rules = held_out_rules(cases)
    rows, bought_rows = [], []
    for number, case in enumerate(cases):
        rule = rules.get(number)
        others = [c for c in cases if c.network != case.network and c.task != case.task]
        key = {"network": case.network, "task": case.task}
        found = choices(case, rule, others)
        loaded: dict[str, Any] = {}
        for way, bought, cost in searches(case, rule) if train else ():
            note = "as planned"
            if bought.layers:
                layer = carry_out(case, bought, out, loaded)
            elif way.startswith("rule"):
                layer = _ranking(case, rule.predict(case.scores))[0] if rule else case.layers[0]
                note = "the budget buys no choice between two layers: the rule's best"
            else:
                layer = spread_out(case.layers)[0]
                note = "the budget buys no choice between two layers: the middle"
            found.append((way, layer, cost))
            bought_rows.append(
                key
                | {"way": way, "layers": len(bought.layers), "of_layers": len(case.layers)}
                | {"epochs": bought.epochs, "of_epochs": case.recipe.epochs, "note": note}
            )
        for way, layer, cost in found:
            rows.append(
                key
                | {"way": way, "layer": layer, "regret": case.regret(layer)}
                | {"regret_fresh": case.fresh_regret(layer), "cost": cost / case.sweep_cost}
                | {"family": rule.family if rule and way == "rule" else ""}
            )
        average = np.mean([case.regret(layer) for layer in case.layers])
        fresh = np.mean([case.fresh_regret(layer) for layer in case.layers])
        rows.append(
            key
            | {"way": "random layer", "layer": -1, "regret": average, "regret_fresh": fresh}
            | {"cost": 0.0, "family": ""}
        )
        if seeds := case.another_seed():
            rows.append(
                key
                | {"way": "best on another seed's test", "layer": -1, "cost": 1 / len(seeds)}
                | {"regret": float(np.mean([lost for _, lost in seeds])), "family": ""}
                | {"regret_fresh": np.nan}
            )
    return pd.DataFrame(rows), pd.DataFrame(bought_rows)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean regret of each way, its 95 % interval with networks as the units, and its cost.

    ``within_goal``: share of pairs that lose at most one point. ``cost_worst``: of the dearest.
    """
    rows = []
    for way, group in table.groupby("way"):
        values, networks = group["regret"].to_numpy(float), group["network"].to_numpy(str)
        fresh = group["regret_fresh"].to_numpy(float)
        regret, low, high, _ = clustered_mean(values, networks)
        rows.append(
            {
                "way": way,
                "regret": regret,
                "low": low,
                "high": high,
                "worst": values.max(),
                "regret_fresh": np.nan if np.isnan(fresh).any() else fresh.mean(),
                "within_goal": np.mean(values <= GOAL_REGRET),
                "cost": group["cost"].mean(),
                "cost_worst": group["cost"].max(),
                "pairs": len(values),
                "networks": len(set(networks)),
            }
        )
    return pd.DataFrame(rows).sort_values("regret").reset_index(drop=True)


def final_rule(cases: Sequence[Case], summary: pd.DataFrame) -> Rule:
    """The rule that ships: fitted on everything, with the regret of its held-out versions."""
    rule = Fitter([case.pair for case in cases]).rule()
    ways = summary.set_index("way")
    if "rule" not in ways.index:
        return rule
    held = ways.loc["rule"]
    return Rule(
        rule.weights,
        rule.family,
        rule.penalty,
        rule.fitted_on,
        round(float(held["regret"]), 2),
        round(float(held["high"]), 2),
        round(float(ways.loc["middle layer", "regret"]), 2),
    )


def findings(table: pd.DataFrame, summary: pd.DataFrame, cases: Sequence[Case]) -> list[str]:
    """The goal, the middle layer and the failures, in sentences."""
    ways = summary.set_index("way")
    said = []
    if "rule" in ways.index:
        rule, middle = ways.loc["rule"], ways.loc["middle layer"]
        met = rule["regret"] <= GOAL_REGRET and rule["cost"] <= GOAL_COST
        said.append(
            f"Goal (mean regret ≤ {GOAL_REGRET:g} point at ≤ {GOAL_COST:.0%} of a sweep): "
            f"{'met' if met else 'not met'} by the rule: {rule['regret']:.2f} points "
            f"[{rule['low']:.2f}, {rule['high']:.2f}] at {rule['cost']:.2%} "
            f"(dearest {rule['cost_worst']:.2%})."
        )
        both = table[table["way"].isin(("rule", "middle layer"))].pivot_table(
            index=["network", "task"], columns="way", values="regret"
        )
        gap = (both["middle layer"] - both["rule"]).dropna()
        advantage = clustered_mean(gap.to_numpy(), gap.index.get_level_values("network"))
        verdict = "not told apart"
        if advantage.low > 0 or advantage.high < 0:
            verdict = "better" if advantage.low > 0 else "worse"
        said.append(
            f"Against the middle layer ({middle['regret']:.2f}): {advantage:+.2f points}, "
            f"{verdict}."
        )
        families = table.loc[table["way"] == "rule", "family"].value_counts()
        said.append(
            "Families that the held-out rules chose: "
            + ", ".join(f"{name} ({count})" for name, count in families.items())
            + "."
        )
        worst = table[(table["way"] == "rule") & (table["regret"] > GOAL_REGRET)]
        where = {(case.network, case.task): case for case in cases}
        for row in worst.nlargest(5, "regret").itertuples():
            case = where[row.network, row.task]
            best = int(case.tests.mean().idxmax())
            said.append(
                f"Fails on {row.network}, {row.task}: layer {row.layer} instead of {best} loses "
                f"{row.regret:.1f} points (spread over layers "
                f"{100 * float(np.ptp(case.tests.mean())):.1f})."
            )
    cpu = [case.facts["cpu_seconds"] for case in cases]
    said.append(f"The scores took {min(cpu):.0f} to {max(cpu):.0f} s of processor time a pair.")
    return said


def main(
    folders: Sequence[Path],
    out: Path = Path("runs/layer_choice"),
    *,
    images: int = 256,
    train: bool = True,
) -> pd.DataFrame:
    """Write the regret table and the rule, print what was found; returns the summary.

    Raises:
        InputError: no folder holds a usable sweep.
    """
    cases = gather(folders, out, images=images)
    if not cases:
        raise InputError(
            "no finished sweep of activation prompts over four layers was found: run python -m "
            "analyses.layer_preference first, or name the folders"
        )
    table, bought = regrets(cases, out, train=train)
    summary = summarise(table)
    write_table(table, out / "regret.csv")
    write_table(summary, out / "summary.csv")
    if len(bought):
        write_table(bought, out / "searches.csv")
    final_rule(cases, summary).save(out / "rule.json")
    print(summary.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    for sentence in findings(table, summary, cases):
        print(f"- {sentence}")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", help="of finished sweeps; all under runs/")
    parser.add_argument("--out", type=Path, default=Path("runs/layer_choice"))
    parser.add_argument("--images", type=int, default=256, help="that the scores look at, at most")
    parser.add_argument("--no-search", action="store_true", help="train nothing anew")
    chosen = parser.parse_args()
    try:
        main(
            chosen.folders or found_sweeps(Path("runs")),
            chosen.out,
            images=chosen.images,
            train=not chosen.no_search,
        )
    except InputError as error:
        sys.exit(str(error))

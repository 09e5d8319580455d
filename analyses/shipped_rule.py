"""Fit the rule that comes with the package again, on all pairs, and say what to expect of it.

    python -m analyses.shipped_rule [--results results] [--to aptheory/choosing/rule.json]

From stored tables alone. The ranking that needs no training is fitted on the place scores of all 65
pairs (those that need images won no place beside them on the 25 pairs that have them:
`analyses.layer_choice`). The trials' rate and pull are those that do best on the campaign's pairs;
what to expect at each budget are the regrets of `analyses.layer_front`, where both were learnt
without the network and the task.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.choice_curves import Curve, read_curves
from analyses.choice_ways import Free, Way, ways
from analyses.results import Results
from aptheory.choosing.rule import FAMILIES, Budget, Fitter, Pair, Rule, Trials
from aptheory.choosing.scores import PLACES, SCORES, of_places
from aptheory.findings.statistics import clustered_mean

UNTRAINED = "the middle"
ONE_RATE = "5 places, one rate"
EVERYTHING = "all places and rates, 1 seed, pulled to the middle"
BUDGETS = ("2 places, one rate", "3 places, one rate", ONE_RATE, EVERYTHING)
"""Ways whose regret is expected where a budget buys as much; the last one learns the pull."""


def pair_of(curve: Curve) -> Pair:
    """A curve as the rule's fitter takes it, with the scores that follow from the place alone."""
    scores = of_places(curve.last + 1, curve.kind)
    table = pd.DataFrame({name: scores.get(name, np.nan) for name in SCORES})
    accuracy = np.full(curve.last + 1, np.nan)
    accuracy[curve.layers] = curve.test / 100
    return Pair(curve.network, curve.task, table, accuracy)


def ranking_rule(curves: Sequence[Curve]) -> Rule:
    """The rule without training, with the regret of its versions that were fitted elsewhere."""
    families = {name: some for name, some in FAMILIES.items() if set(some) <= set(PLACES)}
    pairs = [pair_of(curve) for curve in curves]
    fitter = Fitter(pairs)
    everyone = range(len(pairs))
    lost, middle = [], []
    for number, (pair, curve) in enumerate(zip(pairs, curves, strict=True)):
        held = fitter.rule(fitter.unlike(number, everyone), families)
        lost.append(pair.regret(held.predict(pair.scores)))
        middle.append(curve.regret(-curve.off_centre))
    networks = [curve.network for curve in curves]
    found = clustered_mean(lost, networks)
    return replace(
        fitter.rule(families=families),
        regret=round(found.value, 2),
        regret_high=round(found.high, 2),
        baseline=round(clustered_mean(middle, networks).value, 2),
    )


def trials_of(curves: Sequence[Curve], summary: pd.DataFrame) -> Trials:
    """Rate and pull that do best on all these pairs, and what each budget was found to bring."""
    known = {way.name: way for way in ways(len(curves[0].rates), 1)}

    def best(way: Way) -> Free:
        lost = [
            np.mean([one.regret(way.judge(one, free, np.zeros(1))[0]) for one in curves])
            for free in way.grid
        ]
        return way.grid[int(np.argmin(np.round(lost, 9)))]

    rates = curves[0].rates
    rows = summary[summary["data"] == "campaign"].set_index("way")
    budgets = [
        Budget(
            cost=round(float(rows.loc[name, "cost"]), 4),
            regret=round(float(rows.loc[name, "regret"]), 2),
            high=round(float(rows.loc[name, "high"]), 2),
            probe=round(float(rows.loc[name, "probe_better"]), 2),
        )
        for name in (UNTRAINED, *BUDGETS)
    ]
    return Trials(
        lr=rates[best(known[ONE_RATE]).rates[0]],
        lrs=rates,
        pull=best(known[EVERYTHING]).pull,
        budgets=tuple(budgets),
        pairs=len({(one.network, one.task) for one in curves}),
    )


def main() -> None:
    """Write the rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--to", type=Path, default=Path("aptheory/choosing/rule.json"))
    asked = parser.parse_args()
    campaign, older = read_curves(asked.results)
    summary = Results(asked.results).table("evidence/choice_summary")
    firsts = [one for one in campaign if one.draw == 0]  # every draw is worth the mean over draws
    rule = replace(ranking_rule([*firsts, *older]), trials=trials_of(campaign, summary))
    rule.save(asked.to)
    print(rule)
    print(rule.trials)


if __name__ == "__main__":
    main()

"""What a run's tables say, in plain sentences; the verdicts are `aptheory.findings.cases`'s.

A gain is said where the 95 % interval of the difference from the linear probe lies above zero and
the controls move less. What the runs cannot tell (one seed, seeds that changed nothing, a rival
that was not run) is said to be unknown.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from aptheory.findings.cases import LINEAR_PROBE, Case, cases, groups
from aptheory.findings.gaps import mean_accuracy, runs_of
from aptheory.findings.labels import method_name
from aptheory.findings.readings import reading_sentences
from aptheory.findings.statistics import Interval, mean_over
from aptheory.findings.verdict import Verdict, unknown_because, verdict


def sentences(
    accuracy: pd.DataFrame, relation: pd.DataFrame, *, judge: str = "accuracy"
) -> list[str]:
    """What the tables say, the most important first; ``judge`` chose among readings."""
    found = cases(accuracy)
    words = overview(found)
    for case in found:
        words += case_sentences(case)
    words += reading_sentences(accuracy, judge=judge)
    return words + without_prompt(accuracy, found) + checks(found, relation)


def overview(found: list[Case]) -> list[str]:
    """The same over all cases, a sentence a network; none where there is one case."""
    if len(found) < 2:
        return []
    words = []
    for network in dict.fromkeys(case.network for case in found):
        own = [case for case in found if case.network == network]
        tasks, recipes = ({getattr(case, name) for case in own} for name in ("task", "recipe"))
        several = f"{len(tasks)} tasks" if len(tasks) > 1 else "one task"
        several += f" with {len(recipes)} recipes" if len(own) > len(tasks) else ""
        depths = np.array([case.depth for case in own])
        sentence = f"{network}, {several}:"
        if np.isfinite(depths).all():
            where = f"{np.median(depths):.2f} of its depth"
            if len(own) > 1:
                where += f" in the median ({depths.min():.2f} to {depths.max():.2f})"
            sentence += f" the place chosen for a prompt lies at {where};"
        sentence += " a prompt clearly " + _tally(
            [case.verdict for case in own], "the linear probe, by more than any control moves,"
        )
        sentence += _averaged(own)
        rivals = [verdict(case.over_probe) for case in own if case.probe is not None]
        if rivals:
            sentence += f"; it clearly {_tally(rivals, 'the best earlier probe')}"
        words.append(sentence + ".")
    return words


def _averaged(own: list[Case]) -> str:
    """The mean gain of one network with its tasks as the units, where several were compared."""
    gains = pd.DataFrame({"task": [c.task for c in own], "gain": [c.gain.value for c in own]})
    by_task = gains.dropna().groupby("task")["gain"].mean()
    if len(by_task) < 2:
        return ""
    mean = mean_over(by_task, unit="tasks", within=(-100, 100))
    return f" (on average of {len(by_task)} tasks {_points(mean)})"


def _tally(verdicts: list[Verdict], other: str) -> str:
    """How many verdicts go which way, and of how many nothing is known."""
    counts = {kind: verdicts.count(kind) for kind in Verdict}
    words = f"beats {other} on {counts[Verdict.GAIN]} and loses to it on {counts[Verdict.LOSS]}"
    words += f" of {len(verdicts)}"
    unknown = counts[Verdict.UNKNOWN]
    return words + (f", and on {unknown} it is unknown" if unknown else "")


def case_sentences(case: Case) -> list[str]:
    """One network on one task: the prompt and its controls, then its strongest rival."""
    return [_gain(case), *_rival(case)]


def headline(case: Case) -> str:
    """A case in the few words that fit above a chart."""
    recipe = f"recipe {case.recipe}: " if case.recipe else ""
    words = f"{recipe}prompt at {case.prompt}: {_percent(case.prompt.accuracy)}"
    if case.probe is not None:
        words += f"; probe of {case.probe}: {_percent(case.probe.accuracy)}"
    return words


def without_prompt(accuracy: pd.DataFrame, found: list[Case]) -> list[str]:
    """What was trained where no prompt was, or none whose layer can be chosen."""
    told = {(case.network, case.task) for case in found}
    words = []
    for rows in groups(accuracy):
        network, task = (str(rows[name].iloc[0]) for name in ("network", "task"))
        runs = runs_of(rows)
        if (network, task) in told or not runs:
            continue
        scores = [
            f"{method_name(name)} {_percent(mean_accuracy(of_layer))}"
            + (f" at layer {layer}" if len([n for n, _ in runs if n == name]) > 1 else "")
            for (name, layer), of_layer in runs.items()
        ]
        words.append(
            f"On {task}, {network} has no prompt whose layer validation data could choose, so "
            f"nothing is said of layers. Test accuracy: {', '.join(scores)}."
        )
    return words


def checks(found: list[Case], relation: pd.DataFrame) -> list[str]:
    """The control that must hold, what the intervals hold, and whether a metric explains it."""
    return _control(found) + _intervals(found) + _relations(relation)


def percent(value: float, low: float, high: float) -> str:
    """``59.8 % [57.2, 62.3]`` of fractions; the interval where there is one."""
    return f"{Interval(value, low, high).times(100):.1f %}"


def points(value: float, low: float, high: float) -> str:
    """``+1.2 points [-0.3, +2.7]``; the interval where there is one."""
    return f"{Interval(value, low, high):+.1f points}"


def _percent(accuracy: Interval) -> str:
    return f"{replace(accuracy, note=''):.1f %}"


def _points(difference: Interval) -> str:
    return f"{replace(difference, note=''):+.1f points}"


def _head(case: Case) -> str:
    return f"On {case.task}{f' with recipe {case.recipe}' if case.recipe else ''}, {case.network}"


def _where(case: Case) -> str:
    of = "" if case.last is None else f" of {case.last}"
    return f"layer {case.prompt.layer}{of} ({case.prompt.name})"


def over_seeds(count: int) -> str:
    """From how many seeds a number comes, in words."""
    return f"over {count} seeds" if count > 1 else "from one seed"


def _gain(case: Case) -> str:
    place, chosen = _where(case), len([layer for name, layer in case.runs if name == case.method])
    how = ", chosen on validation data" if chosen > 1 else ""
    value = f"{_percent(case.prompt.accuracy)} test accuracy {over_seeds(case.seeds)}"
    against = [
        f"{_percent(runs)} for {name} ({_points(difference)}{_shared(case, runs, difference)})"
        for name, runs, difference in _rivals(case)
    ]
    facts = f"{value}{f', against {_listed(against)}' if against else ''}"
    match case.verdict:
        case Verdict.GAIN:
            return f"{_head(case)} gains from a prompt at {place}{how}: {facts}."
        case Verdict.LOSS:
            return f"{_head(case)} loses by a prompt, even at {place}{how}: {facts}."
        case Verdict.UNCLEAR:
            why = f" ({'; '.join(case.doubts)})" if verdict(case.gain) is Verdict.GAIN else ""
            chosen_here = "validation data choose " if how else "a prompt at "
            return f"{_head(case)} has no clear gain{why}: {chosen_here}{place}, {facts}."
        case _:
            why = unknown_because(case.gain, "the linear probe")
            head = f"{_head(case)}: whether a prompt gains is unknown ({why})"
            return f"{head}; {place}{how}: {facts}."


def _shared(case: Case, runs: Interval, difference: Interval) -> str:
    """Over how many seeds a difference is, where one side has others beside them."""
    if difference.n == max(case.seeds, runs.n):
        return ""
    return f" over the {difference.n} seed{'s' * (difference.n > 1)} of both"


def _rivals(case: Case) -> list[tuple[str, Interval, Interval]]:
    """Name, accuracy and difference of what the prompt is compared with, where it was run."""
    at_place = case.random
    image = case.runs.get((case.method, 0))
    rivals = [("the linear probe", case.linear_probe, case.gain)]
    if at_place is not None:
        name = "a random pattern of the same norm there"
        rivals.append((name, mean_accuracy(at_place), case.over_random))
    if image is not None:
        rivals.append(("a prompt on the image", mean_accuracy(image), case.over_image))
    return [rival for rival in rivals if np.isfinite(rival[2].value)]


def _rival(case: Case) -> list[str]:
    if case.probe is None:
        return []
    head = (
        f"Its rival without a prompt, a probe of {case.probe} chosen on validation data, has "
        f"{_percent(case.probe.accuracy)}: the prompt's accuracy minus that probe's is "
        f"{_points(case.over_probe)}{_shared(case, case.probe.accuracy, case.over_probe)}"
    )
    match verdict(case.over_probe):
        case Verdict.GAIN:
            end = "the prompt beats it"
        case Verdict.LOSS:
            end = "the probe wins, and it is cheaper"
        case Verdict.UNCLEAR:
            end = "which of the two is better is not decided; the probe is cheaper"
        case _:
            why = unknown_because(case.over_probe, "the probe")
            end = f"which of the two is better is unknown ({why})"
    return [f"{head}; {end}. Advice for {case.network} on {case.task}: {case.advice}."]


def _control(found: list[Case]) -> list[str]:
    """Whether a prompt at the classifier's input equals the linear probe, as it must."""
    gaps = []
    for case in found:
        at_end = case.runs.get((case.method, -1 if case.last is None else case.last))
        probe = next((r for (name, _), r in case.runs.items() if name == LINEAR_PROBE), None)
        if at_end is not None and probe is not None:
            each = at_end.set_index("seed")["value"] - probe.groupby("seed")["value"].mean()
            gaps += list(100 * each.dropna())
    if not gaps:
        return []
    name = "/".join(dict.fromkeys(method_name(case.method) for case in found))
    largest = np.abs(gaps).max()
    runs = f"in {len(gaps)} runs" if len(gaps) > 1 else "in one run"
    found_there = f"the two are equal {runs}."
    if largest >= 0.005:
        found_there = (
            f"{runs} its accuracy there differs from the probe's by {np.mean(gaps):+.2f} points on "
            f"average and by at most {largest:.2f} in any. Differences of this size are the "
            "optimiser's, not the layer's."
        )
    return [
        f"Control: {name} at the classifier's input can express exactly what the linear probe can; "
        f"trained each by itself, {found_there}"
    ]


def _intervals(found: list[Case]) -> list[str]:
    """What the printed intervals hold."""
    intervals = [case.prompt.accuracy for case in found]
    if not intervals:
        return []
    pictures = all("test pictures" in one.errors for one in intervals)
    same: dict[tuple[str, int], list[str]] = {}
    for case in found:
        if not case.prompt.accuracy.spread:
            same.setdefault((case.network, case.seeds), []).append(case.task)
    words = []
    if pictures and all(case.seeds > 1 and case.prompt.accuracy.spread for case in found):
        words.append("Intervals (95 %) hold the test pictures and the training (seeds).")
    elif pictures:
        words.append(
            "Intervals (95 %) of runs with one seed, or whose seeds changed nothing, hold the test "
            "pictures alone; all others hold the training (seeds) as well."
        )
    elif any(one.known for case in found for one in _printed(case)):
        words.append("Intervals (95 %) hold the training (seeds) alone, not the test pictures.")
    else:
        words.append(
            "No interval stands beside these numbers: the runs do not tell how much a seed changes."
        )
    for (network, seeds), tasks in same.items():
        words.append(
            f"No spread on {_listed(list(dict.fromkeys(tasks)))}: the {seeds} seeds of {network} "
            "gave the same result, as when all training images are one batch; --redraw, or "
            "redraw = true in the recipe of a study file, draws the images anew for each seed, and "
            "then the seeds tell what training changes."
        )
    return words


def _printed(case: Case) -> list[Interval]:
    """Every number of a case that a sentence prints."""
    rivals = [one for _, *pair in _rivals(case) for one in pair]
    probe = [case.probe.accuracy, case.over_probe] if case.probe else []
    return [case.prompt.accuracy, *rivals, *probe]


def _relations(relation: pd.DataFrame) -> list[str]:
    if relation.empty:
        return []
    rows = relation[relation["statistic"] == "spearman"].dropna(subset=["value"])
    if "target" in rows:
        rows = rows[rows["target"] == "ap"]
    if rows.empty:
        return []
    looks = int(rows["looks"].iloc[0])
    if not looks:
        layers, tests = int(rows["layers"].max()), int(relation["p"].notna().sum())
        return [
            "Whether a metric explains the layer preference cannot be tested here: with "
            f"{layers} layers the smallest p of one curve is 1/{2 * layers}, which no correction "
            f"over {tests} tests leaves below 0.05. It takes several networks."
        ]
    found = rows[rows["q"] <= 0.05]
    words = [
        f"{row['measure'].replace('_', ' ').capitalize()} correlates with the prompt's accuracy "
        f"over layers at {row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] for "
        f"{row['network']} on {row['task']}."
        for row in found.to_dict("records")
    ]
    if found.empty:
        strongest = rows.iloc[int(rows["value"].abs().argmax())]
        words.append(
            f"No metric explains the layer preference beyond chance after {looks} looks; the "
            f"strongest rank correlation is {strongest['value']:+.2f} "
            f"({str(strongest['measure']).replace('_', ' ')}, {strongest['network']} on "
            f"{strongest['task']})."
        )
    return words


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))

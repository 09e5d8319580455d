"""Sentences survive a hostile referee: one seed, no spread or a control take a gain back."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aptheory.findings.cases import cases
from aptheory.findings.chosen import best_layers
from aptheory.findings.compare import compare
from aptheory.findings.pictures import paired_pictures, two_source_interval
from aptheory.findings.sentences import sentences
from aptheory.findings.statistics import Interval, corrected
from aptheory.findings.verdict import Verdict, verdict

NOTHING = pd.DataFrame()


def rows(method, layer, values, *, val=0.5, last=10, pictures=None):
    """Test and validation accuracy of one method at one layer, a seed a value."""
    made = []
    for seed, value in enumerate(values):
        shared = {"network": "net", "task": "signs", "method": method, "layer": layer}
        shared |= {"layer_name": f"blocks.{layer}", "depth": layer / last, "seed": seed}
        correct = None if pictures is None else pictures[seed]
        made.append(shared | {"measure": "test_accuracy", "value": value, "correct": correct})
        made.append(shared | {"measure": "val_accuracy", "value": val, "correct": None})
    return made


def table(*parts):
    return pd.DataFrame([row for part in parts for row in part])


PROBE = rows("linear_probe", 10, [0.50, 0.51, 0.52])
PROMPT = rows("ap", 4, [0.60, 0.62, 0.61], val=0.9)
RANDOM = rows("random_perturbation", 4, [0.50, 0.51, 0.53])
AT_END = rows("ap", 10, [0.50, 0.52, 0.50])
EARLIER = [*rows("layer_probe", 3, [0.65, 0.68, 0.66], val=0.8), *rows("layer_probe", 5, [0.9] * 3)]


def said(*parts):
    words = sentences(table(*parts), NOTHING)
    assert not any("nan" in sentence for sentence in words), words
    return words


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (Interval(2, 1, 3, 3), Verdict.GAIN),
        (Interval(-2, -3, -1, 3), Verdict.LOSS),
        (Interval(1, -1, 3, 3), Verdict.UNCLEAR),
        (Interval(1, 0, 2, 3), Verdict.UNCLEAR),
        (Interval(2, 1, 3, 1), Verdict.UNKNOWN),
        (Interval(2, 1, 3, 3, spread=False), Verdict.UNKNOWN),
        (Interval(2, n=3), Verdict.UNKNOWN),
        (Interval(float("nan")), Verdict.UNKNOWN),
        (None, Verdict.UNKNOWN),
    ],
)
def test_what_is_unknown_is_not_a_gain(gap, expected):
    assert verdict(gap) is expected


def test_a_gain_is_said_with_its_controls_and_its_strongest_rival():
    gain, rival, *_ = said(PROBE, PROMPT, RANDOM, AT_END, EARLIER)
    assert "net gains from a prompt at layer 4 of 10 (blocks.4), chosen on validation data" in gain
    assert "51.0 % [48.5, 53.5] for the linear probe (+10.0 points" in gain
    assert "for a random pattern of the same norm there (+9.7 points" in gain
    assert "a probe of layer 3 (blocks.3) chosen on validation data, has 66.3 %" in rival
    assert "the probe wins" in rival
    assert "Advice for net on signs: probe layer 3 (blocks.3)." in rival


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((PROMPT, AT_END), "unknown (the linear probe was not run)"),
        ((rows("ap", 4, [0.6], val=0.9), PROBE), "unknown (one seed)"),
        ((rows("ap", 4, [0.6] * 3), rows("linear_probe", 10, [0.5] * 3)), "unknown (no spread"),
        (
            (PROBE, PROMPT, rows("random_perturbation", 4, [0.60, 0.61, 0.62])),
            "no clear gain (it is not clearly more than a random pattern of its norm there)",
        ),
        (
            (PROBE, PROMPT, RANDOM, rows("ap", 10, [0.60, 0.62, 0.61])),
            "no clear gain (a prompt at the last place, which can do nothing",
        ),
        (
            (PROBE, PROMPT, RANDOM, rows("ap", 10, [0.38, 0.40, 0.39])),
            "no clear gain (a prompt at the last place, which can do nothing",
        ),
        ((PROBE, rows("ap", 10, [0.60, 0.62, 0.61])), "no clear gain"),
        ((PROBE, rows("ap", 4, [0.40, 0.39, 0.41])), "loses by a prompt"),
    ],
)
def test_no_gain_is_said_where_there_is_none_to_know(parts, words):
    first = said(*parts)[0]
    assert words in first
    assert "gains from" not in first


def test_depth_and_the_number_of_layers_come_from_the_table():
    """Layers at 0.2 and 0.5 of a network of ten, without controls, stay at 0.2 and 0.5."""
    swept = table(rows("ap", 2, [0.6, 0.61]), rows("ap", 5, [0.7, 0.71], val=0.9))
    (case,) = cases(swept)
    assert (case.depth, case.last) == (0.5, 10)
    assert "layer 5 of 10" in said(rows("ap", 2, [0.6, 0.61]), rows("ap", 5, [0.7, 0.71], val=1))[0]
    assert cases(table(rows("ap", 0, [0.6, 0.7])))[0].last is None


def test_runs_that_are_the_same_have_the_interval_of_their_pictures():
    """43 of 60 pictures from three equal seeds: Wilson's [59, 81], and no gain."""
    ours, theirs = np.arange(60) < 43, np.arange(60) < 39
    prompt = rows("ap", 4, [43 / 60] * 3, pictures=[ours] * 3)
    probe = rows("linear_probe", 10, [39 / 60] * 3, pictures=[theirs] * 3)
    first, *rest = said(prompt, probe)
    assert "71.7 % [59.2, 81.5] test accuracy over 3 seeds" in first
    assert "unknown (no spread: the difference is the same with every seed)" in first
    assert any("No spread on signs: the 3 seeds of net gave the same result" in s for s in rest)


def test_intervals_hold_pictures_and_seeds_where_the_pictures_are_known():
    generator = np.random.default_rng(0)
    ours, theirs = generator.random((3, 200)) < 0.8, generator.random((3, 200)) < 0.5
    prompt = rows("ap", 4, ours.mean(1), pictures=list(ours))
    probe = rows("linear_probe", 10, theirs.mean(1), pictures=list(theirs))
    (case,) = cases(table(prompt, probe))
    assert tuple(case.prompt.accuracy) == pytest.approx(tuple(two_source_interval(ours).times(100)))
    assert tuple(case.gain) == pytest.approx(tuple(paired_pictures(ours, theirs).times(100)))
    assert "hold the test pictures and the training" in " ".join(said(prompt, probe))


def test_a_table_without_a_prompt_lists_what_was_trained():
    (first,) = said(rows("norm_tuning", 10, [0.6]))
    assert "nothing is said of layers. Test accuracy: norm tuning 60.0 %" in first


def test_runs_that_share_no_seed_or_few_are_said_to():
    others = rows("linear_probe", 10, [0.50, 0.51], val=0.9)
    apart = [row | {"seed": row["seed"] + 7} for row in others]
    assert "unknown (the linear probe was run with other seeds)" in said(PROMPT, apart)[0]
    assert "(+10.5 points [+4.1, +16.9] over the 2 seeds of both)" in said(PROMPT, others)[0]


def test_differences_that_agree_are_not_called_equal_runs():
    shifted = rows("linear_probe", 10, [0.50, 0.52, 0.51])
    assert "the difference is the same with every seed" in said(PROMPT, shifted)[0]


def test_no_accuracy_lies_beyond_the_whole():
    (case,) = cases(table(rows("ap", 4, [0.9, 1.0]), rows("linear_probe", 10, [0.0, 0.2])))
    assert (case.prompt.accuracy.high, case.linear_probe.low, case.gain.high) == (100, 0, 100)
    ranked = compare(table(rows("ap", 4, [0.9, 1.0]), rows("linear_probe", 10, [0.0, 0.2])))
    assert ranked["high"].max() == 1
    assert ranked["low"].min() == 0


def test_intervals_that_are_printed_are_spoken_of():
    words = said(rows("ap", 4, [0.6] * 3), PROBE)
    assert not any("No interval stands" in sentence for sentence in words)


def test_the_overview_counts_what_is_unknown_and_names_recipes():
    second = [row | {"task": "b"} for row in [*rows("ap", 4, [0.6]), *PROBE]]
    (first, *_) = said(rows("ap", 4, [0.6]), PROBE, second)
    assert "control moves, on 0 and loses to it on 0 of 2, and on 2 it is unknown" in first
    both = [row | {"recipe": name} for name in ("s", "l") for row in [*PROMPT, *PROBE]]
    (first, *_) = said(both)
    assert "net, one task with 2 recipes:" in first
    assert "best" not in first


def test_a_layer_whose_runs_failed_is_not_chosen():
    failed = [row for row in rows("ap", 2, [0, 0], val=0.95) if row["measure"] == "val_accuracy"]
    swept = table(PROMPT, failed)
    assert best_layers(swept)["layer"].tolist() == [4]
    assert compare(swept)["layer"].tolist() == [4]


def test_two_recipes_are_two_cases():
    both = [
        row | {"recipe": name, "value": row["value"] + more}
        for name, more in (("short", 0.0), ("long", 0.2))
        for row in [*PROMPT, *PROBE]
    ]
    words = sentences(pd.DataFrame(both), NOTHING)
    assert any("with recipe short" in s and "61.0 %" in s for s in words)
    assert any("with recipe long" in s and "81.0 %" in s for s in words)


def test_the_average_over_tasks_has_the_tasks_as_its_units():
    other = [
        row | {"task": "b", "value": row["value"] + (0.02 if row["method"] == "ap" else 0)}
        for row in [*PROMPT, *PROBE]
    ]
    (first, *_) = said(PROMPT, PROBE, other)
    gains = np.array([10.0, 12.0])
    half = stats.t.ppf(0.975, 1) * stats.sem(gains)
    average = f"{gains.mean():+.1f} points [{gains.mean() - half:+.1f}, {gains.mean() + half:+.1f}]"
    assert f"(on average of 2 tasks {average})" in first
    assert "on average" not in said(PROMPT, PROBE)[0]


def test_a_control_that_holds_is_said_to_and_runs_are_counted():
    (control,) = (s for s in said(PROMPT, PROBE, AT_END) if s.startswith("Control"))
    assert "in 3 runs its accuracy there differs from the probe's by -0.33 points on" in control
    assert "and by at most 2.00 in any." in control
    (control,) = (
        s
        for s in said(PROMPT, PROBE, rows("ap", 10, [0.50, 0.51, 0.52]))
        if s.startswith("Control")
    )
    assert control.endswith("trained each by itself, the two are equal in 3 runs.")


def test_tasks_whose_seeds_changed_nothing_are_named_together():
    same = rows("ap", 4, [0.6] * 2)
    words = said(same, PROBE, [row | {"task": "b"} for row in [*same, *PROBE]])
    (spread,) = (sentence for sentence in words if sentence.startswith("No spread"))
    assert spread.startswith("No spread on signs and b: the 2 seeds of net gave the same result")


def test_what_no_correction_could_show_counts_every_test():
    """Two metrics, three targets, with and without depth: twelve tests of curves over 8 layers."""
    tests = [
        {"network": "net", "task": "signs", "measure": measure, "statistic": statistic}
        | {"target": target, "value": 0.5, "p": 0.2, "smallest_p": 1 / 16, "layers": 8}
        for measure in ("effective_rank", "cka")
        for target in ("ap", "ap - linear_probe", "ap - layer_probe")
        for statistic in ("spearman", "spearman_given_depth")
    ]
    undefined = tests[0] | {"measure": "depth", "value": np.nan, "p": np.nan}
    relation = corrected(pd.DataFrame([*tests, undefined]))
    (words,) = sentences(pd.DataFrame(), relation)
    assert "with 8 layers the smallest p of one curve is 1/16, which no correction" in words
    assert "over 12 tests leaves below 0.05" in words

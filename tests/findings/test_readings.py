"""What a sweep shows of prompts that are read before the end: planted tables, known answers."""

import re

import numpy as np
import pandas as pd
import pytest

from aptheory.findings.readings import best_cell, judge_of, read_cells, reading_sentences
from aptheory.findings.sentences import sentences
from aptheory.reporting.map_section import map_section, map_sentences

NAMES = {0: "image", 2: "blocks.1", 4: "blocks.3", 6: "head"}


def table(means, *, seeds=3, spread=0.01, pictures=True, task="t"):
    """Runs of {(method, settings, layer): (val, loss, test)}; seeds move the test accuracy."""
    rows = []
    roles = {"ap": "prompt", "layer_probe": "probe", "linear_probe": "probe"}
    for (method, settings, layer), (val, loss, test) in means.items():
        for seed in range(seeds):
            about = {"network": "n", "task": task, "method": method, "settings": settings,
                     "role": roles.get(method.partition(":")[0], "control"), "layer": layer,
                     "layer_name": NAMES[layer], "depth": layer / 6, "recipe": "quick",
                     "seed": seed}  # fmt: skip
            value = test + spread * (seed - 1)
            for measure, number in (
                ("val_accuracy", val), ("val_loss", loss), ("test_accuracy", value),
            ):  # fmt: skip
                correct = None
                if pictures and measure == "test_accuracy":
                    correct = np.arange(1000) < round(1000 * value)
                rows.append({**about, "measure": measure, "value": number, "correct": correct})
    return pd.DataFrame(rows)


PLANTED = {
    ("ap", "", 0): (0.60, 1.0, 0.60),
    ("ap", "", 2): (0.70, 0.9, 0.70),
    ("ap", "", 6): (0.50, 1.2, 0.50),
    ("ap:read=best", "read=4", 0): (0.80, 0.6, 0.80),
    ("ap:read=best", "read=4", 2): (0.90, 0.5, 0.90),
    ("layer_probe", "", 2): (0.55, 1.1, 0.55),
    ("layer_probe", "", 4): (0.75, 0.8, 0.75),
    ("layer_probe", "", 6): (0.50, 1.2, 0.50),
    ("linear_probe", "", 6): (0.50, 1.2, 0.50),
    ("random_perturbation", "", 2): (0.95, 0.1, 0.95),
}


def test_the_cells_of_a_sweep_are_those_of_the_map():
    cells = read_cells(table(PLANTED))
    found = {
        (row.layer, row.read): (round(row.test_accuracy, 9), row.chosen)
        for row in cells.itertuples()
    }
    assert found == {
        (0, 6): (0.6, False), (2, 6): (0.7, False), (0, 4): (0.8, False), (2, 4): (0.9, True),
        (2, 2): (0.55, False), (4, 4): (0.75, False), (6, 6): (0.5, False),
    }  # fmt: skip
    assert set(cells["read_name"]) == {"head", "blocks.3", "blocks.1"}
    assert cells["low"].notna().all()
    html = "".join(map_section(cells, swept=True))
    assert "read 4 blocks.3" in html
    assert html.count("class='best'") == 1


def test_both_rivals_are_said_with_their_differences():
    (words,) = reading_sentences(table(PLANTED))
    assert "a prompt at blocks.1 (2) read at blocks.3 (4) has 90.0 %" in words
    assert "a prompt at blocks.1 (2) read at head (6) has 70.0 %" in words
    assert "+20.0 points" in words
    assert "reading earlier pays" in words
    assert "the probe of blocks.3 (4) alone has 75.0 %" in words
    assert "+15.0 points" in words
    assert "the prompt adds to it" in words
    assert words.endswith("of all, validation data choose a prompt at blocks.1 (2) read at "
                          "blocks.3 (4).")  # fmt: skip
    assert words in sentences(table(PLANTED), pd.DataFrame())


@pytest.mark.parametrize(
    ("early", "end", "probe", "pays", "adds"),
    [
        (0.5, 0.7, 0.7, "reading at the end is better", "the probe is better, and cheaper"),
        (0.7, 0.7, 0.7, "whether reading earlier pays is", "whether the prompt adds to it is"),
    ],
)
def test_a_prompt_that_wins_nothing_is_not_praised(early, end, probe, pays, adds):
    planted = {
        ("ap", "", 2): (0.7, 0.9, end),
        ("ap:read=4", "read=4", 2): (0.7, 0.9, early),
        ("layer_probe", "", 4): (0.7, 0.9, probe),
        ("linear_probe", "", 6): (0.5, 1.2, 0.5),
    }
    (words,) = reading_sentences(table(planted))
    assert pays in words
    assert adds in words
    (alone,) = reading_sentences(table(planted, seeds=1))
    assert "unknown (one seed)" in alone


def test_where_nothing_is_read_at_the_end_no_earlier_place_passes_for_it():
    early = {
        ("ap:read=4", "read=4", 2): (0.80, 0.6, 0.80),
        ("ap:read=2", "read=2", 0): (0.70, 0.6, 0.70),
    }
    for means in (early, {("ap:read=4", "read=4", 2): (0.80, 0.6, 0.80)}):
        rows = table(means)
        (said,) = reading_sentences(rows)
        assert "a prompt at blocks.1 (2) read at" in said
        assert "has 80.0 %" in said
        assert "pays" not in said
        assert "70.0 %" not in said
        cells = read_cells(rows)
        assert "read at the end" not in " ".join(map_sentences(cells))
        assert "top row" not in "".join(map_section(cells, swept=True))
    assert "top row" in "".join(map_section(read_cells(table(PLANTED)), swept=True))


def test_a_sweep_read_at_the_end_has_no_map():
    at_end = {key: value for key, value in PLANTED.items() if "read" not in key[0]}
    assert read_cells(table(at_end)).empty
    assert reading_sentences(table(at_end)) == []
    assert read_cells(pd.DataFrame()).empty


def test_rivals_are_picked_by_the_judge_of_the_recipe():
    """The most accurate cell on validation is not the one of the least loss, in any group."""
    rows = [
        (0, 6, 0.70, 0.5, "ap at the end by accuracy"), (2, 6, 0.60, 0.4, "by loss"),
        (2, 2, 0.65, 0.9, ""), (4, 4, 0.55, 0.3, ""), (6, 6, 0.5, 1.0, ""),
        (0, 4, 0.90, 0.8, ""), (2, 4, 0.80, 0.2, ""),
    ]  # fmt: skip
    cells = pd.DataFrame(
        [
            {"network": "n", "task": "t", "layer": layer, "read": read,
             "layer_name": NAMES[layer], "read_name": NAMES[read], "method": "ap", "seeds": 1,
             "epochs": 2, "val_accuracy": accuracy, "val_loss": loss, "test_accuracy": accuracy,
             "low": np.nan, "high": np.nan, "finished": True}
            for layer, read, accuracy, loss, _ in rows
        ]
    )  # fmt: skip
    for judge, best, end, probe in (
        ("accuracy", (0, 4), "70.0 %", "65.0 %"),
        ("loss", (2, 4), "60.0 %", "55.0 %"),
    ):
        judged = cells.assign(judge=judge)
        index = best_cell(judged)
        assert tuple(judged.loc[index, ["layer", "read"]]) == best
        (words,) = map_sentences(judged.assign(chosen=judged.index == index))
        assert f"the best layer probe {probe}" in words
        assert f"the best prompt read at the end {end}" in words
    unmarked = cells.assign(chosen=cells.index == 5)  # a map of before: by accuracy
    assert "the best layer probe 65.0 %" in map_sentences(unmarked)[0]
    assert judge_of({"recipes": ["quick"]}) == "accuracy"
    assert judge_of({"recipes": [{"name": "quick", "judge": "loss"}]}) == "loss"
    assert judge_of({}) == "accuracy"


def test_a_map_names_each_rival_once_and_ends_where_there_is_none():
    cells = read_cells(table(PLANTED))
    (whole,) = map_sentences(cells)
    assert "a prompt at blocks.1 (2) read at blocks.3 (4), 90.0 % [86.5, 92.7] over 3" in whole
    assert "; the best layer probe 75.0 %" in whole
    assert "the best prompt read at the end 70.0 %" in whole
    assert "the linear probe 50.0 %" in whole
    corner = cells[(cells["layer"] == 6) & (cells["read"] == 6)].assign(chosen=True)
    (alone,) = map_sentences(corner)
    assert re.search(r"the probe of head \(6\), 50.0 % \[.*\] over 3 seeds\.$", alone)

"""Finished steps are kept bit for bit, and taken only where they are about the same."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from aptheory.errors import InputError
from aptheory.studies.steps import Steps


def never():
    raise AssertionError("a finished step is not done again")


def test_a_finished_step_is_read_and_not_done_again(tmp_path):
    path = tmp_path / "new" / "steps.jsonl"
    value = {"third": 1 / 3, "none": None, "nan": math.nan, "count": np.int64(7), "text": "é\n"}
    first = Steps(path, ["net", 1]).value("a", lambda: value)
    steps = Steps(path, ["net", 1])
    again = steps.value("a", never)
    assert "a" in steps
    assert again["third"] == first["third"] == 1 / 3
    assert math.isnan(again["nan"])
    assert math.isnan(first["nan"])
    assert (again["count"], again["text"], again["none"]) == (7, "é\n", None)
    assert steps.value("b", lambda: 2) == 2
    assert Steps(path, ["net", 1]).value("b", never) == 2


def test_steps_of_another_version_are_passed_over(tmp_path, monkeypatch):
    Steps(tmp_path / "a.steps", "one").value("a", lambda: 1)
    monkeypatch.setattr("aptheory.studies.steps.__version__", "0.0.0")
    assert "a" not in Steps(tmp_path / "a.steps", "one")


def test_steps_of_other_work_and_damaged_ones_are_passed_over(tmp_path):
    path = tmp_path / "steps.jsonl"
    Steps(path, "one").value("a", lambda: 1)
    assert Steps(path, "other").value("a", lambda: 2) == 2
    assert Steps(path, "one").value("a", never) == 1
    whole = path.read_text()
    path.write_text(whole.replace('"value": "1"', '"value": "3"'))
    assert "a" not in Steps(path, "one")
    assert "a" in Steps(path, "other")
    for cut in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_text(whole[:cut])
        steps = Steps(path, "other")
        assert steps.value("a", lambda: 4) in (2, 4)
        assert Steps(path, "other").value("a", never) == steps.value("a", never)
    odd = [{"step": "a"}, {"about": None}, [], 3, {"about": [1], "step": {}, "value": "1"}]
    path.write_text("\n".join(map(json.dumps, odd)) + "\n{" + "[" * 200)
    assert "a" not in Steps(path, "one")


def test_a_file_that_cannot_hold_steps_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        Steps(tmp_path, "one")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be read"):
        Steps(tmp_path / "file" / "steps.jsonl", "one")
    steps = Steps(tmp_path / "later" / "steps.jsonl", "one")
    (tmp_path / "later").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        steps.value("a", lambda: 1)
    with pytest.raises(AttributeError):  # our own mistake, not a user's
        Steps(None, "one").value("a", lambda: Fraction(1))

"""Finished steps are kept bit for bit, and taken only where they are about the same."""

import functools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from aptheory.errors import InputError
from aptheory.studies.steps import Steps, shaped


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
    assert steps.value("b", lambda: 0) == 0
    assert Steps(path, ["net", 1]).value("b", never) == 0


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


def test_what_is_not_usable_is_done_again(tmp_path):
    path = tmp_path / "a.steps"
    Steps(path, "one").value("a", lambda: {"share": "=1+1"})
    usable = functools.partial(shaped, shape={"share": float})
    assert Steps(path, "one").value("a", lambda: {"share": 0.5}, usable=usable) == {"share": 0.5}
    assert Steps(path, "one").value("a", never, usable=usable) == {"share": 0.5}  # the later line


@pytest.mark.parametrize(
    ("value", "right"),
    [({"a": 1.5, "b": "x"}, True), ({"a": math.nan, "b": ""}, True), ({"a": 1}, False), (3, False),
     ({"a": "1", "b": "x"}, False), ({"a": True, "b": "x"}, False),
     ({"a": 1, "b": "x", "c": 1}, False)],
)  # fmt: skip
def test_a_value_has_the_shape_that_is_declared_or_not(value, right):
    assert shaped(value, {"a": float, "b": str}) == right


def test_a_byte_that_is_no_text_damages_its_line_alone(tmp_path):
    path = tmp_path / "a.steps"
    for step in "ab":
        Steps(path, "one").value(step, lambda: 1)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"step": "a"', b'"step": "\xff"'))
    steps = Steps(path, "one")
    assert ("a" in steps, "b" in steps) == (False, True)


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

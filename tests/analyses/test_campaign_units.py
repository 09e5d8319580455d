"""A unit of the campaign that was killed goes on where it stood."""

from pathlib import Path

import pytest

import aptheory as ap
from analyses.campaign_questions import Bench, Machine
from tests.quarters import RECIPE, small_cnn, small_task


def bench(parts):
    on = Machine(Path(), parts=parts)
    return Bench(small_cnn(), small_task(), seed=0, on=on, recipe=RECIPE)


def rows(one, *, layer=2, **more):
    method = ap.ActivationPrompt(layer=layer, shape="channel")
    return list(one.rows("ap_channel", method, rates=(1e-2, 1e-3), **more))


def test_what_was_trained_is_not_trained_again(tmp_path, monkeypatch):
    parts = tmp_path / "parts" / "unit.jsonl"
    found = rows(bench(parts))
    assert [row["lr"] for row in found] == [1e-2, 1e-3]
    again = bench(parts)
    monkeypatch.setattr(again, "train", lambda *_, **__: pytest.fail("trained again"))
    assert rows(again) == found
    for other in ({"layer": 1}, {"place": 2}):
        with pytest.raises(pytest.fail.Exception):
            rows(again, **other)


def test_a_line_that_the_kill_cut_short_is_trained_again(tmp_path, monkeypatch):
    parts = tmp_path / "unit.jsonl"
    found = rows(bench(parts))
    parts.write_text(parts.read_text()[:-20])
    assert rows(bench(parts)) == found
    again = bench(parts)
    monkeypatch.setattr(again, "train", lambda *_, **__: pytest.fail("trained again"))
    assert rows(again) == found

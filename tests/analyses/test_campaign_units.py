"""A unit of the campaign that was killed goes on where it stood."""

from pathlib import Path

import pytest

import aptheory as ap
from analyses.campaign_bench import Bench, Machine, beyond_the_edge
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


def test_a_failed_run_says_where_it_would_have_been_read(tmp_path):
    one = bench(tmp_path / "unit.jsonl")
    found = list(one.rows("ap", ap.ActivationPrompt(layer=1, read=2), rates=(1e-2, 1e38)))
    assert [row["val_accuracy"] is None for row in found] == [False, True]
    assert [row["read"] for row in found] == [2, 2]
    assert [row["device"] for row in found] == ["cpu", "cpu"]


def run(lr, accuracy, loss=1.0):
    return {"lr": lr, "val_accuracy": accuracy, "val_loss": loss}


@pytest.mark.parametrize(
    ("rows", "further"),
    [
        ([run(3e-2, 0.5), run(1e-2, 0.6), run(3e-3, 0.4)], []),
        ([run(3e-2, 0.6), run(1e-2, 0.5)], [1e-1]),
        ([run(3e-2, 0.6, 2.0), run(1e-2, 0.6, 1.0), run(3e-3, 0.1)], []),
        ([run(1e-3, 0.5), run(3e-4, 0.6)], [1e-4]),
        ([run(1.0, 0.6), run(3e-1, 0.5)], []),
        ([run(1e-4, 0.5), run(3e-5, 0.6)], [1e-5]),
        ([run(3e-2, None), run(1e-2, 0.5), run(3e-3, 0.6)], [1e-3]),
        ([run(3e-2, None)], []),
    ],
)
def test_the_search_goes_on_while_the_best_rate_lies_at_the_edge(rows, further):
    assert beyond_the_edge(rows) == further


def test_a_method_is_trained_until_its_best_rate_lies_inside():
    method = ap.ActivationPrompt(layer=2, shape="channel")
    found = list(bench(None).rows_with_best_inside("ap", method, rates=(1e-4, 3e-5)))
    assert len({row["lr"] for row in found}) == len(found) > 2
    assert beyond_the_edge(found) == []

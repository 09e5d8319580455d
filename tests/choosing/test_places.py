"""The cheap choice of both places: layer probes choose where to read, a search where to prompt."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

import aptheory as ap
from aptheory.choosing.cells import Cell, cells, operations
from aptheory.choosing.places import recommend_places
from aptheory.choosing.trials import Prices
from aptheory.cli import app
from aptheory.training.cost import Operations
from aptheory.training.judging import JUDGES
from tests.quarters import RECIPE, small_task, small_vit


class Sealed:
    """A split whose images must not be read."""

    def __init__(self, split):
        self.labels = split.labels

    def __len__(self):
        return len(self.labels)

    def images(self, indices, size):
        raise AssertionError("the test split was read")


@pytest.fixture(scope="module")
def net():
    return small_vit()


@pytest.fixture(scope="module")
def task():
    task = small_task()
    return replace(task, test=Sealed(task.test))


@pytest.mark.parametrize("judge", JUDGES)
def test_probes_choose_where_to_read_and_a_search_where_to_prompt(net, task, judge):
    choice = recommend_places(net, task, recipe=RECIPE, judge=judge)
    table = choice.table
    probes = table[table["layer"] == table["read"]]
    assert probes["read"].tolist() == [1, 2, 3, 5]
    order = ["val_loss", "val_accuracy"] if judge == "loss" else ["val_accuracy", "val_loss"]
    ascending = [name == "val_loss" for name in order]
    read = probes.sort_values(order, ascending=ascending).iloc[0]["read"]
    assert choice.read == read
    prompts = table[table["layer"] < table["read"]]
    assert prompts["layer"].tolist() == [layer for layer in (1, 2, 3) if layer < read]
    assert (prompts["read"] == read).all()
    if choice.rival is not None:
        assert choice.rival.is_probe != choice.cell.is_probe
        ours, theirs = choice.score(choice.cell), choice.score(choice.rival)
        assert ours.cost(judge) <= theirs.cost(judge)
        assert choice.margin.loss == pytest.approx(ours.loss - theirs.loss)
    assert 0 < choice.cost < 0.5
    assert f"judged by {judge}" in str(choice) or choice.rival is None


def test_nothing_lies_before_the_only_place(net, task):
    choice = recommend_places(net, task, layers=[5], recipe=RECIPE)
    assert (choice.layer, choice.read, choice.rival) == (5, 5, None)
    assert "no place to prompt lies before it" in str(choice)


def test_a_prompt_is_searched_no_further_than_the_reading_place(net, task):
    choice = recommend_places(net, task, layers=[1], reads=[3], recipe=RECIPE)
    assert set(choice.table["read"]) == {3, 5}
    assert len(choice.table) == 3  # two probes, one prompt


def test_operations_by_hand():
    prices = Prices(Operations((1.0,) * 4, (1.0,) * 4), train=100, val=10)
    runs = [(Cell(2, 2), 3), (Cell(1, 3), 3), (Cell(0, 3), 1)]
    walks = 110 * (3 + 1)
    trained = 3 * 100 * 4 + 1 * 100 * 6
    validated = 2 * 10 * 2 + 1 * 10 * 3
    assert operations(prices, runs, walks=[3, 1], stops=[1, 3]) == walks + trained + validated


def test_cells_of_a_map(net):
    assert cells(net, [1, 2]) == [
        *(Cell(1, 1), Cell(2, 2), Cell(5, 5)),
        *(Cell(1, 2), Cell(1, 5), Cell(2, 5)),
    ]


def test_an_unknown_judge_is_refused(net, task):
    with pytest.raises(ap.InputError, match="judge must be"):
        recommend_places(net, task, judge="luck")


def test_the_verb_prints_both_pieces_of_advice_where_both_are_asked_for(monkeypatch, net):
    task = small_task()
    monkeypatch.setattr("aptheory.studies.sources.load_network", lambda spec: net)
    monkeypatch.setattr("aptheory.studies.sources.load_task", lambda spec: task)
    monkeypatch.setattr("aptheory.cli.options.DeviceOptions.recipe", lambda self: RECIPE)
    words = ["recommend", "small", "-t", "quarters", "--images", "40"]
    both = CliRunner().invoke(app, [*words, "--read"])
    assert both.exit_code == 0, both.output
    assert "prompt layer" in both.output
    assert "Prompt here and read there" in both.output
    assert f"on {len(task.val)} validation images" in both.output
    assert "no gain that was tested" in both.output or "lies before it" in both.output
    alone = CliRunner().invoke(app, words)
    assert "Prompt here and read there" not in alone.output

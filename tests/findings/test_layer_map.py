"""The map over the prompted and the read place: its cells, its cost, its picture, its verb."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import aptheory as ap
from aptheory.choosing.cells import Cell, with_neighbours
from aptheory.cli import app
from aptheory.exploration import write_map
from aptheory.findings.layer_map import layer_map
from aptheory.findings.pictures import two_source_interval
from aptheory.methods import ActivationPrompt, LayerProbe, LinearProbe
from aptheory.studies.records import key_of
from tests.quarters import RECIPE, small_cnn, small_vit

SEEDS = (0, 1)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def net():
    return small_vit()


@pytest.fixture(scope="module")
def passed():
    """How many images went through the network, call by call, while the chart was made."""
    return []


@pytest.fixture(scope="module")
def chart(task, passed):
    net = small_vit()
    handle = net.module.patch_embed.register_forward_hook(lambda _, __, z: passed.append(len(z)))
    chart = layer_map(net, task, recipe=RECIPE, seeds=SEEDS, halving=False)
    handle.remove()
    return chart


@pytest.fixture(scope="module")
def halved(net, task):
    return layer_map(net, task, recipe=RECIPE, seeds=SEEDS)


def test_the_map_is_the_triangle_with_its_diagonal_and_the_networks_end(chart):
    expected = {(l, k) for l in (1, 2, 3) for k in (1, 2, 3, 5) if l <= k} | {(5, 5)}
    assert set(zip(chart.cells["layer"], chart.cells["read"], strict=True)) == expected
    methods = chart.cells.set_index(["layer", "read"])["method"]
    assert methods[5, 5] == "linear_probe"
    assert all(methods[k, k] == "layer_probe" for k in (1, 2, 3))
    assert (methods.drop([(k, k) for k in (1, 2, 3, 5)]) == "ap").all()
    assert len(chart.table) == len(SEEDS) * len(expected)


@pytest.mark.parametrize(
    ("cell", "method"),
    [
        (Cell(1, 3), ActivationPrompt(layer=1, read=3)),
        (Cell(2, 5), ActivationPrompt(layer=2)),
        (Cell(2, 2), LayerProbe(layer=2)),
        (Cell(5, 5), LinearProbe()),
    ],
)
def test_a_cell_is_its_method_trained_alone(net, task, chart, cell, method):
    runs = [ap.Run(seed=seed) for seed in SEEDS]
    alone = ap.fit_many(method, net, task, runs=runs, recipe=RECIPE)
    rows = chart.table[(chart.table["layer"] == cell.layer) & (chart.table["read"] == cell.read)]
    np.testing.assert_allclose(rows["val_loss"], [o.val_loss for o in alone], rtol=1e-4)
    np.testing.assert_allclose(
        rows["test_accuracy"], [o.test_accuracy for o in alone], atol=1.5 / len(task.test)
    )


def test_intervals_are_those_of_the_statistics(chart):
    correct = np.stack([chart.correct[1, 3, seed] for seed in SEEDS])
    expected = two_source_interval(correct)
    row = chart.cells.set_index(["layer", "read"]).loc[(1, 3)]
    assert (row["test_accuracy"], row["low"], row["high"]) == tuple(expected)[:3]
    run = chart.table[(chart.table["layer"] == 1) & (chart.table["read"] == 3)].iloc[0]
    assert (run["low"], run["high"]) == tuple(two_source_interval(correct[0]))[1:3]


def test_the_places_are_walked_twice_however_many_cells_there_are(task, chart, passed):
    images = len(task.train) + len(task.val) + len(task.test)
    assert 2 * images <= sum(passed) <= 2 * images + 4  # and a few that count operations


def test_choices_are_made_on_validation_images(chart):
    cells = chart.cells
    best = cells.sort_values(["val_accuracy", "val_loss"], ascending=[False, True]).iloc[0]
    assert cells.loc[cells["chosen"], ["layer", "read"]].to_numpy().tolist() == [
        [best["layer"], best["read"]]
    ]
    assert chart.best == Cell(int(best["layer"]), int(best["read"]))
    published = cells[(cells["read"] == 5) & (cells["layer"] < 5)]
    order = published.sort_values(["val_accuracy", "val_loss"], ascending=[False, True])
    assert chart.best_published.layer == order.iloc[0]["layer"]
    text = str(chart)
    for words in ("best layer probe", "linear probe", "cost: 100 % of all cells"):
        assert words in text
    steady = with_neighbours(
        {Cell(r.layer, r.read): r.val_accuracy for r in chart.cells.itertuples()}
    )
    assert steady[chart.best_with_neighbours] == max(steady.values())
    assert "best with its neighbours" in text
    by_loss = replace(chart, judge="loss")
    assert by_loss.best_with_neighbours is None
    lowest = by_loss.cells.loc[by_loss.cells["val_loss"].idxmin()]
    assert by_loss.best == Cell(int(lowest["layer"]), int(lowest["read"]))
    title = ap.plots.layer_map(by_loss.cells).get_title(loc="left")
    assert title.endswith(f"prompt {lowest['layer_name']}, read {lowest['read_name']}")


def test_halving_trains_less_and_leaves_the_survivors_as_they_were(chart, halved):
    assert halved.best_with_neighbours is None
    assert halved.operations < halved.full_operations == chart.operations
    probes = halved.cells["layer"] == halved.cells["read"]
    assert halved.cells.loc[probes, "finished"].all()
    dropped = halved.cells[~halved.cells["finished"]]
    assert len(dropped) == 4  # two of six prompts go on
    assert dropped["test_accuracy"].isna().all()
    assert dropped["val_loss"].notna().all()
    both = halved.table.merge(chart.table, on=["layer", "read", "seed"])
    both = both[both["test_accuracy_x"].notna()]
    np.testing.assert_allclose(both["val_loss_x"], both["val_loss_y"], rtol=1e-3)


def test_the_picture_has_every_cell(chart, halved):
    ax = ap.plots.layer_map(chart.cells)
    assert np.isfinite(ax.images[0].get_array().filled(np.nan)).sum() == len(chart.cells)
    assert ax.images[0].colorbar.ax.get_ylabel() == "test accuracy (%)"
    ax = ap.plots.layer_map(halved.cells)
    assert sum(bool(patch.get_hatch()) for patch in ax.patches) == 4
    assert "validation" in ax.images[0].colorbar.ax.get_ylabel()


def test_places_that_are_read_may_be_named(task):
    chart = ap.layer_map(
        small_cnn(), task, layers=[1], reads=[3], recipe=RECIPE, seeds=[0], halving=False
    )
    pairs = set(zip(chart.cells["layer"], chart.cells["read"], strict=True))
    assert pairs == {(1, 3), (1, 6), (3, 3), (6, 6)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": []}, "seeds must be"),
        ({"seeds": [1, 1]}, "seeds must be"),
        ({"judge": "luck"}, "judge must be"),
        ({"reads": 77}, "no place 77"),
        ({"pooling": "max"}, "pooling must be"),
    ],
)
def test_what_makes_no_map_is_refused(net, task, options, words):
    with pytest.raises(ap.InputError, match=words):
        layer_map(net, task, recipe=RECIPE, **options)


def test_the_verb_writes_the_table_and_the_picture(tmp_path):
    words = "map aptheory_vit_mini -t digits --subset 20,20,20 --layers 6,7 --seeds 1 --epochs 1"
    result = CliRunner().invoke(app, [*words.split(), "--out", str(tmp_path / "map")])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "map" / "map.csv")
    assert {"layer", "read", "method", "val_accuracy", "low", "high", "chosen"} <= set(table)
    assert {path.name for path in (tmp_path / "map").iterdir()} == {
        *("map.csv", "map_runs.csv", "map.png", "map.pdf", "report.html", "settings.json"),
        "map.steps",
    }
    page = (tmp_path / "map" / "report.html").read_text()
    assert page.count("<td class='best'") == 1
    assert "digits: 20 training pictures of 10 classes" in page
    assert page.count("title='") == len(table)
    assert "both layers chosen on validation images" in page
    assert "best on validation" in result.output
    assert "% of a full sweep" in result.output


@pytest.mark.parametrize("halving", [False, True])
def test_an_interrupted_map_goes_on_with_what_it_has(halving, net, task, tmp_path, monkeypatch):
    from aptheory.findings import layer_map as module

    options = {"layers": [1, 2], "seeds": SEEDS, "recipe": RECIPE, "halving": halving}
    undisturbed = layer_map(net, task, **options)
    done, stops = [], [1, 2] if halving else [1, 3, 5]

    def interrupted(function):
        def called(*given, **more):
            if len(done) in stops:
                raise KeyboardInterrupt
            done.append(function)
            return function(*given, **more)

        return called

    for name in ("fit_many", "search_by_halving"):
        monkeypatch.setattr(module, name, interrupted(getattr(module, name)))
    while stops:
        with pytest.raises(KeyboardInterrupt):
            layer_map(net, task, steps=tmp_path / "map.steps", **options)
        stops.pop(0)
    found = layer_map(net, task, steps=tmp_path / "map.steps", **options)
    again = layer_map(net, task, steps=tmp_path / "map.steps", **options)
    assert len(done) == 3 + (1 if halving else 3)  # each once: three probes, three prompts
    for chart in (found, again):
        pd.testing.assert_frame_equal(chart.table, undisturbed.table, check_exact=True)
        pd.testing.assert_frame_equal(chart.cells, undisturbed.cells, check_exact=True)
        assert str(chart) == str(undisturbed)
    other = layer_map(net, task, steps=tmp_path / "map.steps", **{**options, "seeds": (5,)})
    assert set(other.table["seed"]) == {5}


@pytest.mark.parametrize("halving", [False, True])
def test_steps_of_a_map_that_somebody_forged_are_passed_over(halving, net, task, tmp_path):
    path = tmp_path / "map.steps"
    options = {"layers": [1], "reads": [1], "seeds": (0,), "recipe": RECIPE, "halving": halving}
    right = layer_map(net, task, steps=path, **options)
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    value = json.loads(lines[-1]["value"])
    records = [value["trained"][0][2]] if halving else value
    wrong: list = [None, {}, [], 3, [{}], {"trained": [], "walks": [99], "stops": [1]}]
    for name, odd in [("val_accuracy", "=1+1"), ("seed", 7), ("correct", "zz"), ("curve", [5]),
                      ("method", {}), ("test_accuracy", 9), ("correct", "8:AA==")]:  # fmt: skip
        changed = {**records[0], name: odd}
        wrong.append({**value, "trained": [[1, 5, changed]]} if halving else [changed])
    for each in wrong:
        line = {**lines[-1], "value": json.dumps(each)}
        del line["checksum"]
        forged = [*lines[:-1], {**line, "checksum": key_of(line)}]
        path.write_text("\n".join(map(json.dumps, forged)))
        found = layer_map(net, task, steps=path, **options)
        pd.testing.assert_frame_equal(found.table, right.table)


def test_a_folder_says_of_which_map_it_is(net, task, tmp_path):
    first = layer_map(net, task, layers=[1], reads=[1, 2], seeds=[0], recipe=RECIPE)
    second = layer_map(net, task, layers=[1], reads=[1, 2], seeds=[0, 1], recipe=RECIPE)
    for chart, seeds in ((first, [0]), (second, [0, 1])):
        write_map(chart, task, tmp_path)
        assert json.loads((tmp_path / "settings.json").read_text())["seeds"] == seeds
    (tmp_path / "profile.csv").write_text("")  # of a run, which keeps its settings
    settings = (tmp_path / "settings.json").read_text()
    for kind, one in (("networks", net), ("tasks", task)):
        known = json.loads(settings)
        for names, words in (({one.name: "0"}, "another"), ({"other": "0"}, "a run on other")):
            known[kind] = names
            (tmp_path / "settings.json").write_text(json.dumps(known))
            before = (tmp_path / "map.csv").read_bytes()
            with pytest.raises(ap.InputError, match=words):
                write_map(first, task, tmp_path)
            assert (tmp_path / "map.csv").read_bytes() == before

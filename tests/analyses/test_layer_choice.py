"""The regret table from made-up sweeps: nothing is trained, the arithmetic is what is tested."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analyses import layer_cases, layer_choice
from aptheory.choosing.rule import Rule
from aptheory.choosing.scores import PLACES, SCORES
from aptheory.errors import InputError
from aptheory.exploration import write_table
from aptheory.studies.planning import describe
from aptheory.studies.study import Study

NETWORKS = ("aptheory_vit_mini", "aptheory_resnet_mini")
TASKS = ("digits", "counting")
BEST = 7


def sweep_folder(folder, *, networks=NETWORKS, seeds=3):
    """As `sweep` leaves it: AP is best at layer 7, by ten points; seeds differ by a tenth."""
    sizes = {"train": 40, "val": 20, "test": 20}
    tasks = [{"name": name, **sizes} for name in TASKS]
    recipe = {"base": "quick", "name": "quick", "epochs": 9}
    study = Study(networks=networks, tasks=tasks, recipes=[recipe], seeds=range(seeds))
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"study": describe(study), "batches": {}}))
    rows = [
        {"network": network, "task": task, "method": "ap", "layer": layer, "seed": seed}
        | {"measure": measure, "value": 0.6 + 0.1 * (layer == BEST) + 0.001 * (seed + layer / 20)}
        for network in networks
        for task in TASKS
        for layer in range(11)
        for seed in range(seeds)
        for measure in ("val_accuracy", "test_accuracy")
    ]
    write_table(pd.DataFrame(rows), folder / "accuracy.csv")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Scores and searches without a network: the probe's score is highest at the best layer."""
    calls = SimpleNamespace(scores=0, searches=[])

    def scores(net, task, *, images):
        calls.scores += 1
        generator = np.random.default_rng(len(net.name) + len(task.name))
        layers = len(net.layers)
        table = pd.DataFrame({name: generator.normal(size=layers) for name in SCORES})
        table["depth"] = np.linspace(0, 1, layers)
        table["distance_from_middle"] = (2 * table["depth"] - 1) ** 2
        for name in ("probe", "gradient_gain"):
            table[name] = 5.0 * (np.arange(layers) == BEST) + 0.1 * table[name]
        return table.assign(layer=range(layers), layer_name="x")

    def search(net, task, bought, *, recipe):
        calls.searches.append(bought)
        table = pd.DataFrame({"layer": bought.layers, "rung": 0, "epochs": 1})
        table = table.assign(val_accuracy=0.5, val_loss=1.0, goes_on=True)
        best = max(bought.layers, key=lambda layer: (layer == BEST, layer))
        return SimpleNamespace(
            table=table, best=(SimpleNamespace(settings=lambda: {"layer": best}), None)
        )

    monkeypatch.setattr(layer_cases, "layer_scores", scores)
    monkeypatch.setattr(layer_choice, "search", search)
    return calls


@pytest.mark.slow
def test_the_regret_table_from_a_finished_sweep(tmp_path, quick, capsys):
    folder = sweep_folder(tmp_path / "sweep")
    missing = tmp_path / "missing"
    summary = layer_choice.main([missing, folder], tmp_path / "out").set_index("way")
    said = capsys.readouterr()
    assert f"left out: {missing}" in said.err
    assert "Goal" in said.out
    table = pd.read_csv(tmp_path / "out" / "regret.csv")
    assert set(table["network"]) == set(NETWORKS)
    for way in ("best on validation (the sweep)", "score: probe"):
        assert summary.loc[way, "regret"] == pytest.approx(0, abs=1e-6), way
    # One other network is left: nothing can be left out of it, and the simplest family stands.
    assert set(table.loc[table["way"] == "rule", "family"]) == {"the middle"}
    assert summary.loc["image (VP)", "regret"] == pytest.approx(10 + 0.1 * 7 / 20)
    assert summary.loc["middle layer", "regret"] > 9
    assert summary.loc["middle layer", "cost"] == 0
    assert summary.loc["best on validation (the sweep)", "cost"] == pytest.approx(1)
    assert summary.loc["best on another seed's test", "regret"] == pytest.approx(0, abs=1e-6)
    for way in summary.index[summary.index.str.contains("2%")]:
        assert summary.loc[way, "cost_worst"] <= 0.02 or "rule" in way
    for way in summary.index[summary.index.str.contains("10%")]:
        assert summary.loc[way, "cost_worst"] <= 0.1
    blind = "successive halving, the scores' cost"
    assert summary.loc[blind, "cost"] <= summary.loc["score: probe", "cost"]
    rule = Rule.load(tmp_path / "out" / "rule.json")
    assert len(rule.fitted_on) == 4
    assert rule.baseline > 9
    bought = pd.read_csv(tmp_path / "out" / "searches.csv")
    assert (bought["layers"] <= bought["of_layers"]).all()


@pytest.mark.slow
def test_running_again_computes_and_trains_nothing(tmp_path, quick, capsys):
    folder = sweep_folder(tmp_path / "sweep")
    layer_choice.main([folder], tmp_path / "out")
    first = (tmp_path / "out" / "regret.csv").read_bytes()
    done = (quick.scores, len(quick.searches))
    assert done[0] == 4
    assert done[1] > 0
    for path in (tmp_path / "out" / "scores").glob("*.csv"):  # as files of older versions are
        table = pd.read_csv(path)
        assert not set(PLACES) & set(table)
        table.assign(depth=0.0, bend=0.0).to_csv(path, index=False)
    layer_choice.main([folder], tmp_path / "out")
    assert (quick.scores, len(quick.searches)) == done
    assert (tmp_path / "out" / "regret.csv").read_bytes() == first


def test_no_search_trains_nothing(tmp_path, quick, capsys):
    folder = sweep_folder(tmp_path / "sweep")
    summary = layer_choice.main([folder], tmp_path / "out", train=False)
    assert not quick.searches
    assert not summary["way"].str.contains("halving").any()


def test_changed_weights_and_single_networks_are_reported(tmp_path, quick, capsys):
    folder = sweep_folder(tmp_path / "sweep", networks=NETWORKS[:1], seeds=1)
    (folder / "settings.json").write_text(json.dumps({"networks": {NETWORKS[0]: "other"}}))
    with pytest.raises(InputError, match="no finished sweep"):
        layer_choice.main([folder], tmp_path / "out")
    assert "weights have changed" in capsys.readouterr().err
    (folder / "settings.json").unlink()
    summary = layer_choice.main([folder], tmp_path / "out", train=False)
    assert "rule" not in set(summary["way"])  # nothing else to fit one on
    assert np.isnan(Rule.load(tmp_path / "out" / "rule.json").regret)


def test_regret_that_is_fresh_does_not_reward_the_luck_of_a_seed():
    generator = np.random.default_rng(0)
    lucky, fresh = [], []
    for _ in range(200):  # ten layers that are all alike
        tests = pd.DataFrame(0.5 + 0.01 * generator.normal(size=(3, 10)))
        case = layer_cases.Case("n", "t", None, None, None, tests, tests, None, {})
        lucky.append(case.regret(0))
        fresh.append(case.fresh_regret(0))
    assert np.mean(lucky) > 0.7
    assert abs(np.mean(fresh)) < 0.25


def test_the_papers_places():
    import aptheory as ap

    vit, cnn = (ap.load(name) for name in NETWORKS)
    assert vit.layers[layer_cases.paper_layer(vit)].name == "blocks.2"
    place = cnn.layers[layer_cases.paper_layer(cnn)]
    after = cnn.layers[place.index + 1]
    assert after.grid[0] < place.grid[0]
    assert all(
        layer.grid is None or layer.grid == after.grid for layer in cnn.layers[place.index + 1 :]
    )

"""Predicted curves and token survival on the campaign's pairs: planted tables, tiny networks."""

import argparse

import numpy as np
import pandas as pd
import pytest
import torch

from analyses import campaign_pairs, campaign_predicted, campaign_survival
from analyses.choice_curves import Curve
from analyses.predicted_curves import predicted_curve
from tests.figures.figure_tables import predicted_places
from tests.quarters import small_cnn, small_task, small_vit


@pytest.fixture(scope="module")
def whole():
    return predicted_curve(small_vit(), small_task(), train=20, test=20, width=32)


def test_a_curve_at_some_places_is_that_part_of_the_whole(whole):
    some = predicted_curve(small_vit(), small_task(), layers=[1], train=20, test=20, width=32)
    pd.testing.assert_frame_equal(some, whole[:2], rtol=1e-3)  # the image is always one


def test_at_the_classifiers_input_a_prompt_is_a_shift_of_the_bias_and_gains_nothing(whole):
    last = whole.iloc[-1]
    assert abs(last["predicted"]) <= 100 / 20
    assert last["applied"] == last["predicted"]  # there the linear model is the network


def test_a_cnn_has_a_curve_too():
    table = predicted_curve(small_cnn(), small_task(), layers=[2], train=12, test=8, width=16)
    assert table[["predicted", "applied", "norm"]].notna().all(axis=None)


def test_a_table_of_pairs_grows_by_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign_pairs, "load_network", lambda name, assets: name)
    monkeypatch.setattr(campaign_pairs, "load_task", lambda task, seed, assets: task)
    seen = []

    def compute(net, task):
        seen.append((net, task))
        return pd.DataFrame({"layer": [0, 1], "value": [0.5, 1.0]})

    asked = argparse.Namespace(
        assets=tmp_path, out=tmp_path, seconds=float("inf"), network=None, task=None
    )
    path = tmp_path / "table.csv"
    no_time = argparse.Namespace(**{**vars(asked), "seconds": -1})
    assert campaign_pairs.extend(path, compute, no_time).empty
    assert not seen
    table = campaign_pairs.extend(path, compute, asked)
    assert len(seen) == len(set(seen)) == 40
    assert len(table) == 80
    kept = table[table["task"] != "fer7"]
    kept.to_csv(path, index=False)
    seen.clear()
    assert len(campaign_pairs.extend(path, compute, asked)) == 80
    assert {task for _, task in seen} == {"fer7"}


def test_planted_predictions_are_judged_as_planted():
    both = predicted_places()
    pairs = campaign_predicted.of_pairs(both)
    assert pairs["slope"].to_numpy() == pytest.approx(2.0)
    assert pairs["spearman"].to_numpy() == pytest.approx(1.0)
    said = campaign_predicted.judged(pairs, both).set_index("statistic")["value"]
    assert said["slope of measured on predicted gain, far tasks"] == pytest.approx(2.0)
    off = said[said.index.str.startswith("points between")]
    assert off.is_monotonic_increasing  # the planted gap grows with the norm
    assert len(off) == 3


def test_the_predicted_best_place_is_judged_beside_the_middle():
    both = predicted_places()
    truth = both["measured"].to_numpy()[:7]
    curves = [
        Curve(
            network=network, task=task, kind="vit", last=7, layers=np.arange(7), rates=(0.1,),
            validation=truth[:, None, None], loss=np.zeros((7, 1, 1)), test=truth,
            prices=np.ones(7), papers_place=3, by_seed=np.stack([truth, truth], 1),
        )
        for network in ("resnet56", "vit_tiny", "unknown")
        for task in ("gtsrb32", "trashnet5")
    ]  # fmt: skip
    found = campaign_predicted.choices(both, curves).set_index("way")
    assert (found["pairs"] == 4).all()  # what was not predicted is not judged
    assert found.loc["predicted best accuracy", "regret"] == 0
    assert found.loc["the middle", "regret"] == pytest.approx(truth.max() - truth[[3, 4]].mean())


def test_planted_survival_goes_with_the_gain_and_not_beyond_depth():
    rng = np.random.default_rng(0)
    rows = []
    for network, kind in (("resnet56", "cnn"), ("vit_tiny", "vit"), ("resnet32", "cnn"),
                          ("vit_small", "vit")):  # fmt: skip
        for task, near in (("gtsrb32", False), ("trashnet5", True)):
            for layer in range(8):
                survives = 1 + layer + rng.normal(0, 0.1)
                rows.append(
                    {"network": network, "kind": kind, "task": task, "near": near, "layer": layer}
                    | {"depth": layer / 8, "survival": survives, "measured": layer + 0.0}
                    | {"moving": layer < 2}
                )
    pairs = campaign_survival.of_pairs(pd.DataFrame(rows))
    assert pairs["gain"].to_numpy() == pytest.approx(1.0)
    assert pairs["given_depth"].isna().all()  # survival only rises with depth
    said = campaign_survival.judged(pairs).set_index("statistic")
    row = said.loc["Spearman(token survival, gain of AP) over places, all"]
    assert row["value"] == pytest.approx(0.99)  # what a correlation over few places can say
    assert row["runs_still_moving"] == "16 of 64"
    assert not said.index.str.startswith("the same with depth").any()


def test_the_survival_of_a_pair_is_1_at_the_image():
    torch.manual_seed(0)
    table = campaign_survival.survival(small_vit(), small_task())
    assert list(table.columns) == ["layer", "depth", "survival", "low", "high"]
    assert table.loc[table["layer"] == 0, "survival"].iloc[0] == pytest.approx(1.0, abs=0.35)

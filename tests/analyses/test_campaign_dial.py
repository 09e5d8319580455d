"""J11: what validation chooses at each step of a dial, and how that changes."""

import pandas as pd
import pytest

from analyses.campaign_dial import changes, judged, steps

LAST = 4


def runs(question, task, accuracies, *, network="a", read=LAST, method="ap", **more):
    """A run a place, its validation and its test accuracy the same."""
    for layer, accuracy in accuracies.items():
        yield {
            "question": question, "network": network, "kind": "cnn", "task": task, "seed": 0,
            "method": method, "layer": layer, "read": layer if method != "ap" else read,
            "places": LAST + 1, "lr": 1e-2, "val_accuracy": accuracy, "val_loss": 1.0,
            "test_accuracy": accuracy, "converged": layer != 3, **more,
        }  # fmt: skip


def journal(networks=("a",)):
    rows = []
    for network in networks:
        cases = [("sweep", "t", {}, 0.9)]
        for level, best in ((2.0, 0.7), (4.0, 0.8)):
            told = {"dial": "blur", "level": level}
            cases.append(("dial", f"t+blur{level:g}", told, best))
        for question, task, told, best in cases:
            told = {**told, "network": network}
            probes = {0: 0.1, 2: 0.6, 4: 0.5}
            rows += runs(question, task, probes, method="layer_probe", **told)
            deep = {0: 0.5, 1: 0.55, 2: 0.6, 3: best}
            shallow = {0: best, 1: 0.6, 2: 0.55, 3: 0.5}
            rows += runs(question, task, shallow if told.get("level") == 4 else deep, **told)
            rows += runs(question, task, {0: 0.65}, read=2, **told)
        # a place that the dialled pictures were not swept at
        rows += runs("sweep", "t", {3.5: 1.0}, network=network)
    return pd.DataFrame(rows)


def test_each_step_has_what_validation_chooses_at_the_same_places():
    table = steps(journal()).set_index("step")
    assert table["depth_end"].to_dict() == {0: 0.75, 1: 0.75, 2: 0.0}
    assert table["slope_end"].to_dict() == {0: 1, 1: 1, 2: -1}
    assert table["gain_end"].to_dict() == pytest.approx({0: 40, 1: 20, 2: 30})
    assert table["gain_early"].to_dict() == pytest.approx({0: 5, 1: 5, 2: 5})
    assert table["moving"].to_dict() == {0: 1, 1: 1, 2: 0}


def test_the_change_is_the_last_step_minus_the_first():
    table = steps(journal(("a", "b", "c")))
    moved = changes(table)
    assert len(moved) == 3
    assert moved["depth_end"].tolist() == [-0.75] * 3
    assert moved["gain_end"].tolist() == pytest.approx([-10] * 3)
    said = judged(table).set_index("statistic")
    row = said.loc["change of depth of the chosen prompt, read at the end, all dials"]
    assert row["value"] == -0.75
    assert row["networks"] == 3
    assert row["runs_still_moving"] == "6 of 36"


def test_two_networks_bear_no_interval():
    said = judged(steps(journal(("a", "b"))))
    assert said["low"].isna().all()
    assert set(said["agrees"]) == {"unknown"}


def test_the_dials_of_one_network_are_not_taken_for_networks():
    table = steps(journal())
    more = [table.assign(dial=dial) for dial in ("blur", "noise", "colour")]
    said = judged(pd.concat(more, ignore_index=True))
    assert set(said["networks"]) == {1}
    assert said["low"].isna().all()


def test_a_journal_without_dialled_units_says_nothing():
    table = journal()
    assert steps(table[table["question"] == "sweep"]).empty

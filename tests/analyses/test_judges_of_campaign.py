"""The claims that the campaign judges: both ways, by networks, and not on runs that still moved."""

import numpy as np
import pandas as pd
import pytest

from analyses import judges_of_methods, judges_of_sweeps
from analyses.evidence import NotMeasured
from analyses.judges import NOT_REPRODUCED, NOT_WITH_THESE, REPRODUCED, UNDECIDED, beside
from analyses.results import Results

CNNS, VITS = ("resnet32", "resnet56", "mobilenetv2_035"), ("vit_tiny", "vit_small", "cifar_vit128")


def put(folder, name, table):
    path = folder / "evidence" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)
    return Results(folder)


def pairs(**columns):
    """A row a network, task and draw; a column is a number, or one for each network."""
    rows = []
    for number, network in enumerate((*CNNS, *VITS)):
        for task, near in (("a", True), ("b", False)):
            for seed in (0, 1):
                row = {"network": network, "kind": "vit" if network in VITS else "cnn"}
                row |= {"task": task, "near": near, "seed": seed, "moving": 0, "runs": 4}
                row |= {"vp_end": 0.5, "linear_probe": 0.5, "own_probe": 0.3, "layer_probe": 0.55}
                row |= {"random_end": 0.5, "ap_end": 0.6 + 0.01 * (number + seed)}
                row |= {"ap_papers_place": 0.58, "ap_elsewhere": 0.57, "depth_end": 0.5}
                row |= {"slope_end": 0.6 + 0.01 * (number + seed), "slope_read_early": 0.1}
                given = {key: np.broadcast_to(v, 6)[number] for key, v in columns.items()}
                rows.append(row | given)
    return pd.DataFrame(rows)


def test_gains_are_judged_by_networks(tmp_path):
    results = put(tmp_path, "pairs", pairs())
    for judge in (judges_of_sweeps.against_vp(vit=False), judges_of_sweeps.more_than_probe):
        assert judge(results).verdict == REPRODUCED
    found = judges_of_sweeps.against_vp(vit=True)(results)
    assert (found.n, found.unit) == (3, "networks")
    assert "AP at the paper's place − VP: +8.00" in " ".join(found.further)
    assert "other tasks choose − VP: +7.00" in " ".join(found.further)
    worse = put(tmp_path, "pairs", pairs(ap_end=[0.4, 0.41, 0.42, 0.4, 0.41, 0.42]))
    assert judges_of_sweeps.against_vp(vit=False)(worse).verdict == NOT_REPRODUCED
    one = put(tmp_path, "pairs", pairs(ap_end=[0.9, 0.5, 0.3, 0.6, 0.6, 0.6]))
    assert judges_of_sweeps.against_vp(vit=False)(one).verdict == UNDECIDED


def test_both_probes_must_lose(tmp_path):
    own = put(tmp_path, "pairs", pairs(own_probe=0.7))
    assert judges_of_sweeps.more_than_probe(own).verdict == NOT_REPRODUCED


def test_preferences_are_judged_both_ways(tmp_path):
    results = put(tmp_path, "pairs", pairs())
    assert judges_of_sweeps.preference(vit=False)(results).verdict == REPRODUCED
    assert judges_of_sweeps.preference(vit=True)(results).verdict == NOT_REPRODUCED
    said = " ".join(judges_of_sweeps.preference(vit=False)(results).further)
    assert "on tasks far from the pretraining: +0.6" in said


def test_the_architecture_needs_most_of_the_variance(tmp_path):
    apart = pairs(depth_end=[0.1, 0.3, 0.5, 0.7, 0.8, 0.9])
    assert judges_of_sweeps.architecture(put(tmp_path, "pairs", apart)).verdict == REPRODUCED
    alike = pairs()
    alike["depth_end"] = np.where(alike["task"] == "a", 0.2, 0.8)
    assert judges_of_sweeps.architecture(put(tmp_path, "pairs", alike)).verdict == NOT_REPRODUCED


def test_runs_that_still_moved_carry_no_verdict(tmp_path):
    results = put(tmp_path, "pairs", pairs(moving=[1, 0, 0, 0, 0, 0]))
    found = judges_of_sweeps.against_vp(vit=False)(results)
    assert found.verdict == NOT_WITH_THESE
    assert "4 of the 48 chosen runs were still moving" in found.why
    assert judges_of_sweeps.against_vp(vit=True)(results).verdict == REPRODUCED
    assert judges_of_sweeps.more_than_probe(results).why.startswith("AP − linear probe")


def compared(methods, *, converged=True):
    """Accuracies of methods on two tasks of each network: one number, or one for each network."""
    return pd.DataFrame(
        {"network": network, "kind": "vit" if network in VITS else "cnn", "task": task}
        | {"near": task == "a", "seed": 0, "method": method, "converged": converged}
        | {"test_accuracy": np.broadcast_to(value, 6)[number]}
        for number, network in enumerate((*CNNS, *VITS))
        for task in ("a", "b")
        for method, value in methods.items()
    )


NEARLY = np.array([0.0, 0.001, 0.002, 0.0, 0.001, 0.002])
METHODS = {
    "ap": 0.6,
    "ap, middle": 0.55,
    "norm_tuning": 0.58 + NEARLY,
    "linear_probe": 0.5,
}


def test_the_order_of_methods(tmp_path):
    results = put(tmp_path, "methods", compared(METHODS))
    found = judges_of_methods.order(results)
    assert found.verdict == REPRODUCED
    assert found.n == 6
    assert "equal search) − NORM-TUNE: -3.10" in " ".join(found.further)
    behind = put(tmp_path, "methods", compared(METHODS | {"ap": 0.57}))
    assert judges_of_methods.order(behind).verdict == NOT_REPRODUCED
    moving = put(tmp_path, "methods", compared(METHODS, converged=False))
    assert judges_of_methods.order(moving).verdict == NOT_WITH_THESE


def test_one_method_against_another_and_its_rank(tmp_path):
    methods = METHODS | {"lora:rank=4": 0.7, "full": 0.9, "random pattern": 0.8}
    results = put(tmp_path, "methods", compared(methods | {"lora:rank=4, read early": 0.9}))
    assert judges_of_methods.beats("lora:rank=4", "ap")(results).verdict == UNDECIDED  # no spread
    assert judges_of_methods.beats("norm_tuning", "ap", vit=True)(results).n == 3
    with pytest.raises(NotMeasured):
        judges_of_methods.beats("vapt", "ap")(results)
    ranked = judges_of_methods.rank(results)
    assert ranked.number == "ranks 2, 2, 2"
    assert ranked.verdict == REPRODUCED


def test_older_runs_stand_beside_where_they_are(tmp_path):
    results = put(tmp_path, "methods", compared(METHODS))

    def missing(results):
        raise NotMeasured("older runs")

    alone = judges_of_methods.order(results)
    assert beside(judges_of_methods.order, missing, "older")(results) == alone
    twice = beside(judges_of_methods.order, judges_of_methods.order, "older")(results)
    assert twice.further[-1] == f"older (6 networks): {alone.number}"

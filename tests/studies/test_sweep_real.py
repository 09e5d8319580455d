"""Studies of real (small) networks: the same bits however they are run, and sound controls."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import aptheory as ap
from aptheory.errors import InputError
from aptheory.findings.compare import check_controls
from aptheory.studies.engines import Here, Processes
from aptheory.studies.planning import make_plan
from aptheory.studies.store import Store
from aptheory.studies.study import Study
from aptheory.studies.sweep import execute, status, sweep
from aptheory.studies.tables import records
from aptheory.training.fit import fit_many
from aptheory.training.recipe import Run

ROOT = Path(__file__).resolve().parents[2]
RESNET = {"name": "aptheory_resnet_mini", "weights": "random"}
VIT = {"name": "aptheory_vit_mini", "weights": "random"}
DIGITS = {"name": "digits", "train": 30, "val": 20, "test": 20}


def study(**changes):
    values = {
        "networks": [RESNET],
        "tasks": [DIGITS],
        "layers": [4, 6],
        "recipes": [{"name": "quick", "epochs": 1, "batch_size": 16}],
        "seeds": [0, 1],
    }
    return Study.from_dict({**values, **changes})


def run(plan_or_study, folder, engine=None):
    plan = make_plan(plan_or_study) if isinstance(plan_or_study, Study) else plan_or_study
    return execute(plan, folder, engine=engine or Here(), progress=False)


def outcomes(folder):
    return {record.key: record for record in Store(folder).read_all()[0]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(study(), folder)
    return folder


def same(folder, other):
    """Equal in everything that is measured, to the last bit: losses and curves too."""
    ours, theirs = outcomes(folder), outcomes(other)
    assert ours.keys() == theirs.keys()
    for key, record in ours.items():
        assert record.outcome == theirs[key].outcome, record.identity["method"]
    assert (folder / "accuracy.csv").read_bytes() == (other / "accuracy.csv").read_bytes()


def test_everything_is_done_and_says_what_made_it(finished):
    told = status(finished)
    assert told.done == told.total == 18  # 3 prompts, 3 random, 2 layer probes, 1 linear; 2 seeds
    for record in outcomes(finished).values():
        made = record.made_by
        assert made["versions"]["torch"]
        assert made["device"] == "cpu"
        assert made["dtype"] == "float32"
        assert made["seconds"] > 0
        assert made["peak_memory"] > 0
        assert len(record.identity["network"]["digest"]) == 64
        assert len(record.identity["task"]["digest"]) == 64
        assert len(record.outcome["curve"]) == 1


def test_processes_give_the_same_bits(tmp_path, finished):
    run(study(), tmp_path, Processes(1))  # several are in test_sweep.py, without the imports
    same(tmp_path, finished)


@pytest.mark.slow
def test_resumed_study_gives_the_same_bits(tmp_path, finished):
    """Whatever is missing: the first of a stack, a control, everything but one."""
    run(study(), tmp_path)
    keys = sorted(outcomes(tmp_path))
    for missing in (keys[::2], keys[1::3], keys[1:]):
        for key in missing:
            Store(tmp_path).path(key).unlink()
        run(study(), tmp_path)
        same(tmp_path, finished)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, {"precision": "bfloat16"}, {"keep_dtype": "bfloat16"}])
def test_where_the_walk_began_does_not_matter(tmp_path, recipe):
    changed = {"recipes": [{"name": "quick", "epochs": 1, "batch_size": 16, **recipe}]}
    run(study(layers_together=100, **changed), tmp_path / "one")
    run(study(layers_together=1, **changed), tmp_path / "many")
    same(tmp_path / "one", tmp_path / "many")


def test_random_control_has_the_norm_that_the_prompt_came_to(finished):
    found = outcomes(finished)
    norms = [
        (record.outcome["norm"], found[record.identity["follows"]].outcome["prompt_norm"])
        for record in found.values()
        if record.identity["method"]["method"] == "random_perturbation"
    ]
    assert len(norms) == 6
    assert all(ours == theirs > 0 for ours, theirs in norms)
    assert len({ours for ours, _ in norms}) == 6  # each of its own seed and layer


def test_prompt_at_the_last_place_is_the_linear_probe(tmp_path):
    changed = {"recipes": [{"name": "quick", "epochs": 8}], "layers": [1.0]}
    size = {**DIGITS, "train": 100, "val": 50, "test": 200}
    run(study(tasks=[size], networks=["aptheory_resnet_mini"], **changed), tmp_path)
    told = check_controls(tmp_path).set_index("check")
    assert abs(told.loc["ap - linear_probe", "difference"]) <= 0.02


def test_search_takes_the_best_by_validation(tmp_path):
    searched = study(
        layers=[6],
        controls=False,
        search={"lr": [1e-6, 1e-2, 1e30], "weight_decay": [0.0, 1e-2]},
    )
    run(searched, tmp_path)
    for record in outcomes(tmp_path).values():
        tried = record.outcome["search"]
        assert len(tried) == record.outcome["candidates"] == 6
        known = [one["val_accuracy"] for one in tried if one["val_accuracy"] is not None]
        assert record.outcome["val_accuracy"] == max(known)
        chosen = {"lr": record.outcome["lr"], "weight_decay": record.outcome["weight_decay"]}
        assert any(
            one["val_accuracy"] == max(known) and chosen.items() <= one.items() for one in tried
        )


def test_test_labels_decide_nothing(tmp_path):
    """With the test labels turned round, everything but the test accuracy is the same."""
    task = ap.task("digits").subset(train=30, val=20, test=20)
    split = task.test
    wrong = replace(
        task,
        test=ap.tasks.ArraySplit(
            split.images(range(20), (32, 32)).permute(0, 2, 3, 1).numpy(), 9 - split.labels
        ),
    )
    options = {"search": {"lr": [1e-3, 1e-2, 1e-1]}, "layers": [6], "controls": False}
    run(study(tasks=[task], **options), tmp_path / "right")
    run(study(tasks=[wrong], **options), tmp_path / "wrong")
    both = [
        [
            (record.outcome["lr"], record.outcome["val_accuracy"], record.outcome["search"])
            for _, record in records(tmp_path / folder)
        ]
        for folder in ("right", "wrong")
    ]
    assert both[0] == both[1]


def test_run_that_diverges_is_recorded_and_its_neighbours_are_not(tmp_path):
    recipes = [
        {"name": "wild", "base": "quick", "epochs": 1, "lr": 1e30, "optimizer": "sgd"},
        {"name": "quick", "epochs": 1},
    ]
    run(study(recipes=recipes, layers=[6], controls=False), tmp_path)
    told = status(tmp_path)
    assert (told.done, len(told.failed)) == (2, 2)
    assert "finite" in told.text()


def test_vtab_protocol_selects_then_trains_on_both_splits(tmp_path):
    both = study(protocol="vtab", layers=[6], controls=False, search={"lr": [1e-3, 1e-2]})
    run(both, tmp_path)
    net = _random_resnet()
    task = ap.task("digits").subset(train=30, val=20, test=20)
    recipe = ap.Recipe(name="quick", epochs=1, batch_size=16, keep="memory", together=4)
    method = ap.ActivationPrompt(layer=6)
    tried = fit_many(method, net, task, runs=[Run(lr=1e-3), Run(lr=1e-2)], recipe=recipe)
    best = max(tried, key=lambda one: (one.val_accuracy, -one.val_loss))
    whole = replace(task, train=task.train_and_val)
    runs = [Run(seed=seed, lr=best.lr, weight_decay=best.weight_decay) for seed in (0, 1)]
    final = fit_many(method, net, whole, runs=runs, recipe=recipe)
    for _, record in records(tmp_path):
        assert record.outcome["val_accuracy"] == best.val_accuracy
        assert record.outcome["lr"] == best.lr
        seed = record.identity["seed"]
        assert record.outcome["test_accuracy"] == final[seed].test_accuracy
        assert record.outcome["test_loss"] == pytest.approx(final[seed].test_loss, rel=1e-5)


def _random_resnet():
    from aptheory.studies.sources import load_network

    return load_network(RESNET)


@pytest.mark.slow
def test_objects_travel_to_worker_processes(tmp_path):
    net = _random_resnet()
    task = ap.task("digits").subset(train=30, val=20, test=20)
    given = study(networks=[net], tasks=[task], layers=[6], controls=False)
    run(given, tmp_path / "processes", Processes(1))
    run(given, tmp_path / "here")
    same(tmp_path / "processes", tmp_path / "here")


def test_sweep_takes_a_file_and_returns_the_table(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        'networks = [{ name = "aptheory_resnet_mini", weights = "random" }]\n'
        'tasks = [{ name = "digits", train = 20, val = 10, test = 10 }]\n'
        "layers = [6]\ncontrols = false\nseeds = [0]\nrecipe = { name = 'quick', epochs = 1 }\n"
    )
    frame = sweep(path, tmp_path / "out", engine="here", progress=False)
    assert set(frame["measure"]) == {"train_accuracy", "val_accuracy", "test_accuracy", "val_loss"}
    read = pd.read_csv(tmp_path / "out" / "accuracy.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)


def test_what_an_edited_study_no_longer_asks_for_is_said_and_enters_no_table(
    tmp_path, caplog, finished
):
    shutil.copytree(finished, tmp_path / "edited")
    with caplog.at_level("INFO", "aptheory"):
        sweep(study(), tmp_path / "edited", engine="here", progress=False)
        assert "not asked for any more" not in caplog.text
        frame = sweep(study(layers=[6]), tmp_path / "edited", engine="here", progress=False)
    # A prompt, its random control and the probe at layer 4, two seeds each.
    assert "6 other runs in" in caplog.text
    assert 4 not in set(frame["layer"])


# ------------------------------------------------------------------------- hundreds of runs


def hundreds():
    """Embedded networks and tasks, all methods, all layers, two seeds: several hundred runs."""
    return Study(
        name="hundreds",
        networks=["aptheory_vit_mini", "aptheory_resnet_mini"],
        tasks=[
            {"name": name, "train": 40, "val": 20, "test": 40} for name in ("digits", "counting")
        ],
        methods=["all"],
        recipes=[{"name": "quick", "epochs": 1, "batch_size": 20}],
        seeds=[0, 1],
    )


def killed_and_resumed(folder, *, times):
    code = textwrap.dedent(f"""
        from aptheory.studies.sweep import sweep
        from tests.studies.test_sweep_real import hundreds
        sweep(hundreds(), {str(folder)!r}, engine="processes", workers=2, progress=False)
    """)
    killed, chance = 0, random.Random(0)
    while True:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
        end = None  # of this process: some seconds after its workers began to train
        while process.poll() is None:
            time.sleep(0.2)
            if end is None and Store(folder).running():
                end = time.monotonic() + chance.uniform(0.0, 15.0)
            if killed < times and end is not None and time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                process.wait()
        if process.returncode == 0:
            return killed


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_hundreds_of_runs_killed_and_on_a_cluster_give_one_table(tmp_path):
    undisturbed = sweep(
        hundreds(), tmp_path / "whole", engine="processes", workers=2, progress=False
    )
    told = status(tmp_path / "whole")
    assert told.done == told.total > 300
    assert not told.failed
    assert set(undisturbed["method"]) >= {"ap", "linear_probe", "norm_tuning", "vpt", "lora"}

    assert killed_and_resumed(tmp_path / "killed", times=6) > 0
    same(tmp_path / "killed", tmp_path / "whole")

    from tests.studies.test_sweep_ray import two_nodes

    with two_nodes() as nodes:
        address = nodes.address
        sweep(hundreds(), tmp_path / "ray", engine="ray", address=address, progress=False)
    same(tmp_path / "ray", tmp_path / "whole")


def test_a_refused_sweep_leaves_no_folder(tmp_path):
    study = Study(networks=["aptheory_resnet_mini"], tasks=["digits"], methods=["vpt"])
    with pytest.raises(InputError, match="makes sense"):
        sweep(study, tmp_path / "out", engine="here")
    assert not (tmp_path / "out").exists()

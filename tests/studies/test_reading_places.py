"""A study that reads where its own probes read best: `read=best`."""

from dataclasses import replace

import pytest

import aptheory as ap
from aptheory.errors import InputError
from aptheory.methods import ActivationPrompt
from aptheory.studies.planning import make_plan
from aptheory.studies.reading_places import reading_places
from aptheory.studies.status import status
from aptheory.studies.store import Store
from aptheory.studies.sweep import planned, sweep
from aptheory.training.judging import Score
from tests import quarters

NET, TASK = quarters.small_cnn(), quarters.small_task()
LAST = len(NET.layers) - 1
HERE = {"engine": "here", "progress": False}


def study(*methods, **more):
    values = {"layers": [0, 2, LAST], "seeds": [0], "recipes": [{"name": "quick", "epochs": 1}]}
    return ap.Study(networks=[NET], tasks=[TASK], methods=methods, **{**values, **more})


def prompts(plan):
    """(label, layer, read) of the prompts of a plan; a read of None is the end."""
    return {
        (batch.labels["method"], identity["method"]["layer"], identity["method"].get("read"))
        for batch in plan.batches
        for identity in batch.identities
        if batch.labels["role"] == "prompt"
    }


def test_before_the_probes_have_ended_only_they_and_the_published_prompts_are_planned():
    plan = make_plan(study("ap", "ap:read=best"))
    assert plan.waits
    assert prompts(plan) == {("ap", layer, None) for layer in (0, 2, LAST)}
    probed = {
        batch.identities[0]["layer"]["index"]
        for batch in plan.batches
        if batch.labels["role"] == "probe"
    }
    assert probed == {0, *NET.block_layers, LAST}
    assert set(make_plan(study("ap")).run_keys) < set(plan.run_keys)
    assert not make_plan(study("ap")).waits


def test_prompts_are_read_at_the_place_that_is_told_and_none_lies_behind_it():
    pair = (NET.name, TASK.name)
    plan = make_plan(study("ap", "ap:read=best"), {pair: 3})
    assert not plan.waits
    early = {each for each in prompts(plan) if each[0] != "ap"}
    assert early == {("ap:read=best", layer, 3) for layer in (0, 1, 2)}  # 1 is halfway
    halfway = make_plan(study("ap", "ap:read=best,layer=halfway"), {pair: 3})
    assert prompts(halfway) - prompts(make_plan(study("ap"))) == {("ap:read=best", 1, 3)}
    with pytest.raises(InputError, match="halfway to the place of read=best: give both"):
        make_plan(study("ap:layer=halfway"))
    controls = {
        batch.labels["method"] for batch in plan.batches if batch.labels["role"] == "control"
    }
    assert controls == {"random_perturbation", "random_perturbation:ap:read=best"}
    first = make_plan(study("ap", "ap:read=best"))
    assert set(first.run_keys) < set(plan.run_keys)
    assert first.identity == plan.identity  # two sweeps of it share a folder
    at_end = make_plan(study("ap", "ap:read=best"), {pair: LAST})
    assert {each for each in prompts(at_end) if each[1] != LAST // 2} == prompts(first)


def test_the_probe_of_all_layers_is_a_method_of_its_own_beside_those_of_each_layer():
    plan = make_plan(study("ap", "ap:read=best", "layer_probe:layer=all"))
    labels = [batch.labels["method"] for batch in plan.batches]
    assert labels.count("layer_probe:layer=all") == 1
    (whole,) = (b for b in plan.batches if b.labels["method"] == "layer_probe:layer=all")
    assert whole.labels["settings"] == "layer=all"
    assert labels.count("layer_probe") == len({0, *NET.block_layers, LAST})


def test_a_reading_of_ones_own_is_prompted_before_it_alone():
    plan = make_plan(study("ap", "ap:read=3"))
    assert prompts(plan) - prompts(make_plan(study("ap"))) == {
        ("ap:read=3", layer, 3) for layer in (0, 2)
    }
    assert plan.not_applicable == ()


@pytest.mark.parametrize(
    "entry",
    [
        "norm_tuning:read=best",
        {"name": "norm_tuning", "read": "best"},
        ActivationPrompt(layer=1, read="best"),
    ],
)
def test_every_way_to_say_a_method_may_say_it(entry):
    plan = make_plan(study(entry), {(NET.name, TASK.name): 3})
    reads = [b.identities[0]["method"].get("read") for b in plan.batches if b.reads_best]
    assert reads == [3]
    assert make_plan(study(entry)).waits


@pytest.mark.parametrize("judge", ["accuracy", "loss"])
def test_a_sweep_trains_the_probes_then_what_reads_at_the_best(tmp_path, judge):
    recipe = {"name": "quick", "epochs": 1, "judge": judge}
    asked = study("ap:read=best", recipes=[recipe], layers=[0, 2])
    table = sweep(asked, tmp_path, **HERE)
    probes = table[table["role"] == "probe"].pivot_table(
        index="layer", columns="measure", values="value"
    )
    scores = {
        layer: Score(row["val_accuracy"], row["val_loss"]) for layer, row in probes.iterrows()
    }
    best = min(scores, key=lambda layer: scores[layer].cost(judge))
    early = table[table["method"] == "ap:read=best"]
    assert set(early["settings"]) == ({f"read={best}"} if best < LAST else {""})
    assert set(early["layer"]) <= {0, 2, best // 2}
    opened = asked.open()
    (place,) = reading_places(make_plan(opened), Store(tmp_path)).values()
    assert (place.index, place.judge, place.looked_at) == (best, judge, len(probes))
    assert f"place {best} ({NET.layers[best].name})" in str(place)
    assert ("the network's end, so that nothing is read earlier" in str(place)) == (best == LAST)
    assert "the network's end" in str(replace(place, at_end=True))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    again = sweep(asked, tmp_path, **HERE)  # finished: nothing is trained or waited for
    assert not planned(opened, Store(tmp_path)).waits
    assert again.equals(table)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert status(tmp_path).left == 0


def test_probes_that_are_not_done_choose_nothing(tmp_path):
    plan = make_plan(study("ap:read=best"))
    assert reading_places(plan, Store(tmp_path).create()) == {}


def test_a_damaged_outcome_of_a_probe_is_as_one_that_is_not_there(tmp_path):
    plan = make_plan(study("ap:read=best"))
    store = Store(tmp_path).create()
    for key in (key for batch in plan.batches for key in batch.run_keys):
        store.path(key).write_text("")
        assert store.believed(key) is None
    assert reading_places(plan, store) == {}


@pytest.mark.parametrize("read", ["all", "1+3"])
def test_a_prompt_is_filed_where_it_acts_wherever_its_head_reads(read, tmp_path):
    each = study(f"ap:read={read}", layers=[2, 3], seeds=[0, 1])
    filed = {
        (identity["method"]["layer"], identity["layer"]["index"])
        for batch in make_plan(each).batches
        for identity in batch.identities
        if batch.labels["role"] != "probe"
    }
    assert filed == {(2, 2), (3, 3)}
    table = sweep(each, tmp_path, **HERE)
    ours = table[(table["role"] == "prompt") & (table["measure"] == "test_accuracy")]
    assert ours.groupby("layer")["seed"].apply(sorted).to_dict() == {2: [0, 1], 3: [0, 1]}


def labels(*methods):
    """(label, settings) of what a plan trains beside the probes."""
    return {
        (batch.labels["method"], batch.labels["settings"])
        for batch in make_plan(study(*methods)).batches
        if batch.labels["role"] != "probe"
    }


@pytest.mark.parametrize("turned", [False, True])
def test_two_settings_of_one_method_never_share_a_name(turned):
    def of(*methods):
        return labels(*(methods[::-1] if turned else methods))

    random = ("random_perturbation", "")
    assert of("ap:shape=channel", "bitfit") == {
        ("ap", "shape=channel"), ("random_perturbation", ""), ("bitfit", "")
    }  # fmt: skip
    assert {("ap", ""), ("ap:shape=channel", "shape=channel")} < of("ap:shape=channel", "ap")
    assert of("ap:layer=1+2", "ap:layer=1") == {("ap:layer=1+2", "layer=1+2"), ("ap", "")}
    assert of("norm_tuning:layer=1..2", "norm_tuning:layer=1..3") == {
        ("norm_tuning:layer=1..2", "layer=1..2"), ("norm_tuning:layer=1..3", "layer=1..3")
    }  # fmt: skip
    both = of("random_perturbation:norm=1", "ap")
    assert both == {("ap", ""), random, ("random_perturbation:ap", "")}


@pytest.mark.parametrize(
    "methods", [("random_perturbation:norm=1", "ap"), ("ap:layer=1+2", "ap:layer=1")]
)
def test_such_a_study_ends_with_a_table_that_can_be_read(methods, tmp_path):
    table = sweep(study(*methods, layers=[1, 2]), tmp_path, **HERE)
    assert ap.report(tmp_path).is_file()
    of_test = table[table["measure"] == "test_accuracy"]
    assert not of_test.duplicated(["method", "settings", "layer", "seed"]).any()


def test_a_probe_that_is_read_elsewhere_is_not_the_linear_probe():
    plan = make_plan(study("ap", "linear_probe:read=2"))
    found = {
        (batch.labels["method"], batch.identities[0]["layer"]["index"])
        for batch in plan.batches
        if "linear" in batch.labels["method"]
    }
    assert found == {("linear_probe", LAST), ("linear_probe:read=2", 2)}


@pytest.mark.parametrize(
    "spelled",
    [
        ("ap:layer=1", f"ap:layer={NET.layers[1].name}"),
        ("ap:layer=1+2", "ap:layer=2+1"),
        ("ap", f"ap:read={LAST}"),
        ("ap", f"ap:read={LAST},pooling=all"),  # its end is a vector, which nothing pools
        ("linear_probe", f"linear_probe:read={LAST}"),
    ],
)
def test_a_method_in_two_spellings_is_trained_once(spelled, tmp_path):
    once, both = (
        sweep(study(*methods, layers=[1, 2]), tmp_path / str(len(methods)), **HERE)
        for methods in (spelled[:1], spelled)
    )
    assert len(both) == len(once)
    assert ap.report(tmp_path / "2").is_file()

"""Studies as values, and their plans: who trains with whom is decided by the study alone."""

import json

import pytest

import aptheory as ap
from aptheory.errors import InputError
from aptheory.studies import sources
from aptheory.studies.planning import make_plan
from aptheory.studies.study import Study
from aptheory.studies.sweep import dry_run

VIT = {"name": "aptheory_vit_mini", "weights": "random"}
RESNET = {"name": "aptheory_resnet_mini", "weights": "random"}
DIGITS = {"name": "digits", "train": 40, "val": 20, "test": 20}


@pytest.fixture(autouse=True, scope="module")
def networks_loaded_once():
    """What is planned here is planned many times, with the same networks."""
    known, load = {}, sources.load_network

    def load_once(spec, **options):
        if repr(spec) not in known:
            known[repr(spec)] = load(spec, **options)
        return known[repr(spec)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load_network", load_once)
        yield


def study(**changes):
    values = {
        "networks": [VIT],
        "tasks": [DIGITS],
        "layers": [0, 4],
        "recipes": [{"name": "quick", "epochs": 1}],
        "seeds": [0, 1],
    }
    return Study.from_dict({**values, **changes})


# ------------------------------------------------------------------------- the study as values


def test_toml_and_dataclass_are_the_same_study(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        """
        networks = [{ name = "aptheory_vit_mini", weights = "random" }]
        task = { name = "digits", train = 40, val = 20, test = 20 }
        layers = [0, 4]
        recipe = { name = "quick", epochs = 1 }
        seeds = [0, 1]
        """
    )
    assert Study.from_toml(path) == study()


def test_paths_are_relative_to_the_study_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        'networks = [{ name = "net", weights = "w.safetensors" }, "other"]\n'
        'tasks = ["folder:images", { name = "npz:/data/a.npz" }, "digits"]\n'
    )
    read = Study.from_toml(path)
    assert read.networks[0]["weights"] == str(tmp_path / "w.safetensors")
    assert read.networks[1] == {"name": "other"}
    names = [task["name"] for task in read.tasks]
    assert names == [f"folder:{tmp_path / 'images'}", "npz:/data/a.npz", "digits"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("csv:a/t.csv?label=kind", "csv:{}/a/t.csv?label=kind"),
        ("parquet:t.parquet", "parquet:{}/t.parquet"),
        ("zip:../a.zip", "zip:{}/../a.zip"),
        ("pets/all", "{}/pets/all"),
        ("pets.npz", "{}/pets.npz"),
        ("/data/pets.npz", "/data/pets.npz"),
        ("hf:pets", "hf:{}/pets"),
        ("hf:owner/name", "hf:owner/name"),
        ("torchvision:CIFAR10", "torchvision:CIFAR10"),
        ("cifar100", "cifar100"),
        ("nobody:knows", "nobody:knows"),
    ],
)
def test_every_kind_of_place_is_relative_to_the_study_file(tmp_path, given, read):
    (tmp_path / "pets").mkdir()
    (tmp_path / "study.toml").write_text(f"networks = ['a']\ntasks = ['{given}']\n")
    (task,) = Study.from_toml(tmp_path / "study.toml").tasks
    assert task["name"] == read.format(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("netwroks = ['a']\ntasks = ['b']", "did you mean networks"),
        ("tasks = ['b']", "no networks"),
        ("name = '..'\nnetworks = ['a']\ntasks = ['b']", "not dots alone"),
        ("name = ' . '\nnetworks = ['a']\ntasks = ['b']", "not dots alone"),
        ("networks = []\ntasks = ['b']", "no networks"),
        ("network = 'a'\nnetworks = ['a']\ntasks = ['b']", "both network and networks"),
        ("networks = ['a'\n", "not valid TOML"),
        ("networks = [{ weights = 'x' }]\ntasks = ['b']", "has no name"),
        ("networks = [{ nam = 'x' }]\ntasks = ['b']", "did you mean name"),
        ("networks = ['a']\ntasks = ['b']\nlayers = [true]", "expected 'all'"),
        ("networks = ['a']\ntasks = ['b']\nlayers = []", "layers is empty"),
        ("networks = ['a']\ntasks = ['b']\nseeds = [1, 1]", "twice"),
        ("networks = ['a']\ntasks = ['b']\nseeds = [-1]", "from 0 up"),
        ("networks = ['a']\ntasks = ['b']\nsearch = { lrs = [1] }", "did you mean lr"),
        ("networks = ['a']\ntasks = ['b']\nsearch = { lr = ['a'] }", "list of numbers"),
        ("networks = ['a']\ntasks = ['b']\nprotocol = 'test'", "'vtab'"),
        ("networks = ['a']\ntasks = ['b']\ntogether = 0", "from 1 up"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        Study.from_toml(path)
    assert str(path) in str(caught.value)


def test_missing_study_file(tmp_path):
    with pytest.raises(InputError, match="cannot read the study"):
        Study.from_toml(tmp_path / "none.toml")


# ------------------------------------------------------------------------- the plan


def test_plan_has_the_methods_the_layers_and_every_control():
    table = make_plan(study()).table()
    cells = set(zip(table["method"], table["layer"], table["seed"], strict=True))
    expected = {("ap", layer) for layer in (0, 4, 10)}  # the last place is always there
    expected |= {("random_perturbation", layer) for layer in (0, 4, 10)}
    expected |= {("layer_probe", layer) for layer in (0, 4)}
    expected |= {("linear_probe", 10)}
    assert cells == {(*cell, seed) for cell in expected for seed in (0, 1)}
    assert len(table) == len(cells)
    assert table["run"].is_unique


def test_controls_can_be_left_out_and_follow_only_swept_prompts():
    plain = make_plan(study(controls=False)).table()
    assert set(plain["method"]) == {"ap"}
    assert set(plain["layer"]) == {0, 4}
    fixed = make_plan(study(methods=["ap:layer=3", "linear_probe"])).table()
    assert set(zip(fixed["method"], fixed["layer"], strict=True)) == {
        ("ap", 3),
        ("linear_probe", 10),
    }


def test_layers_all_and_fractions():
    everywhere = make_plan(study(layers="all", controls=False)).table()
    assert sorted(set(everywhere["layer"])) == list(range(11))
    some = make_plan(study(layers=[0.0, 0.52, 1.0], controls=False)).table()
    assert sorted(set(some["layer"])) == [0, 5, 10]
    named = make_plan(study(layers=["blocks.3", -2, "2"], controls=False)).table()
    assert sorted(set(named["layer"])) == [2, 4, 9]
    for layers in ([11], "some", [1.5]):
        with pytest.raises(InputError, match="an index from 0 to 10"):
            make_plan(study(layers=layers))


def test_a_method_without_a_layer_of_its_own_is_swept_where_each_is_asked_for():
    table = make_plan(study(methods=["norm_tuning", "bitfit:layer=each"], layers=[1, 4])).table()
    assert len(table[table["method"] == "norm_tuning"]) == 2  # seeds, at no layer of the list
    assert sorted(table.loc[table["method"] == "bitfit", "layer"]) == [1, 1, 4, 4]


def test_same_method_with_other_settings_has_another_name():
    table = make_plan(study(methods=["ap", "ap:shape=channel"], layers=[4])).table()
    assert {"ap", "ap:shape=channel", "random_perturbation:ap:shape=channel"} <= set(
        table["method"]
    )


def test_methods_given_as_text_table_object_and_class_are_one():
    forms = ["ap:layer=4", {"name": "ap", "layer": 4}, ap.ActivationPrompt(layer=4)]
    plans = [make_plan(study(methods=[form])).run_keys for form in forms]
    assert plans[0] == plans[1] == plans[2]
    assert make_plan(study(methods=[ap.ActivationPrompt])).run_keys == make_plan(study()).run_keys


def test_objects_in_place_of_names():
    net = ap.load("aptheory_vit_mini", weights=None)
    task = ap.task("digits").subset(train=40, val=20, test=20)
    plan = make_plan(study(networks=[net], tasks=[task], controls=False))
    assert set(plan.table()["network"]) == {net.name}
    json.dumps(plan.to_dict())


def test_method_that_does_not_fit_is_named_with_its_reason():
    plan = dry_run(study(networks=[RESNET], methods=["ap", "norm_tuning", "vpt"]))
    assert any("vpt" in sentence for sentence in plan.not_applicable)
    assert plan.unused == ("'vpt'",)
    both = dry_run(study(networks=[RESNET, "aptheory_vit_mini"], methods=["ap", "vpt"]))
    assert both.not_applicable
    assert both.unused == ()
    with pytest.raises(InputError, match="no run of this study makes sense"):
        dry_run(study(networks=[RESNET], methods=["vpt"]))


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("ap:read=99", "'ap:read=99' is run nowhere: .* has no place 99"),
        ("ap:layer=99", "'ap:layer=99' is run nowhere: .* has no place 99"),
        ("norm_tuning:layer=somewhere", "is run nowhere: .* has no place 'somewhere'"),
        ("ap:read=1", "is run nowhere: every layer of the study lies behind the place"),
    ],
)
def test_a_method_that_is_run_nowhere_by_mistake_is_refused(method, reason):
    with pytest.raises(InputError, match=reason):
        dry_run(study(methods=["linear_probe", method], layers=[2]))


@pytest.mark.parametrize("method", ["vpt:read=1", "vapt:read=0", "lora:read=1"])
def test_methods_of_blocks_need_one_in_front_of_the_head(method):
    plan = dry_run(study(networks=["aptheory_vit_mini"], methods=["ap", method]))
    assert "changes blocks, and none of aptheory_vit_mini runs before" in plan.not_applicable[0]


def test_an_entry_that_says_the_same_again_is_no_mistake():
    plan = dry_run(study(methods=["ap:layer=2", "ap:layer=2", "linear_probe"]))
    assert plan.unused == ()


def test_identity_follows_what_decides_a_result_and_nothing_else():
    def keys(**changes):
        return set(make_plan(study(**{"controls": False, **changes})).run_keys)

    base = keys()
    for same in ({"threads": 2}, {"together": 1}, {"layers_together": 1}, {"name": "other"}):
        assert keys(**same) == base
    assert keys(recipes=[{"name": "quick", "epochs": 1, "keep": "disk"}]) == base
    assert keys(seeds=[0, 1, 2]) > base
    assert keys(layers=[0, 4, 5]) > base
    for other in (
        {"recipes": [{"name": "quick", "epochs": 2}]},
        {"search": {"lr": [0.1]}},
        {"protocol": "vtab"},
        {"tasks": [{**DIGITS, "train": 41}]},
        {"networks": [{**VIT, "seed": 1}]},
        {"methods": ["ap:shape=channel"]},
    ):
        assert not keys(**other) & base, other


def test_who_trains_together_is_decided_by_the_study_alone():
    plan = make_plan(study(seeds=[0, 1, 2, 3, 4], together=2, controls=False, layers=[4]))
    assert sorted(batch.seeds for batch in plan.batches) == [(0, 1), (2, 3), (4,)]
    # One that grew keeps the stacks that were full.
    grown = make_plan(study(seeds=[0, 1, 2, 3, 4, 5], together=2, controls=False, layers=[4]))
    before = {batch.key for batch in plan.batches}
    assert len(before & {batch.key for batch in grown.batches}) == 2
    # A search multiplies what trains together, so fewer seeds do.
    searched = make_plan(
        study(seeds=[0, 1, 2], together=4, search={"lr": [0.1, 0.01]}, controls=False, layers=[4])
    )
    assert sorted(batch.seeds for batch in searched.batches) == [(0, 1), (2,)]


def test_control_stands_behind_its_prompt_in_the_same_job():
    for job in make_plan(study(layers="all", layers_together=2)).jobs:
        known = set()
        for batch in job.batches:
            known.add(batch.key)
            assert batch.follows is None or batch.follows in known


def test_two_tasks_of_one_name_need_labels():
    both = [DIGITS, {**DIGITS, "train": 60}]
    with pytest.raises(InputError, match="label"):
        make_plan(study(tasks=both))
    labelled = [DIGITS, {**DIGITS, "train": 60, "label": "digits-60"}]
    assert set(make_plan(study(tasks=labelled)).table()["task"]) == {"digits", "digits-60"}


def test_dry_run_predicts_more_for_more_work():
    short = dry_run(study())
    long = dry_run(study(recipes=[{"name": "quick", "epochs": 10}]))
    assert 0 < short.seconds < long.seconds
    table = short.table()
    prompts = table[table["method"] == "ap"].groupby("layer")["operations"].first()
    assert prompts.is_monotonic_decreasing  # a deeper prompt has less to run through


def test_a_network_in_training_mode_is_refused_before_anything_is_planned():
    net = ap.load("aptheory_resnet_mini", weights=None)
    net.module.train()
    with pytest.raises(InputError, match="is in training mode"):
        dry_run(study(networks=[net]))


def test_a_mark_before_the_text_is_no_part_of_it(tmp_path):
    """Windows' editors put one there."""
    text = "networks = ['aptheory_resnet_mini']\ntasks = ['digits']\n"
    (tmp_path / "s.toml").write_text(text, encoding="utf-8-sig")
    assert ap.Study.from_toml(tmp_path / "s.toml").tasks[0]["name"] == "digits"

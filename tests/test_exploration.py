"""The main job opens its study once, passes over what is finished, makes again what is damaged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import aptheory as ap
from aptheory.exploration import explore, profile_study
from aptheory.reporting import report as reporting
from aptheory.studies.settings import (
    check_belongs,
    check_is_about,
    check_no_other_map,
    check_no_other_profile,
    write_settings,
)
from aptheory.writing import only_writer
from benchmarks.spine import CALLS, watching

STUDY = ap.Study(
    networks=[{"name": "aptheory_resnet_mini", "weights": "random"}],
    tasks=[{"name": "digits", "train": 30, "val": 20, "test": 20, "label": "price$x^{$"}],
    layers=[9, 11],
    seeds=[0],
    recipes=[{"name": "quick", "epochs": 1, "batch_size": 16}],
)
OPTIONS = {"images": 16, "measures": ("effective_rank",), "engine": "here", "progress": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with watching():
        explore(STUDY, out, **OPTIONS)
        calls = dict(CALLS)
    return out, calls


def test_each_network_and_task_is_loaded_once_and_the_study_planned_once(finished):
    _, calls = finished
    assert (calls["network"], calls["task"], calls["plan"]) == (1, 1, 1)


def test_a_finished_folder_trains_profiles_and_draws_nothing(finished, monkeypatch):
    out, _ = finished
    plots = {path: path.stat().st_mtime_ns for path in (out / "plots").iterdir()}
    (out / "report.html").unlink()
    monkeypatch.setattr(reporting, "draw", lambda *_: pytest.fail("drawn again"))
    again = "aptheory.exploration.massive_activations"
    monkeypatch.setattr(again, lambda *_, **__: pytest.fail("looked at again"))
    with watching():
        explore(STUDY, out, **OPTIONS)
        assert (CALLS["training"], CALLS["profiling"], CALLS["network"]) == (0, 0, 1)
    assert (out / "report.html").is_file()
    assert {path: path.stat().st_mtime_ns for path in plots} == plots


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is_spelt(finished):
    out, _ = finished
    assert "price$x^{$" in (out / "report.html").read_text()
    names = [path.name for path in (out / "plots").glob("*.png")]
    assert names
    assert not any(set(name) & set("$^{ ") for name in names)


def test_an_empty_profile_is_never_kept(tmp_path):
    """A network without attention has no attention distance: said, and said again, not stored."""
    for _ in range(2):
        with pytest.raises(
            ap.InputError, match="no attention that can be seen: leave out attention_distance"
        ):
            profile_study(STUDY, tmp_path, measures=("attention_distance",), images=16)
    assert not list((tmp_path / "profile").glob("*.csv"))


def test_plots_of_names_with_dots_do_not_overwrite_one_another(tmp_path):
    rows = [
        {"network": f"resnet50.{tag}", "task": "t", "method": "ap", "layer": layer, "seed": 0,
         "measure": measure, "value": 0.5}
        for tag in ("a1_in1k", "a2_in1k") for layer in (0, 1)
        for measure in ("val_accuracy", "test_accuracy")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "accuracy.csv", index=False)
    ap.report(tmp_path)
    names = sorted(path.name for path in (tmp_path / "plots").glob("*.png"))
    assert names == ["resnet50.a1_in1k-t-layers.png", "resnet50.a2_in1k-t-layers.png"]


def test_kept_tables_that_were_damaged_are_made_again(finished):
    out, _ = finished
    good = {p: p.read_bytes() for p in (out / "relation.csv", *(out / "profile").glob("*.csv"))}
    damage = (b"", b"network,layer,measure,value\nother,1,x,2\n", b"half,of")
    for path, bad in zip(good, damage, strict=True):
        path.write_bytes(bad)
    explore(STUDY, out, **OPTIONS)
    assert {path: path.read_bytes() for path in good} == good


def test_another_task_of_the_same_name_is_kept_out_of_a_folder(finished, tmp_path):
    out, _ = finished
    other = ap.Study(
        networks=STUDY.networks,
        tasks=[{"name": "digits", "train": 40, "val": 20, "test": 20, "label": "price$x^{$"}],
    )
    check_belongs(out, STUDY.open())
    check_belongs(tmp_path, other.open())
    with pytest.raises(ap.InputError, match="another .* than this one .other pictures"):
        check_belongs(out, other.open())


def test_a_profile_says_what_it_takes_the_place_of(tmp_path, caplog):
    words = {"measures": ["effective_rank"], "images": 16}
    first, second = (
        ap.Study(networks=[{"name": name, "weights": "random"}], tasks=STUDY.tasks)
        for name in ("aptheory_resnet_mini", "aptheory_vit_mini")
    )
    profile_study(first, tmp_path, **words)
    assert not [r for r in caplog.records if "too, which" in r.message]
    profile_study(second, tmp_path, **words)
    (told,) = [r.getMessage() for r in caplog.records if "too, which" in r.message]
    assert "aptheory_resnet_mini on price$x^{$" in told


def test_a_study_in_the_folder_of_a_map_is_refused_before_it_begins(tmp_path, monkeypatch):
    opened = STUDY.open()
    net, task = opened.networks[0].net, opened.tasks[0].task
    table = pd.DataFrame({"network": [net.name], "task": [task.name], "layer": [9]})
    table.to_csv(tmp_path / "map.csv", index=False)
    write_settings(tmp_path, [net], [task], seeds=[0], judge="accuracy")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("aptheory.studies.study.Study.open", lambda _: opened)
    monkeypatch.setattr("aptheory.studies.sweep.execute", lambda *_, **__: pytest.fail("trained"))
    for begin, options in ((explore, OPTIONS), (ap.sweep, {"engine": "here"})):
        with pytest.raises(ap.InputError, match="holds a map, whose settings"):
            begin(STUDY, tmp_path, **options)
    assert sorted(tmp_path.rglob("*")) == before
    write_settings(tmp_path, [net], [task], study="run")  # drawn in the study's own folder
    check_no_other_map(tmp_path, opened)
    table.assign(network="vit").to_csv(tmp_path / "map.csv", index=False)
    with pytest.raises(ap.InputError, match="holds a map, whose settings"):
        check_no_other_map(tmp_path, opened)


def test_a_sweep_beside_a_profile_of_other_pictures_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    generator = np.random.default_rng(0)

    def draw():
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True, exist_ok=True)
            for number in range(8):
                pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / label / f"{number}.png")

    draw()
    asked = replace(STUDY, tasks=(f"folder:{folder}",))
    out = tmp_path / "out"
    profile_study(asked, out, measures=("effective_rank",), images=8)
    check_no_other_profile(out, asked.open())
    draw()
    monkeypatch.setattr("aptheory.studies.sweep.execute", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ap.InputError, match=r"measured on another pictures .*other pictures"):
        ap.sweep(asked, out, engine="here")
    profile_study(asked, out, measures=("effective_rank",), images=8)
    check_no_other_profile(out, asked.open())


def test_a_map_and_a_study_do_not_begin_side_by_side(tmp_path):
    opened = STUDY.open()
    drawing, refused = only_writer(tmp_path / "map.csv"), pytest.raises(ap.InputError)
    with drawing, refused as error:
        check_no_other_map(tmp_path, opened)
    assert "draws a map in" in str(error.value)
    check_no_other_map(tmp_path, opened)
    (tmp_path / "plan.json").write_text("{}")  # of a study that is at work
    with pytest.raises(ap.InputError, match="a study that is not finished"):
        check_is_about(tmp_path, opened.networks[0].net, opened.tasks[0].task)

"""A study that is written down and read back is the same study."""

import pytest

import aptheory as ap
from aptheory.studies.runtime import Runtime
from aptheory.studies.study import Study
from aptheory.studies.writing import study_text


def test_what_is_written_is_read_back(tmp_path):
    study = Study(
        name="a study-1.2",
        networks=["resnet18", {"name": "vit_tiny_patch16_224", "weights": "random", "seed": 3}],
        tasks=[{"name": "digits", "label": 'a "quoted" \\ näme', "train": 60}],
        methods=["ap", ap.NormTuning(), {"method": "vpt", "tokens": 5}],
        layers=[0, 0.5, "blocks.2"],
        recipes=[{"name": "quick", "epochs": 2}],
        seeds=[0, 4],
        search={"lr": [0.1, 1e-5], "weight_decay": [0.0]},
        equal="parameters",
        controls=False,
        runtime=Runtime(device="cpu", threads=2),
    )
    file = tmp_path / "study.toml"
    file.write_text(study_text(study), encoding="utf-8")
    again = Study.from_toml(file)
    assert study_text(again) == study_text(study)
    for word in ("name", "networks", "tasks", "layers", "recipes", "seeds", "search", "runtime"):
        assert getattr(again, word) == getattr(study, word), word
    assert (again.equal, again.controls) == ("parameters", False)


def test_file_names_are_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(
        networks=[{"name": "resnet18", "weights": "w.safetensors"}], tasks=["folder:mine"]
    )
    text = study_text(study)
    assert str(tmp_path / "w.safetensors") in text
    assert f"folder:{tmp_path / 'mine'}" in text


def test_objects_of_python_cannot_be_written():
    with pytest.raises(ap.InputError, match="objects of Python"):
        study_text(Study(networks=["resnet18"], tasks=[ap.task("digits")]))


def test_a_name_that_is_no_utf8_is_in_no_study_file():
    with pytest.raises(ap.InputError, match="is no text"):
        study_text(Study(networks=["aptheory_vit_mini"], tasks=["folder:bild\udcfc"]))

"""The command line as a user meets it: one small whole job, and every foreseeable fault."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from aptheory.cli import app

SMALL = ["--layers", "0,6,11,12", "--seeds", "2", "--epochs", "1", "--engine", "here"]


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> str:
    """The one sentence of a refused call: exit code 2, a line, no traceback."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("aptheory: ")]
    assert len(said) == 1, result.stderr
    return said[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the whole job on the embedded default."""
    out = tmp_path_factory.mktemp("run")
    words = ["run", "aptheory_resnet_mini", "-t", "digits", "--subset", "40,20,40"]
    result = call(*words, *SMALL, "--images", 40, "--out", out)
    assert result.exit_code == 0, result.output
    return out, words, result


def test_the_whole_job_leaves_tables_plots_and_a_page(finished):
    out, _, result = finished
    for name in ("profile.csv", "accuracy.csv", "relation.csv", "report.html", "settings.json"):
        assert (out / name).is_file(), name
    assert list((out / "plots").glob("*.png"))
    assert re.search(r"gain|lose|unclear|unknown", result.output)
    assert "report.html" in result.output
    accuracy = pd.read_csv(out / "accuracy.csv")
    assert {"ap", "linear_probe", "layer_probe", "random_perturbation"} <= set(accuracy["method"])
    settings = json.loads((out / "settings.json").read_text())
    assert settings["networks"]["aptheory_resnet_mini"]


def test_running_again_computes_nothing_and_gives_the_same_tables(finished):
    out, words, _ = finished
    before = {p.name: (p.stat().st_mtime_ns) for p in (out / "runs").iterdir()}
    table = (out / "accuracy.csv").read_bytes()
    assert call(*words, *SMALL, "--images", 40, "--out", out).exit_code == 0
    assert {p.name: (p.stat().st_mtime_ns) for p in (out / "runs").iterdir()} == before
    assert (out / "accuracy.csv").read_bytes() == table


def test_relate_report_and_status_work_on_the_folder(finished):
    out, _, _ = finished
    assert call("relate", out).exit_code == 0
    assert "report.html" in call("report", out).output
    assert "runs done" in call("status", out).output


def test_relate_names_the_table_that_it_lacks(finished, tmp_path):
    out, _, _ = finished
    (tmp_path / "profile.csv").write_bytes((out / "profile.csv").read_bytes())
    result = call("relate", tmp_path)
    assert result.exit_code == 2
    assert "accuracy.csv is no file that holds rows; aptheory sweep or run writes it" in (
        " ".join(result.output.split())
    )


def test_layers_prints_every_place():
    result = call("layers", "aptheory_vit_mini")
    assert result.exit_code == 0
    assert "blocks.7" in result.output


def test_tasks_lists_the_data_sets():
    # In a process of its own: the tests' type checker does not know typer's own context class.
    words = [sys.executable, "-m", "aptheory", "tasks"]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "eurosat" in result.stdout


def test_two_layers_are_nothing_to_relate(finished, tmp_path):
    out, _, _ = finished
    for name in ("profile.csv", "accuracy.csv"):
        table = pd.read_csv(out / name)
        table[table["layer"].isin([0, 6])].to_csv(tmp_path / name, index=False)
    result = call("relate", tmp_path)
    assert result.exit_code == 2
    assert "no network and task has four layers or more" in " ".join(result.stderr.split())
    assert "DataFrame" not in result.output
    assert not (tmp_path / "relation.csv").exists()


def test_dry_run_trains_nothing(tmp_path):
    words = ["sweep", "-n", "aptheory_resnet_mini", "-t", "digits", "--layers", "11", "--dry-run"]
    result = call(*words, "--out", tmp_path / "none")
    assert result.exit_code == 0
    assert "runs, about" in result.output
    assert not (tmp_path / "none").exists()


def test_an_unknown_network_names_the_near_ones():
    assert "vit_tiny" in refused("layers", "vit_tinny_patch16_224")


def test_an_unknown_task_names_the_near_ones(tmp_path):
    said = refused("profile", "aptheory_resnet_mini", "-t", "digit", "--out", tmp_path)
    assert "digits" in said


def test_a_folder_that_is_not_there(tmp_path):
    task = f"folder:{tmp_path / 'nowhere'}"
    assert "nowhere" in refused("profile", "aptheory_resnet_mini", "-t", task, "--out", tmp_path)


def test_an_empty_folder(tmp_path):
    (tmp_path / "images").mkdir()
    task = f"folder:{tmp_path / 'images'}"
    assert "images" in refused("profile", "aptheory_resnet_mini", "-t", task, "--out", tmp_path)


def test_a_corrupt_image_is_named(tmp_path):
    for split in ("train", "test"):
        for name in ("ants", "bees"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "data" / "train" / "ants" / "3.png").write_bytes(b"not an image")
    task = f"folder:{tmp_path / 'data'}"
    out = tmp_path / "out"
    assert "3.png" in refused("profile", "aptheory_resnet_mini", "-t", task, "--out", out)


def test_nan_in_the_data(tmp_path):
    images = np.full((20, 8, 8, 3), np.nan, dtype=np.float32)
    labels = np.arange(20) % 2
    path = tmp_path / "bad.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    said = refused("profile", "aptheory_resnet_mini", "-t", f"npz:{path}", "--out", tmp_path)
    assert "bad.npz" in said


def test_a_checkpoint_of_another_model(tmp_path):
    import timm
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("resnet18", num_classes=2).state_dict(), path)
    said = refused("layers", "aptheory_vit_mini", "--weights", path)
    assert "missing" in said or "unexpected" in said


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    refused("profile", "aptheory_resnet_mini", "-t", "digits", "--out", out)


def test_layers_and_subset_that_make_no_sense(tmp_path):
    words = ["sweep", "-n", "aptheory_resnet_mini", "-t", "digits", "--out", tmp_path]
    assert "no place 'first'" in refused(*words, "--layers", "first")
    assert "--subset" in refused(*words, "--subset", "many")
    assert "99" in refused(*words, "--layers", "99")


def test_nothing_to_sweep_and_a_study_that_is_not_there(tmp_path):
    assert "study file" in refused("sweep")
    assert "nowhere.toml" in refused("sweep", tmp_path / "nowhere.toml")


def test_report_on_an_empty_folder(tmp_path):
    assert "neither profile.csv nor accuracy.csv" in refused("report", tmp_path)

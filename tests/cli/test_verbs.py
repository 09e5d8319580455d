"""The verbs of one model, of features and of lists, as a user calls them."""

import errno
import json
import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import aptheory as ap
from aptheory.cli import app, application, studies

NETWORK, TASK = "aptheory_resnet_mini", ["-t", "digits", "--subset", "40,20,40"]


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: object) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: object) -> str:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("aptheory: "))
    return sentence


#: A command and the file that it writes, of which no two may be at work at once.
WRITING = [
    (["fit", NETWORK, *TASK, "--out", "OUT/m.safetensors"], "m.safetensors"),
    (["predict", "m", ".", "--out", "OUT/p.csv"], "p.csv"),
    (["evaluate", "m", *TASK, "--out", "OUT/e.html"], "e.html"),
    (["export", "m", "--to", "torch", "--out", "OUT/m.pt2"], "m.pt2"),
    (["extract", NETWORK, *TASK, "--out", "OUT"], "features.json"),
    (["profile", NETWORK, *TASK, "--out", "OUT"], "profile.csv"),
    (["map", NETWORK, *TASK, "--out", "OUT"], "map.csv"),
    (["compare-norm", NETWORK, *TASK, "--out", "OUT"], "table.csv"),
    (["shift", NETWORK, *TASK, "--out", "OUT"], "shift.csv"),
    (["cost", NETWORK, "ap", "--out", "OUT"], "cost.csv"),
]


@pytest.mark.parametrize(("words", "file"), WRITING, ids=[words[0] for words, _ in WRITING])
def test_a_place_that_cannot_be_had_is_refused_before_anything_is_spent(
    words, file, tmp_path, monkeypatch
):
    from aptheory.networks import loading
    from aptheory.writing import only_writer

    monkeypatch.setattr(loading, "load", None)
    with only_writer(tmp_path / file):
        said = refused(*(str(word).replace("OUT", str(tmp_path)) for word in words))
    assert "another command is writing" in said
    assert not list(tmp_path.iterdir())
    (tmp_path / "no_folder").write_text("")
    said = refused(*(str(word).replace("OUT", str(tmp_path / "no_folder")) for word in words))
    assert "cannot be written (" in said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder):
    out = folder / "model.safetensors"
    words = ["--layer", 11, "--epochs", 2, "--seed", 1, "--out", out]
    result = call("fit", NETWORK, *TASK, *words)
    assert result.exit_code == 0, result.output
    assert "epoch 2 of 2" in result.stderr
    assert "layer 11" in result.stdout
    return out


@pytest.fixture(scope="module")
def pictures(folder):
    (folder / "pictures").mkdir()
    task = ap.task("digits").subset(train=40, val=20, test=40)
    pixels = task.test.images(range(6), (32, 32)).permute(0, 2, 3, 1).numpy()
    for number, picture in enumerate(pixels):
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / "pictures" / f"{number}.png")
    (folder / "pictures" / "bad.png").write_bytes(b"no picture")
    return folder / "pictures"


def test_predict_prints_a_table_and_names_what_it_passes_over(model, pictures, folder):
    result = call("predict", model, pictures, "--csv", "--top", 2)
    assert result.exit_code == 1, result.output  # not all that was asked is done
    assert "bad.png" in result.stderr
    lines = result.stdout.strip().splitlines()
    assert lines[0] == "path,class,probability,class_2,probability_2"
    assert len(lines) == 7
    whole = sorted(pictures.glob("[0-9].png"))
    done("predict", model, *whole, "--out", folder / "answers.csv")
    table = pd.read_csv(folder / "answers.csv")
    assert table["class"].astype(str).tolist() == [line.split(",")[1] for line in lines[1:]]


def test_names_of_pictures_cannot_become_formulas(model, pictures, folder, monkeypatch):
    (folder / "=1+1.png").write_bytes((pictures / "0.png").read_bytes())
    monkeypatch.chdir(folder)
    assert done("predict", model, "=1+1.png", "--csv").splitlines()[1].startswith("'=1+1.png,")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["recipes"], "begins again"),
        (["sweep", "study.toml"], "goes on"),
        (["compare-norm", NETWORK, *TASK], "begins again"),
        (["compare-norm", NETWORK, *TASK, "-o", "out"], "goes on"),
    ],
)
def test_an_interrupted_command_promises_what_it_keeps(given, words):
    code = (
        "from aptheory.cli import app\n"
        "from functools import wraps\n"
        "def stopped(verb):\n"
        "    def stop(*_, **__): raise KeyboardInterrupt\n"
        "    return wraps(verb)(stop)\n"
        "for one in app.registered_commands:\n"
        "    one.callback = stopped(one.callback)\n"
        f"app({given!r})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 130
    assert words in ended.stderr


def test_predict_on_nothing_but_damage_fails(model, pictures):
    assert call("predict", model, pictures / "bad.png").exit_code == 1
    assert "does not exist" in refused("predict", model, pictures / "none.png")
    assert "is empty" in refused("predict", model, "")
    out = pictures / "none" / "a.csv"
    assert "none does not exist" in refused("predict", model, out.parent, "--out", out)
    assert "no model file" in refused("predict", pictures / "none.safetensors", pictures)


@pytest.mark.slow
def test_evaluate_writes_a_page(model, folder, monkeypatch):
    out = folder / "evaluation.html"
    words = ["aptheory", "evaluate", str(model), *TASK, "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    text = done("evaluate", model, *TASK, "--out", out)
    accuracy = float(re.search(r"accuracy: (\d\.\d+)", text)[1])
    card = ap.load_model(model).card
    assert accuracy == pytest.approx(card.scores["test_accuracy"], abs=1e-3)
    assert "The most certain mistakes" in out.read_text()
    assert f"<code>{shlex.join(words)}</code>" in out.read_text()  # with the subset
    assert {"measure", "value", "low", "high"} <= set(pd.read_csv(folder / "evaluation.scores.csv"))


def test_evaluate_tells_what_it_measured_where_it_cannot_be_written(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("aptheory.studies.files.write_together", full)
    result = call("evaluate", model, *TASK, "--out", tmp_path / "e.html")
    assert result.exit_code == 2
    assert "accuracy" in result.stdout
    assert "No space left on device" in result.stderr


def test_export_checks_what_it_wrote(model, folder):
    assert "differ" in done("export", model, "--to", "torch")
    assert (folder / "model.pt2").is_file()
    assert "choose torch, onnx, timm" in refused("export", model, "--to", "coreml")
    assert "a file that this command reads" in refused(
        "export", model, "--to", "torch", "--out", model
    )


def test_fit_refuses_before_it_trains(tmp_path):
    words = ["fit", NETWORK, *TASK, "--out"]
    assert "is a folder" in refused(*words, tmp_path)
    out = tmp_path / "model.safetensors"
    assert "no place" in refused(*words, out, "--layer", "nowhere")
    assert "has no layer" in refused(*words, out, "--method", "linear_probe", "--layer", 3)
    assert "no method" in refused(*words, out, "--method", "nothing")
    assert not out.exists()


def test_a_network_that_code_made_is_named_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets_of_verbs.py").write_text(
        "import timm\nimport torch\n\ndef small():\n    torch.manual_seed(0)\n"
        "    return timm.create_model('resnet10t', channels=(8, 8, 16, 16), stem_width=8)\n"
    )
    name = "my_nets_of_verbs:small"
    out = tmp_path / "model.safetensors"
    done("fit", name, *TASK, "--method", "linear_probe", "--epochs", 1, "--out", out)
    task = ap.task("digits")
    Image.fromarray(task.test.images([0], (32, 32))[0].permute(1, 2, 0).numpy()).save("one.png")
    assert "--network my_nets_of_verbs:small" in refused("predict", out, "one.png")
    assert "one.png" in done("predict", out, "one.png", "--network", name)


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        (["networks"], "aptheory_vit_mini"),
        (["networks"], "of torchvision"),
        (["networks", "resnet10*"], "resnet10t: timm, pretrained"),
        (["networks", "torchvision:resnet18"], "torchvision:resnet18: torchvision, pretrained"),
        (["networks", "dinov2-small"], "transformers:facebook/dinov2-small"),
        (["methods"], "norm_tuning"),
        (["recipes"], "quick: adamw"),
        (["measures"], "effective_rank"),
        (["env"], "torch"),
        (["--version"], ap.__version__),
    ],
)
def test_lists_have_a_line_each(verb, line):
    assert line in done(*verb)


def test_loudness_and_help_stand_anywhere():
    result = call("layers", "aptheory_vit_mini", "-q")
    assert result.exit_code == 0
    assert "Usage" in done("fit", "-h")
    assert call("networks", "nothing-like-it").exit_code == 1


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_extract_writes_what_extract_gives(tmp_path, form):
    words = ["--layers", "3,11", "--format", form, "--batch-size", 16, "--out", tmp_path]
    done("extract", NETWORK, *TASK, *words)
    net = ap.load(NETWORK)
    task = ap.task("digits").subset(train=40, val=20, test=40)
    about = json.loads((tmp_path / "features.json").read_text())
    assert about["digest"] == net.digest
    for split in ("train", "val", "test"):
        expected = ap.extract(net, task, layers=[3, 11], pooled="mean", split=split)
        if form == "npz":
            with np.load(tmp_path / f"{split}.npz", allow_pickle=False) as columns:
                file = dict(columns)
        else:
            table = pd.read_parquet(tmp_path / f"{split}.parquet")
            file = {n: np.stack(table[n]) if n != "label" else table[n] for n in table}
        assert np.array_equal(file["label"], getattr(task, split).labels)
        for index in (3, 11):
            got = np.asarray(file[net.layers[index].name])
            assert np.allclose(got, expected[index].numpy(), atol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_extract_refuses_what_makes_no_sense(tmp_path):
    words = ["extract", NETWORK, *TASK, "--out", tmp_path]
    assert "form" in refused(*words, "--format", "csv")
    assert "split" in refused(*words, "--split", "testing")
    assert "pooled" in refused(*words, "--pooled", "median")


# ------------------------------------------------------------------------------------- devices


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize(
    "words",
    [
        ["fit", NETWORK, *TASK],
        ["profile", NETWORK, *TASK, "-o", "out"],
        ["recommend", NETWORK, *TASK],
        ["cost", NETWORK, "ap:layer=3"],
        ["extract", NETWORK, *TASK, "-o", "out"],
        ["sweep", "-n", NETWORK, *TASK, "-o", "out"],
        ["run", NETWORK, *TASK, "-o", "out"],
    ],
    ids=lambda words: words[0],
)
def test_every_verb_takes_the_device_that_is_asked_for(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no such GPU" in refused(*words, "--device", "cuda")
    assert "device" in refused(*words, "--device", "abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_models_too(model, pictures, folder):
    assert "no such GPU" in refused("predict", model, pictures, "--device", "cuda")
    words = [*TASK, "--out", folder / "page.html"]
    assert "no such GPU" in refused("evaluate", model, *words, "--device", "cuda")


# --------------------------------------------------------------------------------- study files


def test_a_study_file_says_what_the_command_line_said(tmp_path):
    from aptheory.studies.planning import make_plan
    from aptheory.studies.study import Study

    words = [NETWORK, *TASK, "--layers", "3,11", "--seeds", 2, "--epochs", 3, "-m", "ap"]
    file = tmp_path / "study.toml"
    more = ["-m", "ssf", "--redraw", "--save-study", file, "--dry-run"]
    text = done("run", *words, *more)
    assert "runs, about" in text
    again = done("run", file, "--dry-run")
    keys = re.compile(r"\b[0-9a-f]{32}\b")
    assert keys.findall(again) == keys.findall(text) != []
    study = Study.from_toml(file)
    assert study.recipes == ({"name": "quick", "epochs": 3, "redraw": True},)
    assert make_plan(study).run_keys


def test_run_is_a_quick_look_unless_told_otherwise():
    from aptheory.cli.studies import SearchOptions

    look = SearchOptions()
    assert (look.training().seeds, look.training().epochs) == (2, 8)
    assert "--full" in look.left_out()
    whole = SearchOptions(full=True)
    assert (whole.training().layers, whole.training().seeds, whole.training().epochs) == (
        *("all", 3),
        None,
    )
    assert whole.left_out().startswith("the full sweep; prompts are read at the network's end and")
    few = SearchOptions(full=True, layers="1,2").left_out()
    assert few.startswith("the full sweep, but layers 1,2 instead of all; prompts are read")
    some = SearchOptions(layers="all", seeds=3, epochs=5, read="end")
    assert some.left_out() == (
        "a quick look: 5 epochs instead of 20; --full is the whole sweep; prompts are read at the "
        "network's end alone; without --read also where the probes read best"
    )


def test_run_reads_prompts_at_the_end_and_where_the_probes_read_best(tmp_path):
    from aptheory.cli.studies import SearchOptions

    given = ["ap", "ap:shape=channel", "ap:read=3", "norm_tuning"]
    assert SearchOptions().methods(["ap"]) == ["ap", "ap:read=best,layer=halfway"]
    assert SearchOptions(layers="0,5").methods(["ap"]) == ["ap", "ap:read=best"]
    assert SearchOptions(full=True).methods(given) == [
        *("ap", "ap:read=best", "ap:shape=channel", "ap:shape=channel,read=best"),
        *("ap:read=3", "norm_tuning"),
    ]
    assert SearchOptions(read="end").methods(given) == given
    both = SearchOptions(full=True, read="best").methods(["ap", "lora"])
    assert both == ["ap:read=best", "lora"]
    words = ["run", NETWORK, *TASK, "--layers", 11, "--seeds", 1, "--dry-run"]
    assert "whose probe is best" not in done(*words, "--read", "end")
    assert "the place whose probe is best" in done(*words)
    assert "give end, best or both" in refused(*words, "--read", "middle")
    file = tmp_path / "study.toml"
    file.write_text(f'networks = ["{NETWORK}"]\ntasks = ["digits"]\n')
    assert "leave out --read" in refused("run", file, "--read", "best")


def test_run_needs_a_task_or_a_study_file(tmp_path):
    assert "--task" in refused("run", NETWORK, "-o", tmp_path)
    file = tmp_path / "study.toml"
    file.write_text(f'networks = ["{NETWORK}"]\ntasks = ["digits"]\n')
    assert "leave out --task" in refused("run", file, "-t", "digits")


def test_run_saves_the_winner_of_what_succeeded_before_it_says_what_failed(tmp_path, monkeypatch):
    standing = SimpleNamespace(failed={"key": "no number"}, failures=["no number"], total=4)
    saved = []
    monkeypatch.setattr(studies, "_explore", lambda *_, **__: None)
    monkeypatch.setattr(studies, "_save_winners", lambda *words: saved.append(words[-1]))
    monkeypatch.setattr("aptheory.studies.status.status", lambda folder: standing)
    file = tmp_path / "m.safetensors"
    result = call("run", NETWORK, *TASK, "-o", tmp_path, "--save", file)
    assert (result.exit_code, saved) == (1, [file])
    assert "1 of 4 runs failed." in result.stderr


def test_a_warning_is_one_line_without_code_and_is_said_once(capsys, monkeypatch):
    monkeypatch.setattr(application, "_said", set())
    for _ in range(2):
        application.say_warning(UserWarning("a run is left out"), UserWarning, "tables.py", 90)
    assert capsys.readouterr().err == "warning: a run is left out\n"


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("run s.toml --save s.toml", "s.toml"),
        ("run s.toml --save-study s.toml --dry-run", "s.toml"),
        ("sweep s.toml --save-study s.toml --dry-run", "s.toml"),
        (f"fit {NETWORK} -t csv:t.csv?label=kind -o t.csv", "t.csv"),
        (f"fit {NETWORK} -t ./imgs -o imgs/a/0.png", "imgs/a/0.png"),
        (f"fit {NETWORK} -t zip:z.zip -o z.zip", "z.zip"),
        ("evaluate m.safetensors -t csv:t.scores.csv -o t.html", "t.scores.csv"),
        (f"extract {NETWORK} -t npz:train.npz -o .", "train.npz"),
        (f"profile {NETWORK} -t csv:profile.csv -o .", "profile.csv"),
        (f"compare-norm {NETWORK} -t csv:parts.csv -o .", "parts.csv"),
        (f"map {NETWORK} -t csv:map.csv -o .", "map.csv"),
        (f"map {NETWORK} -t csv:map_runs.csv -o .", "map_runs.csv"),
        (f"sweep -n {NETWORK} -t csv:accuracy.csv?label=kind -o .", "accuracy.csv"),
        (f"run {NETWORK} -t csv:relation.csv -o .", "relation.csv"),
    ],
)
def test_no_command_writes_over_what_it_reads(tmp_path, monkeypatch, words, written):
    monkeypatch.chdir(tmp_path)
    Path("imgs/a").mkdir(parents=True)
    study = f'networks = ["{NETWORK}"]\ntasks = ["digits"]\n'
    Path(written).write_text(study if written == "s.toml" else "precious")
    before = Path(written).read_text()
    assert "a file that this command reads; name another file" in refused(*words.split())
    assert Path(written).read_text() == before


@pytest.mark.parametrize("address", ["hf:set", "webdataset:set"])
def test_no_command_writes_over_the_files_of_a_data_set(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train-0.tar").write_text("precious")
    (tmp_path / "set" / "earlier.safetensors").write_text("a model")
    fit = ("fit", NETWORK, "-t", address, "--layer", "3", "-o")
    assert "a file that this command reads" in refused(*fit, "set/train-0.tar")
    assert (tmp_path / "set" / "train-0.tar").read_text() == "precious"
    assert "a file that this command reads" not in refused(*fit, "set/earlier.safetensors")


def test_a_refused_command_leaves_no_empty_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    refused("profile", NETWORK, "-t", "digits", "--measures", "none", "-o", "new/a")
    refused("profile", NETWORK, "-t", "digits", "--measures", "attention_distance", "-o", "old/b")
    refused("map", NETWORK, "-t", "none", "-o", "old")
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_a_study_file_beside_a_network_is_refused_with_the_reason():
    assert "says its networks itself; give it alone" in refused("run", "s.toml", NETWORK)


def test_measures_are_looked_at_before_a_dry_run():
    assert "nothing" in refused("run", NETWORK, *TASK, "--measures", "nothing", "--dry-run")


def test_a_terminal_obeys_no_name(capsys):
    application.echo("a\x1b[2Jb\nc\x07 \u00e9 \u2212")
    assert capsys.readouterr().out == "a\\x1b[2Jb\nc\\x07 \u00e9 \u2212\n"
    application.Terminal().emit(logging.makeLogRecord({"msg": "a\x1b[2Jb"}))
    assert capsys.readouterr().err == "a\\x1b[2Jb\n"


@pytest.mark.parametrize("option", ["name=x", "weights=x", "granularity=stage"])
def test_what_loading_takes_is_no_option_of_the_network(option):
    sentence = refused("layers", NETWORK, "--option", option)
    assert f"{option.partition('=')[0]!r} is no option of the network itself" in sentence


def test_a_model_of_grey_images_is_asked_about_coloured_ones(tmp_path, pictures):
    model = tmp_path / "grey.safetensors"
    grey = ["--layer", "2", "--epochs", "1", "--input-shape", "1,32,32"]
    scores = done("fit", NETWORK, *TASK, *grey, "--out", model)
    test = re.search(r"test ([\d.]+) %", scores).group(1)
    assert done("predict", model, pictures / "0.png")
    evaluation = done("evaluate", model, *TASK, "--out", tmp_path / "grey.html")
    assert f"accuracy: {float(test) / 100:.3f}" in evaluation


def test_a_model_whose_tracker_fails_is_kept_and_told(tmp_path, monkeypatch):
    def track(record):
        raise OSError("no disk")

    monkeypatch.setattr("aptheory.studies.trackers.named", lambda text: track)
    model = tmp_path / "model.safetensors"
    words = ["--layer", "2", "--epochs", "1", "--tracker", "mine", "--out", model]
    result = call("fit", NETWORK, *TASK, *words)
    assert result.exit_code == 1
    assert "mine was not told (no disk); the model is kept" in result.output + result.stderr
    assert model.is_file()


def test_features_of_two_kinds_do_not_lie_in_one_folder(tmp_path):
    whole = ["extract", NETWORK, *TASK, "--layers", "2", "--out", tmp_path / "features"]
    done(*whole)
    done(*whole, "--split", "val")  # the same features
    other = ["extract", NETWORK, *TASK, "--layers", "3", "--out", tmp_path / "features"]
    sentence = refused(*other, "--split", "train")
    assert "holds val.npz and test.npz of other features (of other layers)" in sentence
    squashed = refused(*whole, "--split", "val", "--resize", "center")
    assert "(of pictures that became images in another way)" in squashed
    assert "(of another precision)" in refused(*whole, "--split", "val", "--precision", "bfloat16")
    assert "train.npz" in refused(*other, "--format", "parquet")
    done(*other)


def test_a_model_that_cannot_be_written_in_the_end_is_kept_elsewhere(tmp_path, monkeypatch):
    from aptheory.models.model import Model

    save, tried = Model.save, []

    def full_at_first(self, path):
        tried.append(path)
        if len(tried) == 1:
            raise ap.InputError(f"{path} cannot be written (No space left on device).")
        save(self, path)

    monkeypatch.setattr(Model, "save", full_at_first)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = call(
        *("fit", NETWORK, *TASK, "--layer", "2", "--epochs", "1"),
        "--out",
        tmp_path / "m.safetensors",
    )
    assert result.exit_code == 1
    assert f"The model is kept in {tried[1]}" in result.output + result.stderr
    assert ap.load_model(tried[1]).classes[0] == "0"


def test_a_sweep_whose_tracker_fails_ends_with_1(tmp_path, monkeypatch):
    def track(record):
        raise OSError("no disk")

    monkeypatch.setattr("aptheory.studies.trackers.named", lambda text: track)
    words = ["--layers", "2", "--seeds", "1", "--epochs", "1", "--engine", "here"]
    with pytest.warns(UserWarning, match="no disk"):
        result = call("sweep", "-n", NETWORK, *TASK, *words, "--tracker", "x", "--out", tmp_path)
    assert result.exit_code == 1
    assert re.search(r"x was not told of \d+ runs; the results are kept", result.stderr)
    assert (tmp_path / "accuracy.csv").is_file()


def test_a_report_that_leaves_runs_out_says_so_and_does_not_end_with_0(tmp_path):
    sweep = ["sweep", "-n", NETWORK, *TASK, "-m", "linear_probe", "--epochs", "1"]
    done(*sweep, "--engine", "here", "--out", tmp_path)
    done("report", tmp_path)
    outcome = next((tmp_path / "runs").glob("*.json"))
    outcome.write_text(outcome.read_text()[:-20])
    with pytest.warns(UserWarning, match=r"left out of the table: \w+.json is not JSON \(.*\)$"):
        result = call("report", tmp_path)
    assert result.exit_code == 1
    assert "1 runs are left out; the command that made" in result.output


def test_a_precision_that_there_is_not_is_refused_before_pictures_are_read(model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"none is read")
    assert "precision of load_model is 'float8'" in refused(
        "predict", model, tmp_path, "--precision", "float8"
    )

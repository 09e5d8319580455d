"""A method of the user's own: in fit, in a sweep in worker processes, priced, drawn, saved."""

import io
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import aptheory as ap
from aptheory.cli import app
from aptheory.errors import InputError
from aptheory.methods import METHODS, from_settings, parse
from aptheory.reporting.report import report
from aptheory.studies.engines import Processes
from aptheory.studies.planning import make_plan
from aptheory.studies.store import Store
from aptheory.studies.study import Study
from aptheory.studies.sweep import execute
from aptheory.studies.tables import with_roles
from aptheory.training.cost import cost

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from aptheory.methods import ActivationPrompt


@dataclass(frozen=True)
class MyPrompt(ActivationPrompt):
    shape: str = "channel"
    gain: float = 1.0
    name: ClassVar[str] = "my_prompt"
"""
RESNET = {"name": "aptheory_resnet_mini", "weights": "random"}
DIGITS = {"name": "digits", "train": 30, "val": 20, "test": 20}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study and, beside it, the module that it names; forgotten afterwards."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "mine_of_mine.py").write_text(MODULE)
    (folder / "study.toml").write_text(
        'networks = [{ name = "aptheory_resnet_mini", weights = "random" }]\n'
        'tasks = [{ name = "digits", train = 30, val = 20, test = 20 }]\n'
        'methods = ["mine_of_mine:MyPrompt"]\nlayers = [4, 6]\nseeds = [0]\n'
        'recipe = { name = "quick", epochs = 1, batch_size = 16 }\n'
    )
    yield folder
    METHODS.pop("my_prompt", None)
    sys.modules.pop("mine_of_mine", None)


@pytest.fixture(scope="module")
def swept(place):
    """Its sweep: in worker processes, which have never heard of the class."""
    plan = make_plan(Study.from_toml(place / "study.toml"))
    frame = execute(plan, place / "run", engine=Processes(1), progress=False)
    return place / "run", frame


def test_a_sweep_in_worker_processes_trains_it_with_its_controls(swept):
    _, frame = swept
    roles = dict(zip(frame["method"], frame["role"], strict=True))
    assert roles == {
        "my_prompt": "prompt",
        "random_perturbation": "control",
        "layer_probe": "probe",
        "linear_probe": "probe",
    }
    assert set(frame.loc[frame["method"] == "my_prompt", "layer"]) == {4, 6, 12}


def test_the_page_draws_it_without_ap(swept):
    folder, _ = swept
    page = report(folder).read_text()
    assert "my prompt" in page
    assert "What a prompt gains over the linear probe" in page


@pytest.mark.parametrize("left", ["linear_probe", "my_prompt", "layer_probe"])
def test_a_page_without_any_of_the_methods_is_whole(swept, tmp_path, left):
    _, frame = swept
    frame[frame["method"] == left].to_csv(tmp_path / "accuracy.csv", index=False)
    assert "resnet" in report(tmp_path).read_text()


def test_tables_of_earlier_versions_have_roles_too(swept):
    _, frame = swept
    old = frame[frame["method"] != "my_prompt"].drop(columns="role")
    pd.testing.assert_frame_equal(with_roles(old), frame[frame["method"] != "my_prompt"])
    labels = pd.DataFrame({"method": ["ap:shape=channel", "vp", "random_perturbation:ap:x", "?"]})
    assert list(with_roles(labels)["role"]) == ["prompt", "baseline", "control", "baseline"]


def test_fit_cost_and_saving(place, swept, tmp_path):
    net = ap.load("aptheory_resnet_mini", weights=None)
    task = ap.task("digits").subset(train=30, val=20, test=20)
    method = parse("mine_of_mine:MyPrompt:layer=4,gain=2", beside=[place])
    assert from_settings(method.settings()) == method
    assert method.settings()["factory"] == "mine_of_mine:MyPrompt"
    adapted = method.attach(net, classes=10)
    ap.fit(adapted, task, recipe=ap.Recipe(epochs=1))
    table = cost(net, [method], batch_size=2, classes=10, repeats=1)
    assert set(table["method"]) == {"my_prompt"}
    ap.save(adapted, tmp_path / "one.safetensors")
    assert ap.attach_saved(net, tmp_path / "one.safetensors").method == method


def test_a_saved_prompt_imports_nothing_by_itself(place, tmp_path, monkeypatch):
    """The class of a file of data must be known, or be asked for."""
    net = ap.load("aptheory_resnet_mini", weights=None)
    method = parse("mine_of_mine:MyPrompt:layer=4", beside=[place])
    ap.save(method.attach(net, classes=3), tmp_path / "one.safetensors")
    monkeypatch.delitem(METHODS, "my_prompt")
    monkeypatch.delitem(sys.modules, "mine_of_mine", raising=False)
    monkeypatch.chdir(place)
    with pytest.raises(InputError, match="never imports code; if you trust that code, import"):
        ap.attach_saved(net, tmp_path / "one.safetensors")
    assert "mine_of_mine" not in sys.modules
    loaded = ap.attach_saved(net, tmp_path / "one.safetensors", imports=True)
    assert loaded.method.settings() == method.settings()


def test_a_model_with_it_is_fitted_and_asked_on_the_command_line(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.delitem(METHODS, "my_prompt", raising=False)
    monkeypatch.delitem(sys.modules, "mine_of_mine", raising=False)
    model = tmp_path / "model.safetensors"
    fit = [
        "fit",
        "aptheory_resnet_mini",
        "--task",
        "digits",
        "--subset",
        "30,20,20",
        "--layer",
        "4",
    ]
    fit += ["--method", "mine_of_mine:MyPrompt:gain=2", "--epochs", "1", "--out", model]
    done = CliRunner().invoke(app, [str(word) for word in fit])
    assert done.exit_code == 0, done.output
    assert "my_prompt at layer 4" in done.output
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    ask = ["predict", str(model), str(tmp_path / "one.png")]
    monkeypatch.delitem(METHODS, "my_prompt")
    refused = CliRunner().invoke(app, ask)
    assert refused.exit_code == 2
    assert "on the command line --method module:Class" in refused.output
    answered = CliRunner().invoke(app, [*ask, "--method", "mine_of_mine:MyPrompt"])
    assert answered.exit_code == 0, answered.output


def test_one_that_ends_the_program_is_told(tmp_path, monkeypatch):
    ending = MODULE.replace("my_prompt", "ending")
    ending += "\n    def attach(self, *args, **options):\n        raise SystemExit(0)\n"
    (tmp_path / "ends_of_mine.py").write_text(ending)
    monkeypatch.chdir(tmp_path)
    words = ["cost", "aptheory_resnet_mini", "ends_of_mine:MyPrompt"]
    done = CliRunner().invoke(app, words)
    METHODS.pop("ending", None)
    assert done.exit_code == 2
    assert re.search(r"your code at \S+ends_of_mine.py:\d+ ended the program", done.output)


FAULTY = """
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from aptheory import Method


class Edit(nn.Module):
    def forward(self, z):
        {fault}


@dataclass(frozen=True)
class Faulty(Method):
    name: ClassVar[str] = "faulty"

    def install(self, adapted):
        adapted.edit(1, Edit())
        return 1
"""
OWN_FAULTS = {
    "raise ValueError('late')": "failed (ValueError: late); mend it there",
    "raise type('Own', (BaseException,), {})('x')": "failed (Own: x)",
    "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})": "failed (Mute)",
    "raise SystemExit(3)": "ended the program (sys.exit, 3)",
    "return None": "made a NoneType of what enters place 1",
    "return z[:1]": "made (1, 16, ",
    "__import__('sys').stdout.close(); return z": "closed the standard output",
}


@pytest.mark.parametrize("fault", OWN_FAULTS)
def test_one_that_fails_is_told_with_its_place(tmp_path, monkeypatch, capsys, fault):
    (tmp_path / "faults_of_mine.py").write_text(FAULTY.format(fault=fault))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    words = ["fit", "aptheory_resnet_mini", "--weights", "random", "-t", "digits", "--epochs", "1"]
    with pytest.raises(SystemExit) as end:
        app([*words, "--subset", "30,20,20", "--method", "faults_of_mine:Faulty"])
    METHODS.pop("faulty", None)
    sys.modules.pop("faults_of_mine", None)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert OWN_FAULTS[fault] in said
    if "z" not in fault:
        assert f"your code at {tmp_path / 'faults_of_mine.py'}:12 " in said or "made" in said


@pytest.mark.parametrize("loud", [True, False])
def test_the_way_to_a_fault_of_ones_own_is_shown_on_request(tmp_path, monkeypatch, capsys, loud):
    (tmp_path / "faults_of_mine.py").write_text(FAULTY.format(fault="raise ValueError('late')"))
    monkeypatch.chdir(tmp_path)
    words = ["fit", "aptheory_resnet_mini", "--weights", "random", "-t", "digits", "--epochs", "1"]
    words += ["--subset", "30,20,20", "--method", "faults_of_mine:Faulty"] + ["-v"] * loud
    with pytest.raises(SystemExit):
        app(words)
    METHODS.pop("faulty", None)
    sys.modules.pop("faults_of_mine", None)
    assert ("Traceback" in capsys.readouterr().err) == loud


def test_one_that_raises_anything_is_a_failed_run_of_a_study(tmp_path, monkeypatch):
    """The others go on; the reason stands in the tables."""
    (tmp_path / "ends_at_once.py").write_text(FAULTY.format(fault="raise SystemExit(3)"))
    monkeypatch.chdir(tmp_path)
    study = Study(
        networks=[RESNET],
        tasks=[DIGITS],
        methods=["ends_at_once:Faulty", "linear_probe"],
        seeds=[0],
        recipes=[{"name": "quick", "epochs": 1, "batch_size": 16}],
    )
    frame = execute(make_plan(study), tmp_path / "run", engine=Processes(1), progress=False)
    METHODS.pop("faulty", None)
    sys.modules.pop("ends_at_once", None)
    assert set(frame["method"]) == {"linear_probe"}
    failed = [r for r in Store(tmp_path / "run").read_all()[0] if r.status == "failed"]
    assert [record.reason for record in failed] == ["SystemExit: 3"]


@pytest.mark.slow
def test_a_class_of_a_script_reaches_the_workers(tmp_path):
    """What is defined in ``__main__`` can be imported by no other process; it travels itself."""
    script = tmp_path / "script.py"
    script.write_text(
        MODULE
        + textwrap.dedent(f"""
        if __name__ == "__main__":
            import aptheory as ap
            study = ap.Study(
                networks=[{RESNET!r}], tasks=[{DIGITS!r}], methods=[MyPrompt], layers=[6],
                seeds=[0], controls=False,
                recipes=[{{"name": "quick", "epochs": 1, "batch_size": 16}}],
            )
            print(len(ap.sweep(study, "out", workers=1, progress=False)), "rows")
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "rows" in done.stdout, done.stderr
    assert not done.stdout.startswith("0 "), done.stdout


def test_two_swept_prompts_have_a_control_each():
    study = Study(
        networks=[RESNET], tasks=[DIGITS], methods=["ap", "ap:shape=channel"], layers=[6], seeds=[0]
    )
    methods = set(make_plan(study).table()["method"])
    assert {"random_perturbation", "random_perturbation:ap:shape=channel"} <= methods


def register_with(**facts):
    from dataclasses import dataclass

    return ap.register(dataclass(frozen=True)(type("Odd", (ap.Method,), facts)))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"name": "ap"}, "is the name of aptheory.methods.activation_prompt:ActivationPrompt"),
        ({"name": "a:b"}, "letters, digits and underscores"),
        ({"name": ""}, "letters, digits and underscores"),
        ({"name": "odd", "role": "hero"}, "one of prompt, control, probe, baseline"),
        ({"name": "odd", "size": "tokens"}, "no setting of it"),
    ],
)
def test_a_method_that_says_something_odd_of_itself_is_refused(facts, message):
    with pytest.raises(InputError, match=message):
        register_with(**facts)
    assert "odd" not in METHODS


@pytest.mark.parametrize("text", ["nowhere:Prompt", "math:pi", "math:nothing", "os:path", "a:"])
def test_what_is_no_method_is_said_in_a_sentence(text):
    with pytest.raises(InputError):
        parse(text)


@pytest.mark.slow
def test_a_file_in_the_folder_of_methods_is_found(tmp_path):
    """Dropped beside the others: no list has to know it."""
    import shutil

    copy = tmp_path / "aptheory"
    shutil.copytree(ROOT / "aptheory", copy, ignore=shutil.ignore_patterns("__pycache__", "*.saf*"))
    text = "from aptheory.methods.registry import register\n" + MODULE
    text = text.replace("@dataclass", "@register\n@dataclass").replace(
        "from aptheory.methods import", "from aptheory.methods.activation_prompt import"
    )
    (copy / "methods" / "dropped.py").write_text(text)
    code = "import aptheory.methods as m; print(m.parse('my_prompt:layer=2').settings())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "'my_prompt'" in done.stdout, done.stderr
    assert "factory" not in done.stdout

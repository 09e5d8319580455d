"""Every snippet of the README runs: Python as it stands, commands with small inputs."""

import re
import shlex
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from aptheory.cli import app
from aptheory.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    shlex.split(line[2:], comments=True)
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
    if line.startswith("$ ")
]
OURS = [words for words in COMMANDS if words[0] == "aptheory"]
SMALL = ["--subset", "40,20,20", "--layers", "0.0,1.0", "--seeds", "1", "--epochs", "1"]
SMALL += ["--engine", "here"]
SMALLER = {
    "run": [*SMALL[2:], "--images", "12", "--measures", "effective_rank"],
    "sweep --network": SMALL,
    "sweep study.toml": ["--dry-run"],
    "status": [],
    "cost": ["--batch-size", "2"],
    "fit": ["--epochs", "1"],
    "predict": [],
    "evaluate": [],
    "export": [],
}
RULE = ROOT / "aptheory" / "choosing" / "rule.json"


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.splitlines()[-1][:40])
def test_a_python_snippet_runs_by_itself(text, capsys):
    if "recommend_layer" in text and not RULE.is_file():
        pytest.skip("no rule has been fitted: python -m analyses.layer_choice writes one")
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
    plt.close("all")


def write_pictures(folder):
    """Fifteen small pictures of each of two classes."""
    generator = np.random.default_rng(0)
    for name, shade in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(15):
            pixels = generator.integers(0, 50, (8, 8, 3), dtype=np.uint8) + np.uint8(shade)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader of the README would stand: some images and the study file."""
    place = tmp_path_factory.mktemp("reader")
    write_pictures(place / "my_images")
    (study,) = [text for language, text in BLOCKS if language == "toml"]
    (place / "study.toml").write_text(study)
    return place


@pytest.mark.parametrize("words", OURS, ids=lambda words: " ".join(words[1:3]))
def test_a_command_runs(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (smaller,) = [more for key, more in SMALLER.items() if " ".join(words[1:]).startswith(key)]
    more = [word for word in smaller if word != "--dry-run" or word not in words]
    result = CliRunner().invoke(app, [*words[1:], *more])
    assert result.exit_code == 0, result.output
    if words[1] == "run":
        assert (folder / "runs" / "mine" / "report.html").is_file()


@pytest.mark.slow  # trains, profiles and draws
def test_the_network_of_the_readme_runs_on_the_command_line(tmp_path, monkeypatch):
    (text,) = [text for text in PYTHON if "def my_network" in text]
    function = re.search(r"^def my_network.*?^    \)\n", text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("my_networks.py").write_text(f"from torch import nn\n\n\n{function[0]}")
    words = "run my_networks:my_network --input-shape 3,32,32 --weights random --task digits"
    result = CliRunner().invoke(app, [*words.split(), "--out", "out", *SMALL, *SMALLER["run"][-4:]])
    assert result.exit_code == 0, result.output
    assert Path("out", "report.html").is_file()


def test_the_make_targets_are_there():
    made = {words[1] for words in COMMANDS if words[0] == "make"}
    assert made == {"demo", "test"}
    rules = (ROOT / "Makefile").read_text()
    for target in {*made, "paper", "docs"}:
        assert re.search(rf"^{target}:", rules, flags=re.MULTILINE)


def test_the_study_file_is_a_study(folder):
    assert len(Study.from_toml(folder / "study.toml").networks) == 2


def test_the_slurm_recipe_is_a_script():
    (recipe,) = [text for language, text in BLOCKS if language == "bash"]
    subprocess.run(["bash", "-n"], input=recipe, text=True, check=True)


def test_links_and_pictures_lead_to_files_of_the_repository():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target.partition("#")[0]).exists(), target


def test_every_room_stands_on_the_map():
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {path.name for path in (ROOT / "aptheory").glob("*.py")} - {"__init__.py"}
    rooms |= {f"{path.parent.name}/" for path in (ROOT / "aptheory").glob("*/__init__.py")}
    assert not {room for room in rooms if f"`{room}`" not in told}
    for named in re.findall(r"`((?:tests|aptheory)/[\w/]+\.py)`", told):
        assert (ROOT / named).is_file() or "NAME" in named, named


def test_nothing_else_is_in_the_blocks():
    assert {language for language, _ in BLOCKS} == {"python", "console", "toml", "bash"}
    assert {words[0] for words in COMMANDS} == {"aptheory", "make"}

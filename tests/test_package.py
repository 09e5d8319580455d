"""The wheel: it builds, holds what the package needs, and works where only it is installed."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSIDE = (
    "aptheory/py.typed",
    "aptheory/rule.json",
    "aptheory/zoo/MODEL_CARD.md",
    "aptheory/zoo/aptheory_vit_mini.safetensors",
    "aptheory/zoo/aptheory_resnet_mini.safetensors",
)


OURS = {"aptheory", "analyses", "figures", "tests", "benchmarks", "weights", "measuring"}


def imported(folder: str) -> dict[str, Path]:
    """The packages of others that the files of a folder import, each with one file that does."""
    packages = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            packages |= {name.split(".")[0]: path.relative_to(ROOT) for name in names}
    return {k: v for k, v in packages.items() if k not in sys.stdlib_module_names | OURS}


def normal(name: str) -> str:
    """A distribution's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name).group()).lower()


@pytest.mark.parametrize("folder", ["aptheory", "analyses", "figures", "tests", "benchmarks"])
def test_every_import_is_a_declared_dependency(folder):
    """What comes along with another package today need not come along tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = {normal(each) for group in [project["dependencies"], *extras] for each in group}
    declared |= {"mlflow"}  # the package of mlflow-skinny, where that is not installed
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        package: path
        for package, path in imported(folder).items()
        if not {normal(each) for each in distributions.get(package, [package])} & declared
    }
    assert not undeclared


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_weights_and_nothing_but_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert set(INSIDE) <= names, sorted(set(INSIDE) - names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"aptheory"}
    assert wheel.stat().st_size < 10_000_000


@pytest.mark.slow
def test_the_installed_wheel_runs(wheel, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    bin_folder = venv / "bin"
    install = [str(bin_folder / "python"), "-m", "pip", "install", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    # The dependencies are those of this environment; the package itself must be the wheel's.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}

    def said(program: str, *words: str) -> str:
        command = [str(bin_folder / program), *words]
        options = {"cwd": tmp_path, "env": environment, "check": True}
        return subprocess.run(command, capture_output=True, text=True, **options).stdout

    assert "aptheory_vit_mini: 11 layers" in said("aptheory", "layers", "aptheory_vit_mini")
    assert str(venv) in said("python", "-c", "import aptheory; print(aptheory.__file__)")


def test_what_the_wheel_must_hold_is_in_the_source():
    for name in INSIDE:
        if name.endswith("rule.json") and not (ROOT / name).is_file():
            pytest.skip("no rule has been fitted: python -m analyses.layer_choice writes one")
        assert (ROOT / name).is_file(), name

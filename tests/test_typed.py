"""The public names as a type checker sees them, and as Python does."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

import aptheory as ap
from aptheory.findings.statistics import fisher_z

ROOT = Path(__file__).resolve().parents[1]

SLIPS = {
    "ap.ActivationPrompt(lyer=5)": "call-arg",
    "ap.Recipe(epoch=3)": "call-arg",
    "ap.nosuchname": "attr-defined",
}

# Whatever is not ours is skipped: torch alone would take a minute to look through.
SETTINGS = """
[mypy]
follow_imports = skip
ignore_missing_imports = true
[mypy-aptheory,aptheory.*]
follow_imports = silent
"""


@pytest.fixture(scope="module")
def remarks(tmp_path_factory) -> dict[str, list[str]]:
    """What mypy says of each line: of the slips above, and of the type of every public name."""
    mypy = pytest.importorskip("mypy", reason="the extra test brings mypy")
    folder = tmp_path_factory.mktemp("typed")
    lines = ["import aptheory as ap", *SLIPS, 'reveal_type(ap.load("x"))']
    lines += [f"reveal_type(ap.{name})" for name in ap.__all__]
    (folder / "user.py").write_text("\n".join(lines))
    (folder / "mypy.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", mypy.__name__, "--config-file", str(folder / "mypy.ini")]
    command += ["--cache-dir", str(folder / "cache"), str(folder / "user.py")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr
    remarks: dict[str, list[str]] = {line: [] for line in lines}
    for number, remark in re.findall(r"^\S*user\.py:(\d+): (.*)$", run.stdout, re.MULTILINE):
        remarks[lines[int(number) - 1]].append(remark)
    return remarks


@pytest.mark.slow  # mypy looks through all of ours
@pytest.mark.parametrize("line", SLIPS)
def test_a_slip_in_a_public_name_is_an_error(remarks, line):
    (remark,) = remarks[line]
    assert remark.startswith("error: ")
    assert remark.endswith(f"[{SLIPS[line]}]")


@pytest.mark.slow
def test_what_is_loaded_is_a_network(remarks):
    shown = remarks['reveal_type(ap.load("x"))']
    assert shown == ['note: Revealed type is "aptheory.networks.network.Network"']


@pytest.mark.slow
@pytest.mark.parametrize("name", ap.__all__)
def test_every_public_name_has_a_type_and_a_value(remarks, name):
    (remark,) = remarks[f"reveal_type(ap.{name})"]
    assert remark.startswith("note: Revealed type is ")
    assert remark != 'note: Revealed type is "Any"'
    assert getattr(ap, name) is not None


def test_the_version_is_public():
    assert "__version__" in ap.__all__
    assert re.fullmatch(r"\d+\.\d+.*", ap.__version__)


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("aptheory/**/__init__.py")), ids=lambda file: file.parent.name
)
def test_no_module_hides_behind_a_function_of_its_name(file):
    package = ".".join(file.parent.relative_to(ROOT).parts)
    bound = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module != package:  # no module of its own
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    assert not bound & {module.name for module in pkgutil.iter_modules([str(file.parent)])}


def test_what_is_no_array_is_caught_at_run_time():
    with pytest.raises(TypeCheckError):
        fisher_z("x")


def test_a_bench_of_the_theory_is_there_when_it_is_asked_for():
    files = {file.stem for file in (ROOT / "aptheory" / "theory").glob("*.py")} - {"__init__"}
    assert set(ap.theory.__all__) == files
    for name in files:
        assert getattr(ap.theory, name).__name__ == f"aptheory.theory.{name}"
    with pytest.raises(AttributeError, match="nothing"):
        _ = ap.theory.nothing

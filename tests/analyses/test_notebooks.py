"""The notebooks run from a clean kernel, carry no output, and are what their script writes."""

from pathlib import Path

import nbformat
import pytest

from analyses.notebooks.write import HERE, NOTEBOOKS, notebook

FAST = ("1_first_tour", "3_metrics")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_file_is_what_the_script_writes_and_holds_no_output(name):
    stored = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    assert stored == notebook(NOTEBOOKS[name])
    nbformat.validate(stored)
    assert not any(cell.get("outputs") for cell in stored.cells)


def test_every_notebook_of_the_folder_has_its_cells_here():
    assert {path.stem for path in HERE.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.filterwarnings("default")  # the kernel's own libraries warn; ours run in the kernel
@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NOTEBOOKS],
)
def test_it_runs_from_a_clean_kernel(name, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ran = NotebookClient(notebook(NOTEBOOKS[name]), timeout=200, kernel_name="python3").execute()
    shown = [out for cell in ran.cells for out in cell.get("outputs", [])]
    assert shown
    assert not any(out.output_type == "error" for out in shown)
    if name == "1_first_tour":
        html = [out["data"].get("text/html", "") for out in shown if "data" in out]
        text = [out["data"].get("text/plain", "") for out in shown if "data" in out]
        assert any("<table>" in one and "blocks.0" in one for one in html)  # the network
        assert any(one.startswith("ap (layer 3") and "test" in one for one in text)  # an outcome

"""The notebooks are what their script writes, and hold what a clean kernel gives."""

import re

import nbformat
import pytest

from analyses.notebooks.write import HERE, LARGEST, NOTEBOOKS, executed, notebook


def stored(name):
    return nbformat.read(HERE / f"{name}.ipynb", as_version=4)


def shown(made):
    """The text of every output, without its numbers, which differ in their last digits between
    machines; of a picture, that there is one."""
    texts = []
    for cell in made.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                texts.append(output.text)
            else:
                texts.append(output["data"].get("text/plain", ""))
                texts += sorted(output["data"])
    return [re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", re.sub(r"\s+", " ", t)) for t in texts]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_file_is_what_the_script_writes(name):
    made = stored(name)
    nbformat.validate(made)
    expected = notebook(NOTEBOOKS[name])
    assert [cell.source for cell in made.cells] == [cell.source for cell in expected.cells]
    outputs = [output for cell in made.cells for output in cell.get("outputs", [])]
    assert outputs
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert all(len(str(output)) <= LARGEST for output in outputs)
    assert "/tmp" not in str(outputs)


def test_every_notebook_of_the_folder_has_its_cells_here():
    assert {path.stem for path in HERE.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.filterwarnings("default")  # the kernel's own libraries warn; ours run in the kernel
@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_its_outputs_are_those_of_a_clean_kernel(name):
    assert shown(executed(NOTEBOOKS[name])) == shown(stored(name))

"""The house: imports go one way, and nowhere in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: A room may import itself and the rooms of the floors above it in this list, never a neighbour.
FLOORS = (
    ("errors", "version"),
    ("checked", "devices", "hub", "writing"),
    ("arguments",),
    ("preprocessing",),
    ("metrics", "theory", "networks", "tasks"),
    ("methods", "profiling"),
    ("training",),
    ("studies", "choosing"),
    ("findings", "models"),
    ("reporting",),
    ("exploration",),
    ("cli",),
    ("__main__",),
    ("",),  # the package itself: the table of public names
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below a package's folder."""
    named = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
    return found & set(known)


def graph(package: str = "aptheory") -> dict[str, set[str]]:
    known = modules(ROOT / package)
    return {name: imports(path, known) - {name} for name, path in known.items()}


def room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def against_the_direction(edges: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {other}"
        for module, others in sorted(edges.items())
        for other in sorted(others)
        if room(module) != room(other) and FLOOR[room(module)] <= FLOOR[room(other)]
    ]


def circle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_room_stands_on_a_floor():
    assert {room(module) for module in graph()} == set(FLOOR)


def test_imports_go_one_way():
    assert against_the_direction(graph()) == []


def test_no_module_imports_itself_in_a_circle():
    assert circle(graph()) == []


def test_theory_and_metrics_import_nothing_of_ours_but_errors_and_arguments():
    edges = graph()
    for floor in ("theory", "metrics"):
        for module in (name for name in edges if room(name) == floor):
            rooms = {room(other) for other in edges[module]}
            assert rooms <= {floor, "errors", "arguments"}, module


def test_the_check_sees_a_step_back_and_a_circle():
    edges = {"aptheory.metrics.rank": {"aptheory.studies.plan"}, "aptheory.studies.plan": set()}
    assert against_the_direction(edges) == ["aptheory.metrics.rank imports aptheory.studies.plan"]
    assert circle({"a": {"b"}, "b": {"a"}})


def test_the_check_looks_inside_functions(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from aptheory.studies import plan\n    return plan\n")
    assert imports(file, {"aptheory.studies.plan": file}) == {"aptheory.studies.plan"}


def test_the_top_of_the_package_is_the_rooms():
    entries = {path.stem for path in (ROOT / "aptheory").iterdir()} - {"__pycache__", "py"}
    assert entries - {"__init__"} == set(FLOOR) - {""}


@pytest.mark.parametrize("beside", ["analyses", "figures", "benchmarks", "weights", "tests"])
def test_the_package_imports_nothing_that_stands_beside_it(beside):
    outside = modules(ROOT / beside)
    for name, path in modules(ROOT / "aptheory").items():
        assert imports(path, outside) == set(), name


def test_tests_stand_in_the_rooms_that_they_test():
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    packages = {name for name, _ in groupby(sorted(map(room, graph()))) if name}
    assert rooms <= packages | {"analyses", "figures"}

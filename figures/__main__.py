"""Draw every figure whose tables exist: python -m figures [--results results] [--only NAME]

A figure whose table is missing is passed over with a sentence that says which command makes it.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from analyses.evidence import NotMeasured
from analyses.results import Results
from aptheory.reporting import plots

FIGURES = tuple(
    name
    for name in sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    if hasattr(import_module(f"figures.{name}"), "draw")
)
"""Every file of this folder that draws."""


def draw_all(results: Path, to: Path, only: Sequence[str] = FIGURES) -> list[Path]:
    """Draw the figures of ``only`` into ``to``; returns what was written."""
    written: list[Path] = []
    tables = Results(results)
    for name in only:
        module = import_module(f"figures.{name}")
        try:
            sheet = module.draw(tables)
        except NotMeasured as error:
            print(f"{name}: not drawn, no table {error.args[0]}; `{module.NEEDS}` makes it")
            continue
        written += plots.save(sheet, to / name)
        print(f"{name}: {to / name}.png")
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--only", action="append", choices=FIGURES)
    given = parser.parse_args()
    draw_all(given.results, given.results / "figures", given.only or FIGURES)

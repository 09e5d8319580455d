"""What the theory scripts share: arguments, resumable parts, their folder, reading it again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

Row = tuple[str, str, str]
"""A claim's number, verdict and why."""


def table(runs: Path, name: str) -> pd.DataFrame:
    """The table of an analysis, the full run's where there is one."""
    for folder in (f"{name}_full", name):
        path = runs / folder / f"{name}.csv"
        if path.is_file():
            return pd.read_csv(path)
    raise FileNotFoundError(name)


def arguments(description: str, name: str) -> argparse.Namespace:
    """``--out DIR``, ``--full`` and ``--device``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("runs/theory") / name)
    parser.add_argument("--full", action="store_true", help="more settings and repetitions")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args()


def part(out: Path, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Table `name`: read if an earlier run finished it, else computed and kept.

    A script that is killed starts again at the first part that is missing. Change a setting and
    the part's name must change with it: names spell the settings out.
    """
    path = out / "parts" / f"{name}.csv"
    if path.exists():
        return pd.read_csv(path)
    table = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".writing")
    table.to_csv(beside, index=False)
    beside.replace(path)
    return table


def finish(out: Path, name: str, table: pd.DataFrame, figure: Figure, findings: list[str]) -> None:
    """Write NAME.csv, NAME.png, NAME.pdf and findings.txt; print the findings."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{name}.csv", index=False)
    for suffix in ("png", "pdf"):
        figure.savefig(out / f"{name}.{suffix}", dpi=150, bbox_inches="tight")
    plt.close(figure)
    (out / "findings.txt").write_text("\n".join(findings) + "\n", encoding="utf-8")
    print("\n".join(findings))


def interval(values: tuple[float, float, float], digits: int = 2) -> str:
    """``0.53 [0.41, 0.66]``."""
    middle, low, high = values
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

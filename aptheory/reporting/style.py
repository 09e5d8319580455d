"""How all figures look, how they are made and saved: for print, with text that can be edited."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import FixedFormatter

from aptheory.errors import InputError
from aptheory.reporting.legend import COLORS
from aptheory.writing import beside

COLUMN, PAGE = 3.3, 6.9
"""Widths of a column and of a page in inches."""


@contextmanager
def style() -> Iterator[None]:
    """The style that all figures share: for print, with editable text in the PDF."""
    settings: Any = {
        "font.size": 8,
        "axes.titlesize": 8.5,
        "axes.labelsize": 8,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=list(COLORS.values())),
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "figure.dpi": 150,
        "savefig.dpi": 200,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
    }
    with mpl.rc_context(settings):
        yield


def styled(draw: Callable[..., Axes]) -> Callable[..., Axes]:
    """Draw in the shared style, whatever the caller's own settings are."""

    @wraps(draw)
    def drawn(*args: Any, **options: Any) -> Axes:
        with style():
            ax = draw(*args, **options)
        spell_out(ax)
        return ax

    return drawn


def spell_out(ax: Axes) -> None:
    """Show names as they are spelt: a ``$`` in the name of a task begins no formula."""
    sides = [ax._left_title, ax._right_title]  # type: ignore[attr-defined]  # no public names
    texts = [ax.title, *sides, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    legend = ax.get_legend()
    texts += legend.get_texts() if legend else []
    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_formatter(), FixedFormatter):
            texts += axis.get_ticklabels()
    for text in texts:
        text.set_parse_math(False)


def figure(rows: int = 1, columns: int = 1, *, width: float = PAGE, height: float = 2.3) -> Figure:
    """A figure in the shared style; ``height`` is that of one row, in inches."""
    with style():
        drawn, _ = plt.subplots(
            rows, columns, figsize=(width, height * rows), squeeze=False, layout="constrained"
        )
    return drawn


def figure_of(ax: Axes) -> Figure:
    """The whole figure that an Axes stands in."""
    found = ax.get_figure(root=True)
    if found is None:
        raise InputError("this Axes stands in no figure: draw it on one made by plots.figure()")
    return found


def save(drawn: Figure, path: str | Path) -> list[Path]:
    """Write PATH.pdf (vector) and PATH.png; the same table gives the same bytes."""
    if not isinstance(drawn, Figure) or not isinstance(path, str | Path):
        raise InputError("save takes a matplotlib figure and the path of its files.")
    stem = Path(path)
    if stem.suffix in (".pdf", ".png"):
        stem = stem.with_suffix("")  # any other dot belongs to the name
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        written.append(stem.with_name(stem.name + suffix))
        with style(), beside(written[-1]) as part:
            drawn.savefig(part, format=suffix[1:], metadata=metadata)
    plt.close(drawn)
    return written

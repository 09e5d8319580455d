"""How good a model is, as one page: scores, classes, who is taken for whom, the surest mistakes."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from aptheory.reporting.page import STYLE
from aptheory.reporting.sections import table_html

if TYPE_CHECKING:
    import pandas as pd

    from aptheory.models.evaluation import Evaluation
    from aptheory.tasks.split import Split

SHOWN = 24
SIDE = 112
"""Pixels of a picture on the sheet of mistakes."""
MOST_CLASSES = 100
"""Up to which the page has the whole matrix: it grows with their square."""
PAIRS = 100
"""Of classes that are taken for one another, where there are more."""

_STYLE = """
.confusion td{text-align:center;min-width:2.2rem}.confusion th:first-child{text-align:right}
@media(max-width:36rem){.confusion :is(td,th){min-width:0;padding:.25rem .3rem}}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:1rem;margin-top:1rem}
.sheet figure{margin:0;font-size:.8rem}.sheet img{width:100%;max-width:112px;display:block}
"""


def evaluation_page(evaluation: Evaluation, split: Split, *, command: str = "") -> str:
    """The page as a string: no scripts, no links; the pictures of the sheet are in it.

    ``split`` is what was evaluated, for its pictures; ``command`` what made the page.
    """
    right = int((evaluation.predicted == evaluation.labels).sum())
    count = len(evaluation.labels)
    lead = (
        f"{evaluation.model.splitlines()[0]}. Of {count} {evaluation.split} images of "
        f"{evaluation.task}, {right} are classified correctly."
    )
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Evaluation</title><style>{STYLE}{_STYLE}</style></head><body>",
        f"<h1>How good is it?</h1><p class='lead'>{escape(lead)}</p>",
        "<h2>Scores</h2>",
        table_html(_rounded(evaluation.scores)),
        "<p class='note'>Fractions; log loss in nats. low and high: 95 %, Wilson's for the "
        "accuracy, else the percentile bootstrap over the images; none where that has no spread."
        "</p><h2>Class by class</h2>",
        table_html(_rounded(evaluation.by_class)),
        "<p class='note'>low and high: Wilson's 95 % interval of the share.</p>",
        "<h2>Who is taken for whom</h2>",
        _confusion(evaluation),
        "<h2>The most certain mistakes</h2>",
        _sheet(evaluation, split),
    ]
    if command:
        parts.append(f"<h2>What made this page</h2><p><code>{escape(command)}</code></p>")
    return "\n".join(parts) + "</body></html>\n"


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.round(3).rename(columns=lambda name: str(name).replace("_", " "))


def _confusion(evaluation: Evaluation) -> str:
    """The matrix with its note, or of many classes the pairs that are most often confused."""
    classes = len(evaluation.classes)
    if classes <= MOST_CLASSES:
        return (
            f"{confusion_table(evaluation.confusion)}<p class='note'>A row a true class, a column "
            "a predicted one; shaded by the share of the row.</p>"
        )
    pairs = evaluation.confused
    if pairs.empty:
        return "<p>None for another.</p>"
    shown = f"the {PAIRS:,} of most pictures" if len(pairs) > PAIRS else "all of them"
    return (
        f"{table_html(pairs.head(PAIRS))}<p class='note'>A matrix of {classes:,} classes is too "
        f"large for a page. Wrong answers fall on {len(pairs):,} "
        f"{'pairs' if len(pairs) > 1 else 'pair'} of classes: {shown}.</p>"
    )


def confusion_table(confusion: pd.DataFrame) -> str:
    """The counts as a table whose cells are shaded by their share of the row."""
    head = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in confusion.columns)
    rows = []
    for name, counts in confusion.iterrows():
        total = max(1, int(counts.sum()))
        cells = "".join(
            f"<td style='background:rgb(0 114 178/{0.6 * count / total:.2f})'>{count or ''}</td>"
            for count in counts.to_numpy(int).tolist()
        )
        rows.append(f"<tr><th scope='row'>{escape(str(name))}</th>{cells}</tr>")
    table = f"<table class='confusion'><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    return f"<div class='scroll'>{table}</div>"


def _sheet(evaluation: Evaluation, split: Split) -> str:
    mistakes = evaluation.mistakes.head(SHOWN)
    if mistakes.empty:
        return "<p>There are none.</p>"
    pictures = split.images(mistakes["index"].to_numpy(), (SIDE, SIDE)).permute(0, 2, 3, 1).numpy()
    figures = []
    for row, picture in zip(mistakes.to_dict("records"), pictures, strict=True):
        words = f"{row['class']}, taken for {row['predicted']} ({100 * row['probability']:.0f} %)"
        figures.append(
            f"<figure><img alt='{escape(words, quote=True)}' src='{_inline(picture)}'>"
            f"<figcaption>{escape(words)}<br>{escape(str(row['path']))}</figcaption></figure>"
        )
    return f"<div class='sheet'>{''.join(figures)}</div>"


def _inline(picture: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

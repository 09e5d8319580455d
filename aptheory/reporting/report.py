"""A run's folder becomes one page that a colleague can be sent, and plots for a paper.

The page is a single file without scripts, images or links to anywhere: findings in words first,
then the curves with their values on hover, the tables behind them, and the settings that made it.
"""

from pathlib import Path

from aptheory.arguments import checked_arguments
from aptheory.checked import json_table, json_text, read_text, safe_stem
from aptheory.errors import InputError
from aptheory.findings.readings import judge_of
from aptheory.findings.sentences import sentences
from aptheory.reporting import plots
from aptheory.reporting.curves import accuracy_curves, at, metric_curves
from aptheory.reporting.facts import facts
from aptheory.reporting.legend import method_name
from aptheory.reporting.page import html
from aptheory.reporting.run_folder import Tables, pairs
from aptheory.reporting.sections import priced
from aptheory.reporting.style import spell_out
from aptheory.studies.files import write_atomically
from aptheory.studies.records import key_of
from aptheory.version import __version__


@checked_arguments
def report(folder: str | Path) -> Path:
    """Write FOLDER/report.html and FOLDER/plots from the tables in the folder; return the page."""
    folder = Path(folder)
    tables = Tables.read(folder)
    _draw_once(tables, folder / "plots")
    page = folder / "report.html"
    write_atomically(page, html(tables))
    return page


def _draw_once(tables: Tables, folder: Path) -> None:
    """Draw, unless the plots that are there were drawn from these very tables."""
    drawn = folder / ".drawn.json"
    frames = [table.drop(columns="correct", errors="ignore") for table in tables.frames()]
    key = key_of([*(table.to_csv() for table in frames), __version__])
    try:
        before = json_table(read_text(drawn), name=str(drawn))
        whole = before.get("key") == key and all((folder / n).is_file() for n in before["plots"])
    except (OSError, InputError, KeyError, TypeError):
        whole = False
    if not whole:
        written = draw(tables, folder)
        if written:
            about = {"key": key, "plots": [path.name for path in written]}
            write_atomically(drawn, json_text(about))


def findings(tables: Tables) -> list[str]:
    """What the tables say, in plain sentences, the most important first."""
    judge = judge_of(tables.settings)
    return sentences(tables.accuracy, tables.relation, judge=judge) + facts(tables)


def draw(tables: Tables, folder: Path) -> list[Path]:
    """As PDF and PNG: accuracy beside metrics, CKA maps, attention distances, the cost front."""
    written = []
    for network, task in pairs(tables):
        stem = safe_stem(network, task)
        profile = at(tables.profile, network, task)
        measures = set(profile["measure"][profile["value"].notna()]) if len(profile) else set()
        shown = list(metric_curves(profile, network, task))
        has_accuracy = bool(accuracy_curves(tables.accuracy, network, task))
        panels = int(has_accuracy) + len(shown)
        if panels:
            columns = min(panels, 2)
            sheet = plots.figure(-(-panels // 2), columns, width=plots.COLUMN * columns, height=2.8)
            axes = list(sheet.axes)[:panels]
            for empty in list(sheet.axes)[panels:]:
                empty.remove()
            if has_accuracy:
                plots.accuracy_by_layer(tables.accuracy, network=network, task=task, ax=axes.pop(0))
            for measure, ax in zip(shown, axes, strict=True):
                plots.metric_by_layer(profile, network=network, task=task, measure=measure, ax=ax)
            written += plots.save(sheet, folder / f"{stem}-layers")
        if "cka" in measures:
            ax = plots.cka_map(profile, network=network, task=task)
            written += plots.save(plots.figure_of(ax), folder / f"{stem}-cka")
        if "attention_distance" in measures:
            ax = plots.attention_distance(profile, network=network, task=task)
            written += plots.save(plots.figure_of(ax), folder / f"{stem}-attention")
    rows, column, label = priced(tables)
    for key, one in rows.groupby(["network", "task"]) if len(rows) else ():
        network, task = (str(name) for name in key)
        ax = plots.cost_front(one.assign(label=one["method"].map(method_name)), cost=column)
        ax.set(xlabel=label, xscale="log")
        ax.set_title(f"{network} on {task}", fontsize=8)
        spell_out(ax)
        written += plots.save(plots.figure_of(ax), folder / f"{safe_stem(network, task)}-cost")
    return written

"""Verbs on a folder of results: status, relate, report."""

from pathlib import Path

import typer

from aptheory.cli.application import echo, verb
from aptheory.errors import InputError


@verb
def status(folder: Path) -> None:
    """Say how far a sweep is: done, running, failed and left, with the time to go."""
    from aptheory.studies.status import status as look

    echo(look(folder).text())


@verb
def relate(folder: Path) -> None:
    """Correlate the metrics with the accuracies in FOLDER, with intervals and corrected p."""
    import pandas as pd

    from aptheory.exploration import relations, write_table
    from aptheory.reporting.run_folder import Tables

    tables = Tables.read(folder)
    for name, table, made in (
        ("profile.csv", tables.profile, "aptheory run"),
        ("accuracy.csv", tables.accuracy, "aptheory sweep or run"),
    ):
        if table.empty:
            raise InputError(f"{folder / name} is no file that holds rows; {made} writes it.")
    correlations = relations(tables.profile, tables.accuracy)
    if correlations.empty:
        raise InputError(
            f"nothing in {folder} can be related: no network and task has four layers or more with "
            "both a metric and an accuracy; profile and sweep the same ones at more layers."
        )
    with pd.option_context("display.width", 160, "display.max_columns", None):
        text = correlations.to_string(
            index=False, na_rep="", float_format=lambda value: f"{value:.3f}"
        )
    echo(text)  # what was found is told, whatever becomes of the file
    write_table(correlations, folder / "relation.csv")


@verb
def report(folder: Path) -> None:
    """Write FOLDER/report.html and FOLDER/plots from the tables in FOLDER."""
    from aptheory.reporting.report import report as write
    from aptheory.studies.status import status

    print_findings(folder, write(folder))
    if (folder / "plan.json").is_file() and (damaged := status(folder).damaged):
        echo(f"{len(damaged)} runs are left out; the command that made {folder} makes them again")
        raise typer.Exit(1)


def print_findings(folder: Path, page: Path | None = None) -> None:
    """What the tables of a folder say, sentence by sentence, and where its page is."""
    from aptheory.reporting.report import findings
    from aptheory.reporting.run_folder import Tables

    echo("")
    for sentence in findings(Tables.read(folder)):
        echo(f"- {sentence}")
    if page is not None:
        echo(f"\nThe page: {page.resolve()}")

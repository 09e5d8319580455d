"""Verbs about the data sets: ``aptheory tasks`` lists them, ``aptheory tasks check`` verifies."""

from pathlib import Path
from typing import Annotated

import typer

from aptheory.cli.app import app

tasks_app = typer.Typer(help="The data sets: which there are, and whether one is complete.")
app.add_typer(tasks_app, name="tasks", invoke_without_command=True)


@tasks_app.callback()
def tasks(
    context: typer.Context,
    root: Annotated[Path | None, typer.Option(help="folder of the data sets")] = None,
) -> None:
    """List the data sets, what is present on this machine, and how to bring the rest."""
    if context.invoked_subcommand is None:
        from aptheory.tasks import list_tasks

        typer.echo(list_tasks(root).to_string(index=False))


@tasks_app.command()
def check(name: str, root: Annotated[Path | None, typer.Option()] = None) -> None:
    """Verify a data set: counts, classes, readability, checksums; writes its digest."""
    from aptheory.tasks import check as verify

    typer.echo(verify(name, root))

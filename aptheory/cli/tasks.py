"""Verbs about the data sets: ``aptheory tasks`` lists them, ``aptheory tasks check`` verifies."""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from aptheory.cli.application import Verb, app, echo
from aptheory.cli.options import sources
from aptheory.errors import InputError


class VerbGroup(TyperGroup, Verb):
    """Verbs below a verb, which takes its own options as any verb does."""


tasks_app = typer.Typer(
    cls=VerbGroup, help="The data sets: which there are, and whether one is complete."
)
app.add_typer(tasks_app, name="tasks", invoke_without_command=True)


@tasks_app.callback()
def tasks(
    context: typer.Context,
    root: Annotated[Path | None, typer.Option(help="folder of the data sets")] = None,
) -> None:
    """List the data sets, what is present on this machine, and how to bring the rest."""
    if context.invoked_subcommand is None:
        from aptheory.tasks.present import listing

        echo(listing(root))


@tasks_app.command(cls=Verb)
def check(
    name: Annotated[str, typer.Argument(help="a task's name or place, such as folder:PATH")],
    root: Annotated[Path | None, typer.Option(help="folder of the data sets")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="folder for a contact sheet (PNG) of each class")
    ] = None,
) -> None:
    """Look at every picture: counts, sizes, copies, damage, checksums; exit code 2 on damage."""
    from aptheory.tasks import check as verify
    from aptheory.tasks.sheets import write_sheets

    if sheet is not None:
        if os.path.lexists(sheet) and not sheet.is_dir():
            raise InputError(f"--sheet {sheet} is no folder; name another.")
        for source in map(os.path.realpath, sources(name)):
            if os.path.join(os.path.realpath(sheet), "").startswith(os.path.join(source, "")):
                raise InputError(
                    f"--sheet {sheet} lies among the pictures, where the sheets would be taken for "
                    "some; name another folder."
                )
    checked = verify(name, root)
    echo(checked)
    if sheet is not None:
        echo(f"{len(write_sheets(checked.task, sheet))} contact sheets in {sheet}")
    if not checked.ok:
        raise typer.Exit(2)

"""Verbs that train many runs: sweep, run (the whole job) and demo."""

from pathlib import Path
from typing import Annotated, Any

import typer

from aptheory.cli.app import verb
from aptheory.cli.options import (
    EngineOptions,
    Images,
    Measures,
    Methods,
    NetworkOptions,
    Networks,
    Out,
    TaskOptions,
    Tasks,
    TrainingOptions,
    study,
)
from aptheory.cli.results import print_findings
from aptheory.errors import InputError


@verb
def sweep(
    networks: NetworkOptions,
    images_of: TaskOptions,
    training: TrainingOptions,
    engine: EngineOptions,
    file: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="a study file (TOML)")
    ] = None,
    network: Annotated[list[str] | None, typer.Option("--network", "-n")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", "-t")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o")] = None,
    method: Methods = ["ap"],  # noqa: B006 - typer reads the default, nothing mutates it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs, run nothing")] = False,
) -> None:
    """Train methods at layers, over seeds: from a study file or from --network and --task."""
    from aptheory.exploration import write_table
    from aptheory.findings.compare import compare
    from aptheory.studies.status import duration
    from aptheory.studies.study import Study
    from aptheory.studies.sweep import dry_run as plan_of
    from aptheory.studies.sweep import sweep as train

    if file is not None:
        planned = Study.from_toml(file)
    elif network and task:
        planned = study(network, task, networks, images_of, training, method)
    else:
        raise InputError("nothing to sweep: give a study file, or --network and --task.")
    if dry_run:
        plan = plan_of(planned)
        typer.echo(plan.table().to_string(index=False))
        typer.echo(f"{len(plan)} runs, about {duration(plan.seconds)} on one core")
        return
    if out is None:
        out = Path("runs") / planned.name
    if not train(planned, out, **vars(engine)).empty:
        comparison = compare(out)
        write_table(comparison, out / "comparison.csv")
        typer.echo(comparison.to_string(index=False))
        typer.echo(f"{out / 'accuracy.csv'}")
    exit_if_runs_failed(out)


@verb
def run(
    networks: Networks,
    task: Tasks,
    out: Out,
    network_options: NetworkOptions,
    images_of: TaskOptions,
    training: TrainingOptions,
    engine: EngineOptions,
    measures: Measures = None,
    images: Images = 512,
) -> None:
    """The whole job: profile, sweep, relate and report; run again to continue."""
    planned = study(networks, task, network_options, images_of, training)
    _explore(planned, out, measures=measures, images=images, **vars(engine))


@verb
def demo(out: Out = Path("runs/demo")) -> None:
    """The whole job on the embedded networks and tasks: two of each, about four minutes."""
    from aptheory.exploration import DEMO

    _explore(DEMO, out, images=256)


def _explore(planned: Any, out: Path, *, measures: str | None = None, **options: Any) -> None:
    from aptheory.exploration import MEASURES, explore

    wanted = tuple(measures.split(",")) if measures else MEASURES
    print_findings(out, explore(planned, out, measures=wanted, **options))
    exit_if_runs_failed(out)


def exit_if_runs_failed(out: Path) -> None:
    """End with exit code 1 when runs failed: how many, why, and how to try them again."""
    from aptheory.studies.status import status

    standing = status(out)
    if standing.failed:
        typer.echo(f"{len(standing.failed)} of {standing.total} runs failed.", err=True)
        for sentence in standing.failures:
            typer.echo(f"  {sentence}", err=True)
        raise typer.Exit(1)

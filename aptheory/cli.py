"""The command line: thin verbs over the library's functions.

Exit codes: 0 done, 2 input that cannot be used (one sentence says why), 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aptheory.errors import InputError


class Verbs(TyperGroup):
    """The verbs; a foreseeable fault in any of them is one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno is None:
                raise
            _fail(f"{error.filename or 'a file'}: {error.strerror}; check the path and the disk")
        except KeyboardInterrupt:
            print(
                "\ninterrupted; what is finished is kept, and the same command goes on from there",
                file=sys.stderr,
            )
            sys.stdout.flush()
            os._exit(130)  # threads of the pool may still hold work: leave at once


app = typer.Typer(
    cls=Verbs,
    help="Where in a frozen vision network does a learned perturbation do its work?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
tasks_app = typer.Typer(help="The data sets: which there are, and whether one is complete.")
app.add_typer(tasks_app, name="tasks", invoke_without_command=True)

NETWORK = typer.Argument(help="a timm model name, or module:function that returns a torch module")
Networks = Annotated[list[str], NETWORK]
Network = Annotated[str, NETWORK]
Task = Annotated[
    list[str], typer.Option("--task", "-t", help="a task's name, folder:PATH or npz:PATH; repeat")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder of the results; continued if there")]
Weights = Annotated[
    str, typer.Option(help="pretrained, random, or a safetensors or state-dict file")
]
Granularity = Annotated[str, typer.Option(help="block or stage")]
Layers = Annotated[
    str, typer.Option(help="all, indices such as 0,3,7, or fractions such as 0.0,0.5,1.0")
]
Methods = Annotated[
    list[str], typer.Option("--method", "-m", help="such as ap, vpt:tokens=5, norm_tuning; repeat")
]
Seeds = Annotated[int, typer.Option(min=1, help="how many seeds, from 0 up")]
Recipe = Annotated[str, typer.Option(help="quick, paper_ap, vpt or vapt")]
Epochs = Annotated[int | None, typer.Option(min=1, help="instead of the recipe's own number")]
Sizes = Annotated[
    str | None, typer.Option("--subset", help="train,val,test sizes of a seeded, balanced subset")
]
Engine = Annotated[str, typer.Option(help="processes, ray, or here (this process)")]
Workers = Annotated[int | None, typer.Option(min=1, help="jobs at once")]
Address = Annotated[str | None, typer.Option(help="of a Ray cluster")]
Measures = Annotated[str | None, typer.Option(help="metrics, by commas")]
Images = Annotated[int, typer.Option(min=1, help="training images that the profile looks at")]


@app.command()
def layers(
    network: Network, weights: Weights = "pretrained", granularity: Granularity = "block"
) -> None:
    """Print a network as the list of its layers."""
    from aptheory.studies.sources import load_network

    typer.echo(load_network(_network(network, weights, granularity)))


@app.command()
def profile(
    networks: Networks,
    task: Task,
    out: Out,
    weights: Weights = "pretrained",
    granularity: Granularity = "block",
    subset: Sizes = None,
    measures: Measures = None,
    images: Images = 512,
    seed: int = 0,
) -> None:
    """Measure every metric at every layer, in one pass over the images."""
    from aptheory.exploration import MEASURES, profile_study

    study = _study(networks, task, weights, granularity, subset)
    wanted = tuple(measures.split(",")) if measures else MEASURES
    table = profile_study(study, out, measures=wanted, images=images, seed=seed)
    typer.echo(f"{len(table)} values in {out / 'profile.csv'}")


@app.command()
def sweep(
    study: Annotated[Path | None, typer.Argument(help="a study file (TOML)")] = None,
    network: Annotated[list[str] | None, typer.Option("--network", "-n")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", "-t")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o")] = None,
    method: Methods = ["ap"],  # noqa: B006 - typer reads the default, nothing mutates it
    layers: Layers = "all",
    seeds: Seeds = 3,
    recipe: Recipe = "quick",
    epochs: Epochs = None,
    weights: Weights = "pretrained",
    granularity: Granularity = "block",
    subset: Sizes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs, run nothing")] = False,
    engine: Engine = "processes",
    workers: Workers = None,
    address: Address = None,
    retry_failed: bool = False,
) -> None:
    """Train methods at layers, over seeds: from a study file or from --network and --task."""
    from aptheory.findings.compare import compare
    from aptheory.studies.status import duration
    from aptheory.studies.study import Study
    from aptheory.studies.sweep import dry_run as plan_of
    from aptheory.studies.sweep import sweep as run

    if study is not None:
        planned = Study.from_toml(study)
    elif network and task:
        planned = _study(
            network, task, weights, granularity, subset, method, layers, seeds, recipe, epochs
        )
    else:
        raise InputError("nothing to sweep: give a study file, or --network and --task")
    if dry_run:
        plan = plan_of(planned)
        typer.echo(plan.table().to_string(index=False))
        typer.echo(f"{len(plan)} runs, about {duration(plan.seconds)} on one core")
        return
    if out is None:
        out = Path("runs") / planned.name
    table = run(
        planned,
        out,
        engine=engine,
        workers=workers,
        address=address,
        retry_failed=retry_failed,
    )
    if table.empty:
        typer.echo(f"no run succeeded; `aptheory status {out}` says why")
        raise typer.Exit(1)
    comparison = compare(out)
    comparison.to_csv(out / "comparison.csv", index=False)
    typer.echo(comparison.to_string(index=False))
    typer.echo(f"{out / 'accuracy.csv'}")


@app.command()
def status(folder: Path) -> None:
    """Say how far a sweep is: done, running, failed and left, with the time to go."""
    from aptheory.studies.status import status as look

    typer.echo(look(folder).text())


@app.command()
def relate(folder: Path, draws: int = 1000, seed: int = 0) -> None:
    """Correlate the metrics with the accuracies in FOLDER, with intervals and corrected p."""
    import pandas as pd

    from aptheory.exploration import relations, write_table
    from aptheory.reporting.run_folder import Tables

    tables = Tables.read(folder)
    if tables.profile.empty or tables.accuracy.empty:
        raise InputError(
            f"{folder} needs profile.csv and accuracy.csv: run profile and sweep first"
        )
    found = relations(tables.profile, tables.accuracy, draws=draws, seed=seed)
    write_table(found, folder / "relation.csv")
    with pd.option_context("display.width", 160, "display.max_columns", None):
        typer.echo(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


@app.command()
def report(folder: Path) -> None:
    """Write FOLDER/report.html and FOLDER/plots from the tables in FOLDER."""
    from aptheory.reporting.report import findings
    from aptheory.reporting.report import report as write
    from aptheory.reporting.run_folder import Tables

    page = write(folder)
    _tell(findings(Tables.read(folder)), page)


@app.command()
def run(
    networks: Networks,
    task: Task,
    out: Out,
    weights: Weights = "pretrained",
    granularity: Granularity = "block",
    subset: Sizes = None,
    layers: Layers = "all",
    seeds: Seeds = 3,
    recipe: Recipe = "quick",
    epochs: Epochs = None,
    measures: Measures = None,
    images: Images = 512,
    engine: Engine = "processes",
    workers: Workers = None,
) -> None:
    """The whole job: profile, sweep, relate and report; run again to continue."""
    study = _study(
        networks, task, weights, granularity, subset, ["ap"], layers, seeds, recipe, epochs
    )
    _explore(study, out, measures=measures, images=images, engine=engine, workers=workers)


@app.command()
def demo(out: Out = Path("runs/demo")) -> None:
    """The whole job on the embedded networks and tasks: two of each, about four minutes."""
    from aptheory.exploration import DEMO

    _explore(DEMO, out, images=256)


@app.command()
def cost(
    network: Network,
    methods: Annotated[list[str], typer.Argument(help="such as ap:layer=3, vpt:tokens=10")],
    weights: Weights = "random",
    batch_size: int = 32,
    classes: int = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o")] = None,
) -> None:
    """Predict and measure what methods cost: parameters, FLOPs, time, memory, throughput."""
    from aptheory.methods import parse
    from aptheory.studies.sources import load_network
    from aptheory.training.cost import cost as measure

    net = load_network(_network(network, weights, "block"))
    table = measure(
        net, [parse(method) for method in methods], batch_size=batch_size, classes=classes
    )
    if out is not None:
        from aptheory.exploration import write_table

        write_table(table, out / "cost.csv")
    typer.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


@app.command()
def recommend(
    network: Network,
    task: Annotated[str, typer.Option("--task", "-t")],
    weights: Weights = "pretrained",
    subset: Sizes = None,
    images: Annotated[int, typer.Option(min=10, help="labelled images that are looked at")] = 256,
    budget: Annotated[
        float | None, typer.Option(help="share of a full sweep's cost to spend on trials")
    ] = None,
    seed: int = 0,
) -> None:
    """Name the layer to prompt without a sweep: a ranked table with its reasons."""
    from aptheory.choosing.recommend import recommend_layer
    from aptheory.studies.sources import load_network, load_task

    net = load_network(_network(network, weights, "block"))
    chosen = recommend_layer(
        net, load_task(_task(task, subset)), images=images, budget=budget, seed=seed
    )
    typer.echo(chosen)


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


def main() -> None:
    """Run the command line."""
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("aptheory")
    ours.addHandler(said)
    ours.setLevel(logging.INFO)
    app()


def _explore(study: Any, out: Path, *, measures: str | None = None, **options: Any) -> None:
    from aptheory.exploration import MEASURES, explore
    from aptheory.reporting.report import findings
    from aptheory.reporting.run_folder import Tables

    wanted = tuple(measures.split(",")) if measures else MEASURES
    page = explore(study, out, measures=wanted, **options)
    _tell(findings(Tables.read(out)), page)


def _tell(said: list[str], page: Path) -> None:
    typer.echo("")
    for sentence in said:
        typer.echo(f"- {sentence}")
    typer.echo(f"\nThe page: {page.resolve()}")


def _network(name: str, weights: str, granularity: str) -> dict[str, Any]:
    sys.path.insert(0, os.getcwd())  # module:function may stand in the user's own folder
    kind = "factory" if ":" in name else "name"
    return {kind: name, "weights": weights, "granularity": granularity}


def _task(name: str, subset: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": name}
    if subset is not None:
        sizes = subset.split(",")
        if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
            raise InputError(f"--subset is {subset!r}; give three numbers such as 500,200,500")
        spec |= dict(zip(("train", "val", "test"), map(int, sizes), strict=True))
    return spec


def _study(
    networks: list[str],
    tasks: list[str],
    weights: str,
    granularity: str,
    subset: str | None,
    methods: list[str] | None = None,
    layers: str = "all",
    seeds: int = 3,
    recipe: str = "quick",
    epochs: int | None = None,
) -> Any:
    from aptheory.studies.study import Study

    return Study(
        name="run",
        networks=[_network(name, weights, granularity) for name in networks],
        tasks=[_task(name, subset) for name in tasks],
        methods=methods or ["ap"],
        layers=_layers(layers),
        recipes=[{"name": recipe, "epochs": epochs} if epochs else recipe],
        seeds=range(seeds),
    )


def _layers(text: str) -> Any:
    """ "all", "blocks", or the places between commas."""
    return text if "," not in text else [part.strip() for part in text.split(",")]


def _fail(sentence: str) -> None:
    print(f"aptheory: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()

"""Verbs that train many runs: sweep, run (the whole job) and demo."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from aptheory.cli.application import echo, verb
from aptheory.cli.options import (
    DeviceOptions,
    EngineOptions,
    Images,
    Measures,
    Methods,
    NetworkOptions,
    Out,
    Redraw,
    TaskOptions,
    TrainingOptions,
    sources,
    spare,
    study,
)
from aptheory.cli.results import print_findings
from aptheory.errors import InputError
from aptheory.writing import refuse_no_file

_log = logging.getLogger("aptheory")

LOADING = "loading the library"
"""The first word, before anything that takes seconds."""
WAITING = "what reads at the place whose probe is best, which is known when the probes have ended"


@dataclass(kw_only=True)
class SearchOptions:
    """How much of the sweep `run` does: a quick look, unless more is said."""

    layers: Annotated[
        str | None, typer.Option(help="all, indices such as 0,3,7, or fractions such as 0.0,1.0")
    ] = None
    seeds: Annotated[int | None, typer.Option(min=1, max=10_000, help="from 0 up")] = None
    recipe: Annotated[str, typer.Option(help="quick, paper_ap, vpt or vapt")] = "quick"
    epochs: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's own")] = None
    redraw: Redraw = False
    full: Annotated[
        bool, typer.Option("--full", help="every layer, three seeds, all epochs of the recipe")
    ] = False
    read: Annotated[
        str | None,
        typer.Option(
            help="where prompts are read: end (as published), best (the place whose own probe is "
            "best on validation images), or both, the default"
        ),
    ] = None

    def training(self) -> TrainingOptions:
        """What is trained: what was said, and of the rest a little, or all with ``full``."""
        from aptheory.exploration import QUICK_LOOK
        from aptheory.training.recipe import Recipe

        look = QUICK_LOOK
        if self.full:
            look = replace(look, layers="all", seeds=3, epochs=None)
        epochs = self.epochs
        if epochs is None and look.epochs is not None:
            epochs = min(look.epochs, Recipe.named(self.recipe).epochs)
        return TrainingOptions(
            layers=self.layers or look.layers,
            seeds=self.seeds or look.seeds,
            recipe=self.recipe,
            epochs=epochs,
            redraw=self.redraw,
        )

    def methods(self, given: list[str]) -> list[str]:
        """What was said, prompts once for each place at which they are read.

        A method that says its own reading keeps it. Where the probes read best, a quick look
        prompts halfway to that place alone.
        """
        from aptheory.methods.registry import class_of, settings_of

        if self.read not in (None, "both", "end", "best"):
            raise InputError(f"--read is {self.read!r}; give end, best or both.")
        methods = []
        for text in given:
            settings = settings_of(text)
            if self.read == "end" or "read" in settings or class_of(settings).role != "prompt":
                methods.append(text)
                continue
            words = ["read=best"]
            if "layer" not in settings and not self.full and self.layers is None:
                words.append("layer=halfway")
            stem = text.strip().rstrip(":,")
            early = f"{stem}{',' if len(settings) > 1 else ':'}{','.join(words)}"
            methods += [early] if self.read == "best" else [text, early]
        return methods

    def left_out(self) -> str:
        """In words, what a quick look leaves out."""
        from aptheory.training.recipe import Recipe

        training, full = self.training(), Recipe.named(self.recipe).epochs
        parts = []
        if training.layers != "all":
            parts.append(f"layers {training.layers} instead of all")
        if training.seeds < 3:
            parts.append(f"{training.seeds} seeds instead of 3")
        if training.epochs is not None and training.epochs < full:
            parts.append(f"{training.epochs} epochs instead of {full}")
        reads = {
            "end": "prompts are read at the network's end alone; without --read also where the "
            "probes read best",
            "best": "prompts are read where the probes read best alone, not at the network's end",
        }.get(
            self.read or "", "prompts are read at the network's end and where the probes read best"
        )
        if self.read != "end" and not self.full and self.layers is None:
            reads += " (there prompted halfway alone)"
        if self.full or not parts:
            return f"the full sweep{', but ' if parts else ''}{', '.join(parts)}; {reads}"
        return f"a quick look: {', '.join(parts)}; --full is the whole sweep; {reads}"


@dataclass(kw_only=True)
class StudyFileOptions:
    """What to do with a study beside running it."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs, run nothing")] = False
    save_study: Annotated[Path | None, typer.Option(help="write the study to this file (TOML)")] = (
        None
    )

    def enough(self, planned: Any, file: str | Path | None = None) -> bool:
        """Write and print what was asked for; whether that was all. ``file`` is the study's own."""
        from aptheory.studies.files import write_atomically
        from aptheory.studies.status import duration
        from aptheory.studies.sweep import dry_run as plan_of
        from aptheory.studies.writing import study_text

        if self.save_study is not None:
            spare(self.save_study, _reads(planned, file), "--save-study")
            write_atomically(self.save_study, study_text(planned))
            _log.info("the study is in %s", self.save_study)
        if self.dry_run:
            plan = plan_of(planned)
            echo(plan.table().to_string(index=False))
            for sentence in plan.not_applicable:
                echo(f"left out: {sentence}")
            echo(f"{len(plan)} runs, about {duration(plan.seconds)} on one core")
            if plan.waits:
                echo(f"Then {WAITING}.")
        return self.dry_run


def _reads(planned: Any, file: str | Path | None) -> list[Path]:
    """The files and folders that a study is read from, and its own file where it has one."""
    named = [task["name"] for task in planned.tasks if isinstance(task, Mapping)]
    return [*([] if file is None else [Path(file)]), *sources(*named)]


WRITTEN = (
    *("accuracy.csv", "comparison.csv", "profile.csv", "relation.csv"),
    *("plan.json", "settings.json", "report.html"),
)
"""The files of a results folder that a user might have named himself."""


def _spare_inputs(out: Path, reads: list[Path]) -> None:
    """Refuse a results folder whose files would take the place of what the study is read from."""
    for name in WRITTEN:
        refuse_no_file(out / name)
        spare(out / name, reads)


def _alone(file: str | Path, given: dict[str, Any], *groups: Any) -> None:
    """Refuse options beside a study's file which says those things: they would change nothing.

    Raises:
        InputError: one is given, in ``given`` or in a group of options; the device may be.
    """
    words = [option for option, value in given.items() if value]
    for group in groups:
        for field in fields(group):
            if field.name != "device" and getattr(group, field.name) != field.default:
                words.append(f"--{field.name.replace('_', '-')}")
    if words and not Path(file).exists():
        remedy = "networks are named with --network" if "--network" in given else "check its path"
        raise InputError(f"there is no study file {file}; {remedy}.")
    if words:
        raise InputError(f"{file} says itself what is run; leave out {', '.join(words)}.")


@verb
def sweep(
    networks: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    training: TrainingOptions,
    engine: EngineOptions,
    keeping: StudyFileOptions,
    file: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="a study file (TOML)")
    ] = None,
    network: Annotated[list[str] | None, typer.Option("--network", "-n")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", "-t")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="default: runs/NAME")] = None,
    method: Methods = ["ap"],  # noqa: B006 - typer reads the default, nothing mutates it
) -> None:
    """Train methods at layers, over seeds: from a study file or from --network and --task."""
    _log.info(LOADING)
    from aptheory.exploration import write_table
    from aptheory.findings.compare import compare
    from aptheory.reporting.sections import method_table
    from aptheory.studies.study import Study
    from aptheory.studies.sweep import sweep as train

    if file is not None:
        given = {"--network": network, "--task": task, "--method": method != ["ap"]}
        _alone(file, given, networks, images_of, on, training)
        planned = on.placed(Study.from_toml(file))
    elif network and task:
        planned = study(network, task, networks, images_of, on, training, method)
    else:
        raise InputError("nothing to sweep: give a study file, or --network and --task.")
    if keeping.enough(planned, file):
        return
    if out is None:
        out = Path("runs") / planned.name
    _spare_inputs(out, _reads(planned, file))
    if not train(planned, out, **engine.settings()).empty:
        comparison = compare(out, pictures=True)
        write_table(comparison, out / "comparison.csv")
        echo(method_table(comparison).to_string(index=False))
        print_findings(out)
        echo(f"\nThe table: {out / 'accuracy.csv'}")
    exit_if_runs_failed(out)
    engine.exit_if_untold()


@verb
def run(
    networks: Annotated[
        list[str],
        typer.Argument(metavar="NETWORK...|STUDY", help="networks as elsewhere, or a study file"),
    ],
    network_options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    search: SearchOptions,
    engine: EngineOptions,
    keeping: StudyFileOptions,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="a task's name, folder:PATH or npz:PATH; repeat"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="default: runs/NAME")] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="file of the best model; a folder for several networks or tasks"),
    ] = None,
    method: Methods = ["ap"],  # noqa: B006 - typer reads the default, nothing mutates it
    measures: Measures = None,
    images: Images = 512,
) -> None:
    """The whole job: profile, sweep, relate and report; run again to continue.

    Without more words it is a quick look: some layers, two seeds, few epochs; --full is all.
    """
    _log.info(LOADING)
    from aptheory.studies.study import Study

    if len(networks) == 1 and networks[0].endswith(".toml"):
        given = {"--task": task, "--method": method != ["ap"]}
        _alone(networks[0], given, network_options, images_of, on, search)
        planned = on.placed(Study.from_toml(networks[0]))
    elif any(name.endswith(".toml") for name in networks):
        raise InputError("a study file says its networks itself; give it alone.")
    elif task:
        training = search.training()
        methods = search.methods(method)
        planned = study(networks, task, network_options, images_of, on, training, methods)
    else:
        raise InputError("nothing to run on: give --task, or a study file.")
    if measures is not None:
        from aptheory.profiling.watchers import check_measures

        check_measures(measures.split(","))
    own = networks[0] if not task else None
    if save is not None:
        spare(save, _reads(planned, own), "--save")
        if not save.is_dir():  # which is for several
            refuse_no_file(save)
    if keeping.enough(planned, own):
        return
    _log.info("%s", search.left_out() if task else "the study of the file")
    out = out if out is not None else Path("runs") / planned.name
    _spare_inputs(out, _reads(planned, own))
    kept = {"save_models": save is not None}
    _explore(planned, out, measures=measures, images=images, **engine.settings(), **kept)
    if save is not None:  # of the runs that succeeded, if some failed
        _save_winners(planned, out, save)
    exit_if_runs_failed(out)
    engine.exit_if_untold()


def _save_winners(planned: Any, out: Path, to: Path) -> None:
    """Write the best model of each network and task, and say what it is."""
    from aptheory.checked import safe_stem
    from aptheory.models.winner import winner

    opened = planned.open()
    pairs = [(each.net, every.task) for each in opened.networks for every in opened.tasks]
    for net, task in pairs:
        path = to if len(pairs) == 1 else to / f"{safe_stem(net.name, task.name)}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        model = winner(out, net, task)
        model.save(path)
        echo(f"{model}\n{path}")


@verb
def demo(out: Out = Path("runs/demo")) -> None:
    """The whole job on the embedded networks and tasks: two of each, about four minutes."""
    _log.info(LOADING)
    from aptheory.exploration import DEMO

    _explore(DEMO, out, images=256)
    exit_if_runs_failed(out)


def _explore(planned: Any, out: Path, *, measures: str | None = None, **options: Any) -> None:
    from aptheory.exploration import MEASURES, explore

    wanted = tuple(measures.split(",")) if measures else MEASURES
    print_findings(out, explore(planned, out, measures=wanted, **options))


def exit_if_runs_failed(out: Path) -> None:
    """End with exit code 1 when runs failed: how many, why, and how to try them again; and when a
    method that was asked for has no run, since it fits none of the networks."""
    from aptheory.studies.status import status

    standing = status(out)
    if standing.failed:
        echo(f"{len(standing.failed)} of {standing.total} runs failed.", err=True)
        for sentence in standing.failures:
            echo(f"  {sentence}", err=True)
    if standing.unused:
        echo(f"no run of {', '.join(standing.unused)}, which fits no network:", err=True)
        for sentence in standing.not_applicable:
            echo(f"  {sentence}", err=True)
    if standing.failed or standing.unused:
        raise typer.Exit(1)

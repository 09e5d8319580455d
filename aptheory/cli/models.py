"""Verbs of one model: fit it, ask it, judge it, export it."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from aptheory.cli.application import echo, verb
from aptheory.cli.options import (
    DecodingThreads,
    DeviceOptions,
    Network,
    NetworkOptions,
    Seed,
    Task,
    TaskOptions,
    Tracker,
    reserved,
    sources,
)
from aptheory.errors import InputError, reason_of

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="a file that fit wrote")]

_log = logging.getLogger("aptheory")


@dataclass(kw_only=True)
class ModelOptions:
    """The network below a model, where its file cannot say how to load it."""

    network: Annotated[
        str | None,
        typer.Option(help="module:function of the network, where only code can make it"),
    ] = None
    weights: Annotated[
        Path | None, typer.Option(help="the network's weights, if their file has moved")
    ] = None

    method: Annotated[
        str | None,
        typer.Option(help="module:Class of your own method, where the model has one; is imported"),
    ] = None

    def load(self, path: Path, on: DeviceOptions) -> Any:
        """The model in a file."""
        from aptheory.models.model import load_model

        model = load_model(
            path,
            network=self.network,
            weights=self.weights,
            method=self.method,
            device=on.device,
            precision="float32" if on.precision == "auto" else on.precision,
        )
        model.precision = on.measured(model.network).precision
        return model


@dataclass(kw_only=True)
class FitOptions:
    """How one model is trained."""

    recipe: Annotated[str, typer.Option(help="quick, paper_ap, vpt or vapt")] = "quick"
    epochs: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's own")] = None
    lr: Annotated[float | None, typer.Option(min=0, help="learning rate")] = None
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None
    batch_size: Annotated[int | None, typer.Option(min=1)] = None
    patience: Annotated[
        int, typer.Option(min=0, help="epochs without a better validation; 0 never stops early")
    ] = 10
    augment: Annotated[str, typer.Option(help="none, flip, crop or crop_flip")] = "none"
    mix: Annotated[str, typer.Option(help="none, mixup or cutmix: blends of two images")] = "none"
    label_smoothing: Annotated[float | None, typer.Option(min=0, max=1)] = None
    balance: Annotated[
        bool, typer.Option("--balance", help="weigh rare classes up, so that all count alike")
    ] = False

    def recipe_of(self, precision: str) -> Any:
        """The `Recipe` that the options describe."""
        from aptheory.training.recipe import Recipe

        wanted = {
            "epochs": self.epochs,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "batch_size": self.batch_size,
            "label_smoothing": self.label_smoothing,
        }
        chosen = {name: value for name, value in wanted.items() if value is not None}
        return Recipe.named(
            self.recipe,
            **chosen,
            augment=self.augment,
            mix=self.mix,
            balance="weights" if self.balance else "none",
            precision=precision,
            validate_every=1,
            patience=self.patience or None,
        )


@verb
def fit(
    network: Network,
    task: Task,
    network_options: NetworkOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    training: FitOptions,
    method: Annotated[
        str, typer.Option("--method", "-m", help="such as ap, vpt:tokens=5, norm_tuning")
    ] = "ap",
    layer: Annotated[
        str | None,
        typer.Option(help="a place, recommend (no training), or best (a search over all layers)"),
    ] = None,
    read: Annotated[
        str | None, typer.Option(help="place at which the head reads, or best: with the layer")
    ] = None,
    seed: Seed = 0,
    tracker: Tracker = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="file of the model")] = Path(
        "model.safetensors"
    ),
) -> None:
    """Train one method on one task, keep the best on validation, and write one file.

    Ends with exit code 1 where in the end the test pictures could not be read, the tracker not
    told, or the model not written where it should be: it is kept among the temporary files.
    """
    from aptheory.devices import device_of
    from aptheory.models.fitting import fit_model
    from aptheory.studies.sources import load_network, load_task
    from aptheory.studies.trackers import named

    with reserved(out, Path(network_options.weights), *sources(task)):
        place_of_model = out.absolute()  # a function that makes the network may go elsewhere
        track = named(tracker) if tracker else None
        place = device_of(on.device)
        net = load_network(network_options.spec(network)).to(place)
        recipe = training.recipe_of(on.measured(net).precision)
        images = load_task(images_of.spec(task))
        _log.info("%s on %s (%s), %d classes", net.name, images.name, place, len(images.classes))
        curve: list[dict[str, float]] = []
        model = fit_model(
            net,
            images,
            method=method,
            layer=layer,
            read=read,
            recipe=recipe,
            seed=seed,
            on_epoch=_epochs(recipe.epochs, curve),
        )
        kept_in = _saved(model, place_of_model)
        told = kept_in is None
        if track is not None:
            try:
                track(model.card.record(curve))
            except Exception as error:  # whatever a tracker raises: the model is finished
                _log.warning("%s was not told (%s); the model is kept", tracker, reason_of(error))
                told = False
        if stopped := model.card.training["stopped"]:
            _log.info("stopped early: %s", stopped)
        echo(f"{model}\n{kept_in or out}")
        if "test_accuracy" not in model.card.scores or not told:
            raise typer.Exit(1)


def _saved(model: Any, place: Path) -> Path | None:
    """Save a model; where its place has become one that cannot be written, among the temporary
    files: then that is said, and the path there is given."""
    try:
        model.save(place)
    except (InputError, OSError) as error:
        rescued = Path(tempfile.mkdtemp(prefix="aptheory-")) / place.name
        model.save(rescued)  # what it raises is told, as there is no other place
        _log.warning("%s The model is kept in %s.", error, rescued)
        return rescued
    return None


def _epochs(total: int, curve: list[dict[str, float]]) -> Callable[[dict[str, float]], None]:
    """Says each epoch, or every so many that fifty lines are enough, and adds it to ``curve``."""
    every = max(1, total // 50)

    def say(point: dict[str, float]) -> None:
        curve.append(point)
        epoch = int(point["epoch"])
        if epoch % every and epoch != total:
            return
        words = [f"epoch {epoch} of {total}", f"loss {point['train_loss']:.3f}"]
        for split, name in (("train", "training"), ("val", "validation")):
            if f"{split}_accuracy" in point:
                words.append(f"{name} {100 * point[f'{split}_accuracy']:.1f} %")
        _log.info(", ".join(words))

    return say


@verb
def predict(
    file: ModelFile,
    pictures: Annotated[list[str], typer.Argument(help="pictures, or folders of them")],
    model_options: ModelOptions,
    on: DeviceOptions,
    workers: DecodingThreads = None,
    top: Annotated[int, typer.Option(min=1, help="how many classes a picture")] = 1,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    csv: Annotated[bool, typer.Option("--csv", help="print as CSV")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write the CSV here")] = None,
) -> None:
    """Name the classes of pictures; those that cannot be decoded are named and passed over.

    Ends with exit code 1 where any was.
    """
    from aptheory.models.pictures import place_of
    from aptheory.studies.files import write_atomically
    from aptheory.studies.tables import csv_text

    places = [place_of(picture) for picture in pictures]  # before a folder is made for --out
    with reserved(out, file, *places):
        model = model_options.load(file, on)
        table = model.predict(
            places, top=top, batch_size=batch_size, workers=workers, progress=True
        )
        if out is not None:
            write_atomically(out, csv_text(table))
    if out is not None:
        echo(f"{len(table)} pictures in {out}")
    elif csv:
        typer.echo(csv_text(table), nl=False)
    elif len(table):
        echo(table.to_string(index=False, float_format=lambda share: f"{share:.3f}"))
    if passed_over := table.attrs["passed_over"]:
        _log.warning(
            "%d of %d pictures passed over", len(passed_over), len(passed_over) + len(table)
        )
    if passed_over or table.empty:
        raise typer.Exit(1)


@verb
def evaluate(
    file: ModelFile,
    task: Task,
    model_options: ModelOptions,
    images_of: TaskOptions,
    on: DeviceOptions,
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    out: Annotated[Path, typer.Option("--out", "-o", help="the page; tables lie beside it")] = Path(
        "evaluation.html"
    ),
) -> None:
    """Score a model on labelled pictures, with intervals, and write a page of its mistakes."""
    from aptheory.models.evaluation import evaluate as judge
    from aptheory.reporting.evaluation_page import evaluation_page
    from aptheory.studies.files import write_together
    from aptheory.studies.settings import command
    from aptheory.studies.sources import load_task
    from aptheory.studies.tables import csv_text
    from aptheory.tasks.readers.suffixes import suffix_of

    scores, classes = (out.with_suffix(f".{name}.csv") for name in ("scores", "classes"))
    with reserved(out, file, *sources(task), also=(scores, classes)):
        if suffix_of(out.name) not in (".html", ".htm"):
            raise InputError(
                f"--out {out} is to be a page of HTML; name a file such as {out}.html."
            )
        model = model_options.load(file, on)
        images = load_task(images_of.spec(task))
        evaluation = judge(model, images, split=split)
        echo(f"{evaluation}\n")  # what was measured is told, whatever becomes of the files
        page = evaluation_page(evaluation, getattr(images, split), command=command())
        tables = {scores: evaluation.scores, classes: evaluation.by_class}
        write_together({**{path: csv_text(table) for path, table in tables.items()}, out: page})
        echo(f"The page: {out.resolve()}")


@verb
def export(
    file: ModelFile,
    to: Annotated[str, typer.Option("--to", help="torch, onnx or timm")],
    model_options: ModelOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="default: the model's name with .pt2, .onnx")
    ] = None,
) -> None:
    """Write a model for other programs, checked against itself: torch.export, ONNX, plain timm."""
    from aptheory.models.exporting import export as write

    suffix = {"torch": ".pt2", "onnx": ".onnx", "timm": ".timm.safetensors"}.get(to, "")
    place = out or file.with_suffix(suffix)
    cpu = DeviceOptions(device="cpu")
    if out is None and place == file:
        model_options.load(file, cpu)  # which says what is wrong with a file that is no model
        raise InputError(f"{file} is the model itself; name the file to write with --out.")
    with reserved(place, file):
        error = write(model_options.load(file, cpu), place, to=to)
    echo(
        f"{place}: on four random images the logits differ from the model's by at most {error:.1e} "
        "of the largest"
    )

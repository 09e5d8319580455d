"""What each unit of the campaign trains: one function a question, runs out as plain rows.

Every method is trained at every rate of the plan; which rate counts is chosen afterwards, on
validation pictures, from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import aptheory as ap
from analyses.campaign_bench import Bench, Machine, Row, cost
from analyses.campaign_plan import MAP_PLACES, RECIPE, Unit, load_network, load_task, swept
from aptheory.methods.spans import Span
from aptheory.networks.network import Network
from aptheory.tasks import ArraySplit

SELECTED = 0.1
"""Share of all features that the selecting probe keeps, as Head2Toe's middle setting."""


def _bench(unit: Unit, on: Machine) -> Bench:
    net, task = load_network(unit.network, on.assets), load_task(unit.task, unit.seed, on.assets)
    return Bench(net, task, seed=unit.seed, on=on)


def probes(bench: Bench) -> tuple[list[Row], int]:
    """The probe of every place, and the place of the one that is best on validation pictures."""
    rows: list[Row] = []
    best_of: dict[int, Row] = {}
    for layer in bench.net.layers:
        found = list(bench.rows("layer_probe", ap.LayerProbe(layer=layer.index)))
        rows += found
        best_of[layer.index] = min(found, key=cost)
    return rows, min(best_of, key=lambda place: cost(best_of[place]))


def sweep(unit: Unit, on: Machine) -> Iterator[Row]:
    """AP at each place, read at the end and at the best probe's place, with every control."""
    bench = _bench(unit, on)
    last = len(bench.net.layers) - 1
    rows, reading = probes(bench)
    yield from rows
    yield from bench.rows("linear_probe", ap.LinearProbe())
    yield from bench.rows("all_layers_probe", ap.LayerProbe(layer="all"))
    selecting = ap.LayerProbe(layer="all", select=SELECTED)
    yield from bench.rows("all_layers_probe_selected", selecting)
    for place in [*swept(bench.net), last]:
        for read in sorted({reading, last}):
            if place <= read:
                yield from _prompt_and_control(bench, place, None if read == last else read)
    for read in sorted({reading, last}):
        method = ap.VisualPrompt(frame=max(1, bench.net.input_shape[1] // 8))
        method = replace(method, read=None if read == last else read)
        yield from bench.rows("vp_frame", method)


def _prompt_and_control(bench: Bench, place: int, read: int | None) -> Iterator[Row]:
    """The prompt at a place, and a random pattern of the norm that the chosen prompt came to."""
    rows = list(bench.rows("ap", ap.ActivationPrompt(layer=place, read=read)))
    yield from rows
    norm = min(rows, key=cost)["norm"]
    if norm:
        control = ap.RandomPerturbation(layer=place, norm=norm, read=read)
        yield from bench.rows("random", control)


def norm(unit: Unit, on: Machine) -> Iterator[Row]:
    """AP against normalisation at the same place: full, channel, beta, gamma and beta."""
    bench = _bench(unit, on)
    yield from bench.rows("linear_probe", ap.LinearProbe())
    spans: list[tuple[int, Span]] = places_with_norms(bench.net)
    for place, span in spans:
        yield from bench.rows("ap", ap.ActivationPrompt(layer=place))
        yield from bench.rows("ap_channel", ap.ActivationPrompt(layer=place, shape="channel"))
        for label, scale in (("beta", False), ("gamma_beta", True)):
            method = ap.NormTuning(layer=span, scale=scale)
            yield from bench.rows(label, method, place=place)
    yield from bench.rows("all_beta", ap.NormTuning(scale=False))
    yield from bench.rows("all_norms", ap.NormTuning())


def places_with_norms(net: Network) -> list[tuple[int, Span]]:
    """Each swept place with the nearest piece at or behind it that holds a norm."""
    found: list[tuple[int, Span]] = []
    for place in swept(net):
        for start in range(place, len(net.layers) - 1):
            try:
                ap.NormTuning(layer=start).attach(net, classes=2)
            except ap.InputError:
                continue
            found.append((place, start))
            break
    return found


def layer_map(unit: Unit, on: Machine) -> Iterator[Row]:
    """Accuracy over (l, k): a prompt at every place, read at every later one."""
    bench = _bench(unit, on)
    last = len(bench.net.layers) - 1
    places = swept(bench.net, MAP_PLACES)
    for read in [*places, last]:
        yield from bench.rows("layer_probe", ap.LayerProbe(layer=read))
    for place in places:
        for read in [*places, last]:
            if place <= read:
                method = ap.ActivationPrompt(layer=place, read=None if read == last else read)
                yield from bench.rows("ap", method)


COMPARED_RATES = (3e-2, 1e-2, 3e-3, 1e-3)
METHODS: tuple[str, ...] = (
    *("linear_probe", "norm_tuning", "norm_tuning:scale=false", "bitfit", "ssf"),
    *("lora:rank=4", "adapter:bottleneck=16", "vpt:tokens=10", "vpt:tokens=10,deep=false"),
    *("vapt:tokens=10", "gate_vpt:tokens=10", "e2vpt:tokens=10", "vp", "partial", "full"),
)


def compare(unit: Unit, on: Machine) -> Iterator[Row]:
    """Every method at its own best rate, of four and those that follow while the best lies at the
    edge; AP at every place, at the end and read earlier."""
    bench = _bench(unit, on)
    last = len(bench.net.layers) - 1
    rows, reading = probes(bench)
    yield from rows
    for text in METHODS:
        rates = COMPARED_RATES
        if text in ("partial", "full"):
            rates = (1e-3, 3e-4, 1e-4, 3e-5)
        if text == "vp":
            rates = (1e-1, *COMPARED_RATES)
        try:
            for read in sorted({reading, last}) if text != "full" else (last,):
                method = ap.methods.parse(text)
                method = replace(method, read=None if read == last else read)
                yield from bench.rows_with_best_inside(text, method, rates=rates)
        except ap.InputError:
            continue  # the method does not fit this network
    for rank in (1, 4):
        method = ap.ActivationPrompt(layer=0, rank=rank)
        label = f"vp_rank{rank}"
        yield from bench.rows_with_best_inside(label, method, rates=COMPARED_RATES)
    for place in swept(bench.net, MAP_PLACES):
        for read in sorted({reading, last}):
            if place <= read:
                method = ap.ActivationPrompt(layer=place, read=None if read == last else read)
                yield from bench.rows_with_best_inside("ap", method, rates=COMPARED_RATES)


class PlantedNetwork(Network):
    """A network with a fixed tensor added to what enters one place: a flaw with a known cure."""

    planted: tuple[int, Tensor]

    def run(self, x: Tensor, *, start: Any = 0, stop: Any = None) -> Tensor:
        place, tensor = self.planted
        begin = self.place(start).index
        end = len(self.layers) if stop is None else self.place(stop).index
        # What enters the place is flawed when it arrives there, and once only.
        if begin < place <= end and place < len(self.layers):
            x = super().run(x, start=begin, stop=place) + tensor.to(x)
            return super().run(x, start=place, stop=stop)
        return super().run(x, start=start, stop=stop)


def plant(net: Network, place: int, size: float, seed: int) -> PlantedNetwork:
    """``net`` with a random tensor at ``place``, ``size`` times the activation's RMS there."""
    images = torch.randn(16, *net.input_shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        z = net.run(images.to(net.device), stop=place)
    generator = torch.Generator().manual_seed(seed + 1)
    tensor = torch.randn(z.shape[1:], generator=generator) * float(z.square().mean().sqrt()) * size
    return with_tensor(net, place, tensor)


def with_tensor(net: Network, place: int, tensor: Tensor) -> PlantedNetwork:
    """``net`` with a tensor added to whatever enters ``place``."""
    flawed = PlantedNetwork.__new__(PlantedNetwork)
    flawed.__dict__ = {**net.__dict__, "_modules": dict(net._modules), "_until": {}}
    flawed.__dict__["planted"] = (place, tensor.to(net.device))
    return flawed


PLANTED_TRAIN, PLANTED_EPOCHS = 200, 20
PLANTED_SIZES = (0.25, 0.5, 1.0)
PLANTED_RATES = (3e-2, 1e-2)
"""A prompt of 80 steps moves by about 40 times its rate: a smaller one undoes no large tensor."""


def planted(
    unit: Unit,
    on: Machine,
    *,
    sizes: Sequence[float] = PLANTED_SIZES,
    rates: Sequence[float] = PLANTED_RATES,
) -> Iterator[Row]:
    """The positive control: the sweep must find the place of a planted tensor."""
    task = load_task(unit.task, unit.seed, on.assets).subset(train=PLANTED_TRAIN, seed=unit.seed)
    clean = load_network(unit.network, on.assets)
    places = swept(clean, MAP_PLACES)
    recipe = RECIPE.but(epochs=PLANTED_EPOCHS)
    for where in (places[2], places[-3]):
        for size in sizes:
            net = plant(clean.to(on.device), where, size, unit.seed)
            bench = Bench(net, task, seed=unit.seed, on=on, recipe=recipe)
            yield from _searched(bench, places, rates, planted_at=where, planted_size=size)


def _searched(
    bench: Bench, places: Sequence[int], rates: Sequence[float], **told: Any
) -> Iterator[Row]:
    """The probe of a flawed network, and a prompt at each place of it."""
    yield from bench.rows("linear_probe", ap.LinearProbe(), **told)
    for place in places:
        yield from bench.rows("ap", ap.ActivationPrompt(layer=place), rates=rates, **told)
    bench.kept.close()


def planted_large(unit: Unit, on: Machine) -> Iterator[Row]:
    """The same with one tensor of four times the RMS, and a rate that can undo it; looked at after
    the smaller ones had hardly been noticed by the probe."""
    return planted(unit, on, sizes=(4.0,), rates=(1e-1, 3e-2))


TRAINED_SIZES = (1.0, 2.0, 4.0)
TRAINED_RATES = (1e-1, 3e-2)


def planted_trained(unit: Unit, on: Machine) -> Iterator[Row]:
    """The same with the negative of the prompt that the clean network learns there, once, twice and
    four times: a tensor that hurts this task, as a random one hardly does."""
    task = load_task(unit.task, unit.seed, on.assets).subset(train=PLANTED_TRAIN, seed=unit.seed)
    clean = load_network(unit.network, on.assets)
    places = swept(clean, MAP_PLACES)
    recipe = RECIPE.but(epochs=PLANTED_EPOCHS)
    for where in (places[2], places[-3]):
        bench = Bench(clean, task, seed=unit.seed, on=replace(on, parts=None), recipe=recipe)
        outcomes = bench.train(ap.ActivationPrompt(layer=where), rates=PLANTED_RATES)
        prompt = prompt_of(min(outcomes, key=lambda one: one.score.cost("accuracy")))
        bench.kept.close()
        for size in TRAINED_SIZES:
            net = with_tensor(clean, where, -size * prompt)
            bench = Bench(net, task, seed=unit.seed, on=on, recipe=recipe)
            yield from _searched(bench, places, TRAINED_RATES, planted_at=where, planted_size=size)


def prompt_of(outcome: ap.Outcome) -> Tensor:
    """The tensor that an activation prompt's run has learnt."""
    adapted = outcome.adapted
    if adapted is None:
        raise ap.InputError("the prompt to be planted diverged; plant it with smaller rates.")
    edits = [edit for place in adapted.places for edit in adapted.edits_at(place)]
    value: Tensor = next(edit for edit in edits if hasattr(edit, "value")).value()[0]
    return value.detach()


DIALS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {}


def _pixels(split: Any, size: tuple[int, int]) -> np.ndarray:
    images: Tensor = split.images(np.arange(len(split)), size)
    return images.permute(0, 2, 3, 1).numpy().astype(np.float64)


def lower_resolution(pixels: np.ndarray, level: float) -> np.ndarray:
    """Fewer pixels: reduced by ``level`` with area averaging, and enlarged again."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    side = max(2, round(x.shape[-1] / level))
    small = torch.nn.functional.interpolate(x, size=(side, side), mode="area")
    big = torch.nn.functional.interpolate(small, size=x.shape[-2:], mode="bilinear")
    return big.permute(0, 2, 3, 1).numpy()


def fixed_pattern(pixels: np.ndarray, level: float) -> np.ndarray:
    """The same smooth random pattern on every image, ``level`` grey values strong."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.randn(1, 3, 8, 8, generator=generator, dtype=torch.float64)
    size = pixels.shape[1:3]
    pattern = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0]
    return pixels + level * pattern.permute(1, 2, 0).numpy()


def less_colour(pixels: np.ndarray, level: float) -> np.ndarray:
    """Towards the negative of the colours: 0 leaves them, 1 is grey, 2 the complement."""
    grey = pixels.mean(-1, keepdims=True)
    return grey + (1 - level) * (pixels - grey)


DIALS = {
    "resolution": lower_resolution,
    "pattern": fixed_pattern,
    "colour": less_colour,
}
LEVELS = {"resolution": (2.0, 4.0), "pattern": (32.0, 64.0), "colour": (1.0, 2.0)}


def dialled(task: ap.Task, size: tuple[int, int], dial: str, level: float) -> ap.Task:
    """The task with every picture shifted in one way."""
    splits = []
    for name in ("train", "val", "test"):
        split = getattr(task, name)
        shifted = DIALS[dial](_pixels(split, size), level)
        splits.append(
            ArraySplit(np.clip(shifted, 0, 255).round().astype(np.uint8), np.array(split.labels))
        )
    return ap.Task(f"{task.name}+{dial}{level:g}", task.classes, *splits)


def dial(unit: Unit, on: Machine) -> Iterator[Row]:
    """The same images, shifted in steps: where does the prompt help, where does reading earlier?"""
    task = load_task(unit.task, unit.seed, on.assets)
    net = load_network(unit.network, on.assets)
    size = (net.input_shape[1], net.input_shape[2])
    last = len(net.layers) - 1
    for name, levels in LEVELS.items():
        for level in levels:
            shifted = dialled(task, size, name, level)
            bench = Bench(net, shifted, seed=unit.seed, on=on)
            told = {"dial": name, "level": level}
            rows, reading = probes(bench)
            yield from ({**row, **told} for row in rows)
            for place in swept(net, MAP_PLACES):
                for read in sorted({reading, last}):
                    if place <= read:
                        method = ap.ActivationPrompt(
                            layer=place, read=None if read == last else read
                        )
                        yield from bench.rows("ap", method, **told)
            bench.kept.close()


QUESTIONS: dict[str, Callable[[Unit, Machine], Iterator[Row]]] = {
    "sweep": sweep,
    "pretraining": sweep,
    "norm": norm,
    "map": layer_map,
    "methods": compare,
    "planted": planted,
    "planted_large": planted_large,
    "planted_trained": planted_trained,
    "dial": dial,
}

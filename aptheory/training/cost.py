"""What a method costs: parameters, operations, time, memory, throughput; predicted and measured.

The prediction needs only the place l at which the network first feels the method. With F the
operations of one forward pass and F_after(l) those after place l, and no gradient for frozen
weights, a training step costs an image:

    F + F_after(l)         as the papers train: forward everything, backward to place l
    2 F_after(l)           from kept activations: nothing before place l is run
    2 F                    visual prompting (l = 0)

A product of two activations, as in attention, has a gradient for each and counts twice on the
way back. Weights that are trained add their own gradient, as many operations as their forward
pass. One multiply-add is two operations; only convolutions and matrix products are counted,
attention's among them (PyTorch's counter gives its fused attention on a CPU as zero, so the
unfused path is counted).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from aptheory.arguments import LARGEST_OPTION, Between, Count, Precision, Seed, checked_arguments
from aptheory.devices import autocast
from aptheory.errors import InputError
from aptheory.metrics.intervals import bootstrap
from aptheory.training.memory import out_of_memory

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted, Method
    from aptheory.networks.network import Network


def count_operations(function: Callable[[], Any]) -> float:
    """Operations (2 a multiply-add) of the convolutions and matrix products that a call runs."""
    return sum(_counted(function).values())


def _counted(function: Callable[[], Any]) -> dict[str, float]:
    """Operator name -> operations."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return {str(op): float(n) for op, n in counter.get_flop_counts().get("Global", {}).items()}


@dataclass(frozen=True)
class Operations:
    """For one image and the piece that follows each place: forward, and back to its input."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]


def piece_operations(net: Network) -> Operations:
    """Count every piece of a network; the forward entries add up to F.

    The last entry is the model's own classifier (0 where it has none).
    """
    forward, backward = [], []
    device = net.device
    with torch.no_grad():
        for layer in net.layers:
            z = torch.zeros(1, *layer.shape, device=device, dtype=net.dtype)
            stop = layer.index + 1 if layer.index + 1 < len(net.layers) else None
            counts = _counted(partial(net.run, z, start=layer.index, stop=stop))
            forward.append(sum(counts.values()))
            # Batched products are those of two activations; weights enter by mm, addmm and conv.
            products = sum(n for op, n in counts.items() if "bmm" in op)
            backward.append(forward[-1] + products)
    return Operations(tuple(forward), tuple(backward))


@dataclass(frozen=True)
class Prediction:
    """Operations for one image, told from the place at which the network first feels a method."""

    forward: float
    step: float
    step_from_kept: float
    step_of_visual_prompting: float


def predict(adapted: Adapted, operations: Operations | None = None) -> Prediction:
    """The cost model for a method attached to a network; ``operations`` as `piece_operations`.

    The head adds 2 * width * classes to the forward pass, as much for its weights' gradient and
    for its input's. What the method itself computes (prompt tokens, adapters) is left out.
    """
    net, first, last = adapted.source, adapted.first_layer, adapted.exit
    ops = operations or piece_operations(net)
    head = 2.0 * adapted.head.shift.shape[-1] * adapted.classes
    asked = adapted.summaries.shares.items()
    before, after = sum(ops.forward[:first]), sum(ops.forward[first:last])
    after += sum(share * ops.forward[i] for i, share in asked)
    learning = head
    if any(weight.requires_grad for weight in adapted.net.parameters()):
        learning += sum(
            (2 * ops.forward[i] - ops.backward[i])
            * _trained_share(adapted.net, i)  # the weights' products
            for i in range(last)
        )
    if asked:  # gradients reach what runs once more, and never the pieces themselves
        learning += sum(share * ops.backward[i] for i, share in asked) + head
    elif _backward_reaches(adapted):
        learning += sum(ops.backward[first:last]) + head
    features = len(net.layers) - 1
    return Prediction(
        forward=before + after + head,
        step=before + after + head + learning,
        step_from_kept=after + head + learning,
        step_of_visual_prompting=sum(ops.forward[:features])
        + sum(ops.backward[:features])
        + 3 * head,
    )


def _trained_share(net: Network, piece: int) -> float:
    """Of the entries of a piece's weight matrices and kernels."""
    parameters = dict(net.module.named_parameters(remove_duplicate=False))
    weights = [parameters[name] for name in net.parameters_between(piece, piece + 1)]
    weights = [weight for weight in weights if weight.dim() >= 2]
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return trained / max(1, sum(weight.numel() for weight in weights))


def _backward_reaches(adapted: Adapted) -> bool:
    """Whether anything but the head learns: else no gradient enters the frozen layers."""
    return any(not name.startswith("head.") for name, _ in adapted.run_parameters(0))


# -------------------------------------------------------------------------------- measuring


def _train_step(
    adapted: Adapted, optimizer: Any, x: Tensor, y: Tensor, *, kept: bool, dtype: str
) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(x.device, dtype):
            if kept or adapted.first_layer == 0:
                z = x
            else:
                with torch.no_grad():
                    z = adapted.net.run(x, stop=adapted.first_layer)
            logits = adapted.rest(z).float()
        F.cross_entropy(logits, y).backward()
        optimizer.step()

    return step


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what C++ code writes to stderr: the profiler announces itself there at every start."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def step_memory(step: Callable[[], Any], device: torch.device) -> int:
    """Largest memory in bytes that one call holds beyond what was held before it.

    On a GPU the allocator's own peak. On a CPU the allocator's events as torch.profiler records
    them: resident memory would mix in what the process keeps for other reasons.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    with (
        _silent_stderr(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        step()
    results = profiler.profiler.kineto_results
    events = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        peak = max(peak, held)
    return peak


def _timed(step: Callable[[], Any], device: torch.device, clock: str) -> float:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.process_time() if clock == "cpu" else time.perf_counter()

    start = now()
    step()
    return now() - start


@checked_arguments
def cost(
    net: Network,
    methods: Method | Sequence[Method],
    *,
    classes: Annotated[int, Between(1, LARGEST_OPTION)] = 100,
    batch_size: Annotated[int, Between(1, 2**14)] = 32,
    images: Count = 1000,
    kept: Sequence[bool] = (False, True),
    precision: Precision = "float32",
    repeats: Count = 5,
    clock: str = "wall",
    measure: bool = True,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Cost of methods on a network, one row a method and setting, predicted beside measured.

    ``kept=False`` is the papers' setting, ``True`` trains from kept activations (left out where
    the method acts at the image, as there is nothing to keep). ``images`` is the size of an epoch.
    Steps run on random images, in turn over the methods, and the median of ``repeats`` is taken;
    a ratio is that of the medians, its 95 % interval the bootstrap's over turns (both of its
    steps ran in each). ``clock="cpu"`` counts processor time instead of wall time, for a busy
    machine.
    ``measure=False`` predicts only.

    Columns (times in ms, memory in MB = 10^6 bytes, operations in GFLOP an image):
    network, method, first_layer, layer_name, kept, parameters, parameters_without_head,
    forward_gflop, step_gflop (predicted), step_gflop_counted, predicted_ratio (of a step of
    visual prompting), measured_ratio, step_ms, epoch_seconds, first_epoch_seconds (keeping
    included), peak_memory_mb, throughput (images/s in inference), throughput_ratio (of the frozen
    network), note; both measured ratios also with _low and _high.
    """
    if clock not in ("wall", "cpu"):
        raise InputError(f"clock must be wall or cpu; got {clock!r}.")
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; expected 1 or more, or measure=False.")
    chosen = list(methods) if isinstance(methods, Iterable) else [methods]
    if not chosen or not kept:
        raise InputError("methods or kept of cost is empty; give at least one of each.")
    net = net.in_float32()  # in which a method learns beside weights of half precision
    device = net.device
    generator = torch.Generator().manual_seed(seed)
    images_in = torch.randn(batch_size, *net.input_shape, generator=generator).to(device, net.dtype)
    labels = torch.randint(classes, (batch_size,), generator=generator).to(device)
    operations = piece_operations(net)
    cases: list[_Case] = []
    for method in chosen:
        adapted = method.attach(net, classes=classes, seed=seed).to(device)
        prediction = predict(adapted, operations)
        optimizer = torch.optim.SGD(adapted.trainable, lr=1e-3, momentum=0.9)
        for keep in kept:
            if keep and adapted.first_layer == 0:
                continue
            predicted = prediction.step_from_kept if keep else prediction.step
            row: dict[str, Any] = {
                "network": net.name,
                "method": method.name,
                "first_layer": adapted.first_layer,
                "layer_name": net.layers[adapted.first_layer].name,
                "kept": keep,
                "parameters": adapted.count(),
                "parameters_without_head": adapted.count(head=False),
                "forward_gflop": prediction.forward / 1e9,
                "step_gflop": predicted / 1e9,
                "predicted_ratio": predicted / prediction.step_of_visual_prompting,
                "note": "",
            }
            x = images_in
            if keep:
                with torch.no_grad(), autocast(device, precision):
                    x = net.run(images_in, stop=adapted.first_layer).to(net.dtype)
            step = _train_step(adapted, optimizer, x, labels, kept=keep, dtype=precision)
            cases.append(_Case(row, step, _inference(adapted, images_in, precision)))
    if measure:
        from aptheory.methods import VisualPrompt

        baseline = VisualPrompt().attach(net, classes=classes, seed=seed).to(device)
        optimizer = torch.optim.SGD(baseline.trainable, lr=1e-3, momentum=0.9)
        step = _train_step(baseline, optimizer, images_in, labels, kept=False, dtype=precision)
        reference = _Case({"note": ""}, step, _frozen(net, images_in, precision))
        _measure([*cases, reference], device, batch_size, repeats, clock)
        for case in cases:
            case.conclude(reference, operations, batch_size=batch_size, images=images)
    return pd.DataFrame([case.row for case in cases])


@dataclass(eq=False)
class _Case:
    """A row of the table, the two calls that are timed for it, and their seconds, one a turn.

    What does not fit into memory gets a note in its row, and no times.
    """

    row: dict[str, Any]
    step: Callable[[], Any]
    inference: Callable[[], Any]
    step_seconds: list[float] = field(default_factory=list)
    inference_seconds: list[float] = field(default_factory=list)

    def warm_up(self, device: torch.device, batch_size: int) -> None:
        """Run both once, and measure what need not be repeated."""
        self.step()
        self.row["step_gflop_counted"] = count_operations(self.step) / batch_size / 1e9
        self.row["peak_memory_mb"] = step_memory(self.step, device) / 1e6
        self.inference()

    def time(self, device: torch.device, clock: str) -> None:
        self.step_seconds.append(_timed(self.step, device, clock))
        self.inference_seconds.append(_timed(self.inference, device, clock))

    def conclude(
        self, reference: _Case, operations: Operations, *, batch_size: int, images: int
    ) -> None:
        """Write the times into the row, and their ratios to those of ``reference``."""
        if self.row["note"]:
            return
        row, batches = self.row, math.ceil(images / batch_size)
        row["step_ms"] = 1e3 * float(np.median(self.step_seconds))
        row["throughput"] = batch_size / float(np.median(self.inference_seconds))
        row["epoch_seconds"] = row["step_ms"] * batches / 1e3
        if reference.row["note"]:
            return
        row |= _ratio("measured_ratio", self.step_seconds, reference.step_seconds)
        row |= _ratio("throughput_ratio", reference.inference_seconds, self.inference_seconds)
        before = sum(operations.forward[: row["first_layer"]]) / sum(operations.forward)
        forward = float(np.median(reference.inference_seconds)) / batch_size
        keeping = images * forward * before if row["kept"] else 0.0
        row["first_epoch_seconds"] = row["epoch_seconds"] + keeping


def _inference(adapted: Adapted, x: Tensor, precision: str) -> Callable[[], Any]:
    def call() -> None:
        adapted.eval()
        with torch.no_grad(), autocast(x.device, precision):
            adapted(x)
        adapted.train()

    return call


def _frozen(net: Network, x: Tensor, precision: str) -> Callable[[], Any]:
    def call() -> None:
        with torch.no_grad(), autocast(x.device, precision):
            net.run(x, stop=len(net.layers) - 1)

    return call


def _measure(
    cases: Sequence[_Case], device: torch.device, batch_size: int, repeats: int, clock: str
) -> None:
    """Time every case ``repeats`` times, in turn; one that does not fit is passed over."""
    for turn in range(repeats + 1):
        for case in cases:
            if case.row["note"]:
                continue
            try:
                if turn == 0:
                    case.warm_up(device, batch_size)
                else:
                    case.time(device, clock)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                case.row["note"] = "out of memory"


def _ratio(name: str, numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Ratio of two medians over the same turns, with its bootstrap interval over turns."""
    above, below = np.asarray(numerator), np.asarray(denominator)
    ratio = {name: float(np.median(above) / np.median(below))}
    if len(above) > 1:
        ratio[f"{name}_low"], ratio[f"{name}_high"] = bootstrap(
            lambda turns: float(np.median(above[turns]) / np.median(below[turns])), len(above)
        )
    return ratio


# -------------------------------------------------------------------------------- the front


def front(
    table: pd.DataFrame, *, cost: str = "step_ms", value: str = "test_accuracy"
) -> pd.DataFrame:
    """The rows that no other row beats in both accuracy and cost, cheapest first.

    A row is beaten by one that is no dearer and no worse, and better in one of the two. Rows
    without both numbers are left out.
    """
    for column in (cost, value):
        if column not in table:
            raise InputError(
                f"The table has no column {column!r}; it has {', '.join(map(str, table))}."
            )
    rows = table.dropna(subset=[cost, value]).sort_values([cost, value], ascending=[True, False])
    best = rows[value].cummax().shift(fill_value=-math.inf)
    return rows[rows[value] > best].reset_index(drop=True)

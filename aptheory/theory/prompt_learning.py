"""Learn the prompts of thousands of small frozen networks at once.

Model: hinge loss, minibatch SGD on the prompt alone [recalled]. Runs are one more leading
dimension: repetitions × training-set sizes × learning rates learn side by side, on the processor or
on an accelerator. The loss is the sum over runs of each run's mean loss, so that every run gets its
own gradient.

Arithmetic is float32: the outcomes are error counts of stochastic trainings, and a rounding of
1e-7 moves them no more than another seed does. A seed decides everything on one kind of device;
another kind draws other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from aptheory.errors import InputError
from aptheory.theory.patterns import Patterns, Samples

PromptShape = Literal["token", "shared"]
"""One vector a token, or one for all tokens."""


@runtime_checkable
class FrozenNetwork(Protocol):
    """What can be prompted: see two_layer_vit.TwoLayerViT for the shapes."""

    @property
    def places(self) -> tuple[str, ...]: ...

    def to(self, device: torch.device | str) -> FrozenNetwork: ...

    def prompt_shape(self, place: str, shape: PromptShape) -> tuple[int, int]: ...

    def logits(
        self, samples: Samples, *, place: str | None = None, prompt: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Learning:
    """How a prompt is learned.

    rate : step size of a shared prompt. A token's own prompt sees 1/P of the gradient, so its step
        is `rate` times P unless `scale_rate` is off.
    steps, batch : minibatch SGD.
    schedule : "cosine" to zero, or "constant" (to count steps).
    shape : "token" (one vector a token) or "shared".
    """

    rate: float = 0.02
    steps: int = 400
    batch: int = 16
    schedule: Literal["cosine", "constant"] = "cosine"
    shape: PromptShape = "token"
    scale_rate: bool = True


@dataclass(frozen=True)
class Draws:
    """The samples of one problem: a pool a repetition to train on, and two sets for all to share.

    The rate is chosen on `validation`; errors are reported on `test`.
    """

    pool: Samples | None
    validation: Samples
    test: Samples


@lru_cache(maxsize=2)
def draws(
    data: Patterns,
    repetitions: int,
    most: int,
    *,
    validation: int = 400,
    test: int = 1000,
    seed: int = 0,
    device: str = "cpu",
) -> Draws:
    """Samples for `learn`: `most` a repetition (none where it is 0).

    Networks and places that ask for the same draws get the same ones, so they are paired.
    """
    generator = torch.Generator(device).manual_seed(seed)
    held_out, unseen = data.draw(1, validation, generator), data.draw(1, test, generator)
    pool = data.draw(repetitions, most, generator) if most else None
    return Draws(pool, held_out, unseen)


def learn(
    network: FrozenNetwork,
    data: Patterns,
    place: str,
    *,
    sizes: Sequence[int] | None,
    rates: Sequence[float] | None = None,
    repetitions: int = 8,
    learning: Learning = Learning(),
    test_samples: int = 1000,
    looks: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> pd.DataFrame:
    """Learn a prompt at `place` for every repetition, size and rate; test it `looks` times.

    sizes : training-set sizes; each repetition draws one training set and takes its first n
        samples. None means fresh samples at every step.
    rates : step sizes, in place of `learning.rate`.
    device : where the arithmetic is done.

    Returns one row a run and look: repetition, samples (drawn so far if fresh), rate, step,
    val_error (to choose a rate by: `with_best_rate`), test_error, train_error (NaN if fresh), norm
    (of the prompt, per token), removed (part of the label-free spread of the logit, relative to its
    class gap, that the prompt took away), untouched (test error without a prompt).
    """
    if place not in network.places:
        raise InputError(f"Place must be one of {network.places}, got {place!r}.")
    levels = [(size, rate) for size in sizes or (0,) for rate in rates or (learning.rate,)]
    runs = repetitions * len(levels)
    repetition = torch.arange(runs, device=device) // len(levels)
    counts = torch.tensor([size for size, _ in levels]).repeat(repetitions)
    nominal = torch.tensor([rate for _, rate in levels], dtype=torch.float64).repeat(repetitions)
    drawn = draws(
        data, repetitions, max(sizes or (0,)), test=test_samples, seed=seed, device=device
    )
    limit = counts.to(device)[:, None]
    network = network.to(device)
    generator = torch.Generator(device).manual_seed(seed + 1)

    shape = network.prompt_shape(place, learning.shape)
    scaled = nominal * shape[0] if learning.shape == "token" and learning.scale_rate else nominal
    step_size = scaled.float().to(device)[:, None, None, None]
    factors = [1.0] * learning.steps
    if learning.schedule == "cosine":
        factors = [
            0.5 * (1 + math.cos(math.pi * i / learning.steps)) for i in range(learning.steps)
        ]
    before = network.logits(drawn.test)
    prompt = torch.zeros(runs, 1, *shape, requires_grad=True, device=device)
    looked = {round(learning.steps * (i + 1) / looks) for i in range(looks)}
    frames = []
    for step in range(1, learning.steps + 1):
        if drawn.pool is None:
            batch = data.draw(runs, learning.batch, generator)
        else:
            index = torch.rand(runs, learning.batch, generator=generator, device=device) * limit
            batch = drawn.pool.take((repetition[:, None], index.long()))
        margins = batch.labels * network.logits(batch, place=place, prompt=prompt)
        loss = torch.relu(1 - margins).mean(1).sum()
        (gradient,) = torch.autograd.grad(loss, prompt)
        with torch.no_grad():
            prompt -= factors[step - 1] * step_size * gradient
        if step not in looked:
            continue
        logits = _logits(network, drawn.test, place, prompt)
        held_out = _logits(network, drawn.validation, place, prompt)
        spread = _spread(logits, drawn.test.labels) / _spread(before, drawn.test.labels)
        norm = prompt.detach().double().square().sum((1, 3))
        seen = torch.full((runs,), step * learning.batch) if drawn.pool is None else counts
        frames.append(
            pd.DataFrame(
                {
                    "repetition": repetition.cpu().numpy(),
                    "samples": seen.numpy(),
                    "rate": nominal.numpy(),
                    "step": step,
                    "val_error": _error(held_out, drawn.validation.labels),
                    "test_error": _error(logits, drawn.test.labels),
                    "train_error": _train_error(
                        network, drawn.pool, limit, place, prompt, repetition
                    ),
                    "norm": norm.mean(1).sqrt().cpu().numpy(),
                    "removed": (1 - spread).double().cpu().numpy(),
                    "untouched": float(_error(before, drawn.test.labels)[0]),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def with_best_rate(runs: pd.DataFrame) -> pd.DataFrame:
    """Of each training-set size, the runs at the rate with the smallest mean validation error.

    Places are compared each at its own best step size, at every size: otherwise a place that merely
    needs another scale would look as if it needed more samples. Ties go to the smallest rate.
    """
    means = runs.groupby(["samples", "rate"])["val_error"].mean().reset_index()
    best = means.sort_values(["samples", "val_error", "rate"]).drop_duplicates("samples")
    return runs.merge(best[["samples", "rate"]], on=["samples", "rate"]).reset_index(drop=True)


_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}  # numbers of one attention map over runs and samples


@torch.no_grad()
def _logits(
    network: FrozenNetwork, samples: Samples, place: str, prompt: Tensor
) -> Float[Tensor, "runs samples"]:
    """Logits of every run on the same samples, a few samples at a time."""
    runs, tokens = len(prompt), samples.kinds.shape[-1]
    most = _AT_ONCE.get(prompt.device.type, _AT_ONCE["cpu"])
    step = max(1, most // (runs * tokens * tokens))
    parts = []
    for start in range(0, samples.labels.shape[1], step):
        some = samples.take((slice(None), slice(start, start + step)))
        parts.append(network.logits(some, place=place, prompt=prompt))
    return torch.cat(parts, 1)


def _error(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Share of the samples not on the right side, a number a run; float64: counts come back.

    A training that diverged has logits that are no numbers: it errs on every sample.
    """
    return (~(logits * labels > 0)).double().mean(-1).cpu().numpy()


def _spread(logits: Tensor, labels: Tensor) -> Float[Tensor, " runs"]:
    """Standard deviation of the logit within a class, over half the gap between the classes."""
    positive, negative = logits[:, labels[0] > 0], logits[:, labels[0] < 0]
    gap = (positive.mean(1) - negative.mean(1)).abs() / 2
    within = (positive.var(1) / 2 + negative.var(1) / 2).sqrt()
    return within / gap.clamp_min(1e-6)


def _train_error(
    network: FrozenNetwork,
    pool: Samples | None,
    limit: Tensor,
    place: str,
    prompt: Tensor,
    repetition: Tensor,
) -> np.ndarray:
    """Error on (at most 64 of) the samples that each run may see."""
    if pool is None:
        return np.full(len(repetition), np.nan)
    index = torch.arange(min(64, pool.labels.shape[1]), device=prompt.device)
    chosen = pool.take((repetition[:, None], index.expand(len(repetition), -1)))
    with torch.no_grad():
        wrong = ~(network.logits(chosen, place=place, prompt=prompt) * chosen.labels > 0)
    seen = index < limit
    return ((wrong & seen).sum(1).double() / seen.sum(1)).cpu().numpy()

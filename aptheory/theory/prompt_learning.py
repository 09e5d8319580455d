"""Learn the prompts of thousands of small frozen networks at once.

Model: hinge loss, minibatch SGD on the prompt alone [recalled]. Runs are one more leading
dimension: repetitions × training-set sizes (or × learning rates) learn side by side. The loss is
the sum over runs of each run's mean loss, so that every run gets its own gradient.

Arithmetic is float32: the outcomes are error counts of stochastic trainings, and a rounding of
1e-7 moves them no more than another seed does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def learn(
    network: FrozenNetwork,
    data: Patterns,
    place: str,
    *,
    sizes: Sequence[int] | None,
    rates: Sequence[float] | None = None,
    repetitions: int = 8,
    learning: Learning = Learning(),
    test_samples: int = 400,
    looks: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Learn a prompt at `place` for every repetition and size (or rate); test it `looks` times.

    sizes : training-set sizes; each repetition draws one training set and takes its first n
        samples. None means fresh samples at every step.
    rates : several step sizes side by side, in place of `learning.rate`; then at most one size.

    Returns one row a run and look: repetition, samples (drawn so far if fresh), rate, step,
    test_error, train_error (NaN if fresh), norm (of the prompt, per token), removed (part of the
    label-free spread of the logit, relative to its class gap, that the prompt took away).
    """
    if sizes is not None and rates is not None and len(sizes) != 1:
        raise InputError(f"several rates are compared at one size, got sizes {tuple(sizes)}")
    if place not in network.places:
        raise InputError(f"place must be one of {network.places}, got {place!r}")
    draw = torch.Generator().manual_seed(seed)
    levels = list(rates or sizes or [learning.rate])
    runs = repetitions * len(levels)
    repetition = torch.arange(runs) // len(levels)
    shape = network.prompt_shape(place, learning.shape)
    step_size = torch.full((runs,), learning.rate, dtype=torch.float64)
    if rates is not None:
        step_size = torch.tensor(list(rates), dtype=torch.float64).repeat(repetitions)
    nominal = step_size.numpy().copy()
    if learning.shape == "token" and learning.scale_rate:
        step_size = step_size * shape[0]

    test = data.draw(1, test_samples, draw)
    pool, counts = None, None
    if sizes is not None:
        pool = data.draw(repetitions, max(sizes), draw)
        counts = torch.tensor(list(sizes)).repeat(runs // len(sizes))

    before = _spread(network.logits(test).expand(runs, -1), test.labels)
    prompt = torch.zeros(runs, 1, *shape, requires_grad=True)
    looked = {round(learning.steps * (i + 1) / looks) for i in range(looks)}
    frames = []
    for step in range(1, learning.steps + 1):
        if pool is not None and counts is not None:
            index = (torch.rand(runs, learning.batch, generator=draw) * counts[:, None]).long()
            batch = pool.take((repetition[:, None], index))
        else:
            batch = data.draw(runs, learning.batch, draw)
        margins = batch.labels * network.logits(batch, place=place, prompt=prompt)
        loss = torch.relu(1 - margins).mean(1).sum()
        (gradient,) = torch.autograd.grad(loss, prompt)
        factor = 1.0
        if learning.schedule == "cosine":
            factor = 0.5 * (1 + np.cos(np.pi * (step - 1) / learning.steps))
        with torch.no_grad():
            prompt -= (factor * step_size).float()[:, None, None, None] * gradient
        if step not in looked:
            continue
        with torch.no_grad():
            logits = network.logits(test, place=place, prompt=prompt)
        seen = counts if counts is not None else torch.full((runs,), step * learning.batch)
        frames.append(
            pd.DataFrame(
                {
                    "repetition": repetition.numpy(),
                    "samples": seen.numpy(),
                    "rate": nominal,
                    "step": step,
                    "test_error": _error(logits, test.labels).numpy(),
                    "train_error": _train_error(network, pool, counts, place, prompt, repetition),
                    "norm": prompt.detach().square().sum((1, 3)).mean(1).sqrt().numpy(),
                    "removed": (1 - _spread(logits, test.labels) / before).numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def tuned_rate(
    network: FrozenNetwork,
    data: Patterns,
    place: str,
    *,
    rates: Sequence[float],
    size: int = 64,
    repetitions: int = 4,
    learning: Learning = Learning(),
    seed: int = 10_000,
) -> float:
    """Step size with the smallest mean error at one size, on draws of its own.

    Places are compared each at its own best step size: otherwise a place that merely needs another
    scale would look as if it needed more samples.
    """
    runs = learn(
        network,
        data,
        place,
        sizes=[size],
        rates=rates,
        repetitions=repetitions,
        learning=learning,
        seed=seed,
    )
    return float(runs.groupby("rate").test_error.mean().idxmin())


def _error(logits: Tensor, labels: Tensor) -> Float[Tensor, " runs"]:
    return (logits * labels <= 0).float().mean(-1)


def _spread(logits: Tensor, labels: Tensor) -> Float[Tensor, " runs"]:
    """Standard deviation of the logit within a class, over half the gap between the classes."""
    positive, negative = logits[:, labels[0] > 0], logits[:, labels[0] < 0]
    gap = (positive.mean(1) - negative.mean(1)).abs() / 2
    within = (positive.var(1) / 2 + negative.var(1) / 2).sqrt()
    return within / gap.clamp_min(1e-6)


def _train_error(
    network: FrozenNetwork,
    pool: Samples | None,
    counts: Tensor | None,
    place: str,
    prompt: Tensor,
    repetition: Tensor,
) -> np.ndarray:
    """Error on (at most 64 of) the samples that each run may see."""
    if pool is None or counts is None:
        return np.full(len(repetition), np.nan)
    index = torch.arange(min(64, pool.labels.shape[1])).expand(len(repetition), -1)
    with torch.no_grad():
        chosen = pool.take((repetition[:, None], index))
        wrong = network.logits(chosen, place=place, prompt=prompt) * chosen.labels <= 0
    seen = index < counts[:, None]
    return ((wrong & seen).sum(1) / seen.sum(1)).numpy()

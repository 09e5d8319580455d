"""A trained prompt, taken apart at the next norm; a tuned norm, read as a prompt.

What beta of the next norm expresses, what gamma and beta imitate over the training images, and the
rest (`aptheory.theory.norm_shares`), each applied alone in the network: by hooks at the prompt and
at the norm, so that what a skip connection carries past the norm counts as rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aptheory.choosing.scores import RidgeHead
from aptheory.errors import InputError
from aptheory.findings.pictures import paired_pictures
from aptheory.methods import ActivationPrompt
from aptheory.methods.base import Adapted
from aptheory.methods.normalization import kind_of
from aptheory.networks.network import Layer, Network
from aptheory.tasks import Split, Task, loader
from aptheory.theory.norm_shares import (
    NormFit,
    NormRegression,
    common_share,
    explained,
    prompt_shares,
)

PARTS = ("none", "beta", "gamma and beta", "rest", "whole")
"""What of a trained prompt is applied: nothing, what the next norm's beta imitates, what gamma and
beta imitate, the prompt less that, all of it."""


@dataclass(frozen=True)
class Taken:
    """What a run of images through a network in one of the `PARTS` came to."""

    features: Tensor
    logits: Tensor


def next_norm(net: Network, place: int) -> str:
    """The name of the first normalisation that runs at or behind a place.

    Raises:
        InputError: none runs before the head.
    """
    last = len(net.layers) - 1
    for name in net.modules_between(place, last) if place < last else ():
        if kind_of(net.module.get_submodule(name)) is not None:
            return name
    raise InputError(
        f"no normalisation of {net.name} runs behind place {place} ({net.layers[place].name}): "
        "choose an earlier place."
    )


def take_apart(adapted: Adapted, task: Task, *, batch_size: int = 64) -> dict[str, Any]:
    """Shares of a trained prompt that the next norm expresses, and what each part keeps alone.

    Returns:
        ``norm``, its name; ``exact`` and ``unseen``, shares of the prompt's squared norm that beta
        expresses exactly and that the norm removes (nan where something stands between the place
        and the norm); ``beta``, ``gamma``, ``left``, shares of the change at the norm's output over
        training images; and for each of `PARTS` ``logits PART`` (share of the change in the test
        logits that it explains), ``kept PART`` and ``retrained PART`` (test accuracy with the head
        as trained, and with a ridge head of its own) and, for "gamma and beta", the points that
        the whole prompt has on it with their interval, ``more``, ``more_low``, ``more_high``.

    Raises:
        InputError: several prompts or runs, or no norm behind the place.
    """
    if (
        adapted.runs != 1
        or len(adapted.places) != 1
        or not isinstance(adapted.method, ActivationPrompt)
    ):
        raise InputError(
            f"{adapted.method.name} with {adapted.runs} runs at places {adapted.places} cannot be "
            "taken apart: expected one run of one activation prompt."
        )
    place = adapted.places[0]
    name = next_norm(adapted.source, place)
    parts = _Parts(adapted, name, batch_size)
    fit = parts.regression(task.train)
    train = {part: parts.run(task.train, part, fit) for part in PARTS}
    test = {part: parts.run(task.test, part, fit) for part in PARTS}
    row: dict[str, Any] = {"norm": name, **_exact(adapted, place, name)}
    row |= {"beta": fit.beta, "gamma": fit.gamma, "left": fit.left}
    labels = {split: torch.as_tensor(np.asarray(getattr(task, split).labels)) for split in _SPLITS}
    change = test["whole"].logits - test["none"].logits
    right: dict[str, np.ndarray] = {}
    for part in PARTS:
        found = test[part]
        row[f"logits {part}"] = explained(change, found.logits - test["none"].logits)
        right[part] = (found.logits.argmax(1) == labels["test"]).numpy()
        row[f"kept {part}"] = float(right[part].mean())
        head = RidgeHead.fit(train[part].features, labels["train"], adapted.classes)
        middle = train[part].features.double().mean(0)
        scores = (found.features.double() - middle) @ head.weight.T + head.centre
        row[f"retrained {part}"] = float((scores.argmax(1) == labels["test"]).double().mean())
    more = paired_pictures(right["whole"], right["gamma and beta"]).times(100)
    return row | {"more": more.value, "more_low": more.low, "more_high": more.high}


_SPLITS = ("train", "test")


def _exact(adapted: Adapted, place: int, name: str) -> dict[str, float]:
    """Shares of |delta|² by the derivation, where the norm is the first thing behind the place."""
    net = adapted.source
    layer, module = net.layers[place], net.module.get_submodule(name)
    kind: Any = kind_of(module)
    leaves = [n for n in net.modules_between(place) if not _children(net.module, n)]
    if kind not in ("batch", "layer") or not leaves or leaves[0] != name:
        return {"exact": float("nan"), "unseen": float("nan")}
    prompt: Any
    (prompt,) = adapted.edits_at(place)
    delta = prompt.value()[0].detach().expand(layer.shape)
    shares = prompt_shares(_by_position(delta[None], layer)[0], kind)
    return {"exact": shares.beta, "unseen": shares.nothing}


def _children(module: nn.Module, name: str) -> bool:
    return any(True for _ in module.get_submodule(name).children())


def _by_position(z: Tensor, layer: Layer) -> Tensor:
    """(images, positions, channels), prefix tokens among the positions."""
    if layer.layout == "map":
        return z.flatten(2).transpose(1, 2)
    if layer.layout == "vector":
        return z.flatten(1)[:, None]
    return z.flatten(1, -2)


class _Parts:
    """Runs a network with parts of its prompt, by hooks at the prompt and at the next norm."""

    def __init__(self, adapted: Adapted, name: str, batch_size: int) -> None:
        self.adapted = adapted.eval()
        (self.prompt,) = adapted.edits_at(adapted.places[0])
        self.norm = adapted.net.module.get_submodule(name)
        # Layer norms of maps (timm's LayerNorm2d) have their channels where maps have them.
        of_maps = "2d" in type(self.norm).__name__.lower()
        self.channels_last = kind_of(self.norm) in ("layer", "rms") and not of_maps
        self.batch_size = batch_size

    @torch.no_grad()
    def regression(self, split: Split) -> NormFit:
        """The change at the norm's output on the output without the prompt, over images."""
        found = NormRegression()
        for x in self._batches(split):
            clean = self._output(x, prompted=False)
            found.update(clean, self._output(x, prompted=True) - clean)
        return found.fit()

    @torch.no_grad()
    def run(self, split: Split, part: str, fit: NormFit) -> Taken:
        """Features and logits of all images with one part of the prompt."""
        features = []
        for x in self._batches(split):
            clean = self._output(x, prompted=False) if part in ("gamma and beta", "rest") else None
            with self._part(part, fit, clean):
                features.append(self.adapted.features(x))
        whole = torch.cat(features)
        return Taken(whole.cpu(), self.adapted.head(whole).cpu())

    def _batches(self, split: Split) -> Iterator[Tensor]:
        """What enters the first place that the method changes, a batch at a time."""
        net, first = self.adapted.source, self.adapted.first_layer
        for x, _ in loader(split, net, self.batch_size):
            yield net.run(x, stop=first) if first else x

    def _output(self, z: Tensor, *, prompted: bool) -> Tensor:
        """What the norm gives: (images, positions, channels)."""
        seen: list[Tensor] = []
        hooks = [self.norm.register_forward_hook(lambda m, _, out: seen.append(self._rows(out)))]
        if not prompted:
            hooks.append(self.prompt.register_forward_hook(lambda m, args, out: args[0]))
        try:
            self.adapted.features(z)
        finally:
            for hook in hooks:
                hook.remove()
        return seen[0]

    def _rows(self, out: Tensor) -> Tensor:
        if not self.channels_last and out.dim() > 2:
            out = out.flatten(2).transpose(1, 2)
        return out.reshape(len(out), -1, out.shape[-1])

    @contextmanager
    def _part(self, part: str, fit: NormFit, clean: Tensor | None) -> Iterator[None]:
        """Within: the network runs with one part of the prompt."""

        def moved(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            if part == "beta":
                change = fit.shift_alone.to(out).expand(self._rows(out).shape)
            else:
                assert clean is not None
                change = (fit.scale.to(out) * clean + fit.shift.to(out)) * (
                    1 if part == "gamma and beta" else -1
                )
            if not self.channels_last and out.dim() > 2:
                change = change.transpose(1, 2)
            return out + change.reshape(out.shape)

        hooks = []
        if part in ("beta", "gamma and beta", "rest"):
            hooks.append(self.norm.register_forward_hook(moved))
        if part not in ("rest", "whole"):
            hooks.append(self.prompt.register_forward_hook(lambda m, args, out: args[0]))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@torch.no_grad()
def read_as_prompt(
    adapted: Adapted, task: Task, place: int, *, images: int = 256, batch_size: int = 64
) -> tuple[float, float]:
    """Shares of what tuned norms behind ``place`` change at the next place that are the same for
    every input: as a full prompt there would make it, and as one with one number a channel."""
    net, changes = adapted.source, []
    layer = net.layers[place + 1]
    seen = 0
    for x, _ in loader(task.test, net, batch_size):
        z = net.run(x.to(net.device), stop=place) if place else x.to(net.device)
        change = adapted.net.run(z, start=place, stop=place + 1) - net.run(
            z, start=place, stop=place + 1
        )
        changes.append(_by_position(change, layer).cpu())
        seen += len(x)
        if seen >= images:
            break
    found = common_share(torch.cat(changes))
    return found.full, found.channel

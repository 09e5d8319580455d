"""The exact equivalences, measured on a network at hand: one tidy table for the six claims.

``equivalence.py`` holds the statements and their proofs; here each is tried in float64 on the
modules of a real network, and the largest error is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from aptheory.theory.equivalence import (
    Agreement,
    affine_residual,
    batch_statistics_cancel,
    compare_shift_with_bias,
    convolution_error,
    head_bias_of_prompt,
    layernorm_response,
)

if TYPE_CHECKING:
    from aptheory.networks.network import Network


def measure(
    net: Network, images: Float[Tensor, "batch 3 height width"], *, seed: int = 0, most: int = 12
) -> pd.DataFrame:
    """Try every statement that this network allows, on at most ``most`` modules of a kind.

    ``images`` are normalised for ``net``, which stays as it was. Columns: network, claim (its
    number in the paper's list, 1 to 6), statement, measure, value, modules (how many were tried).
    Errors are relative to the largest entry; see the functions of ``equivalence`` for each measure.
    """
    own = net.share().double()
    trial = _Trial(own, images.double(), seed, most)
    found = [
        *_norms(trial, nn.modules.batchnorm._BatchNorm, 2, ("before", "after")),
        *_norms(trial, nn.LayerNorm, 3, ("after",)),
        *_before_layer_norm(trial),
        *_linear(trial),
        *_convolutions(trial),
        *_batch_statistics(trial),
        *_last_place(trial),
        *_visual_prompt(trial),
    ]
    table = pd.DataFrame(found, columns=["claim", "statement", "measure", "value", "modules"])
    table.insert(0, "network", net.name)
    return table.sort_values("claim", kind="stable", ignore_index=True)


class _Trial:
    """A network in float64, images, and the inputs that its modules get from them."""

    def __init__(self, net: Network, images: Tensor, seed: int, most: int) -> None:
        self.net, self.images, self.most = net, images, most
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.inputs: dict[str, Tensor] = {}
        handles = [
            module.register_forward_pre_hook(
                lambda _, args, name=name: self.inputs.__setitem__(name, args[0].detach())
            )
            for name, module in net.module.named_modules()
            if isinstance(module, KEPT)
        ]
        with torch.no_grad():
            net(images)
        for handle in handles:
            handle.remove()

    def modules(self, kind: Any) -> list[tuple[nn.Module, Tensor]]:
        """Up to ``most`` modules of a kind, spread over the depth, with what enters each."""
        names = [
            name for name in self.inputs if isinstance(self.net.module.get_submodule(name), kind)
        ]
        step = max(1, -(-len(names) // self.most))
        return [(self.net.module.get_submodule(n), self.inputs[n]) for n in names[::step]]

    def shift(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.images)


KEPT = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.Linear, nn.Conv2d)


def _worst(
    claim: int, statement: str, found: list[Agreement]
) -> list[tuple[int, str, str, float, int]]:
    if not found:
        return []
    return [
        (claim, statement, "output_error", max(a.output for a in found), len(found)),
        (claim, statement, "gradient_error", max(a.gradient for a in found), len(found)),
    ]


def _norms(trial: _Trial, kind: Any, claim: int, sides: tuple[Any, ...]) -> list[tuple]:
    rows: list[tuple] = []
    label = "layer" if kind is nn.LayerNorm else "batch"
    for side in sides:
        found = [
            compare_shift_with_bias(
                trial.net.module,
                trial.images,
                module,
                trial.shift(*bias.shape),
                side=side,
                seed=trial.seed,
            )
            for module, _ in trial.modules(kind)
            if isinstance(bias := module.bias, nn.Parameter)
        ]
        rows += _worst(claim, f"shift {side} {label} norm is its beta", found)
    return rows


def _before_layer_norm(trial: _Trial) -> list[tuple]:
    found = [
        layernorm_response(module, x, trial.shift(x.shape[-1]) * x.std())
        for module, x in trial.modules(nn.LayerNorm)
        if x.dim() == 3
    ]
    if not found:
        return []
    name = "shift before layer norm is not its beta"
    return [
        (3, name, "smallest_spread", min(spread for spread, _ in found), len(found)),
        (3, name, "ones_vector_change", max(ones for _, ones in found), len(found)),
    ]


def _linear(trial: _Trial) -> list[tuple]:
    found = [
        compare_shift_with_bias(
            trial.net.module,
            trial.images,
            module,
            trial.shift(x.shape[-1]),
            side="before",
            seed=trial.seed,
        )
        for module, x in trial.modules(nn.Linear)
        if module.bias is not None
    ]
    return _worst(3, "shift before linear layer is its bias", found)


def _convolutions(trial: _Trial) -> list[tuple]:
    found = [
        convolution_error(module, x, trial.shift(x.shape[1]))
        for module, x in trial.modules(nn.Conv2d)
        if isinstance(module, nn.Conv2d) and module.padding not in ((0, 0), 0, "valid", "same")
    ]
    if not found:
        return []
    name = "shift before padded convolution is a bias inside only"
    return [
        (4, name, "interior_error", max(inside for inside, _ in found), len(found)),
        (4, name, "smallest_rim_error", min(rim for _, rim in found), len(found)),
    ]


def _batch_statistics(trial: _Trial) -> list[tuple]:
    agreements, residuals = [], []
    for module, x in trial.modules(nn.BatchNorm2d):
        channels = x.shape[1]
        shift = trial.shift(channels)
        agreements.append(batch_statistics_cancel(module, x, shift, seed=trial.seed))
        if x.shape[-1] * x.shape[-2] > 1:
            residuals.append(affine_residual(module, x, trial.shift(*x.shape[1:])).mean())
    rows: list[tuple] = list(_worst(6, "training mode cancels the shift", agreements))
    if residuals:
        name = "full delta before batch norm exceeds its affine parameters"
        rows.append((4, name, "smallest_residual", float(min(residuals)), len(residuals)))
    return rows


def _last_place(trial: _Trial) -> list[tuple]:
    """Prompts at the classifier's input, and before it where only average pooling is between."""
    from aptheory.methods import ActivationPrompt, LinearProbe

    net, x = trial.net, trial.images
    rows = []
    for place in (len(net.layers) - 1, len(net.layers) - 2):
        layer = net.layers[place]
        if place < len(net.layers) - 1 and (
            layer.layout != "map" or net.parameters_between(place, len(net.layers) - 1)
        ):
            continue
        prompt = ActivationPrompt(layer=place, std=1.0).attach(net, classes=5, seed=trial.seed)
        probe = LinearProbe().attach(net, classes=5, seed=trial.seed)
        mine, theirs = dict(prompt.run_parameters(0)), dict(probe.run_parameters(0))
        delta = next(value for name, value in mine.items() if name.startswith("edits"))
        weight = mine["head.weight"]
        head = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(mine["head.bias"])
            theirs["head.weight"].copy_(weight)
            theirs["head.bias"].copy_(head_bias_of_prompt(head, delta))
        one, other = prompt(x), probe(x)
        r = trial.shift(*one.shape)
        (of_delta,) = torch.autograd.grad((one * r).sum(), delta)
        (of_bias,) = torch.autograd.grad((other * r).sum(), theirs["head.bias"])
        # Each position of a map has its share of the mean, and so of the gradient.
        through = weight.T @ of_bias
        if delta.dim() > 1:
            through = (through / delta[0].numel())[:, None, None].expand_as(delta)
        agreement = Agreement(_error(one, other), _error(of_delta, through))
        rows += _worst(5, f"prompt at {layer.name} is the head's bias", [agreement])
    return rows


def _error(a: Tensor, b: Tensor) -> float:
    return float(((a - b).abs().max() / a.abs().max()).detach())


def _visual_prompt(trial: _Trial) -> list[tuple]:
    from aptheory.methods import ActivationPrompt, VisualPrompt

    attach = {"classes": 5, "seed": trial.seed}
    one = VisualPrompt(std=1.0).attach(trial.net, **attach)  # type: ignore[arg-type]
    other = ActivationPrompt(layer=0, std=1.0).attach(trial.net, **attach)  # type: ignore[arg-type]
    a, b = one(trial.images), other(trial.images)
    r = trial.shift(*a.shape)
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad((y * r).sum(), list(m.trainable))])
        for y, m in ((a, one), (b, other))
    ]
    agreement = Agreement(_error(a, b), _error(*gradients))
    return list(_worst(1, "visual prompt is the activation prompt at place 0", [agreement]))

"""Give some parameters of a frozen module to the runs: the same module, each run its own values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from aptheory.methods.per_run import PerRun, by_run, copy_of, merged
from aptheory.methods.samples import AnyAxis, last_axis_only, sample_axes

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted
    from aptheory.networks.network import Network


def owners(net: Network, parameters: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Module name -> the given parameters that it takes with it, under its own names for them.

    The owner of a parameter is the innermost module around it whose forward runs on the samples:
    one that reads the weights of its parts without calling them, or calls them on a table, takes
    these weights itself. So does one that has a parameter of its own and parts with others. A
    parameter of the model itself has no module that could be replaced, and is left out. A module
    that stands at several places of its owner is named at the first.
    """
    running = sample_axes(net)

    def around(name: str) -> str:
        while name and name not in running:
            name = name.rpartition(".")[0]
        return name

    split = [parameter.rpartition(".") for parameter in parameters]
    known = sorted({around(module) for module, _, _ in split} - {""})
    found: dict[str, dict[tuple[nn.Module, str], str]] = defaultdict(dict)
    for module, _, name in split:
        outer = next((o for o in known if f"{module}.".startswith(f"{o}.")), None)
        if outer:
            same = (net.module.get_submodule(module), name)
            found[outer].setdefault(same, f"{module}.{name}"[len(outer) + 1 :])
    return {module: tuple(names.values()) for module, names in found.items()}


def give_own(adapted: Adapted, found: Mapping[str, tuple[str, ...]]) -> int:
    """Put `OwnWeights` around what ``owners`` found; returns the first place that feels them.

    What modules share stays shared: one learned tensor.
    """
    tied: dict[nn.Parameter, PerRun] = {}
    for name, parameters in found.items():
        inner = adapted.net.module.get_submodule(name)
        adapted.replace(name, OwnWeights(adapted, inner, parameters, tied))
    return min(adapted.original.layer_of(name) for name in found)


class OwnWeights(AnyAxis):
    """``inner`` with the named parameters replaced by each run's own, pretrained at the start.

    The common layers have a form that treats all runs at once; any other module is called once
    a run. Both compute what ``inner`` would with those parameters. ``tied`` holds what stands for
    a frozen parameter already, and gets what is made here.
    """

    def __init__(
        self,
        adapted: Adapted,
        inner: nn.Module,
        names: tuple[str, ...],
        tied: dict[nn.Parameter, PerRun],
    ) -> None:
        super().__init__()
        self.runs = adapted.runs
        self.inner = inner
        # Parameter names may be dotted, which ModuleDict forbids.
        self.keys = {name: name.replace(".", "/") for name in names}
        self.own = nn.ModuleDict(
            {
                key: tied.setdefault(
                    value := inner.get_parameter(name),
                    PerRun(self.runs, value.shape, copy_of(value), like=value.detach()),
                )
                for name, key in self.keys.items()
            }
        )

    def value(self, name: str, *, run: int) -> nn.Parameter:
        """One run's own parameter of that name."""
        held = self.own[self.keys[name]]
        assert isinstance(held, PerRun)
        return held.values[run]

    def forward(self, *args: Tensor, **kwargs: object) -> Any:
        own = {name: self.own[key]() for name, key in self.keys.items()}  # each (runs, ...)
        if self.runs == 1:
            values = {name: value[0] for name, value in own.items()}
            return _called_with(values, self.inner, args, kwargs)
        if len(args) == 1 and not kwargs and (self.axis == 0 or last_axis_only(self.inner)):
            together = _together(self.inner, args[0].transpose(0, self.axis), own, self.runs)
            if together is not None:
                return together.transpose(0, self.axis)
        return self._one_by_one(own, args, kwargs)

    def _one_by_one(
        self, own: Mapping[str, Tensor], args: tuple[Tensor, ...], kwargs: Mapping[str, object]
    ) -> Any:
        # Of nn.MultiheadAttention queries, keys and values are samples; of others the first input.
        samples = 3 if isinstance(self.inner, nn.MultiheadAttention) else 1
        stacks = [value.chunk(self.runs, self.axis) for value in args[:samples]]
        parts = []
        for run in range(self.runs):
            values = {name: value[run] for name, value in own.items()}
            inputs = (*(stack[run] for stack in stacks), *args[samples:])
            parts.append(_called_with(values, self.inner, inputs, kwargs))
        if isinstance(parts[0], tuple):  # and what it weighed them by, where that was asked for
            return tuple(
                None if each[0] is None else torch.cat(each, self.axis if n == 0 else 0)
                for n, each in enumerate(zip(*parts, strict=True))
            )
        return torch.cat(parts, self.axis)


def _called_with(
    values: Mapping[str, Tensor],
    inner: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: Mapping[str, object],
) -> Any:
    # Tied ones are all named; torch would tie them again, and not put back those of one module.
    return functional_call(inner, dict(values), args, dict(kwargs), tie_weights=False)


def _together(inner: nn.Module, x: Tensor, own: Mapping[str, Tensor], runs: int) -> Tensor | None:
    """All runs in one go where the layer is exactly one of the usual ones, else None."""
    from timm.layers import LayerNorm as TimmLayerNorm

    kind = type(inner)
    whole = all(getattr(inner, name, None) is not None for name in ("weight", "bias"))
    if kind in (nn.LayerNorm, TimmLayerNorm) and isinstance(inner, nn.LayerNorm) and whole:
        plain = F.layer_norm(x, inner.normalized_shape, None, None, inner.eps)
        return affine(plain, _of(inner, own, "weight"), _of(inner, own, "bias"), runs, axis=-1)
    if (
        kind is nn.BatchNorm2d
        and isinstance(inner, nn.BatchNorm2d)
        and whole
        and not inner.training
    ):
        assert inner.running_mean is not None
        assert inner.running_var is not None
        gain = _of(inner, own, "weight") * (inner.running_var + inner.eps).rsqrt()
        return affine(x, gain, _of(inner, own, "bias") - gain * inner.running_mean, runs, axis=1)
    if kind is nn.Linear and isinstance(inner, nn.Linear) and set(own) == {"bias"}:
        return affine(F.linear(x, inner.weight), None, own["bias"], runs, axis=-1)
    if kind is nn.Conv2d and isinstance(inner, nn.Conv2d) and set(own) == {"bias"}:
        return affine(inner._conv_forward(x, inner.weight, None), None, own["bias"], runs, axis=1)
    return None


def _of(inner: nn.Module, own: Mapping[str, Tensor], name: str) -> Tensor:
    """(runs, n) of the runs' own values, or (1, n) of the frozen ones."""
    return own[name] if name in own else inner.get_parameter(name).unsqueeze(0)


def affine(x: Tensor, gain: Tensor | None, bias: Tensor, runs: int, *, axis: int) -> Tensor:
    """gain * x + bias with (runs, n) values on channel ``axis`` of the (runs*B, ...) batch x."""
    stacked = by_run(x, runs)
    shape = [1] * stacked.dim()
    shape[axis + 1 if axis >= 0 else axis] = -1

    def spread(value: Tensor) -> Tensor:
        return value.reshape(value.shape[0], *shape[1:])

    # In reduced precision the sum is made in that of the learned values, then rounded once.
    moved = stacked if gain is None else stacked * spread(gain)
    return merged((moved + spread(bias)).to(x.dtype))

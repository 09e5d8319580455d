"""A module's structure anew, its weights shared: what every prompt that is attached takes."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = frozenset({bool, int, float, str, type(None), torch.dtype, torch.device})
"""Types of attributes that a copy may share."""


def structural_copy(module: nn.Module) -> nn.Module:
    """New modules, new frozen parameters that alias the same storage, buffers copied.

    What `copy.deepcopy` would do for each module, a dozen empty dicts of hooks among it, is done in
    fewer steps where nothing about the module is special.
    """
    known: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()
    }
    known.update(_lone_buffers(module))
    parts = list(module.modules())
    for part in parts:  # weights that hooks make of others, as weight_norm and pruning
        made = [v for v in vars(part).values() if isinstance(v, Tensor) and not v.is_leaf]
        known.update((id(value), value.detach()) for value in made)
    for part in reversed(parts):  # what is held comes before what holds it
        if id(part) in known or not _is_ordinary(type(part)):
            continue
        twin = known[id(part)] = object.__new__(type(part))
        for name, value in vars(part).items():
            kind = type(value)
            if kind in PLAIN:
                same = value
            elif kind in (dict, OrderedDict, set) and not value:
                same = known.setdefault(id(value), kind())
            elif name in ("_modules", "_parameters"):
                same = known[id(value)] = {}
                for key, held in value.items():
                    same[key] = known[id(held)] if id(held) in known else copy.deepcopy(held, known)
            else:
                same = copy.deepcopy(value, known)
            twin.__dict__[name] = same
    return copy.deepcopy(module, known)


def _lone_buffers(module: nn.Module) -> dict[int, Tensor]:
    """Copies of the plain buffers that share their memory with no other, by the buffer's id."""
    buffers = {id(buffer): buffer for buffer in module.buffers()}
    memory = Counter(buffer.untyped_storage().data_ptr() for buffer in buffers.values())
    return {
        key: buffer.clone()
        for key, buffer in buffers.items()
        if type(buffer) is Tensor
        and buffer.is_contiguous()
        and not buffer.requires_grad
        and not vars(buffer)
        and memory[buffer.untyped_storage().data_ptr()] == 1
    }


def _is_ordinary(kind: type[nn.Module]) -> bool:
    """Whether copying one of these is copying its attributes.

    Torch's own layers have a ``__setstate__`` that completes what older versions saved.
    """
    own = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__slots__")
    above = kind.__mro__[: kind.__mro__.index(nn.Module)]
    for base in above:
        if any(name in vars(base) for name in own):
            return False
        if "__setstate__" in vars(base) and not base.__module__.startswith("torch.nn.modules."):
            return False
    return True

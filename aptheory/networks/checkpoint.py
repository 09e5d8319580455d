"""Weights from a file, without executing anything, and told by name what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from aptheory.errors import InputError

WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "module")
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 4


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file or a ``torch.save`` of a state dict, by name, on the CPU.

    Wrappers that training scripts add (a ``state_dict`` entry, a ``module.`` prefix) are taken off.

    Raises:
        InputError: no such file, not a file of weights, or one that would execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}: give a safetensors or state-dict file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{path} cannot be read as weights ({reason[0] if reason else type(error).__name__}): "
            "save the state dict alone, best as safetensors"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(
            f"{path} holds no state dict (names to tensors): save the state dict alone"
        )
    if not found:
        raise InputError(f"{path} holds no tensors: save the state dict again")
    state = {str(k): v for k, v in found.items()}
    for prefix in PREFIXES:
        if all(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def load_weights(module: nn.Module, path: str | Path, name: str) -> None:
    """Fill ``module`` with the weights in a file; every key must fit.

    Raises:
        InputError: keys that are missing, unexpected, of another shape or not finite, by name; in
            one sentence where the file is plainly of another model.
    """
    state = read_weights(path)
    own = module.state_dict()
    for key, value in state.items():  # one number is one number, whatever its shape
        if key in own and value.numel() == own[key].numel() == 1:
            state[key] = value.reshape(own[key].shape)
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    reshaped = [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    fitting = len(own) - len(missing) - len(reshaped)
    if fitting < len(own) / 2:
        raise InputError(
            f"{path} holds the weights of another model: only {fitting} of the {len(own)} tensors "
            f"of {name} fit ({_told(missing, unexpected, reshaped)}); give the file of {name}"
        )
    if missing or unexpected or reshaped:
        raise InputError(
            f"{path} does not fit {name}: {_told(missing, unexpected, reshaped)}; "
            "build the model with the arguments with which it was trained"
        )
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise InputError(
            f"{path} holds values that are not finite, in {_listed(broken)}: save the weights again"
        )
    module.load_state_dict(state)


def _told(missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected), ("", reshaped)):
        if names:
            parts.append(f"{what} {_listed(names)}".strip())
    return ", ".join(parts)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

"""What training scripts wrap around a network, and what is inside."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from aptheory.errors import InputError


def inner_module(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper only hands its arguments to; None of what is no wrapper."""
    if isinstance(module, _PARALLEL):
        return module.module
    inner = vars(module).get("_modules", {}).get("_orig_mod")  # torch.compile
    return inner if isinstance(inner, nn.Module) else None


def _parallel() -> tuple[type[nn.Module], ...]:
    kinds: list[type[nn.Module]] = [nn.DataParallel, torch.optim.swa_utils.AveragedModel]
    if torch.distributed.is_available():
        kinds.append(nn.parallel.DistributedDataParallel)
    return tuple(kinds)


_PARALLEL: Any = _parallel()
_EXPORTED = (
    "an exported program holds operations and no modules that could be told apart: give the "
    "module that it was exported from."
)


def unwrap(module: Any) -> nn.Module:
    """The network inside DataParallel, DDP, torch.compile, an average of weights, or PEFT; in eval.

    Raises:
        InputError: not a module that runs in Python on images alone; says what it is instead.
    """
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise InputError(
            f"{module.__name__} is a class of networks, not a network: give an instance of it."
        )
    if isinstance(module, torch.export.ExportedProgram):
        raise InputError(_EXPORTED)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"a network is a name or a torch module, not {type(module).__name__}: give one of them."
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            "a TorchScript module does not run in Python and cannot be traced: give the module "
            "that it was made from."
        )
    try:
        module.eval()
    except NotImplementedError:
        raise InputError(_EXPORTED) from None
    while True:
        inner = inner_module(module)
        if inner is None:
            inner = _inside_peft(module)
        if inner is None:
            break
        module = inner
    _check(module)
    for part in module.modules():  # compiled, it is another computation by the last bits
        part._compiled_call_impl = None  # Module.compile()
        original = part._modules.get("_orig_mod")  # torch.compile(module)
        if original is not None:
            vars(part)["forward"] = original.__call__
    return module


def _check(module: nn.Module) -> None:
    """Refuse what has no weights that a method could stand beside, or takes more than images."""
    kind = type(module).__name__
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise InputError(
            f"this {kind} has lazy layers, whose weights have no shape yet: run it once on images."
        )
    if any(parameter.is_meta for parameter in module.parameters()):
        raise InputError(
            f"the weights of this {kind} are on the meta device, shapes without numbers: give it "
            "numbers first."
        )
    if any(".quantized" in type(part).__module__ for part in module.modules()):
        raise InputError(
            f"this {kind} is quantised, so that no gradient passes through it: give the network "
            "that it was made from."
        )
    words = inspect.signature(module.forward).parameters.values()
    needed = [word.name for word in words if word.default is word.empty and word.kind not in _ANY]
    named = [word.name for word in words if word.kind == word.KEYWORD_ONLY and word.name in needed]
    if named:
        raise InputError(
            f"the forward of this {kind} needs {' and '.join(named)} by keyword: wrap it in a "
            "module whose forward takes the images alone."
        )
    if len(needed) > 1:
        raise InputError(
            f"the forward of this {kind} needs {' and '.join(needed)}: wrap it in a module whose "
            "forward takes the images alone."
        )


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _inside_peft(module: nn.Module) -> nn.Module | None:
    """The base model of a PEFT model, whose layers are adapted in place."""
    if not any(kind.__module__.partition(".")[0] == "peft" for kind in type(module).__mro__):
        return None
    base: Any = getattr(module, "base_model", None)
    if base is None:
        return None
    if not hasattr(base, "model"):
        raise InputError(
            f"{type(module).__name__} adds a prompt around its model, outside of every layer: give "
            "the model inside, and let a method of aptheory prompt it."
        )
    return base.model

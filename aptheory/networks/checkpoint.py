"""The tensors in a file of weights, read without running anything, and which are meant."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aptheory.checked import check_tensor_header
from aptheory.errors import InputError

EMA = ("state_dict_ema", "model_ema")
NESTS = (*EMA, "state_dict", "model", "teacher", "target_encoder")
"""Where training scripts put the weights, timm's choice first: the averaged ones where there are
any. DINO and I-JEPA evaluate the averaged network too, and call it by its role."""
LAST_NESTS = ("model_state_dict", "module", "net", "network", "student", "encoder")
DEEPEST = 3


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, and a sentence on each choice that was made."""

    path: Path
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def is_googles(self) -> bool:
        """Whether the names are those of Google's ViT, Mixer and BiT, as ``.npz`` files have."""
        return any("/" in name for name in self.tensors)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The tensors in a safetensors, npz or ``torch.save`` file, by name, on the CPU.

    What kind of file it is its content says, not its name. Of several nests one is taken (see
    `NESTS`), and ``notes`` says which. Of a pickle only tensors, plain values, argparse.Namespace
    and numpy's scalars are read.

    Raises:
        InputError: no such file, not a file of weights, or one that would execute code.
    """
    path = Path(path)
    if not os.path.isfile(path):  # also of a name that no file can have
        there = os.path.lexists(path)
        reason = f"{path} is no file" if there else f"there is no weights file {path}"
        raise InputError(f"{reason}: give a safetensors or state-dict file.")
    try:
        content = _READERS[_kind(path)](path)
    except InputError:
        raise
    except Exception as error:  # each library raises many kinds on a damaged file
        if isinstance(error, OSError) and error.errno:
            raise InputError(
                f"{path} cannot be read ({error.strerror}): check the file and its permissions"
            ) from error
        raise InputError(
            f"{path} cannot be read as weights ({_reason(error)}): "
            "save the state dict alone, best as safetensors"
        ) from error
    state, notes = _nested(content)
    if not _tensors(state):
        others = _elsewhere(state)
        if len(others) > 1:
            raise InputError(
                f"{path} holds several state dicts ({', '.join(others)}), and which of them is "
                "meant is not known: save that one alone"
            )
        for name, found in others.items():
            state, notes = found, (*notes, f"the weights were found under {name}")
    tensors = _tensors(state)
    if not tensors:
        raise InputError(
            f"{path} holds no state dict (names to tensors): save the state dict alone"
        )
    return Checkpoint(path, tensors, notes)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(9)
    if start == b"version h":
        raise ValueError("it is a pointer of Git LFS, whose file `git lfs pull` fetches")
    if start[:2] == b"PK" and not zipfile.is_zipfile(path):
        raise ValueError("its end is missing, fetch it again")
    if start[:1] != b"\x80" and start[:2] != b"PK" and start[8:9] != b"{":  # \x80 opens a pickle
        raise ValueError("it is neither a safetensors, nor an npz, nor a file of torch.save")
    if start[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return "npz" if names and all(name.endswith(".npy") for name in names) else "pickle"
    return "safetensors" if start[8:9] == b"{" else "pickle"


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    check_tensor_header(path)
    return load_file(path)


def _npz(path: Path) -> Any:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _pickle(path: Path) -> Any:
    # An open file: given a name, torch would go by its ending.
    with path.open("rb") as file, torch.serialization.safe_globals(_harmless()):
        return torch.load(file, map_location="cpu", weights_only=True)


_READERS = {"safetensors": _safetensors, "npz": _npz, "pickle": _pickle}


def _harmless() -> list[Any]:
    """What may stand beside the tensors: it holds values, and making one runs nothing."""
    import numpy as np
    from numpy._core.multiarray import scalar

    kinds = [type(np.dtype(letter)) for letter in np.typecodes["All"] if letter not in "OMmV"]
    return [argparse.Namespace, np.dtype, *kinds, scalar, (scalar, "numpy.core.multiarray.scalar")]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    blocked = next((line for line in lines if "Unsupported global" in line), None)
    if blocked is not None:
        name = blocked.partition("GLOBAL ")[2].split()[:1]
        return f"reading it would run code of {name[0] if name else 'another package'}"
    if isinstance(error, pickle.UnpicklingError):  # torch would have it read without this guard
        return "it holds more than tensors and plain values, or is damaged"
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _nested(content: Any) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    """The innermost dict of tensors, and what was passed over on the way to it."""
    notes: list[str] = []
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            return {}, ()
        nests = [name for name in (*NESTS, *LAST_NESTS) if _is_nest(content.get(name))]
        if not nests:
            break
        if len(nests) > 1:
            kind = "the averaged (EMA) weights, " if nests[0] in EMA else ""
            notes.append(f"of the file's {' and '.join(nests)}, {kind}{nests[0]} was taken")
        content = content[nests[0]]
    return (content, tuple(notes)) if isinstance(content, Mapping) else ({}, ())


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _elsewhere(content: Mapping[Any, Any], around: str = "") -> dict[str, Mapping[Any, Any]]:
    """State dicts under names that no list knows, but an optimizer's."""
    found: dict[str, Mapping[Any, Any]] = {}
    for name, value in content.items():
        if not isinstance(name, str) or "optim" in name.lower() or not isinstance(value, Mapping):
            continue
        path = f"{around}{name}"
        if any(isinstance(inner, Tensor) and isinstance(k, str) for k, inner in value.items()):
            found[path] = value
        elif path.count(".") < DEEPEST:
            found |= _elsewhere(value, f"{path}.")
    return found


def _is_nest(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)

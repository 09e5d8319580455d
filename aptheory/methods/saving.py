"""Keep what a method learned: the learned tensors alone, a few kB, with a note of what they are."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aptheory.arguments import checked_arguments
from aptheory.checked import check_tensor_header, json_table
from aptheory.errors import InputError
from aptheory.methods.registry import from_settings
from aptheory.writing import beside

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted
    from aptheory.networks.network import Network

FORMAT = "aptheory.adapted.1"
SEAL = "checksum"
"""The entry of the note that tells whether the others were changed; files of old have none."""
_log = logging.getLogger("aptheory")


@checked_arguments
def save(adapted: Adapted, path: str | Path, *, header: Mapping[str, str] | None = None) -> None:
    """One run's learned tensors as safetensors; the header names method, network and classes.

    ``header`` adds entries to it. The file appears whole or not at all.

    Raises:
        InputError: what was learned is not finite, or the file cannot be written.
    """
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in adapted.state().items()}
    broken = _broken(tensors, adapted)
    if broken is not None:
        raise InputError(
            f"{broken} holds values that are not finite; no file with them would be read again: "
            "train it again."
        )
    note = {
        **(header or {}),
        "format": FORMAT,
        "method": json.dumps(adapted.method.settings()),
        "classes": str(adapted.classes),
        "seed": str(adapted.seeds[0]),
        "network": adapted.net.name,
        "digest": adapted.source.digest,
    }
    note[SEAL] = _seal(note)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as part:
            save_file(tensors, str(part), metadata=note)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written ({reason}): choose another place") from error


def _seal(note: Mapping[str, str]) -> str:
    """A hash of every other entry of a note: it finds a change, and no malice."""
    others = sorted((name, text) for name, text in note.items() if name != SEAL)
    return hashlib.sha256(json.dumps(others).encode()).hexdigest()


@checked_arguments
def attach_saved(net: Network, path: str | Path, *, imports: bool = False) -> Adapted:
    """The adapted network that `save` wrote, on the same frozen network.

    A method that is not built in must be registered, which importing its module does: a file of
    data never becomes code. ``imports=True`` trusts the file and imports the module that it names.

    Raises InputError when the file is not ours, or was learned on other weights: a prompt is
    meaningless on any network but its own.
    """
    if not os.path.isfile(path):  # also of a name that no file can have
        raise InputError(f"there is no file {path}: give one that `aptheory.save` wrote.")
    try:
        check_tensor_header(path)
        with safe_open(str(path), framework="pt") as file:
            note = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None
    if note.get("format") != FORMAT:
        raise InputError(f"{path} was not written by aptheory.save (format {note.get('format')!r})")
    if note.get(SEAL, _seal(note)) != _seal(note):
        _log.warning(
            "%s: its note was changed after it was written (the checksum differs): what it says of "
            "classes, pictures and scores need not be what was trained.",
            path,
        )
    try:
        settings = json_table(note["method"], name="its method")
        classes = int(note["classes"])
        seed, network, digest = int(note["seed"]), note["network"], note["digest"]
    except (KeyError, TypeError, ValueError) as error:
        told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} does not say what it holds ({told.rstrip('.')}): save the adapted network "
            "again"
        ) from error
    try:
        method = from_settings(settings, code=imports)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if digest != net.digest:
        raise InputError(
            f"{path} was learned on {network}"
            + (f", not on {net.name}" if network != net.name else " with other weights than these")
            + f": load the network with digest {digest[:12]}..., this one has {net.digest[:12]}..."
        )
    bias = tensors.get("head.bias")
    if bias is None or tuple(bias.shape) != (classes,):  # before a head of that size is made
        raise InputError(f"{path} holds no head of {classes} classes: save it again")
    numbers = sum(tensor.numel() for tensor in tensors.values())
    size = settings.get(method.size) if method.size else None
    if isinstance(size, int) and size > numbers:  # before a tensor of that size is made
        raise InputError(f"{path} holds {numbers} numbers, fewer than {method.size}={size} needs.")
    adapted = method.attach(net, classes=classes, seed=seed)
    own = adapted.state()
    odd = sorted(own.keys() ^ tensors.keys())
    odd += [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if odd:
        raise InputError(
            f"{path} holds other tensors than {method.name} learns on {net.name}, {odd[0]} among "
            "them: save the adapted network again"
        )
    strange = [n for n, v in tensors.items() if v.is_floating_point() != own[n].is_floating_point()]
    if strange:
        kind, expected = tensors[strange[0]].dtype, own[strange[0]].dtype
        raise InputError(f"{path} holds {strange[0]} as {kind}, not as {expected}: save it again.")
    broken = _broken(tensors, adapted)
    if broken is not None:
        raise InputError(f"{path} holds values that are not finite, in {broken}: train it again")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return adapted.eval()


def _broken(tensors: Mapping[str, Tensor], adapted: Adapted) -> str | None:
    """The name of a tensor that is not finite; a head that selects features divides the others by
    infinity, though not all."""
    selects = adapted.reading.select is not None
    for name, value in tensors.items():
        if name == "head.scale" and selects and not bool(value.isposinf().all()):
            value = value[~value.isposinf()]
        if not bool(value.float().isfinite().all()):
            return name
    return None

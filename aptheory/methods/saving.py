"""Keep what a method learned: the learned tensors alone, a few kB, with a note of what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from aptheory.errors import InputError

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted
    from aptheory.network import Network

FORMAT = "aptheory.adapted.1"


def save(adapted: Adapted, path: str | Path) -> None:
    """One run's learned tensors as safetensors; the header names method, network and classes."""
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in adapted.state().items()}
    note = {
        "format": FORMAT,
        "method": json.dumps(adapted.method.settings()),
        "classes": str(adapted.classes),
        "seed": str(adapted.seeds[0]),
        "network": adapted.net.name,
        "digest": adapted.source.digest,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata=note)


def attach_saved(net: Network, path: str | Path) -> Adapted:
    """The adapted network that ``Adapted.save`` wrote, on the same frozen network.

    Raises InputError when the file is not ours, or was learned on other weights: a prompt is
    meaningless on any network but its own.
    """
    from aptheory.methods import from_settings

    if not Path(path).is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            note = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None
    if note.get("format") != FORMAT:
        raise InputError(f"{path} was not written by Adapted.save (format {note.get('format')!r})")
    if note["digest"] != net.digest:
        raise InputError(
            f"{path} was learned on {note['network']} with other weights than this {net.name}: "
            f"load the network with digest {note['digest'][:12]}..., this one has "
            f"{net.digest[:12]}..."
        )
    method = from_settings(json.loads(note["method"]))
    adapted = method.attach(net, classes=int(note["classes"]), seed=int(note["seed"]))
    own = adapted.state()
    if own.keys() != tensors.keys():
        raise InputError(f"{path} holds other tensors than {method.name} learns on {net.name}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return adapted.eval()

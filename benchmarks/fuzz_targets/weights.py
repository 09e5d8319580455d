"""Files of weights and of saved prompts."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

from benchmarks.fuzz_targets.registry import Case, file_case, target
from benchmarks.mutations import (
    either,
    encoded,
    harm_bytes,
    harm_value,
)


def _state() -> dict[str, Any]:
    import torch

    return {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "layer.0.scale": torch.ones(2)}


@target
def safetensors(folder: Path) -> Case:
    from safetensors.torch import save

    from aptheory.networks.checkpoint import read_checkpoint

    whole = save(_state())
    length = int.from_bytes(whole[:8], "little")

    def structured(draw: random.Random) -> bytes:
        header = encoded(harm_value(json.loads(whole[8 : 8 + length]), draw))
        head = header.encode("utf-8", "surrogatepass")
        return len(head).to_bytes(8, "little") + head + whole[8 + length :]

    path = folder / "a.safetensors"
    return file_case(path, either(structured, whole), lambda: read_checkpoint(path))


@target
def pickled_weights(folder: Path) -> Case:
    import torch

    from aptheory.networks.checkpoint import read_checkpoint

    data = io.BytesIO()
    torch.save({"state_dict": _state(), "epoch": 3}, data)
    path = folder / "a.pt"

    def structured(draw: random.Random) -> bytes:
        odd = [None, 3, "x", [1], {"a": 1}, {1: torch.zeros(2)}, {}, torch.zeros(0)]
        out = io.BytesIO()
        torch.save(draw.choice([draw.choice(odd), {**_state(), "x": draw.choice(odd)}]), out)
        return out.getvalue()

    return file_case(path, either(structured, data.getvalue()), lambda: read_checkpoint(path))


@target
def saved_prompts(folder: Path) -> Case:
    from safetensors import safe_open
    from safetensors.torch import save_file

    import aptheory as ap

    net = ap.load("aptheory_resnet_mini")
    net.digest  # noqa: B018 (remembered, so that no case computes it)
    path = folder / "a.safetensors"
    ap.save(ap.ActivationPrompt(layer=9).attach(net, classes=3), path)
    whole = path.read_bytes()
    with safe_open(str(path), framework="pt") as file:
        note, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def case(draw: random.Random) -> Any:
        if draw.random() < 0.3:
            path.write_bytes(harm_bytes(whole, draw))
        else:
            changed = dict(note)
            if draw.random() < 0.5:
                method = harm_value(json.loads(note["method"]), draw)
                changed["method"] = encoded(method)
            else:
                changed = {key: encoded(item) for key, item in harm_value(note, draw).items()}
            with contextlib.suppress(Exception):  # not even the writer takes it
                save_file(tensors, str(path), metadata=changed)
        return ap.attach_saved(net, path)

    return case

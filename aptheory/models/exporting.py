"""A model for other programs: torch.export, ONNX, or the weights of a plain timm network.

Every file is read back and asked the same questions as the module before it is handed out. The
classes and what makes an image of a picture travel with it, as JSON under the name "aptheory".
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aptheory.errors import InputError, reason_of
from aptheory.methods import fold
from aptheory.models.model import check_answers
from aptheory.writing import beside

if TYPE_CHECKING:
    from aptheory.models.model import Model

TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest of them: another program's kernels round
differently, and a deep network adds that up."""
NAME = "aptheory"


def export(model: Model, path: str | Path, *, to: str) -> float:
    """Write a model for another program; returns the largest relative difference of its logits.

    Args:
        to: "torch" (a `torch.export` program, for `torch.export.load`), "onnx" (for onnxruntime;
            needs ``pip install 'aptheory[onnx]'``) or "timm" (a safetensors state dict for
            ``timm.create_model``, with what was learned folded into ordinary weights).
        path: the file. The batch size of the first two is free; their input is an image that was
            normalised, their output logits.

    Raises:
        InputError: an unknown kind, a method that plain weights cannot express (the reason is
            said), a package that is missing, or a file that does not answer as the module does.
    """
    writers = {"torch": _torch, "onnx": _onnx, "timm": _timm}
    if to not in writers:
        raise InputError(f"a model cannot be exported to {to!r}; choose {', '.join(writers)}.")
    path = Path(path)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as part:
            return _confirm(model, writers[to](model, part))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); check the disk, or name "
            "another place."
        ) from error


def facts(model: Model) -> str:
    """What another program must know of a model, as JSON."""
    card = asdict(model.card)
    return json.dumps({name: card[name] for name in ("classes", "transform", "name", "method")})


@torch.no_grad()
def _confirm(model: Model, ask: Callable[[Tensor], Tensor]) -> float:
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 3):
        x = torch.randn(batch, *model.network.input_shape, generator=generator)
        expected = model.module(x.to(model.device, model.network.dtype)).float().cpu()
        check_answers(expected)
        got = ask(x).float().cpu()
        worst = max(worst, float((got - expected).abs().max() / expected.abs().max()))
    if not worst <= TOLERANCE:
        raise InputError(
            f"the exported file does not answer as the module does (logits differ by {worst:.1e} "
            "of the largest); nothing was kept."
        )
    return worst


def _program(model: Model) -> Any:
    x = torch.zeros(2, *model.network.input_shape).to(model.device, model.network.dtype)
    try:
        with torch.no_grad():
            batch = torch.export.Dim("batch")
            return torch.export.export(
                model.module, (x,), dynamic_shapes=({0: batch},), strict=False
            )
    except Exception as error:  # torch.export raises its own kinds, and the network's
        reason = reason_of(error)
        raise InputError(
            f"{model.network.name} cannot be exported with a free batch size ({reason})."
        ) from error


def _torch(model: Model, path: Path) -> Callable[[Tensor], Tensor]:
    written = io.BytesIO()  # on a disk that fills up torch's own writer ends the process
    torch.export.save(_program(model), written, extra_files={NAME: facts(model)})
    path.write_bytes(written.getbuffer())
    written.seek(0)
    module = torch.export.load(written).module()
    return lambda x: module(x.to(model.device, model.network.dtype))


def _onnx(model: Model, path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise InputError(
            f"ONNX needs {error.name}; install it with: pip install 'aptheory[onnx]'"
        ) from None
    with _quiet():
        program = torch.onnx.export(
            _program(model), input_names=["image"], output_names=["logits"], verbose=False
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {NAME: facts(model)})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


def _timm(model: Model, path: Path) -> Callable[[Tensor], Tensor]:
    import timm
    from safetensors.torch import load_file, save_file

    import aptheory.networks.zoo  # noqa: F401  (registers our own networks)

    spec = model.card.network
    name = spec.get("name")
    if not isinstance(name, str) or "factory" in spec or not timm.is_model(name.split(".")[0]):
        raise InputError(f"{model.network.name} is no network of timm's: export to torch or onnx.")
    options = dict(spec.get("options") or {})
    if spec.get("input_shape"):
        options |= {"in_chans": spec["input_shape"][0], "img_size": list(spec["input_shape"][1:])}
    state = {k: v.cpu().contiguous() for k, v in fold(model.adapted).state_dict().items()}
    header = {"architecture": name, "options": json.dumps(options), NAME: facts(model)}
    save_file(state, path, metadata={**header, "num_classes": str(len(model.classes))})
    try:
        plain = timm.create_model(name, num_classes=len(model.classes), **options)
    except TypeError:  # convolutional networks take any size
        options.pop("img_size", None)
        plain = timm.create_model(name, num_classes=len(model.classes), **options)
    plain.load_state_dict(load_file(path))
    return plain.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter prints its steps and warns of its own ways; none of it is the user's."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.setLevel(level)

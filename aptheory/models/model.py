"""A trained method in use: `load_model` brings it back from its file, ``predict`` asks it.

    model = ap.load_model("model.safetensors")
    model.predict("holiday/", top=3)      # a DataFrame: path, class, probability, ...

The file holds the learned tensors alone, a few kB to a few MB, and names the network that they
belong to. It is data: nothing in it is executed, and a network that only code can make is asked
for instead of made.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from aptheory.arguments import Count, Precision, checked_arguments
from aptheory.checked import shown
from aptheory.devices import autocast, device_of
from aptheory.errors import InputError, shown_plainly
from aptheory.methods.registry import class_of
from aptheory.methods.saving import attach_saved, save
from aptheory.models.card import Card
from aptheory.models.pictures import Picture, pictures
from aptheory.networks.loading import load
from aptheory.networks.network import Network
from aptheory.studies import entries
from aptheory.studies.sources import load_network, maker
from aptheory.tasks.ahead import ahead_of
from aptheory.tasks.pictures import Scale, with_channels
from aptheory.tasks.readers.files import decode_image

if TYPE_CHECKING:
    from aptheory.methods.base import Adapted

_log = logging.getLogger("aptheory")
_MAKERS = {"name", "factory"}
_UNSAFE_OPTIONS = ("checkpoint_path", "cache_dir")


class Model:
    """A classifier of pictures: a frozen network, what was learned on it, and its classes.

    Attributes:
        module: the plain torch module, in evaluation mode: images (batch, channels, height,
            width), normalised by ``transform``, to logits (batch, classes).
        classes: names, in the order of the logits.
        preprocessing: how a picture becomes an image, as the training pictures did.
        card: how it was made, and how well it did.
    """

    @checked_arguments
    def __init__(self, module: Adapted, card: Card, *, precision: Precision = "float32") -> None:
        self.module: nn.Module = module.eval()
        self.adapted, self.card, self.precision = module, card, precision
        self.classes = card.classes
        self.preprocessing = card.preprocessing

    def __repr__(self) -> str:
        return str(self.card)

    @property
    def network(self) -> Network:
        """The frozen network that it stands on."""
        return self.adapted.source

    @property
    def device(self) -> torch.device:
        return self.network.device

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file that `load_model` reads.

        Raises:
            InputError: the file cannot be written.
        """
        save(self.adapted, path, header=self.card.header())

    # ------------------------------------------------------------------------------ pictures

    def transform(self, picture: Any) -> Float[Tensor, "channels height width"]:
        """One picture (a path, Pillow's, an array) as the image that ``module`` takes.

        Raises:
            InputError: something that is not one picture, or cannot be decoded.
        """
        named = pictures(picture)
        if len(named) != 1:
            raise InputError(f"transform takes one picture, got {len(named)}: use predict.")
        image = torch.from_numpy(self._decode(named[0]).copy()).permute(2, 0, 1)
        return self.network.normalize(self._with_channels(image[None]).to(self.device))[0]

    def _with_channels(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch wanted height width"]:
        """Grey and coloured pictures as the network takes them, as in training."""
        return with_channels(images, self.network.input_shape[0], f"network {self.network.name!r}")

    def _decode(self, picture: Picture) -> UInt8[np.ndarray, "height width 3"]:
        return decode_image(
            picture.read(), picture.name, self.preprocessing, scale=lambda: self._scale(picture)
        )

    def _scale(self, picture: Picture) -> Scale:
        """By what a deep picture becomes bytes."""
        if self.card.scale is None:
            raise InputError(
                f"{picture.name} has more than 8 bits a value, and the model learned on pictures "
                "of 8 bits, so that nothing says which of its values is bright; bring it to 8 bits."
            )
        return self.card.scale

    # ---------------------------------------------------------------------------- prediction

    @torch.inference_mode()
    def probabilities(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[np.ndarray, "batch classes"]:
        """Of each class, float64, for images of the network's size as bytes.

        Raises:
            InputError: what is no such tensor, or answers that are no numbers.
        """
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            raise InputError(
                f"images are {shown(images)}; expected a uint8 tensor of (batch, channels, height, "
                "width). For files and pictures there is `predict`."
            )
        images = self._with_channels(images)
        x = self.network.normalize(images.to(self.device, non_blocking=True))
        with autocast(self.device, self.precision):
            logits = self.module(x.to(self.network.dtype))
        check_answers(logits)
        return logits.double().softmax(1).cpu().numpy()

    @checked_arguments
    def predict(
        self,
        source: Any,
        *,
        top: Count = 1,
        batch_size: Count = 64,
        workers: Count | None = None,
        progress: bool = False,
    ) -> pd.DataFrame:
        """The most probable classes of pictures.

        Args:
            source: paths, folders, Pillow pictures, uint8 arrays (height, width, 3), or several.
            top: how many classes a picture.
            batch_size: pictures at once; decides the memory, not the classes.
            workers: threads that decode.
            progress: show a bar.

        Returns:
            A row a picture: ``path``, ``class``, ``probability``, then ``class_2``,
            ``probability_2`` and so on up to ``top``. A picture that cannot be decoded is named in
            a warning (logger "aptheory") and in ``attrs["passed_over"]``, and has no row.

        Raises:
            InputError: no picture at all, a path that does not exist, ``top`` or sizes below 1.
        """
        from tqdm.auto import tqdm

        top = min(top, len(self.classes))
        named = pictures(source)
        if not named:
            raise InputError("there is no picture to predict: give paths, folders or arrays.")
        rows: list[dict[str, Any]] = []
        passed_over: list[str] = []
        parts = [named[i : i + batch_size] for i in range(0, len(named), batch_size)]
        count = min(workers or os.cpu_count() or 1, batch_size)
        with (
            ThreadPoolExecutor(count, thread_name_prefix="aptheory-decode") as pool,
            tqdm(total=len(named), unit="picture", disable=not progress) as bar,
        ):
            decoded = ahead_of(lambda part: list(pool.map(self._or_reason, part)), parts, ahead=2)
            for part, images in decoded:
                bar.update(len(part))
                for result in images:
                    if isinstance(result, InputError):
                        passed_over.append(str(result))
                        _log.warning("passed over: %s", shown_plainly(str(result)))
                whole = [k for k, result in enumerate(images) if isinstance(result, np.ndarray)]
                if whole:
                    stacked = torch.from_numpy(np.stack([images[k] for k in whole]))
                    shares = self.probabilities(stacked.permute(0, 3, 1, 2).contiguous())
                    names = [part[k].name for k in whole]
                    rows += self._rows(names, shares, top)
        table = pd.DataFrame(rows, columns=["path", *_columns(top)])
        table.attrs["passed_over"] = passed_over
        return table

    def _or_reason(self, picture: Picture) -> np.ndarray | InputError:
        try:
            return self._decode(picture)
        except InputError as error:
            return error

    def _rows(
        self, names: Sequence[str], shares: Float[np.ndarray, "batch classes"], top: int
    ) -> list[dict[str, Any]]:
        best = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        rows = []
        for name, order, share in zip(names, best, shares, strict=True):
            values = [value for k in order for value in (self.classes[k], float(share[k]))]
            rows.append({"path": name, **dict(zip(_columns(top), values, strict=True))})
        return rows


def _columns(top: int) -> list[str]:
    names = ["class", "probability"]
    return names + [f"{name}_{rank}" for rank in range(2, top + 1) for name in names]


@checked_arguments
def load_model(
    path: str | Path,
    *,
    network: Network | nn.Module | Mapping[str, Any] | str | None = None,
    weights: str | Path | None = None,
    method: str | None = None,
    device: str = "auto",
    precision: Precision = "float32",
) -> Model:
    """The model in a file that `Model.save` or ``aptheory fit`` wrote.

    Args:
        path: the file.
        network: the network that it was trained on, where the file does not say how to load it or
            you want to share one: a `Network`, a module, a name, ``module:function`` or an
            entry of ``Study.networks``.
        weights: the network's weights, where the file that was used has moved.
        method: ``module:Class`` of a method of your own, which is imported; a file's word alone
            imports nothing.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "mps".
        precision: of the forward pass: "float32", "bfloat16" or "float16".

    Raises:
        InputError: not a model of ours, a network that cannot be had, or one with other weights
            than it was trained on.
    """
    card = Card.read(path)
    place = device_of(device)
    if method is not None and class_of({"method": method}).name != card.method.get("method"):
        raise InputError(
            f"{path} holds a model of {shown(card.method.get('method'))}, which {method} is not; "
            "leave method out, or name the class that it was fitted with."
        )
    net = _network(card, network, weights, path)
    _check_scaling(card, net, path)
    adapted = attach_saved(net, path)
    if adapted.classes != len(card.classes):
        raise InputError(f"{path} names {len(card.classes)} classes for {adapted.classes} logits.")
    trained = json.loads(json.dumps(adapted.method.settings()))
    same = all(trained.get(name, value) == value for name, value in card.method.items())
    if not same or card.digest != adapted.source.digest:
        raise InputError(
            f"what {path} says of its method and network ({shown(card.method)}) is not what it "
            f"holds ({shown(trained)}): it was changed after it was written; fit again."
        )
    return Model(_moved(adapted, place), card, precision=precision)


def _check_scaling(card: Card, net: Network, path: str | Path) -> None:
    """Refuse a network that takes its images otherwise than the one that was trained on."""
    expected = card.preprocessing
    _, *size = net.input_shape
    for what, trained, own in (
        ("mean", expected.mean, net.mean),
        ("std", expected.std, net.std),
        ("size", expected.size, tuple(size)),
    ):
        if len(trained) != len(own) or not np.allclose(trained, own, rtol=1e-6, atol=0):
            raise InputError(
                f"{path} was trained on images of {what} {shown(trained)}, and {net.name} takes "
                f"{shown(own)}: give the network as it was, or fit again."
            )


def check_answers(logits: Tensor) -> None:
    """Refuse answers that say nothing: of the most probable of them, class 0 would be made."""
    if not bool(torch.isfinite(logits).all()):
        raise InputError(
            "the model's answers are no numbers (nan or inf): its weights are damaged, or too "
            "large for the precision; load it in float32, or fit again."
        )


def _moved(adapted: Adapted, device: torch.device) -> Adapted:
    adapted.source.to(device)
    return adapted.to(device)


def _network(card: Card, network: Any, weights: str | Path | None, path: str | Path) -> Network:
    if isinstance(network, Network):
        return network
    if isinstance(network, nn.Module):
        shape, scaling = tuple(card.transform["input_shape"]), card.preprocessing
        return load(
            network,
            None,
            input_shape=shape,
            name=card.name,
            mean=scaling.mean,
            std=scaling.std,
        )
    spec = dict(card.network)
    if network is None:
        _trust(spec, path)
    else:
        spec = _renamed(spec, maker(network) if isinstance(network, str) else network)
        spec["label"] = card.name  # the digest holds it
    if weights is not None:
        spec["weights"] = str(weights)
    return load_network(spec)


def _trust(spec: Mapping[str, Any], path: str | Path) -> None:
    """Refuse to make a network on a file's word where that could run somebody's code."""
    if not spec:
        raise InputError(
            f"{path} was trained on a network that Python made: give it as network= (on the "
            "command line --network module:function)."
        )
    if _by_code(spec):
        name = spec.get("factory") or spec.get("name")
        raise InputError(
            f"{path} was trained on {name}, which is made by code; a model's file runs none: if "
            f"you trust it, give network={name!r} (on the command line --network {name})."
        )


def _renamed(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of its network, made by what the user names instead."""
    if not given.keys() & _MAKERS:
        raise InputError(
            f"network is {shown(given)}; expected a table with the name or the "
            "factory of a network."
        )
    kept = {word: value for word, value in spec.items() if word not in _MAKERS}
    if "name" in given and given["name"] != spec.get("name") and _unsafe(kept):
        del kept["options"]
    return kept | dict(given)


def _by_code(spec: Mapping[str, Any]) -> bool:
    """Whether to make the network of an entry could run code that comes from elsewhere; timm's and
    torchvision's names are made by those packages alone."""
    name = spec.get("name")
    if "factory" in spec or not isinstance(name, str) or _unsafe(spec):
        return True
    return ":" in name.removeprefix("torchvision:")


def _unsafe(spec: Mapping[str, Any]) -> bool:
    options = entries.source({"name": "any", **spec}, "network", entries.NETWORK).get("options", {})
    return any(o in _UNSAFE_OPTIONS or o.startswith("pretrained") for o in options)

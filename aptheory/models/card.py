"""What a model's file says about itself, as plain values in the header of its tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from safetensors import SafetensorError, safe_open

from aptheory.arguments import Between, Share, fits
from aptheory.checked import bounded, check_tensor_header, json_text, shown, spelt
from aptheory.errors import InputError
from aptheory.preprocessing import Transform, check_scaling
from aptheory.studies import entries
from aptheory.tasks.base import SPLITS
from aptheory.tasks.classes import check_names
from aptheory.tasks.pictures import Scale
from aptheory.tasks.readers.files import scale_of
from aptheory.tasks.resizing import transform_of
from aptheory.tasks.views import Selection

if TYPE_CHECKING:
    from aptheory.networks.network import Network
    from aptheory.tasks import Task

_Images = Annotated[int, Between(0, 10**12)]
ENTRY = "model"
"""The entry of the header that holds the card; the others are `aptheory.save`'s own."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a model without loading it.

    Attributes:
        network: the entry of ``Study.networks`` that loads its network; empty where that came from
            Python and only Python can give it again.
        name, digest: of the network; the digest holds every weight.
        method: the settings of the method, which is what was trained.
        classes: names, in the order of the logits.
        transform: how a picture becomes an image: input_shape, mean, std, and how it is resized.
        task: name, digest and number of images a split of what it was trained on.
        training: recipe, seed, epochs, seconds, and how the layer was chosen.
        scores: accuracy and loss on the training, validation and test images, as fractions.
        versions: of the packages that made it.
    """

    network: dict[str, Any]
    name: str
    digest: str
    method: dict[str, Any]
    classes: tuple[str, ...]
    transform: dict[str, Any]
    task: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def preprocessing(self) -> Transform:
        """The transform as what makes images of pictures.

        Raises:
            InputError: it makes no sense.
        """
        values = dict(self.transform)
        try:
            check, expected = entries.NETWORK["input_shape"]
            if not check(values["input_shape"]):
                raise ValueError(f"input_shape is {shown(values['input_shape'])}, not {expected}")
            _, height, width = values.pop("input_shape")
            mean, std = (tuple(map(float, values.pop(name))) for name in ("mean", "std"))
            check_scaling(mean, std)
            return Transform(size=(int(height), int(width)), mean=mean, std=std, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the model's file has no usable transform ({error}).") from None

    @property
    def scale(self) -> Scale | None:
        """By what pictures of more than 8 bits become bytes; None where it was trained on none.

        Raises:
            InputError: the file does not say it as `deep_range` does.
        """
        if "deep" not in self.task:
            return None
        try:
            low, high, whole = self.task["deep"]
            scale = Scale(float(low), float(high), bool(whole))
            if not -(2**63) < scale.low < scale.high < 2**63:
                raise ValueError(f"it is {shown(self.task['deep'])}")
            return scale
        except (ValueError, TypeError) as error:
            raise InputError(
                f"the range of its deep pictures is damaged ({error}): fit again."
            ) from None

    def prepares_like(self, settings: Mapping[str, Any]) -> bool:
        """Whether its pictures were made images with these `preprocessing_of` a task."""
        return all(self.transform.get(name) == value for name, value in settings.items())

    def header(self) -> dict[str, str]:
        """The card as an entry of a safetensors header."""
        return {ENTRY: json_text(asdict(self), default=str)}

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """The card in a model's file.

        Raises:
            InputError: no such file, or one that holds no model.
        """
        path = Path(path)
        if os.path.isdir(path):
            raise InputError(
                f"{path} is a folder; a model is one file, such as {path}/m.safetensors."
            )
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path} is no file; give the one that `aptheory fit` wrote.")
        if not os.path.isfile(path):  # also of a name that no file can have
            raise InputError(f"there is no model file {path}; `aptheory fit` writes one.")
        try:
            check_tensor_header(path)
            with safe_open(str(path), framework="pt") as file:
                text = (file.metadata() or {}).get(ENTRY)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a safetensors file ({error}).") from None
        if text is None:
            raise InputError(
                f"{path} holds tensors but no model of ours; `aptheory fit` writes one that says "
                "its network, classes and transform."
            )
        try:
            return cls._from_values(bounded(json.loads(text), "its card", finite=False))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path} does not say what it holds ({error}): fit again.") from None

    @classmethod
    def _from_values(cls, values: Any) -> Card:
        if not isinstance(values, Mapping):
            raise TypeError("its header is no table")
        known = {f.name: f for f in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        kinds = {"name": str, "digest": str, "classes": list}
        for name, value in values.items():
            if not isinstance(value, kinds.get(name, dict)):
                raise TypeError(f"{name} is {value!r}")
        names = values["classes"]
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes are {shown(names)}")
        check_names(names, "its classes")
        for key, value in values.get("scores", {}).items():
            if key.endswith("_accuracy") and not fits(value, Share):
                raise ValueError(f"its {key} is {shown(value)}")
        for split in SPLITS:
            if split in values.get("task", {}) and not fits(values["task"][split], _Images):
                raise ValueError(f"its number of {split} images is {shown(values['task'][split])}")
        recipe = values.get("training", {}).get("recipe")
        if recipe is not None and not isinstance(recipe, Mapping):
            raise TypeError(f"its recipe is {shown(recipe)}")
        card = cls(**{**values, "classes": tuple(map(spelt, names))})
        _ = card.preprocessing, card.scale  # which raise where they make no sense
        return card

    def record(self, curve: Sequence[Mapping[str, float]] = ()) -> dict[str, Any]:
        """The plain values of a finished run, as a tracker takes them (`studies.trackers`)."""
        identity = {
            "network": {"name": self.name, "digest": self.digest},
            "task": dict(self.task),
            "seed": self.training.get("seed", 0),
            "layer": {},
            "method": self.method,
            "recipe": self.training.get("recipe") or {},
        }
        outcome = {**self.training, **self.scores, "curve": [dict(point) for point in curve]}
        key = hashlib.sha256(json.dumps(identity, default=str, sort_keys=True).encode()).hexdigest()
        made_by = {"seconds": self.training.get("seconds")}
        values = {"identity": identity, "outcome": outcome, "made_by": made_by}
        return {"key": key, "status": "done", **values}

    @property
    def _chosen(self) -> bool:
        """Whether validation chose the layer, the epoch, or the run."""
        recipe = self.training.get("recipe") or {}
        each_epoch = recipe.get("validate_every") or recipe.get("patience")
        return bool(each_epoch) or "validation" in str(self.training.get("layer_chosen"))

    def __str__(self) -> str:
        """A few lines for a terminal."""
        layer = self.method.get("layer")
        at = "" if layer is None else f" at layer {layer}"
        images = self.task.get("train")
        scores = [
            f"{split} {_share(self.scores[f'{split}_accuracy'], self.task.get(split))}"
            for split in ("test", "val")
            if f"{split}_accuracy" in self.scores
        ]
        if "val_accuracy" in self.scores and self._chosen:  # no interval covers the best of many
            scores[-1] = f"val {100 * self.scores['val_accuracy']:.1f} %, by which it was chosen"
        on = f"trained on {images} images of {self.task.get('name')}" if images else "trained"
        return "\n".join(
            [
                f"{self.method.get('method')}{at} on {self.name}, {len(self.classes)} classes",
                f"{on}; accuracy: {', '.join(scores) or 'not known'}",
            ]
        )


def _share(accuracy: float, images: int | None) -> str:
    """An accuracy in percent, with Wilson's 95 % interval where its pictures were counted."""
    if not images:
        return f"{100 * accuracy:.1f} %"
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return f"{100 * accuracy:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def deep_range(task: Task) -> dict[str, Any]:
    """What the task's pictures of more than 8 bits were brought to bytes by, under "deep"; a
    picture alone does not tell it."""
    scales = (scale_of(split) for split in (task.train, task.val, task.test))
    scale = next((found for found in scales if found is not None), None)
    return {} if scale is None else {"deep": [scale.low, scale.high, scale.whole]}


def preprocessing_of(net: Network, task: Task) -> dict[str, float | str]:
    """What decides the pixels of a training picture, so that a new one is treated alike."""
    settings = transform_of(task.train, net).settings
    split: Any = task.train
    while isinstance(split, Selection):
        split = split.split
    enlarge = getattr(split, "enlarge", 1.0)  # a crop of the task's own, as FGVC's
    return {**settings, "crop": float(settings["crop"]) / enlarge}

"""Networks by name, whoever publishes them: timm, torchvision, open_clip, Hugging Face.

    vit_base_patch16_224.augreg_in21k     every name that timm takes, hf-hub:… and local-dir:… too
    torchvision:resnet50                  also with the name of its weights, resnet50.IMAGENET1K_V1
    open_clip:ViT-B-32                    the image tower; ViT-B-32.openai says whose weights
    transformers:facebook/dinov2-small    a repository, a folder, or a kind of model such as dinov2

Each is built with random weights where none are asked for, without the internet.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import inspect
import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from aptheory.arguments import LARGEST_OPTION, Whole, fits
from aptheory.checked import shown
from aptheory.errors import InputError, reason_of
from aptheory.hub import cache_alone_if_offline, hub_reachable, reachable
from aptheory.networks.configuration import torchvisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

TIMMS = ("hf-hub", "hf_hub", "local-dir", "local_dir")
Shape = tuple[int, int, int]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "facebook/dinov2-small": (
        "dinov2",
        {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14},
    ),
    "facebook/dinov2-base": ("dinov2", {"image_size": 518, "patch_size": 14}),
    "facebook/dinov2-large": (
        "dinov2",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
        | {"image_size": 518, "patch_size": 14},
    ),
    "facebook/deit-tiny-patch16-224": (
        "vit",
        {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    ),
    "facebook/deit-small-patch16-224": (
        "vit",
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "google/vit-base-patch16-224": ("vit", {}),
    "openai/clip-vit-base-patch32": ("clip_vision_model", {}),
    "openai/clip-vit-base-patch16": ("clip_vision_model", {"patch_size": 16}),
    "google/siglip-base-patch16-224": ("siglip_vision_model", {}),
    "microsoft/swin-tiny-patch4-window7-224": ("swin", {}),
    "facebook/convnext-tiny-224": ("convnext", {}),
    "microsoft/resnet-50": ("resnet", {}),
    "microsoft/resnet-18": (
        "resnet",
        {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
    ),
}
"""What repositories are made of that many use, so that random weights need no download."""
TENSORS = ("logits", "pooler_output", "last_hidden_state")
TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Models of pictures and texts, and the kind of their image tower."""

_OF_WEIGHTS = {"pretrained", "checkpoint_path"}
_CLASSES = ("num_classes", "num_labels")
_MOST_LAYERS = 1000


def build(
    name: str, weights: object, input_shape: Shape | None, kwargs: dict[str, Any]
) -> nn.Module:
    """The module of that name: with its published weights where ``weights`` is "pretrained",
    otherwise with random ones.

    Raises:
        InputError: nobody has such a name, its package is not installed, its arguments are not
            taken, or its published weights cannot be had.
    """
    for word in _OF_WEIGHTS & kwargs.keys():
        raise InputError(
            f"{word}={kwargs[word]!r} is said with weights= here: 'pretrained' for the published "
            "weights, None for random ones, or the path of a file."
        )
    _check_sizes(kwargs)
    source, colon, rest = name.partition(":")
    if colon and source in (*SOURCES, *TIMMS) and not rest.strip(" ./"):
        raise InputError(
            f"{name!r} names a source of networks and none of its networks: write one behind the "
            f"colon ({source}:NAME)."
        )
    if colon and source in SOURCES:
        return SOURCES[source](rest, weights == "pretrained", input_shape, dict(kwargs))
    if colon and source not in TIMMS:
        known = ", ".join(f"{known}:" for known in (*SOURCES, *TIMMS[::2]))
        raise InputError(
            f"{name!r} names no source of networks: names begin with {known}, and a "
            f"function of yours is named in a study as {{ factory = {name!r} }}."
        )
    return _timm(name, weights == "pretrained", input_shape, dict(kwargs))


def _check_sizes(kwargs: dict[str, Any]) -> None:
    """Refuse what a package would build until the memory ends, or take for no classes at all."""
    for word, value in kwargs.items():
        several = value if isinstance(value, list | tuple) else [value]
        most = _MOST_LAYERS if "depth" in word or "layers" in word else LARGEST_OPTION
        if any(isinstance(n, int) and abs(n) > most for n in several):
            raise InputError(f"{word} of a network is {shown(value)}; expected {most} at most.")
        if word in _CLASSES and not fits(value, Whole | None):
            raise InputError(
                f"{word} of a network is {shown(value)}; expected a whole number from 0 up."
            )


def has_source(name: str) -> bool:
    """Whether a name begins with one of the sources of networks, such as "torchvision:"."""
    source, colon, _ = name.partition(":")
    return bool(colon) and source in (*SOURCES, *TIMMS)


def list_networks(pattern: str | None = None) -> pd.DataFrame:
    """Every network that `load` takes by name and that is installed here.

    ``pattern`` narrows them: with ``*`` or ``?`` as in file names, with or without the source in
    front, otherwise as a part of the name. Columns: name, source ("aptheory": packaged), pretrained
    (whether weights are published for it). One row a name.
    """
    import pandas as pd
    import timm
    from torchvision import models

    import aptheory.networks.zoo  # noqa: F401  (registers our own networks)

    published = {name.split(".")[0] for name in timm.list_pretrained()}
    own = set(timm.list_models("aptheory_*"))
    rows = [
        (name, "aptheory" if name in own else "timm", name in own | published)
        for name in timm.list_models()
    ]
    rows += [
        (f"torchvision:{name}", "torchvision", True) for name in models.list_models(module=models)
    ]
    if importlib.util.find_spec("open_clip"):
        import open_clip

        tagged = {model for model, _ in open_clip.list_pretrained()}
        rows += [
            (f"open_clip:{name}", "open_clip", name in tagged) for name in open_clip.list_models()
        ]
    if importlib.util.find_spec("transformers"):
        rows += [(f"transformers:{name}", "transformers", True) for name in KINDS]
    if pattern:
        wild = pattern if any(letter in pattern for letter in "*?[") else f"*{pattern}*"
        rows = [row for row in rows if _matches(row[0], wild)]
    return pd.DataFrame(rows, columns=["name", "source", "pretrained"])


def _matches(name: str, wild: str) -> bool:
    names = {name.lower(), name.partition(":")[2].lower()}
    return any(fnmatch.fnmatchcase(known, wild.lower()) for known in names)


# -------------------------------------------------------------------------------------- timm


def _timm(name: str, pretrained: bool, shape: Shape | None, kwargs: dict[str, Any]) -> nn.Module:
    import timm

    import aptheory.networks.zoo  # noqa: F401  (registers our own networks)

    bring = ""
    source, colon, place = name.partition(":")
    registered = place.removeprefix("timm/")
    if not pretrained and place != registered and timm.is_model(registered.split(".")[0]):
        name, colon = registered, ""  # what timm publishes there it can build without asking
    if colon:
        bring = f"hf download {place}" if source.startswith("hf") else ""
    else:
        known, dot, tag = name.partition(".")
        if not timm.is_model(known):
            raise _unknown("timm", name, timm.list_models())
        tagged = timm.list_models(f"{known}.*", include_tags=True)
        if dot and name not in tagged:
            tags = ", ".join(one.partition(".")[2] for one in tagged) or "none at all"
            raise InputError(f"timm has no weights {tag!r} of {known}: it has {tags}")
        if pretrained:
            bring = _bring_timm(name)
    if shape is not None:
        kwargs = {"in_chans": shape[0], "img_size": tuple(shape[1:]), **kwargs}

    def create() -> nn.Module:
        try:
            return timm.create_model(name, pretrained=pretrained, **kwargs)
        except TypeError as error:
            if shape is None or "img_size" not in str(error):
                raise
            del kwargs["img_size"]  # convolutional networks take any size
            return timm.create_model(name, pretrained=pretrained, **kwargs)

    fetches = pretrained or bool(colon)
    with _sentences("timm", name, fetches, kwargs, bring, pretrained=pretrained):
        return create()


def _bring_timm(name: str) -> str:
    """How timm's published weights get here; refuses names without any."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(
            f"timm has no pretrained weights of {name}: give a file as weights, or take "
            "random ones (weights 'random')"
        )
    if config.hf_hub_id:
        repository = config.hf_hub_id
        if repository.endswith("/"):
            repository += f"{config.architecture}.{config.tag}".rstrip(".")
        return f"hf download {repository}"
    url = config.url or ""
    return url if isinstance(url, str) else url[0]


# ------------------------------------------------------------------------------- torchvision


def _torchvision(
    name: str, pretrained: bool, shape: Shape | None, kwargs: dict[str, Any]
) -> nn.Module:
    from torchvision import models

    name, _, tag = name.partition(".")
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known, "torchvision:")
    choices = models.get_model_weights(name)
    if tag and tag not in choices.__members__:
        raise InputError(
            f"torchvision has no weights {tag!r} of {name}: it has {', '.join(choices.__members__)}"
        )
    published = choices[tag] if tag else choices.DEFAULT
    if shape is not None and "image_size" not in kwargs and name.startswith("vit_"):
        kwargs["image_size"] = shape[1]
    if pretrained and "image_size" in kwargs:
        raise InputError(
            f"torchvision's pretrained weights of {name} fit its own image size alone: leave "
            "input_shape out, or give a file as weights"
        )
    bring = published.url
    with _sentences("torchvision", name, pretrained, kwargs, bring, address=published.url):
        module = models.get_model(name, weights=published if pretrained else None, **kwargs)
    module.configuration = torchvisions(published)
    return module


# --------------------------------------------------------------------------------- open_clip


def _open_clip(
    name: str, pretrained: bool, shape: Shape | None, kwargs: dict[str, Any]
) -> nn.Module:
    open_clip = _package("open_clip", "open_clip")
    name, _, tag = name.partition(".")
    known = open_clip.list_models()
    if name not in known:
        raise _unknown("open_clip", name, known, "open_clip:")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if (pretrained or tag) and (tag or "any") not in ([*tags, "any"] if tags else tags):
        raise InputError(
            f"open_clip has no pretrained weights {tag!r} of {name}: it has "
            f"{', '.join(tags) or 'none'}; give a file as weights, or 'random'"
        )
    if shape is not None:
        kwargs["force_image_size"] = tuple(shape[1:])
    tag = tag or (tags[0] if tags else "")
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    hub = str(config.get("hf_hub") or "").strip("/")
    bring = f"hf download {hub}" if hub else str(config.get("url", ""))
    with _quiet(), _sentences("open_clip", name, pretrained, kwargs, bring):
        model = open_clip.create_model(
            name,
            pretrained=tag if pretrained else None,
            load_weights=pretrained,
            pretrained_image=False,
            **kwargs,
        )
    if getattr(model.visual, "output_tokens", False):  # of CoCa: they are for its text decoder
        model.visual.output_tokens = False
    return model.visual


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's lines on the root logger, which has no name to silence it by."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


# ------------------------------------------------------------------------------ Hugging Face


def _transformers(
    name: str, pretrained: bool, shape: Shape | None, kwargs: dict[str, Any]
) -> nn.Module:
    transformers = _package("transformers", "transformers")
    asked = set(kwargs)
    if shape is not None:
        kwargs.setdefault("num_channels", shape[0])
    kinds = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    bring = f"hf download {name}"
    if not pretrained and not Path(name).is_dir() and (name in KINDS or name in kinds):
        kind, settings = KINDS.get(name, (name, {}))
        with _sentences("transformers", name, False, kwargs, bring):
            tower = TOWERS.get(kind, kind)
            _check_known(name, transformers.AutoConfig.for_model(tower), asked)
            config = transformers.AutoConfig.for_model(tower, **{**settings, **kwargs})
            config.name_or_path = name
            return Tower(transformers.AutoModel.from_config(config))
    if "/" not in name and not Path(name).is_dir():
        if name in kinds:
            raise InputError(
                f"{name!r} is a kind of model, not weights: name a repository, "
                "transformers:OWNER/NAME, or give weights=None for random ones"
            )
        raise _unknown("transformers", name, [*KINDS, *kinds], "transformers:")
    with _sentences("transformers", name, True, kwargs, bring, pretrained=pretrained):
        config = transformers.AutoConfig.from_pretrained(name)
        config = getattr(config, "vision_config", config)
        _check_known(name, config, asked)
        for key, value in kwargs.items():
            setattr(config, key, value)
        config.name_or_path = name
        architectures = " ".join(getattr(config, "architectures", None) or ())
        classifies = "ForImageClassification" in architectures
        auto = (
            transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
        )
        if pretrained:
            return Tower(auto.from_pretrained(name, config=config))
        return Tower(auto.from_config(config))


def _check_known(name: str, config: Any, asked: set[str]) -> None:
    """Refuse options that a configuration has not: transformers keeps them and never reads them."""
    if unknown := sorted(word for word in asked if not hasattr(config, word)):
        near = difflib.get_close_matches(unknown[0], config.to_dict(), 3)
        hint = f"; near ones are {', '.join(near)}" if near else ""
        raise InputError(f"{name} of transformers has no option {', '.join(unknown)}{hint}.")


class Tower(nn.Module):
    """A Hugging Face model as a map from images to one tensor: the logits, the pooled features, or
    the last hidden state, the first of these that it gives.

    Its layers' decorators, which gather what is asked for by keyword, are taken off: nothing is.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        for part in backbone.modules():
            kind: Any = type(part)
            if inspect.unwrap(kind.forward) is not kind.forward:
                part.__class__ = _undecorated(kind)

    def forward(self, x: Any) -> Any:  # a tensor, or its stand-in while it is traced
        output = self.backbone(pixel_values=x)
        values = [getattr(output, name, None) for name in TENSORS]
        return next(value for value in values if value is not None)


@cache
def _undecorated(kind: type[nn.Module]) -> type[nn.Module]:
    plain = {"forward": inspect.unwrap(kind.forward), "__module__": kind.__module__}
    return type(kind.__name__, (kind,), plain)


# ---------------------------------------------------------------------------------- messages


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module}: needs a package that is not installed; pip install 'aptheory[{extra}]'"
        ) from error


def _unknown(source: str, name: str, known: list[str], prefix: str = "") -> InputError:
    near = difflib.get_close_matches(name, known, n=5) or difflib.get_close_matches(
        name.split(".")[0], known, n=5
    )
    hint = (
        f"near ones are {', '.join(prefix + other for other in near)}"
        if near
        else "aptheory networks lists them"
    )
    return InputError(f"{source} has no model {name!r}: {hint}")


@contextmanager
def _sentences(
    source: str,
    name: str,
    fetches: bool,
    kwargs: dict[str, Any],
    bring: str,
    address: str | None = None,
    *,
    pretrained: bool = True,
) -> Iterator[None]:
    """Turn what a package raises into the sentence that says what to do.

    ``fetches``: weights or a configuration are looked for in the cache and on the internet, at
    ``address`` (default: the Hugging Face hub), which is asked once. ``pretrained``: weights are.
    """
    online = not fetches or (reachable(address) if address else hub_reachable())
    try:
        with cache_alone_if_offline():
            yield
    except InputError:
        raise
    except Exception as error:  # each package raises kinds of its own
        reason = reason_of(error)
        # The arguments are at fault, whether or not there is a connection.
        odd = isinstance(error, (TypeError, AssertionError, MemoryError, OverflowError))
        odd |= bool(kwargs) and not isinstance(error, OSError)  # as a missing file or connection is
        odd |= any(word in str(error) for word in ("state_dict", "allocate", "negative dimension"))
        if fetches and not odd:
            reason = reason if online else "there is no connection, and they are not in the cache"
            how = f": fetch it where there is one ({bring}) and" if bring else ":"
            # What is built from a place of its own needs a description from there all the same.
            instead = (
                "give the weights as a file, or take random ones (weights 'random')"
                if pretrained
                else "check the name, or choose a network that is described here"
            )
            raise InputError(
                f"the published files of {name} of {source} cannot be had ({reason}){how} {instead}"
            ) from error
        raise InputError(
            f"{source} cannot build {name} with {kwargs or 'its own settings'} ({reason}): "
            "change these arguments"
        ) from error


SOURCES: dict[str, Callable[[str, bool, Shape | None, dict[str, Any]], nn.Module]] = {
    "torchvision": _torchvision,
    "open_clip": _open_clip,
    "transformers": _transformers,
}

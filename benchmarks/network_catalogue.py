"""The networks that `benchmarks.networks` tries: name -> the module and what `load` needs of it.

All families of timm (the smallest model of each, `smallest.json`), torchvision's classifiers,
vision models of Hugging Face from small configurations, towers of open_clip, and modules as
research code writes them. Images are small, so that a processor tries them all in an hour; a
network that has one size keeps it.

    python -m benchmarks.network_catalogue      # makes smallest.json again, of another timm
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Made = tuple[Any, dict[str, Any]]
"""A module, or a name, and the settings of `load`."""
SIDE = 96


LARGE = (
    *("_32gf", "_128gf", "_16gf", "_8gf", "3_2gf", "_h_14", "_l_", "_large", "_v2_l", "_v2_m"),
    *("_b3", "_b4", "_b5", "_b6", "_b7", "_base", "swin_b", "swin_s", "swin_v2_b", "swin_v2_s"),
    *("convnext_small", "161", "169", "201", "101", "152", "vgg13", "vgg16", "vgg19", "vit_b_16"),
)
"""Sizes of torchvision's families of which smaller ones are tried."""


def catalogue() -> dict[str, Callable[[], Made]]:
    """All of them; nothing is built before it is asked for."""
    return {**_own(), **_transformers(), **_torchvision(), **_open_clip(), **_timm()}


def _image(side: int) -> dict[str, Any]:
    return {"input_shape": (3, side, side)}


SMALLEST = Path(__file__).parent / "smallest.json"


def smallest(family: str) -> str:
    """The model of a family with the fewest parameters; timm's stand-ins for tests are left out."""
    import timm
    import torch

    sizes = {}
    for name in timm.list_models(module=family, exclude_filters="test_*"):
        try:
            with torch.device("meta"):
                module = timm.create_model(name)
        except Exception:  # some cannot be built without memory
            module = timm.create_model(name)
        sizes[name] = sum(p.numel() for p in module.parameters())
    return min(sizes, key=lambda name: (sizes[name], name))


def _timm() -> dict[str, Callable[[], Made]]:
    names = json.loads(SMALLEST.read_text())
    return {f"timm/{model}": lambda model=model: (model, _image(SIDE)) for model in names}


def _torchvision() -> dict[str, Callable[[], Made]]:
    import torchvision.models as models

    own_size = {"inception_v3": 128, "maxvit_t": 224}

    def make(name: str) -> Made:
        side = own_size.get(name, SIDE)
        extra: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):
            extra = {"init_weights": False}
        if name.startswith("vit_"):
            extra = {"image_size": SIDE}
        return models.get_model(name, weights=None, **extra), _image(side)

    classifiers = models.list_models(module=models)
    names = [name for name in classifiers if not any(size in name for size in LARGE)]
    return {f"torchvision/{name}": lambda name=name: make(name) for name in names}


PATCHES = {"image_size": 32, "patch_size": 8}
WINDOWS = {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2]}
STAGES = {"hidden_sizes": [16, 24], "depths": [2, 2]}
TOWER = {**PATCHES, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
ALIKE: dict[str, dict[str, Any]] = {
    "ViT DeiT Dinov2 Dinov2WithRegisters Beit ViTMSN IJepa Data2VecVision": PATCHES,
    "Swin Swinv2 DonutSwin": WINDOWS,
    "ConvNext ConvNextV2": {**STAGES, "num_stages": 2},
    "CLIP Siglip MetaClip2": {"vision_config": TOWER},
    "ResNet": {"embedding_size": 16, **STAGES},
    "RegNet": {"embedding_size": 16, **STAGES, "hidden_sizes": [16, 32], "groups_width": 8},
    "Bit": {"embedding_size": 16, **STAGES, "hidden_sizes": [16, 32], "num_groups": 4},
    "Levit": {"image_size": 224},
    "Pvt": {"image_size": 64},
    "ImageGPT": {"n_embd": 24, "n_layer": 2, "n_head": 2},
    "MobileNetV1 MobileNetV2 MobileViT MobileViTV2 PoolFormer Segformer PvtV2 Cvt": {},
    "EfficientNet Hiera FocalNet HGNetV2 PPLCNet SwiftFormer TextNet Siglip2": {},
}
SMALL = {kind: settings for kinds, settings in ALIKE.items() for kind in kinds.split()}
"""Kinds of Hugging Face -> what makes their configuration small."""
NARROW = {
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def _transformers() -> dict[str, Callable[[], Made]]:
    try:
        import transformers
    except ImportError:
        return {}

    def make(kind: str, settings: dict[str, Any]) -> Made:
        config = getattr(transformers, f"{kind}Config")(**settings)
        known = config.to_dict()
        narrow = NARROW if settings == PATCHES else {}
        for key, value in {**narrow, "num_labels": 5}.items():
            if key in known or key == "num_labels":
                setattr(config, key, value)
        side = 32 if "vision_config" in settings else settings.get("image_size", 64)
        if kind == "Hiera":
            side = 224  # its positions have one size
        return getattr(transformers, f"{kind}ForImageClassification")(config), _image(side)

    kinds = {k: s for k, s in SMALL.items() if hasattr(transformers, f"{k}ForImageClassification")}
    return {f"transformers/{k}": lambda k=k, s=s: make(k, s) for k, s in kinds.items()}


def _open_clip() -> dict[str, Callable[[], Made]]:
    if importlib.util.find_spec("open_clip") is None:
        return {}
    names = ("ViT-S-32-alt", "ViT-B-32", "RN50", "coca_ViT-B-32", "convnext_base")
    return {f"open_clip/{name}": lambda name=name: (f"open_clip:{name}", {}) for name in names}


def _own() -> dict[str, Callable[[], Made]]:
    import torch
    from torch import nn

    from benchmarks.further_networks import FURTHER
    from benchmarks.research_networks import RESEARCH
    from tests.networks import brought
    from tests.networks.brought import Around, Maps, Tokens, vit

    makers: dict[str, Callable[[], nn.Module]] = {
        **RESEARCH,
        "tokens": Tokens,
        "headless": lambda: Tokens(lambda net, x: net.backbone(x)),
        "behind": lambda: Tokens(brought.joined(True), 1),
        "registers": lambda: Tokens(brought.joined(False), 5),
        "shuffled": lambda: Tokens(brought.shuffled),
        "tokens_first": lambda: Tokens(brought.tokens_first),
        "functional": lambda: Tokens(brought.functional),
        "every_token": lambda: Tokens(brought.dense),
        "dict": lambda: Tokens(brought.returns_logits),
        "len": lambda: Tokens(brought.counts_images),
        "squeeze": lambda: Maps(brought.squeezes),
        "convolution": lambda: Maps(brought.convolves, nn.Conv2d(16, 5, 1)),
        "channels": brought.ChannelsFirst,
        "last_axis": brought.LastAxis,
        "wrapped_vit": lambda: Around(vit()),
        "wrapped_headless": lambda: Around(vit(num_classes=0)),
        "average_pooled": lambda: Around(vit(num_classes=0, global_pool="avg", class_token=True)),
        "parallel": lambda: nn.DataParallel(Tokens()),
        "half": lambda: Tokens().to(torch.bfloat16),
        "branches": lambda: Tokens(brought.branches_on_values),
        "random": lambda: Tokens(brought.draws),
    }
    side = brought.SHAPE[-1]
    further = {
        f"own/{name}": lambda make=make, shape=shape: (make(), {"input_shape": shape})
        for name, (make, shape) in FURTHER.items()
    }
    return {
        f"own/{name}": lambda make=make: (make(), _image(side)) for name, make in makers.items()
    } | further


if __name__ == "__main__":
    from timm import list_modules

    SMALLEST.write_text(json.dumps([smallest(f) for f in list_modules()], indent=1))

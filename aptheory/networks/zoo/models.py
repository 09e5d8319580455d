"""Small networks for 32×32 images, built from timm's own classes and registered with timm.

After ``import aptheory.networks.zoo``, ``timm.create_model("aptheory_vit_mini", pretrained=True)``
works like any other timm model, without a network: the weights lie beside this file. They were
trained by the repository's ``python -m weights.train`` on generated images; ``MODEL_CARD.md`` says
what they reach.
"""

from functools import partial
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

__all__ = [
    "aptheory_resnet_deep_mini",
    "aptheory_resnet_mini",
    "aptheory_vit_gap_mini",
    "aptheory_vit_mini",
]


#: Answers to the upstream task's main question: 24 figures on 16 textures.
MAIN_CLASSES = 384
#: What the packaged networks subtract and divide by; near the generated images' own moments.
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)


def weights_file(name: str) -> Path:
    """Where the packaged weights of the network ``name`` lie."""
    return Path(__file__).with_name(f"{name}.safetensors")


def _cfg(name: str, *, first_conv: str, classifier: str) -> dict[str, Any]:
    """timm's description of a network's weights and of the images that they expect."""
    path = weights_file(name)
    return {
        # Without a file timm says that no weights exist, instead of failing to open one.
        "file": str(path) if path.is_file() else None,
        "num_classes": MAIN_CLASSES,
        "input_size": (3, 32, 32),
        "fixed_input_size": False,
        "pool_size": None,
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "first_conv": first_conv,
        "classifier": classifier,
        "license": "apache-2.0",
        "origin_url": "",
    }


default_cfgs = generate_default_cfgs(
    {
        "aptheory_vit_mini": _cfg(
            "aptheory_vit_mini", first_conv="patch_embed.proj", classifier="head"
        )
        | {"fixed_input_size": True},
        "aptheory_vit_gap_mini": _cfg(
            "aptheory_vit_gap_mini", first_conv="patch_embed.proj", classifier="head"
        )
        | {"fixed_input_size": True},
        "aptheory_resnet_mini": _cfg("aptheory_resnet_mini", first_conv="conv1", classifier="fc"),
        "aptheory_resnet_deep_mini": _cfg(
            "aptheory_resnet_deep_mini", first_conv="conv1", classifier="fc"
        ),
    }
)


class SmallImageResNet(ResNet):
    """timm's ResNet with the stem for small images: one 3×3 convolution at full resolution.

    The ordinary stem shrinks the image four times before the first block, which would leave
    8×8 positions of a 32×32 image. Here the first stage sees all 32×32 of them.
    """

    def __init__(self, *, channels: tuple[int, ...], in_chans: int = 3, **kwargs: Any) -> None:
        # stem_type="deep" is the only way to tell timm's constructor another stem width than 64,
        # on which the shapes of the first block depend; the stem itself is then replaced.
        super().__init__(
            channels=channels,
            in_chans=in_chans,
            stem_type="deep",
            stem_width=channels[0] // 2,
            **kwargs,
        )
        stem = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv1", stem)
        self.add_module("maxpool", nn.Identity())
        # timm's bookkeeping counts from a stem of stride 4; this one has stride 1.
        for info, reduction in zip(self.feature_info, (1, 1, 2, 4, 8), strict=True):
            info["reduction"] = reduction


def _build(cls: type[nn.Module], name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """timm's own builder: it applies ``num_classes``, ``in_chans`` and ``features_only``."""
    return build_model_with_cfg(cls, name, pretrained, **kwargs)


_vit = partial(_build, VisionTransformer)
_VIT_FEATURES = {"out_indices": 3, "feature_cls": "getter"}


@register_model
def aptheory_vit_mini(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A plain ViT: 8 blocks of width 96, 3 heads, class token, 8×8 patches of 4×4 pixels."""
    args = {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 8, "num_heads": 3}
    return _vit("aptheory_vit_mini", pretrained, feature_cfg=dict(_VIT_FEATURES), **(args | kwargs))


@register_model
def aptheory_vit_gap_mini(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A ViT without class token: 6 blocks of width 96, the mean of the 64 tokens classifies."""
    args = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 96,
        "depth": 6,
        "num_heads": 3,
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
    }
    return _vit(
        "aptheory_vit_gap_mini", pretrained, feature_cfg=dict(_VIT_FEATURES), **(args | kwargs)
    )


@register_model
def aptheory_resnet_mini(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A BatchNorm ResNet: 10 basic blocks in stages of 16, 32, 64 and 128 channels."""
    args = {"block": BasicBlock, "layers": (2, 3, 3, 2), "channels": (16, 32, 64, 128)}
    return _build(SmallImageResNet, "aptheory_resnet_mini", pretrained, **(args | kwargs))


@register_model
def aptheory_resnet_deep_mini(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A deeper BatchNorm ResNet: 16 basic blocks in stages of 16, 24, 48 and 96 channels."""
    args = {"block": BasicBlock, "layers": (4, 4, 4, 4), "channels": (16, 24, 48, 96)}
    return _build(SmallImageResNet, "aptheory_resnet_deep_mini", pretrained, **(args | kwargs))

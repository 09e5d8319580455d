"""LoRA, through Hugging Face peft (the extra ``aptheory[lora]``): W + (alpha / r) B A.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685.
A is peft's own start (Kaiming uniform), B is zero, so the adapted network starts as the frozen one.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from aptheory.errors import InputError
from aptheory.methods.attention_updates import UpdatedAttention
from aptheory.methods.base import Adapted, Method, look_like
from aptheory.methods.registry import register
from aptheory.methods.samples import sample_axes
from aptheory.methods.spans import blocks_before, modules_at

if TYPE_CHECKING:
    from aptheory.networks.network import Network


@register
@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank updates of linear layers and convolutions, and a head.

    Args:
        rank: r.
        alpha: the update is scaled by alpha / r.
        targets: module names, or their last parts, that get an update. None: "qkv" where the
            network has such modules (attention's joint projection, and the same weights of
            nn.MultiheadAttention), else every linear layer and plain convolution inside the
            blocks.
        layer: what part of the network learns, a place or several (see `methods.spans`); None is
            all of it.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] | str | None = None
    layer: int | float | str | tuple[int | float | str, ...] | None = field(
        default=None, kw_only=True
    )
    name: ClassVar[str] = "lora"
    label: ClassVar[str] = "low-rank adaptation"
    short: ClassVar[str] = "LoRA"
    size: ClassVar[str | None] = "rank"
    stackable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.targets, (str, list)):
            names = [self.targets] if isinstance(self.targets, str) else self.targets
            object.__setattr__(self, "targets", tuple(names))

    @classmethod
    def default(cls, net: Network) -> LoRA:
        if importlib.util.find_spec("peft") is None:
            raise InputError("lora needs peft: pip install 'aptheory[lora]'")
        cls().modules(net)
        return cls()

    def modules(self, net: Network) -> list[str]:
        """Names of the modules that get an update."""
        places = blocks_before(net, self.name)
        blocks = net.modules_between(places[0], places[-1] + 1)
        inside = [name for name in modules_at(net, self.layer) if name in blocks]
        names = [name for name in inside if name in sample_axes(net)]
        able = [name for name in names if _fits(net.module.get_submodule(name))]
        if self.targets is None:
            found = [
                name
                for name in able
                if name.split(".")[-1] == "qkv"
                or isinstance(net.module.get_submodule(name), nn.MultiheadAttention)
            ] or able
        else:
            found = [
                name
                for name in able
                if any(name == target or name.endswith(f".{target}") for target in self.targets)
            ]
        if not found:
            named = "" if self.targets is None else f" that matches {', '.join(self.targets)}"
            odd = "" if able else _parametrised(net, names)
            raise InputError(
                f"lora finds no linear layer or plain convolution in the blocks of {net.name}"
                f"{named}{odd}: choose other targets or another method."
            )
        return found

    def install(self, adapted: Adapted) -> int:
        names = self.modules(adapted.original)
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise InputError("lora needs peft: pip install 'aptheory[lora]'") from None
        # peft moves the frozen weights of nn.MultiheadAttention there and back in every batch.
        joint = [n for n in names if isinstance(_part(adapted, n), nn.MultiheadAttention)]
        pattern = "|".join(re.escape(name) for name in names if name not in joint)
        alpha: Any = self.alpha  # peft says int, and takes any number
        config = LoraConfig(r=self.rank, lora_alpha=alpha, target_modules=f"({pattern})")
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # peft expects a language model
            if pattern:
                inject_adapter_in_model(config, adapted.net.module)
                for _, layer in _updates(adapted):
                    look_like(layer, layer.get_base_layer())
            for name in joint:
                inner: Any = _part(adapted, name)
                adapted.replace(name, UpdatedAttention(inner, self.rank, self.alpha))
        return min(adapted.original.layer_of(name) for name in names)

    def reset(self, adapted: Adapted, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for _, layer in _updates(adapted):
                if isinstance(layer, UpdatedAttention):
                    layer.reset()
                else:
                    layer.reset_lora_parameters("default", init_lora_weights=True)

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        with torch.no_grad():
            for name, layer in _updates(adapted):
                target: Any = module.get_submodule(name)
                if isinstance(layer, UpdatedAttention):
                    layer.fold_into(target)
                    continue
                target.weight.add_(layer.get_delta_weight("default"))


def _fits(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:  # peft's update has no groups, no gaps, and zeros around
        gaps = module.dilation != (1, 1)
        return module.groups == 1 and not gaps and module.padding_mode == "zeros"
    return type(module) in (nn.Linear, nn.MultiheadAttention)


def _parametrised(net: Network, names: list[str]) -> str:
    """That a weight is computed from others, as weight_norm does, and can take no update."""
    for name in names:
        if is_parametrized(net.module.get_submodule(name)):
            return f" whose weight is its own (that of {name} is computed from others)"
    return ""


def _part(adapted: Adapted, name: str) -> nn.Module:
    return adapted.net.module.get_submodule(name)


def _updates(adapted: Adapted) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    named = adapted.net.module.named_modules()
    kinds = (LoraLayer, UpdatedAttention)
    return [(name, module) for name, module in named if isinstance(module, kinds)]

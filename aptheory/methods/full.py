"""Fine-tuning itself: all weights, or those of the last k blocks. One run at a time.

BatchNorm: full fine-tuning trains its statistics like any training does; partial fine-tuning
keeps them frozen, because its earlier layers are frozen too. What modules share stays shared: a
weight of the last blocks that an earlier one also uses learns there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from aptheory.errors import InputError
from aptheory.methods.base import Adapted, Method
from aptheory.methods.registry import register

if TYPE_CHECKING:
    from aptheory.networks.network import Network


@register
@dataclass(frozen=True)
class Partial(Method):
    """Fine-tune the last ``blocks`` blocks, whatever follows them, and a head."""

    blocks: int = 1
    name: ClassVar[str] = "partial"
    label: ClassVar[str] = "partial fine-tuning"
    short: ClassVar[str] = "partial"
    stackable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 1:
            raise InputError(f"blocks must be at least 1, got {self.blocks}")

    def first(self, net: Network) -> int:
        """The place at which the fine-tuned part begins."""
        if self.blocks > len(net.block_layers):
            raise InputError(
                f"{net.name} has {len(net.block_layers)} blocks, so its last {self.blocks} cannot "
                "be fine-tuned; full fine-tuning is method 'full'"
            )
        return net.block_layers[-self.blocks]

    def install(self, adapted: Adapted) -> int:
        net = adapted.net
        first = self.first(net)
        names = net.parameters_between(first, len(net.layers) - 1)
        if not names:
            raise InputError(f"{self.name} makes no sense on {net.name}: nothing there has weights")
        frozen = dict(net.module.named_parameters(remove_duplicate=False))
        # Its own storage: the frozen weights are shared with every other method.
        own = {frozen[name]: nn.Parameter(frozen[name].detach().clone()) for name in names}
        learned = {name: own[weight] for name, weight in frozen.items() if weight in own}
        for name, weight in learned.items():
            module, _, parameter = name.rpartition(".")
            setattr(net.module.get_submodule(module), parameter, weight)
        for place in range(first):
            if not learned.keys().isdisjoint(net.parameters_between(place, place + 1)):
                return place
        return first

    def reset(self, adapted: Adapted, seed: int) -> None:
        """Back to the pretrained weights and statistics; the seed decides the head alone."""
        source = adapted.source.module.state_dict()
        with torch.no_grad():
            for name, value in adapted.net.module.state_dict().items():
                if not torch.equal(value, source[name].to(value.device)):
                    value.copy_(source[name])

    def fold_into(self, adapted: Adapted, module: nn.Module) -> None:
        module.load_state_dict(adapted.net.module.state_dict())


@register
@dataclass(frozen=True)
class FullFineTuning(Partial):
    """Fine-tune every weight and a head."""

    blocks: ClassVar[int] = 0  # type: ignore[misc]  # no setting of this one
    name: ClassVar[str] = "full"
    label: ClassVar[str] = "full fine-tuning"
    short: ClassVar[str] = "full fine-tuning"
    batchnorm: ClassVar[str] = "trained"

    def __post_init__(self) -> None:
        Method.__post_init__(self)  # not Partial's, which counts blocks

    def first(self, net: Network) -> int:
        return 0
